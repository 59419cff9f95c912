#include "tensor/tensor.h"
#include "tensor/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t elems, bytes, head;
} table[DTYPE_COUNT + 1] = {
#define X(name, text, elems, bytes, head) {text, elems, bytes, head},
    DTYPE_LIST(X)
#undef X
        {"int8", 1, 1, 0}, /* DTYPE_KV8 */
};

const char *dtype_name(enum dtype type)
{
    return table[type].name;
}

size_t dtype_block_elems(enum dtype type)
{
    return table[type].elems;
}

size_t dtype_block_bytes(enum dtype type)
{
    return table[type].bytes;
}

size_t dtype_row_bytes(enum dtype type, size_t cols)
{
    size_t bytes;
    if (cols == 0 || cols % table[type].elems) return 0;
    if (type == DTYPE_INT8 && cols > DTYPE_INT8_COLS_MAX) return 0;
    if (__builtin_mul_overflow(cols / table[type].elems, table[type].bytes,
                               &bytes) ||
        __builtin_add_overflow(bytes, table[type].head, &bytes))
        return 0;
    return bytes;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = (uint32_t)(h & 0x7fff) << 13; /* exponent, fraction */
    if (rest >= 0x0f800000) /* infinity, NaN (made quiet) */
        return float_of(sign | 0x7f800000 | rest |
                        (rest > 0x0f800000 ? 0x00400000 : 0));
    /* 2^112 moves the exponent's bias; it also makes subnormals normal. */
    return float_of(sign | bits_of(float_of(rest) * 0x1p112f));
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = bits_of(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) /* NaN: made quiet, its top bits kept */
        return sign | 0x7e00 | (uint16_t)(bits >> 13 & 0x3ff);
    if (bits >= 0x477ff000) return sign | 0x7c00; /* rounds to 2^16 or more */
    if (bits < 0x38800000) /* subnormal: let the adder round at 2^-24 */
        return sign | (uint16_t)(bits_of(float_of(bits) + 0.5f) & 0x7fff);
    bits += 0xfff + (bits >> 13 & 1);
    return sign | (uint16_t)((bits - 0x38000000) >> 13);
}

float bf16_to_f32(uint16_t b)
{
    return float_of((uint32_t)b << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void own_decode(enum dtype type, const void *bytes, float *out, size_t n)
{
    for (size_t i = 0; i < n / QUANT_COLS; i++) {
        int8_t q[QUANT_COLS];
        float d = quant_ints(q, type, bytes, i);
        for (int c = 0; c < QUANT_COLS; c++)
            out[i * QUANT_COLS + c] = d * q[c];
    }
}

static void blocks_decode(enum dtype type, const void *bytes, float *out,
                          size_t n)
{
    for (size_t i = 0; i < n / QUANT_COLS; i++) {
        struct quant32 b;
        quant_unpack(&b, type, bytes, i);
        quant_floats(&b, out + i * QUANT_COLS);
    }
}

void dtype_decode(enum dtype type, const void *bytes, float *out, size_t n)
{
    assert(n % table[type].elems == 0);
    const uint8_t *p = bytes;
    uint16_t half;
    switch (type) {
    case DTYPE_F32: memcpy(out, bytes, n * 4); break;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, 2);
            out[i] = f16_to_f32(half);
        }
        break;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, 2);
            out[i] = bf16_to_f32(half);
        }
        break;
    default:
        (dtype_is_own(type) ? own_decode : blocks_decode)(type, bytes, out, n);
    }
}

/* --- encoding ------------------------------------------------------------ */

bool dtype_rounds(enum dtype from, enum dtype to)
{
    return from <= DTYPE_BF16 && (to == DTYPE_Q8_0 || dtype_is_own(to));
}

/* Whole models pass through this when they are quantized into files, so its
 * loops are such as compilers turn into vectors: no calls, and comparisons of
 * integers where those of floats could not change their order. */

static void f16_at(uint8_t *p, float f)
{
    uint16_t half = f32_to_f16(f);
    memcpy(p, &half, 2);
}

enum { SIGN_OFF = 0x7fffffff, INFINITE = 0x7f800000 };

/* The largest |x|, NaN left out. */
static float largest_of(const float *x, size_t n)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits = (int32_t)bits_of(x[i]) & SIGN_OFF;
        bits = bits > INFINITE ? 0 : bits;
        most = bits > most ? bits : most;
    }
    return float_of((uint32_t)most);
}

/* The least and the largest of x and 0, NaN left out. Of negative floats those
 * with larger bits are smaller. */
