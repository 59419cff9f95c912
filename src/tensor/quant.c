/* The layouts are those of ggml's ggml-common.h (block_q8_0 .. block_q6_K)
 * and the meanings those of its dequantize_row_* functions. */
#include "tensor/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* 32 nibbles: columns 0..15 in the low halves, 16..31 in the high ones. */
static void nibbles_unpack(int8_t q[32], const uint8_t *p, int zero)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) - zero);
        q[i + 16] = (int8_t)((p[i] >> 4) - zero);
    }
}

/* The 6-bit scale and min of run j of a Q4_K or Q5_K block: 12 bytes hold
 * eight of each; the upper four keep their top bits in the lower ones'. */
static void k_scale(struct quant32 *out, const uint8_t *p, size_t j)
{
    if (j < 4) {
        out->scale[0] = (int8_t)(p[j] & 63);
        out->min = p[j + 4] & 63;
    } else {
        out->scale[0] = (int8_t)((p[j + 4] & 15) | (p[j - 4] >> 6) << 4);
        out->min = (uint8_t)((p[j + 4] >> 4) | (p[j] >> 6) << 4);
    }
    out->scale[1] = out->scale[0];
}

/* f16 d, dmin; 12 bytes of scales; [32 bytes of fifth bits;] 128 of nibbles,
 * where runs 2j and 2j + 1 are the low and high halves of 32 bytes. */
static void k45_unpack(struct quant32 *out, const uint8_t *p, size_t j,
                       bool five)
{
    out->d = u16_at(p);
    out->dmin = u16_at(p + 2);
    k_scale(out, p + 4, j);
    const uint8_t *high = p + 16;
    const uint8_t *low = p + 16 + (five ? 32 : 0) + j / 2 * 32;
    for (int i = 0; i < 32; i++) {
        int q = j % 2 ? low[i] >> 4 : low[i] & 15;
        if (five) q |= (high[i] >> j & 1) << 4;
        out->q[i] = (int8_t)q;
    }
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 scales, f16 d. Each
 * half of the block (128 columns) has 64 + 32 bytes, and its four runs take
 * the low halves of bytes 0..31 and 32..63, then the high ones. */
static void q6k_unpack(struct quant32 *out, const uint8_t *p, size_t j)
{
    size_t half = j / 4, run = j % 4;
    const uint8_t *low = p + half * 64 + run % 2 * 32;
    const uint8_t *high = p + 128 + half * 32;
    for (int i = 0; i < 32; i++) {
        int q = run / 2 ? low[i] >> 4 : low[i] & 15;
        q |= (high[i] >> (2 * run) & 3) << 4;
        out->q[i] = (int8_t)(q - 32);
    }
    memcpy(out->scale, p + 192 + j * 2, 2);
    out->d = u16_at(p + 208);
    out->dmin = 0;
    out->min = 0;
}

void quant_unpack(struct quant32 *out, enum dtype type, const void *row,
                  size_t index)
{
    size_t per_block = dtype_block_elems(type) / QUANT_COLS;
    const uint8_t *p =
        (const uint8_t *)row + index / per_block * dtype_block_bytes(type);
    size_t j = index % per_block;
    out->scale[0] = out->scale[1] = 1;
    out->dmin = 0;
    out->min = 0;
    switch (type) {
    case DTYPE_Q8_0:
        out->d = u16_at(p);
        memcpy(out->q, p + 2, 32);
        break;
    case DTYPE_Q4_0:
        out->d = u16_at(p);
        nibbles_unpack(out->q, p + 2, 8);
        break;
    case DTYPE_Q4_1: /* its minimum is added: - (-m) * 1 */
        out->d = u16_at(p);
        out->dmin = u16_at(p + 2) ^ 0x8000;
        out->min = 1;
        nibbles_unpack(out->q, p + 4, 0);
        break;
    case DTYPE_Q4_K: k45_unpack(out, p, j, false); break;
    case DTYPE_Q5_K: k45_unpack(out, p, j, true); break;
    case DTYPE_Q6_K: q6k_unpack(out, p, j); break;
    default: assert(!"a block format");
    }
}

void quant_floats(const struct quant32 *b, float out[QUANT_COLS])
{
    float d = f16_to_f32(b->d), min = f16_to_f32(b->dmin) * b->min;
    float scale[2] = {d * b->scale[0], d * b->scale[1]};
    for (int c = 0; c < QUANT_COLS; c++)
        out[c] = scale[c / 16] * b->q[c] - min;
}

size_t quant_group(enum dtype type, size_t cols)
{
    if (type == DTYPE_INT8) return cols;
    return dtype_is_own(type) ? dtype_block_elems(type) : QUANT_COLS;
}

float quant_ints(int8_t q[QUANT_COLS], enum dtype type, const void *row,
                 size_t index)
{
    const uint8_t *p = row;
    if (type == DTYPE_INT8) {
        float d;
        memcpy(&d, p, sizeof d);
        memcpy(q, p + sizeof d + QUANT_COLS * index, QUANT_COLS);
        return d;
    }
    size_t per_block = dtype_block_elems(type) / QUANT_COLS;
    p += index / per_block * dtype_block_bytes(type);
    index %= per_block;
    if (type == DTYPE_INT8_G128)
        memcpy(q, p + 2 + QUANT_COLS * index, QUANT_COLS);
    else
        nibbles_unpack(q, p + 3 + QUANT_COLS / 2 * index, p[2]);
    return f16_to_f32(u16_at(p));
}

float quant_round(int8_t *q, const float *x, size_t n)
{
    uint32_t max = 0; /* as bits: magnitudes sort like integers, NaN on top */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        bits &= 0x7fffffff;
        if (bits > max) max = bits;
    }
    float most;
    memcpy(&most, &max, 4);
    if (!(most >= 1e-30f && max < 0x7f800000)) {
        memset(q, 0, n);
        return max >= 0x7f800000 ? NAN : 0;
    }
    float inverse = 127.0f / most;
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)lrintf(x[i] * inverse);
    return most / 127.0f;
}
