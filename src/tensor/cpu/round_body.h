/* tensor/cpu/round_body.h - a row of floats rounded to integers, for the
 * instruction set of the file that includes it. Its plain twin are dtype_decode
 * and dtype_encode of tensor.c: the same operations on the same values. */
#ifndef BATON_TENSOR_CPU_ROUND_BODY_H
#define BATON_TENSOR_CPU_ROUND_BODY_H

#include "tensor/cpu/vec.h"
#include "tensor/quant.h"

/* What is no number becomes 0. */
ALWAYS vf round_ordered(vf v)
{
    return (vf)((vi)v & (vi)(v == v));
}

/* Columns c .. c + L - 1. */
ALWAYS vf round_load(enum dtype from, const uint8_t *in, size_t c)
{
    if (from == DTYPE_F32) return (vf)vi_load(in + 4 * c);
    return from == DTYPE_F16 ? vf_of_f16(in + 2 * c) : vf_of_bf16(in + 2 * c);
}

/* To the nearest, halves away from 0; |v| < 2^22. Below 0.5 by one step, so
 * that the sum does not reach a next integer by rounding. */
ALWAYS vi round_away(vf v)
{
    vi half = ((vi)v & INT32_MIN) | (vi)vf_set(0x1.fffffep-2f);
    return __builtin_convertvector(v + (vf)half, vi);
}

/* n columns to bytes at q; returns their scale. */
ALWAYS float round_bytes(enum dtype from, const uint8_t *in, size_t n,
                         uint8_t *q)
{
    vf most[2] = {{0}, {0}};
    for (size_t c = 0; c < n; c += 2 * L)
        UNROLLED (i, 2) {
            vi v = (vi)round_ordered(round_load(from, in, c + (size_t)i * L));
            most[i] = vf_max(most[i], (vf)(v & INT32_MAX));
        }
    float inverse;
    float d = quant_bytes_scale(vf_top(vf_max(most[0], most[1])), &inverse);
    for (size_t c = 0; c < n; c += L) {
        vf v = round_ordered(round_load(from, in, c) * inverse);
        v = vf_min(vf_max(v, vf_set(-127)), vf_set(127));
        byte_vec bytes = __builtin_convertvector(round_away(v), byte_vec);
        memcpy(q + c, &bytes, sizeof bytes);
    }
    return d;
}

/* 0 .. 15 */
ALWAYS vi round_nibble(vf x, float inverse, float half)
{
    vf v = round_ordered(x * inverse + half);
    v = vf_min(vf_max(v, vf_set(0)), vf_set(15));
    return __builtin_convertvector(v, vi);
}

/* A block of n columns of int4. */
ALWAYS void round_int4(enum dtype from, const uint8_t *in, size_t n, uint8_t *p)
{
    vf low = {0}, high = {0};
    for (size_t c = 0; c < n; c += L) {
        vf v = round_ordered(round_load(from, in, c));
        low = vf_min(low, v);
        high = vf_max(high, v);
    }
    float inverse = quant_int4_head(p, -vf_top(-low), vf_top(high));
    float half = (float)p[2] + 0.5f;
    for (size_t c = 0; c < n; c += 32)
        UNROLLED (i, 16 / L) {
            size_t at = c + (size_t)i * L;
            vi a = round_nibble(round_load(from, in, at), inverse, half);
            vi b = round_nibble(round_load(from, in, at + 16), inverse, half);
            byte_vec both = __builtin_convertvector(a | b << 4, byte_vec);
            memcpy(p + 3 + c / 2 + (size_t)i * L, &both, sizeof both);
        }
}

ALWAYS void round_from(enum dtype from, enum dtype to, const uint8_t *in,
                       uint8_t *out, size_t n)
{
    const size_t size = from == DTYPE_F32 ? 4 : 2;
    if (to == DTYPE_INT8) {
        float d = round_bytes(from, in, n, out + sizeof d);
        memcpy(out, &d, sizeof d);
        return;
    }
    const size_t group = dtype_block_elems(to), block = dtype_block_bytes(to);
    const bool bytes = to == DTYPE_Q8_0 || to == DTYPE_INT8_G128;
    for (size_t c = 0; c < n; c += group, in += group * size, out += block) {
        if (!bytes) {
            round_int4(from, in, group, out);
            continue;
        }
        uint16_t d = f32_to_f16(round_bytes(from, in, group, out + 2));
        memcpy(out, &d, sizeof d);
    }
}

static void round_row(enum dtype from, enum dtype to, const void *in, void *out,
                      size_t n)
{
    switch (from) {
    case DTYPE_F32: round_from(DTYPE_F32, to, in, out, n); break;
    case DTYPE_F16: round_from(DTYPE_F16, to, in, out, n); break;
    default: round_from(DTYPE_BF16, to, in, out, n);
    }
}

#endif