static void ends_of(const float *x, size_t n, float *least, float *most)
{
    int32_t low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits = (int32_t)bits_of(x[i]);
        bits = (bits & SIGN_OFF) > INFINITE ? 0 : bits;
        bits ^= bits >> 31 & SIGN_OFF;
        low = bits < low ? bits : low;
        high = bits > high ? bits : high;
    }
    *least = float_of((uint32_t)(low ^ (low >> 31 & SIGN_OFF)));
    *most = float_of((uint32_t)high);
}

/* The three below round as quantize_row_*_ref of ggml's ggml-quants.c. */

/* Total functions: what no number can be becomes 0. */
static int8_t signed_byte(float f)
{
    return f >= 127 ? 127 : f >= -127 ? (int8_t)f : f < -127 ? -127 : 0;
}

static uint8_t nibble(float f)
{
    return f >= 15 ? 15 : f > 0 ? (uint8_t)f : 0;
}

/* n floats to int8 at q, halves away from 0; returns the scale. */
static float bytes_encode(const float *x, size_t n, uint8_t *q)
{
    const float d = largest_of(x, n) / 127, inverse = d != 0 ? 1 / d : 0;
    if (!isfinite(d) || !isfinite(inverse)) {
        for (size_t i = 0; i < n; i++)
            q[i] = (uint8_t)signed_byte(roundf(x[i] * inverse));
        return d;
    }
    for (size_t i = 0; i < n; i++) { /* |v| < 127.5 */
        float v = x[i] * inverse;
        v = v == v ? v : 0;
        int32_t whole = (int32_t)v;
        float rest = v - (float)whole;
        whole += rest >= 0.5f;
        whole -= rest <= -0.5f;
        q[i] = (uint8_t)whole;
    }
    return d;
}

static void nibbles_encode(const float *x, float least, float inverse,
                           float half, uint8_t *restrict p)
{
    for (int i = 0; i < 16; i++) { /* nibble's conditions */
        float low = (x[i] - least) * inverse + half;
        float high = (x[i + 16] - least) * inverse + half;
        low = low > 0 ? low : 0;
        high = high > 0 ? high : 0;
        low = low < 15 ? low : 15;
        high = high < 15 ? high : 15;
        p[i] = (uint8_t)((int32_t)low | (int32_t)high << 4);
    }
}

static void q4_0_encode(const float *x, uint8_t *p)
{
    float most = 0; /* of largest magnitude, with its sign: becomes -8 */
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    float d = most / -8;
    f16_at(p, d);
    nibbles_encode(x, 0, d != 0 ? 1 / d : 0, 8.5f, p + 2);
}

static void q4_1_encode(const float *x, uint8_t *p)
{
    float least = x[0], most = x[0];
    for (int i = 1; i < 32; i++) {
        least = fminf(least, x[i]);
        most = fmaxf(most, x[i]);
    }
    float d = (most - least) / 15;
    f16_at(p, d);
    f16_at(p + 2, least);
    nibbles_encode(x, least, d != 0 ? 1 / d : 0, 0.5f, p + 4);
}

/* The scale is rounded to f16 first, so that z and q are what fits it. */
static void int4_encode(const float *x, size_t n, uint8_t *p)
{
    float least, most;
    ends_of(x, n, &least, &most);
    f16_at(p, (most - least) / 15);
    float d = f16_to_f32((uint16_t)(p[0] | p[1] << 8));
    float inverse = d > 0 ? 1 / d : 0;
    p[2] = nibble(roundf(-least * inverse));
    for (size_t i = 0; i < n; i += 32)
        nibbles_encode(x + i, 0, inverse, p[2] + 0.5f, p + 3 + i / 2);
}

void dtype_encode(enum dtype type, const float *in, void *bytes, size_t n)
{
    const size_t elems = dtype_block_elems(type);
    const size_t block = dtype_block_bytes(type);
    assert(n % elems == 0);
    uint8_t *p = bytes;
    uint16_t half;
    if (type == DTYPE_INT8) {
        float d = bytes_encode(in, n, p + sizeof d);
        memcpy(p, &d, sizeof d);
        return;
    }
    if (type == DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            half = f32_to_bf16(in[i]);
            memcpy(p + 2 * i, &half, 2);
        }
        return;
    }
    for (size_t i = 0; i < n; i += elems, p += block) {
        switch (type) {
        case DTYPE_F32: memcpy(p, in + i, 4); break;
        case DTYPE_F16: f16_at(p, in[i]); break;
        case DTYPE_Q8_0:
        case DTYPE_INT8_G128:
            f16_at(p, bytes_encode(in + i, elems, p + 2));
            break;
        case DTYPE_Q4_0: q4_0_encode(in + i, p); break;
        case DTYPE_Q4_1: q4_1_encode(in + i, p); break;
        case DTYPE_INT4_G32:
        case DTYPE_INT4_G64:
        case DTYPE_INT4_G128: int4_encode(in + i, elems, p); break;
        default: assert(!"a type that can be encoded");
        }
    }
}
