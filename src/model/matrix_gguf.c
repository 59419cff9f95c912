/* GGUF's block types that no device multiplies. Their meanings are those of
 * the dequantize_row_* functions of ggml's ggml-quants.c. */
#include "model/matrix.h"

#include <string.h>

static float half(const uint8_t *p)
{
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* The levels of iq4_nl and iq4_xs (kvalues_iq4nl of ggml-common.h). */
static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

static int nibble_at(const uint8_t *p, int i) /* i of 32 */
{
    return i < 16 ? p[i] & 15 : p[i - 16] >> 4;
}

/* f16 d, 32 fifth bits, 16 bytes of nibbles: d (q - 16) */
static void q5_0_row(const uint8_t *p, uint8_t *out)
{
    memcpy(out, p, 2);
    for (int i = 0; i < 32; i++)
        out[2 + i] =
            (uint8_t)((nibble_at(p + 6, i) | (p[2 + i / 8] >> i % 8 & 1) << 4) -
                      16);
}

static void iq4_nl_row(const uint8_t *p, uint8_t *out)
{
    memcpy(out, p, 2);
    for (int i = 0; i < 32; i++)
        out[2 + i] = (uint8_t)iq4_levels[nibble_at(p + 2, i)];
}

/* The 6-bit scale of columns 16 i .. 16 i + 15. */
static int q3_k_scale(const uint8_t *scales, int i)
{
    int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
    return (low | (scales[8 + i % 4] >> (2 * (i / 4)) & 3) << 4) - 32;
}

/* 32 bytes of third bits (absent: less 4), 64 of 2-bit values, 12 of scales,
 * f16 d -> q6_k: 128 of nibbles, 64 of upper bits, 16 scales, d; see
 * tensor/quant.c. */
static void q3_k_row(const uint8_t *p, uint8_t *out)
{
    memset(out, 0, 192);
    for (int i = 0; i < 256; i++) {
        int run = i / 32, part = run / 4, c = i % 32;
        int q = 32 + (p[32 + part * 32 + c] >> (2 * (run % 4)) & 3);
        if (!(p[c] >> run & 1)) q -= 4;
        uint8_t *low = out + part * 64 + run % 2 * 32 + c;
        *low = (uint8_t)(*low | (q & 15) << (run % 4 / 2 * 4));
        uint8_t *high = out + 128 + part * 32 + c;
        *high = (uint8_t)(*high | (q >> 4) << (2 * (run % 4)));
    }
    for (int i = 0; i < 16; i++)
        out[192 + i] = (uint8_t)q3_k_scale(p + 96, i);
    memcpy(out + 208, p + 108, 2);
}

static void f16_at(uint8_t *out, int i, float value)
{
    uint16_t h = f32_to_f16(value);
    memcpy(out + 2 * i, &h, 2);
}

/* f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles: d q + m */
static void q5_1_row(const uint8_t *p, uint8_t *out)
{
    float d = half(p), m = half(p + 2);
    for (int i = 0; i < 32; i++) {
        int q = nibble_at(p + 8, i) | (p[4 + i / 8] >> i % 8 & 1) << 4;
        f16_at(out, i, d * (float)q + m);
    }
}

/* 16 bytes of 4-bit scale and min, 64 of 2-bit values, f16 d, dmin. */
static void q2_k_row(const uint8_t *p, uint8_t *out)
{
    float d = half(p + 80), dmin = half(p + 82);
    for (int i = 0; i < 256; i++) {
        int run = i / 32, scale = p[i / 16];
        int q = p[16 + run / 4 * 32 + i % 32] >> (2 * (run % 4)) & 3;
        f16_at(out, i,
               d * (float)((scale & 15) * q) - dmin * (float)(scale >> 4));
    }
}

/* f16 d, 16 bits of upper and 4 bytes of lower scale bits, 128 of nibbles. */
static void iq4_xs_row(const uint8_t *p, uint8_t *out)
{
    float d = half(p);
    int high = p[2] | p[3] << 8;
    for (int run = 0; run < 8; run++) {
        int scale = (p[4 + run / 2] >> (4 * (run % 2)) & 15) |
                    (high >> (2 * run) & 3) << 4;
        for (int i = 0; i < 32; i++)
            f16_at(out, 32 * run + i,
                   d * (float)(scale - 32) *
                       (float)iq4_levels[nibble_at(p + 8 + 16 * run, i)]);
    }
}

static const struct {
    const char *name;
    enum dtype type;
    size_t elems, bytes;
    void (*row)(const uint8_t *block, uint8_t *out);
} types[] = {
    {"q5_0", DTYPE_Q8_0, 32, 22, q5_0_row},
    {"q5_1", DTYPE_F16, 32, 24, q5_1_row},
    {"q2_k", DTYPE_F16, 256, 84, q2_k_row},
    {"q3_k", DTYPE_Q6_K, 256, 110, q3_k_row},
    {"iq4_nl", DTYPE_Q8_0, 32, 18, iq4_nl_row},
    {"iq4_xs", DTYPE_F16, 256, 136, iq4_xs_row},
};
enum { TYPES = sizeof types / sizeof *types };

bool matrix_gguf_type(const char *type_name, enum dtype *type)
{
    for (size_t k = 0; k < TYPES; k++)
        if (!strcmp(types[k].name, type_name)) {
            *type = types[k].type;
            return true;
        }
    return false;
}

void matrix_gguf_row(const char *type_name, const uint8_t *row, size_t cols,
                     uint8_t *out)
{
    for (size_t k = 0; k < TYPES; k++) {
        if (strcmp(types[k].name, type_name) != 0) continue;
        size_t size = dtype_row_bytes(types[k].type, types[k].elems);
        for (size_t c = 0; c < cols; c += types[k].elems) {
            types[k].row(row, out);
            row += types[k].bytes;
            out += size;
        }
    }
}
