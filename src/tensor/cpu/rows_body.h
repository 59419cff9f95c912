/* tensor/cpu/rows_body.h - what is done row by row or element by element, for
 * the instruction set of the file that includes it. */
#ifndef BATON_TENSOR_CPU_ROWS_BODY_H
#define BATON_TENSOR_CPU_ROWS_BODY_H

#include "tensor/cpu/encode_body.h"
#include "tensor/cpu/turn_body.h"

static void rmsnorm(float *out, const float *x, const float *gain, size_t cols,
                    float eps)
{
    row_norm(out, x, gain, cols, eps, cols);
}

ALWAYS vf silu(vf g)
{
    return g / (vf_exp(-g) + 1);
}

static void silu_mul(float *out, const float *gate, const float *up, size_t n)
{
    size_t whole = n / L * L, rest = n - whole;
    for (size_t i = 0; i < whole; i += L)
        vf_store(out + i, silu(vf_load(gate + i)) * vf_load(up + i));
    if (rest)
        vf_store_some(out + whole,
                      silu(vf_load_some(gate + whole, rest)) *
                          vf_load_some(up + whole, rest),
                      rest);
}

static void turn(float *out, const float *x, const struct turn *turn,
                 const float *cs, size_t heads, size_t d)
{
    heads_turn(out, x, turn, cs, heads, d, heads * d);
}

/* A token's K or V as the elements of a KV cache. */
static void encode_plain(enum dtype type, const float *in, void *out, size_t n)
{
    size_t whole = n / L * L, size = dtype_block_bytes(type);
    if (type == DTYPE_F32) whole = 0; /* a copy */
    for (size_t i = 0; i < whole; i += L) {
        if (type == DTYPE_F16)
            f16_of_vf((char *)out + i * 2, vf_load(in + i));
        else
            bf16_of_vf((char *)out + i * 2, vf_load(in + i));
    }
    dtype_encode(type, in + whole, (char *)out + whole * size, n - whole);
}

static void encode(enum dtype type, const float *in, void *out, size_t heads,
                   size_t d)
{
    if (type != DTYPE_KV8) {
        encode_plain(type, in, out, heads * d);
        return;
    }
    for (size_t h = 0; h < heads; h++) {
        float scale = encode_bytes(in + h * d, (int8_t *)out + h * d, d);
        memcpy((int8_t *)out + heads * d + h * sizeof scale, &scale,
               sizeof scale);
    }
}

#endif
