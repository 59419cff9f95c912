/* tensor/cpu/amx_tiles.h - the tile registers of AMX: instructions where the
 * file that includes this has AMX_TILES 1, else the same in plain C, which
 * specifies them.
 *
 * Eight tiles of up to 16 rows of 64 bytes. Here 0 .. 3 are sums, 4 and 5
 * tokens, 6 and 7 weights, and tile c of sums takes products of tile 4 + c / 2
 * and tile 6 + c % 2:
 *
 *   dot_bytes   c[m][n] += sum over k, i < 4 of a[m][4 k + i] * b[k][4 n + i]
 *               with a signed and b unsigned bytes, in 32 bits that wrap
 *   dot_pairs   the same of i < 2 bfloat16: the products of either i are
 *               chains of fused additions in the order of k, from 0 on; the two
 *               are added, then their sum to c. To nearest even; subnormals
 *               in and out are zeros.
 *
 * Source: Intel's Instruction Set Extensions Programming Reference, TDPBSUD
 * and TDPBF16PS. */
#ifndef BATON_TENSOR_CPU_AMX_TILES_H
#define BATON_TENSOR_CPU_AMX_TILES_H

#include "tensor/cpu/vec.h"

#include <assert.h>

#if !defined(AMX_TILES)
#define AMX_TILES 0
#endif

enum { TILE_ROWS = 16, TILE_BYTES = 64, TILES = 8 };

/* As LDTILECFG reads it. */
struct tile_shapes {
    uint8_t palette, start_row, zero[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_shapes) == 64, "what the instruction reads");

/* Sums of tokens, times steps of weights. */
static inline struct tile_shapes tile_shapes(size_t tokens, size_t steps)
{
    struct tile_shapes s = {.palette = 1};
    for (int t = 0; t < TILES; t++) {
        s.rows[t] = (uint8_t)(t < 6 ? tokens : steps);
        s.bytes[t] = (uint16_t)(t == 4 || t == 5 ? 4 * steps : TILE_BYTES);
    }
    return s;
}

/* --- in plain C ---------------------------------------------------------- */

struct plain_tiles {
    struct tile_shapes shapes;
    uint8_t tile[TILES][TILE_ROWS][TILE_BYTES];
};

static inline void plain_config(struct plain_tiles *p,
                                const struct tile_shapes *shapes)
{
    memset(p, 0, sizeof *p);
    p->shapes = *shapes;
}

static inline void plain_load(struct plain_tiles *p, int t, const void *from,
                              size_t stride)
{
    assert(p->shapes.palette == 1);
    memset(p->tile[t], 0, sizeof p->tile[t]);
    for (size_t r = 0; r < p->shapes.rows[t]; r++)
        memcpy(p->tile[t][r], (const char *)from + r * stride,
               p->shapes.bytes[t]);
}

static inline void plain_store(const struct plain_tiles *p, int t, void *to,
                               size_t stride)
{
    assert(p->shapes.palette == 1);
    for (size_t r = 0; r < p->shapes.rows[t]; r++)
        memcpy((char *)to + r * stride, p->tile[t][r], p->shapes.bytes[t]);
}

/* Its shapes have to fit, or the instruction is an invalid one. */
static inline void plain_fits(const struct tile_shapes *s, int c, int a, int b)
{
    assert(s->palette == 1 && s->rows[c] == s->rows[a] && s->rows[c] > 0);
    assert(s->bytes[c] == s->bytes[b] && s->bytes[a] == 4 * s->rows[b]);
    (void)s, (void)c, (void)a, (void)b;
}

static inline void plain_dot_bytes(struct plain_tiles *p, int c)
{
    int a = 4 + c / 2, b = 6 + c % 2;
    plain_fits(&p->shapes, c, a, b);
    for (size_t m = 0; m < p->shapes.rows[c]; m++)
        for (size_t n = 0; n < p->shapes.bytes[c] / 4u; n++) {
            uint32_t sum;
            memcpy(&sum, p->tile[c][m] + 4 * n, 4);
            for (size_t k = 0; k < p->shapes.rows[b]; k++)
                for (size_t i = 0; i < 4; i++)
                    sum += (uint32_t)((int8_t)p->tile[a][m][4 * k + i] *
                                      p->tile[b][k][4 * n + i]);
            memcpy(p->tile[c][m] + 4 * n, &sum, 4);
        }
}

static inline float plain_normal(float f)
{
    return fpclassify(f) == FP_SUBNORMAL ? copysignf(0, f) : f;
}

