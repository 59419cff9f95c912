/* tensor/tensor.h - element types, and what their bytes mean.
 *
 * A row of n elements is row_head bytes, then n / block_elems blocks of
 * block_bytes, nothing between them. All multi-byte fields are little-endian.
 * Pure functions, any thread.
 *
 * q8_0 .. q6_k are GGUF's (ggml's ggml-common.h names them so). Ours, which
 * what other files hold converts to without loss:
 *
 *   int8        f32 d, then int8 q[n]: one scale for a whole row (output
 *               channel), w = d q. Blocks of 32 only say that n is a multiple
 *               of 32; n <= DTYPE_INT8_COLS_MAX.
 *   int8_g128   blocks of f16 d, int8 q[128]: w = d q
 *   int4_gN     blocks of f16 d, uint8 z, then 4-bit q[N] as N / 32 runs of 16
 *               bytes: byte i of a run holds column i in its low half and
 *               column i + 16 in its high one. w = d (q - z), z <= 16 (GPTQ's
 *               oldest files reach 16). */
#ifndef BATON_TENSOR_TENSOR_H
#define BATON_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DTYPE_LIST(X)                                    \
    /* name, text, block_elems, block_bytes, row_head */ \
    X(DTYPE_F32, "f32", 1, 4, 0)                         \
    X(DTYPE_F16, "f16", 1, 2, 0)                         \
    X(DTYPE_BF16, "bf16", 1, 2, 0)                       \
    X(DTYPE_Q8_0, "q8_0", 32, 34, 0)                     \
    X(DTYPE_Q4_0, "q4_0", 32, 18, 0)                     \
    X(DTYPE_Q4_1, "q4_1", 32, 20, 0)                     \
    X(DTYPE_Q4_K, "q4_k", 256, 144, 0)                   \
    X(DTYPE_Q5_K, "q5_k", 256, 176, 0)                   \
    X(DTYPE_Q6_K, "q6_k", 256, 210, 0)                   \
    X(DTYPE_INT8, "int8", 32, 32, 4)                     \
    X(DTYPE_INT8_G128, "int8_g128", 128, 130, 0)         \
    X(DTYPE_INT4_G32, "int4_g32", 32, 19, 0)             \
    X(DTYPE_INT4_G64, "int4_g64", 64, 35, 0)             \
    X(DTYPE_INT4_G128, "int4_g128", 128, 67, 0)

enum dtype {
#define X(name, text, elems, bytes, head) name,
    DTYPE_LIST(X)
#undef X
        DTYPE_COUNT,
    /* "int8", 1, 1: of a KV cache only, see op_kv_write; no format of rows */
    DTYPE_KV8 = DTYPE_COUNT
};

enum { DTYPE_INT8_COLS_MAX = 1 << 17 }; /* sums of products fit int32 */

const char *dtype_name(enum dtype type);
size_t dtype_block_elems(enum dtype type);
size_t dtype_block_bytes(enum dtype type);

/* Bytes of a row of cols elements; 0 when cols is no whole number of blocks,
 * or too large. */
size_t dtype_row_bytes(enum dtype type, size_t cols);

/* The plain meaning of a row, the specification of every kernel: n elements
 * (whole blocks; int8: one whole row) of bytes as float32. */
void dtype_decode(enum dtype type, const void *bytes, float *out, size_t n);
/* Rounds n floats: to nearest even (f32, f16, bf16); per block as ggml's
 * reference quantizer (q8_0, q4_0, q4_1); int8 (one whole row) and int8_g128
 * with d = max|w| / 127; int4 with d and z so that 0 and the group's extremes
 * are within reach. Other types assert. */
void dtype_encode(enum dtype type, const float *in, void *bytes, size_t n);
/* Whether devices round weights of one type to another while they take them:
 * f32, f16 and bf16 to int8, int8_g128, q8_0 and int4. */
bool dtype_rounds(enum dtype from, enum dtype to);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* nearest even, overflow to infinity */
float bf16_to_f32(uint16_t b);
uint16_t f32_to_bf16(float f); /* nearest even, NaN stays NaN */

#endif
