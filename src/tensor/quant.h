/* tensor/quant.h - rows of the integer formats, taken apart 32 columns at a
 * time. Internal to tensor/: what "ref" computes with and what "cpu" packs its
 * panels from.
 *
 * Every format of GGUF's cuts into runs of 32 columns that mean
 *
 *     w[c] = f16(d) * scale[c / 16] * q[c] - f16(dmin) * min
 *
 * with integers q, scale and min. The float products of an f16 and an integer
 * of at most 8 bits are exact in float32. Ours mean w[c] = d * q[c], where z
 * is already taken off q. */
#ifndef BATON_TENSOR_QUANT_H
#define BATON_TENSOR_QUANT_H

#include "tensor/tensor.h"

#include <stdbool.h>

enum { QUANT_COLS = 32 };

struct quant32 {
    int8_t q[QUANT_COLS];
    uint16_t d, dmin; /* float16 bits; dmin 0 where there are no minima */
    int8_t scale[2];  /* of columns 0..15 and 16..31                    */
    uint8_t min;
};

static inline bool dtype_is_block(enum dtype type)
{
    return dtype_block_elems(type) > 1;
}

/* A format of ours: int8, int8_g128, int4_gN. */
static inline bool dtype_is_own(enum dtype type)
{
    return type >= DTYPE_INT8;
}

/* Columns of a row of cols that share one scale of activations. */
size_t quant_group(enum dtype type, size_t cols);

/* Columns 32 * index .. + 31 of a row of one of GGUF's formats. */
void quant_unpack(struct quant32 *out, enum dtype type, const void *row,
                  size_t index);

/* What they mean. */
void quant_floats(const struct quant32 *b, float out[QUANT_COLS]);

/* The integers of those columns of a row of one of ours; returns d. */
float quant_ints(int8_t q[QUANT_COLS], enum dtype type, const void *row,
                 size_t index);

/* The rounding of activations that op_linear states (n floats to integers):
 * returns the scale s with x ~ s * q. */
float quant_round(int8_t *q, const float *x, size_t n);

#endif