static inline float plain_bf16(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return plain_normal(bf16_to_f32(half));
}

static inline void plain_dot_pairs(struct plain_tiles *p, int c)
{
    int a = 4 + c / 2, b = 6 + c % 2;
    plain_fits(&p->shapes, c, a, b);
    for (size_t m = 0; m < p->shapes.rows[c]; m++)
        for (size_t n = 0; n < p->shapes.bytes[c] / 4u; n++) {
            float chain[2] = {0, 0}, sum;
            memcpy(&sum, p->tile[c][m] + 4 * n, 4);
            for (size_t k = 0; k < p->shapes.rows[b]; k++)
                for (size_t i = 0; i < 2; i++)
                    chain[i] = plain_normal(fmaf(
                        plain_bf16(p->tile[a][m] + 4 * k + 2 * i),
                        plain_bf16(p->tile[b][k] + 4 * n + 2 * i), chain[i]));
            sum = plain_normal(plain_normal(sum) +
                               plain_normal(chain[0] + chain[1]));
            memcpy(p->tile[c][m] + 4 * n, &sum, 4);
        }
}

/* --- as the file's products ask for it ------------------------------------ */

#if AMX_TILES

/* Inline assembly because the intrinsics of gcc 12 do not say that they read
 * memory. */
ALWAYS void tiles_config(const struct tile_shapes *shapes)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*shapes));
}

ALWAYS void tiles_release(void)
{
    __asm__ volatile("tilerelease" ::: "memory");
}

#define TILE_OF_EIGHT(CASE) \
    switch (t) {            \
        CASE(0)             \
        CASE(1)             \
        CASE(2)             \
        CASE(3)             \
        CASE(4)             \
        CASE(5)             \
        CASE(6)             \
        CASE(7)             \
    }

ALWAYS void tile_zero(int t)
{
#define CASE(T) \
    case T: __asm__ volatile("tilezero %%tmm" #T ::: "memory"); break;
    TILE_OF_EIGHT(CASE)
#undef CASE
}

ALWAYS void tile_load(int t, const void *from, size_t stride)
{
#define CASE(T)                                                       \
    case T:                                                           \
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #T ::"r"(from), \
                         "r"(stride)                                  \
                         : "memory");                                 \
        break;
    TILE_OF_EIGHT(CASE)
#undef CASE
}

ALWAYS void tile_store(int t, void *to, size_t stride)
{
#define CASE(T)                                                         \
    case T:                                                             \
        __asm__ volatile("tilestored %%tmm" #T ", (%0,%1,1)" ::"r"(to), \
                         "r"(stride)                                    \
                         : "memory");                                   \
        break;
    TILE_OF_EIGHT(CASE)
#undef CASE
}

#define TILE_DOT(NAME, OP)                                                 \
    ALWAYS void NAME(int c)                                                \
    {                                                                      \
        switch (c) {                                                       \
        case 0: __asm__ volatile(OP " %%tmm6, %%tmm4, %%tmm0" ::); break;  \
        case 1: __asm__ volatile(OP " %%tmm7, %%tmm4, %%tmm1" ::); break;  \
        case 2: __asm__ volatile(OP " %%tmm6, %%tmm5, %%tmm2" ::); break;  \
        default: __asm__ volatile(OP " %%tmm7, %%tmm5, %%tmm3" ::); break; \
        }                                                                  \
    }
TILE_DOT(dot_bytes, "tdpbsud")
TILE_DOT(dot_pairs, "tdpbf16ps")

#else

static _Thread_local struct plain_tiles plain_tiles;

ALWAYS void tiles_config(const struct tile_shapes *shapes)
{
    plain_config(&plain_tiles, shapes);
}

ALWAYS void tiles_release(void)
{
    memset(&plain_tiles.shapes, 0, sizeof plain_tiles.shapes);
}

ALWAYS void tile_zero(int t)
{
    memset(plain_tiles.tile[t], 0, sizeof plain_tiles.tile[t]);
}

ALWAYS void tile_load(int t, const void *from, size_t stride)
{
    plain_load(&plain_tiles, t, from, stride);
}

ALWAYS void tile_store(int t, void *to, size_t stride)
{
    plain_store(&plain_tiles, t, to, stride);
}

ALWAYS void dot_bytes(int c)
{
    plain_dot_bytes(&plain_tiles, c);
}

ALWAYS void dot_pairs(int c)
{
    plain_dot_pairs(&plain_tiles, c);
}

#endif

#endif
