/* tensor/cpu/rows_body.h - what is done row by row or element by element, for
 * the instruction set of the file that includes it. */
#ifndef BATON_TENSOR_CPU_ROWS_BODY_H
#define BATON_TENSOR_CPU_ROWS_BODY_H

#include "tensor/cpu/encode_body.h"
#include "tensor/cpu/kernels.h"

#include <math.h>

/* One row; meanwhile asks for the one that begins so far on. */
ALWAYS void row_norm(float *out, const float *x, const float *gain, size_t cols,
                     float eps, size_t next)
{
    size_t whole = cols / L * L, rest = cols - whole, c = 0;
    vf sums[4] = {{0}};
    for (; c + 4 * L <= whole; c += 4 * L)
        UNROLLED (i, 4) {
            vf v = vf_load(x + c + i * L);
            sums[i] = vf_fma(v, v, sums[i]);
        }
    for (; c < whole; c += L) {
        vf v = vf_load(x + c);
        sums[0] = vf_fma(v, v, sums[0]);
    }
    vf last = {0};
    if (rest) {
        last = vf_load_some(x + whole, rest);
        sums[0] = vf_fma(last, last, sums[0]);
    }
    float squares = vf_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    vf inverse = vf_set(1 / sqrtf(squares / (float)cols + eps));
    for (c = 0; c < whole; c += L) {
        __builtin_prefetch(x + next + c);
        vf_store(out + c, vf_load(x + c) * inverse * vf_load(gain + c));
    }
    if (rest)
        vf_store_some(out + whole,
                      last * inverse * vf_load_some(gain + whole, rest), rest);
}

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

/* a, b = (a, b) turned by an angle of cosine c, sine s. */
ALWAYS void turn(vf *a, vf *b, vf c, vf s)
{
    vf first = *a;
    *a = vf_fma(first, c, -(*b * s));
    *b = vf_fma(*b, c, first * s);
}

static void heads_rotate(float *x, const float *cs, size_t heads, size_t rotary,
                         size_t d)
{
    size_t half = rotary / 2, whole = half / L * L, rest = half - whole;
    for (size_t h = 0; h < heads; h++, x += d) {
        for (size_t i = 0; i < whole; i += L) {
            vf a = vf_load(x + i), b = vf_load(x + half + i);
            turn(&a, &b, vf_load(cs + i), vf_load(cs + half + i));
            vf_store(x + i, a);
            vf_store(x + half + i, b);
        }
        if (rest == 0) continue;
        float *p = x + whole;
        vf a = vf_load_some(p, rest), b = vf_load_some(p + half, rest);
        turn(&a, &b, vf_load_some(cs + whole, rest),
             vf_load_some(cs + half + whole, rest));
        vf_store_some(p, a, rest);
        vf_store_some(p + half, b, rest);
    }
}

static void rope(float *out, const float *x, const float *gain, float eps,
                 const float *cs, size_t heads, size_t rotary, size_t d)
{
    if (gain)
        for (size_t h = 0; h < heads; h++)
            row_norm(out + h * d, x + h * d, gain, d, eps, heads * d);
    else if (out != x)
        memcpy(out, x, heads * d * sizeof *x);
    heads_rotate(out, cs, heads, rotary, d);
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
