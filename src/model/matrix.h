/* model/matrix.h - a matrix [rows, cols] of a model: as its file stores it,
 * and as rows of an element type that devices multiply. Internal to model/.
 *
 * matrix_find looks for the tensors that make up the matrix called base, e.g.
 * "model.layers.0.mlp.up_proj" or "blk.0.ffn_up", checks each one's shape and
 * type, and says which element type its rows will have:
 *
 *   stored                                               rows in
 *   base.weight  F32, F16, BF16, GGUF's types            as they are
 *   base.weight  q5_0, iq4_nl          (GGUF)            q8_0, exactly
 *                q3_k                                    q6_k, exactly
 *                q5_1, q2_k, iq4_xs                      f16
 *   base.weight  F8_E4M3, with weight_scale_inv of       bf16
 *                blocks or weight_scale
 *   base.weight  I8, with weight_scale of each row       int8, exactly
 *   base.qweight, qzeros, scales        (AWQ, GPTQ)      int4_gN, exactly
 *   base.weight_packed, weight_scale    (compressed-     int4_gN; int8_g128
 *                [, weight_zero_point]  tensors)         where of 8 bits
 *
 * Scales of int4 and of groups become float16: exact where the file has them
 * so; where they would not fit, or GPTQ's g_idx scatters the groups, the rows
 * are decoded to bf16. Sources: AutoAWQ's and AutoGPTQ's pack functions,
 * compressed-tensors' compressors, msmodelslim's W8A8
 * (docs/models/weights.md). */
#ifndef BATON_MODEL_MATRIX_H
#define BATON_MODEL_MATRIX_H

#include "model/files.h"

enum matrix_form {
    MATRIX_AS_IS,
    MATRIX_GGUF, /* a type of GGUF's that is converted */
    MATRIX_FP8,
    MATRIX_INT8,
    MATRIX_AWQ,
    MATRIX_GPTQ,
    MATRIX_PACKED
};

struct matrix {
    enum matrix_form form;
    enum dtype type; /* of what matrix_rows writes */
    uint32_t rows, cols;
    const struct stored_tensor *main; /* the values */
    const uint8_t *bytes;             /* of main, of this matrix */
    size_t size;                      /* stored bytes, scales included */
    const struct stored_tensor *scales, *zeros, *order;
    uint32_t scale_rows, scale_cols; /* elements that share a scale */
    uint32_t bits;                   /* of a packed value */
    uint32_t zero_shift;             /* what is added to a stored zero */
    const struct stored_tensor *input_scale,
        *offset;                         /* of static activations */
    const struct stored_tensor *partial; /* and their quant_bias */
};

/* expert, of experts (0: no such dimension): which matrix of a 3-D tensor.
 * ERR_FORMAT: a tensor is missing, or has another shape; ERR_UNSUPPORTED: it
 * is stored in a way that is not read; both name the tensor. */
int matrix_find(struct matrix *out, const struct model_files *files,
                const struct model_config *config, const char *base,
                uint32_t rows, uint32_t cols, uint32_t expert, uint32_t experts,
                struct why *why);

/* Writes rows first .. first + count - 1, dtype_row_bytes(type, cols) each. */
void matrix_rows(const struct matrix *m, size_t first, size_t count, void *out);

/* msmodelslim hides a bias in quant_bias: writes it to out [rows] and returns
 * true; false where the matrix has none. */
bool matrix_bias(const struct matrix *m, float *out);

/* The GGUF types that are converted (matrix_gguf.c): what to; false: not one
 * of them. And a row of one of them. */
bool matrix_gguf_type(const char *type_name, enum dtype *type);
void matrix_gguf_row(const char *type_name, const uint8_t *row, size_t cols,
                     uint8_t *out);

#endif
