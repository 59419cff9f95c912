/* tensor/cpu/round_body.h - a row of floats rounded to integers, for the
 * instruction set of the file that includes it. Its plain twin are dtype_decode
 * and dtype_encode of tensor.c: the same operations on the same values. */
#ifndef BATON_TENSOR_CPU_ROUND_BODY_H
#define BATON_TENSOR_CPU_ROUND_BODY_H

#include "tensor/cpu/vec.h"

/* What is no number becomes 0. */
ALWAYS vf round_ordered(vf v)
{
    return (vf)((vi)v & (vi)(v == v));
}

/* The same before vf_min and vf_max, which leave out a NaN of their second
 * operand, but for NEON's. */
ALWAYS vf round_second(vf v)
{
    return VEC_NEON ? round_ordered(v) : v;
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

/* f16(f) to p; returns it. */
ALWAYS float round_half(uint8_t *p, float f)
{
    uint16_t halves[L];
    f16_of_vf(halves, vf_set(f));
    memcpy(p, halves, 2);
    return vf_of_f16(halves)[0];
}

ALWAYS vf round_magnitude(vf v)
{
    return round_second((vf)((vi)v & INT32_MAX));
}

/* The scale of bytes, from their largest magnitude. */
ALWAYS float round_scale127(float most, float *inverse)
{
    const float d = most / 127;
    *inverse = d != 0 ? 1 / d : 0;
    return d;
}

ALWAYS void round_byte(vf x, float inverse, uint8_t *q)
{
    vf v = round_ordered(x * inverse);
    v = vf_min(vf_max(v, vf_set(-127)), vf_set(127));
    byte_vec bytes = __builtin_convertvector(round_away(v), byte_vec);
    memcpy(q, &bytes, sizeof bytes);
}

/* A row of n columns with one scale, in front of them. */
ALWAYS void round_int8(enum dtype from, const uint8_t *in, size_t n,
                       uint8_t *out)
{
    vf most[2] = {{0}, {0}};
    for (size_t c = 0; c < n; c += 2 * L)
        UNROLLED (i, 2) {
            vf v = round_load(from, in, c + (size_t)i * L);
            most[i] = vf_max(most[i], round_magnitude(v));
        }
    float inverse;
    float d = round_scale127(vf_top(vf_max(most[0], most[1])), &inverse);
    memcpy(out, &d, sizeof d);
    for (size_t c = 0; c < n; c += L)
        round_byte(round_load(from, in, c), inverse, out + sizeof d + c);
}

enum { ROUND_GROUP = 128 }; /* at most, so that it stays in registers */

/* A block of n columns to f16 d, bytes. */
ALWAYS void round_bytes(enum dtype from, const uint8_t *in, int n, uint8_t *p)
{
    vf x[ROUND_GROUP / L], most = {0};
    UNROLLED (i, n / L) {
        x[i] = round_load(from, in, (size_t)i * L);
        most = vf_max(most, round_magnitude(x[i]));
    }
    float inverse;
    round_half(p, round_scale127(vf_top(most), &inverse));
    UNROLLED (i, n / L)
        round_byte(x[i], inverse, p + 2 + i * L);
}

/* 0 .. 15 */
ALWAYS vi round_nibble(vf x, float inverse, vf half)
{
    vf v = vf_max(vf_set(0), round_second(x * inverse + half));
    return __builtin_convertvector(vf_min(v, vf_set(15)), vi);
}

/* A block of n columns to f16 d, z, nibbles. */
ALWAYS void round_int4(enum dtype from, const uint8_t *in, int n, uint8_t *p)
{
    enum { HALF_RUN = 16 / L };
    vf x[ROUND_GROUP / L], low = {0}, high = {0};
    UNROLLED (i, n / L) {
        x[i] = round_load(from, in, (size_t)i * L);
        low = vf_min(low, round_second(x[i]));
        high = vf_max(high, round_second(x[i]));
    }
    const float below = vf_top(-low);
    const float d = round_half(p, (vf_top(high) + below) / 15);
    const float inverse = d > 0 ? 1 / d : 0;
    vf z = vf_max(vf_set(0), round_second(vf_set(below * inverse)));
    z = vf_min(z, vf_set(15));
    z = vf_of(round_away(z));
    p[2] = (uint8_t)z[0];
    z += 0.5f;
    UNROLLED (i, n / L / 2) {
        const int at = i / HALF_RUN * 2 * HALF_RUN + i % HALF_RUN;
        vi a = round_nibble(x[at], inverse, z);
        vi b = round_nibble(x[at + HALF_RUN], inverse, z);
        byte_vec both = __builtin_convertvector(a | b << 4, byte_vec);
        memcpy(p + 3 + i * L, &both, sizeof both);
    }
}

ALWAYS void round_blocks(enum dtype from, enum dtype to, const uint8_t *in,
                         uint8_t *out, size_t n)
{
    const size_t size = from == DTYPE_F32 ? 4 : 2;
    const size_t group = dtype_block_elems(to), block = dtype_block_bytes(to);
    for (size_t c = 0; c < n; c += group, in += group * size, out += block)
        switch (to) {
        case DTYPE_Q8_0: round_bytes(from, in, 32, out); break;
        case DTYPE_INT8_G128: round_bytes(from, in, 128, out); break;
        case DTYPE_INT4_G32: round_int4(from, in, 32, out); break;
        case DTYPE_INT4_G64: round_int4(from, in, 64, out); break;
        default: round_int4(from, in, 128, out);
        }
}

ALWAYS void round_from(enum dtype from, enum dtype to, const uint8_t *in,
                       uint8_t *out, size_t n)
{
    if (to == DTYPE_INT8)
        round_int8(from, in, n, out);
    else
        round_blocks(from, to, in, out, n);
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
