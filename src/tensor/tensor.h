/* tensor/tensor.h - element types, and what their bytes mean.
 *
 * Block formats are GGUF's (ggml's ggml-common.h names them so): a row of n
 * elements is n / block_elems blocks of block_bytes, nothing between them.
 * All multi-byte fields are little-endian. Pure functions, any thread. */
#ifndef BATON_TENSOR_TENSOR_H
#define BATON_TENSOR_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define DTYPE_LIST(X)                          \
    /* name, text, block_elems, block_bytes */ \
    X(DTYPE_F32, "f32", 1, 4)                  \
    X(DTYPE_F16, "f16", 1, 2)                  \
    X(DTYPE_BF16, "bf16", 1, 2)                \
    X(DTYPE_Q8_0, "q8_0", 32, 34)              \
    X(DTYPE_Q4_0, "q4_0", 32, 18)              \
    X(DTYPE_Q4_1, "q4_1", 32, 20)              \
    X(DTYPE_Q4_K, "q4_k", 256, 144)            \
    X(DTYPE_Q5_K, "q5_k", 256, 176)            \
    X(DTYPE_Q6_K, "q6_k", 256, 210)

enum dtype {
#define X(name, text, elems, bytes) name,
    DTYPE_LIST(X)
#undef X
        DTYPE_COUNT
};

const char *dtype_name(enum dtype type);
size_t dtype_block_elems(enum dtype type);
size_t dtype_block_bytes(enum dtype type);

/* Bytes of a row of cols elements; 0 when cols is no whole number of blocks. */
size_t dtype_row_bytes(enum dtype type, size_t cols);

/* The plain meaning of a row, the specification of every kernel: n elements
 * (whole blocks) of bytes as float32. */
void dtype_decode(enum dtype type, const void *bytes, float *out, size_t n);
/* Rounds n floats to nearest-even f32, f16, bf16, or (per block, as ggml's
 * reference quantizer) q8_0, q4_0, q4_1; other types assert. */
void dtype_encode(enum dtype type, const float *in, void *bytes, size_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* nearest even, overflow to infinity */
float bf16_to_f32(uint16_t b);
uint16_t f32_to_bf16(float f); /* nearest even, NaN stays NaN */

#endif
