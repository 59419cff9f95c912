/* tensor/cpu/amx_body.h - products by the tile registers of AMX, for the
 * instruction set of the file that includes it: integers, and with PAIRS_TILES
 * those of bf16. The panels are those of all other kernels: 16 steps of one
 * are a tile of weights as it stands.
 *
 * Integer sums are exact, so results have the bits of vector instructions
 * (linear_body.h), and few tokens are left to those: AMX_VECTORS is the kernels
 * whose streams and tiles they are. Sums of bf16 are taken as amx_tiles.h says,
 * in blocks of 16 steps from a row's first on and, behind its last, zeros:
 * another order than vector instructions have, so with PAIRS_TILES all products
 * of bf16, of few tokens too, are taken like that. */
#ifndef BATON_TENSOR_CPU_AMX_BODY_H
#define BATON_TENSOR_CPU_AMX_BODY_H

#include "tensor/cpu/amx_tiles.h"
#include "tensor/cpu/peak_body.h"
#include "tensor/cpu/stream_body.h"

#if !defined(AMX_VECTORS)
#define AMX_VECTORS kernels_generic
#endif

enum {
    BLOCK_STEPS = 16, /* steps of a tile */
    TOKEN_BYTES = SLAB_STEPS * 4,
    TILE_TOKENS = 2 * TILE_ROWS,
    TILE_PANELS = 2,
    SUMS = 4, /* tiles of sums: c is tokens 16 (c / 2) ... of panel c % 2 */
};

ALWAYS bool by_tiles(enum form form)
{
    return form == FORM_BF16 ? PAIRS_TILES : form != FORM_F32;
}

/* Steps of one tile of weights. */
ALWAYS size_t block_steps(enum form form)
{
    size_t steps =
        form == FORM_ROW || form == FORM_BF16 ? BLOCK_STEPS : group_steps(form);
    return steps < BLOCK_STEPS ? steps : BLOCK_STEPS;
}

static void amx_begin(enum form form)
{
    if (!by_tiles(form)) return;
    struct tile_shapes s = tile_shapes(TILE_ROWS, block_steps(form));
    tiles_config(&s);
}

static void amx_end(void)
{
    tiles_release();
}

ALWAYS void tile_dot(enum form form, int c)
{
    if (form == FORM_BF16)
        dot_pairs(c);
    else
        dot_bytes(c);
}

/* One block of steps of two panels and of 16 H tokens, whose words lie
 * TOKEN_BYTES apart. */
ALWAYS void block_add(enum form form, int H,
                      const uint8_t *const w[TILE_PANELS], const uint8_t *x)
{
    tile_load(6, w[0], STEP);
    tile_load(4, x, TOKEN_BYTES);
    tile_dot(form, 0);
    tile_load(7, w[1], STEP);
    tile_dot(form, 1);
    if (H == 1) return;
    tile_load(5, x + TILE_ROWS * TOKEN_BYTES, TOKEN_BYTES);
    tile_dot(form, 2);
    tile_dot(form, 3);
}

/* n steps, of which the last block may lack some. */
ALWAYS void blocks_add(enum form form, int H,
                       const uint8_t *const w[TILE_PANELS], const uint8_t *x,
                       size_t n)
{
    size_t s = 0;
    for (; s + BLOCK_STEPS <= n; s += BLOCK_STEPS)
        block_add(form, H,
                  (const uint8_t *[]){w[0] + s * STEP, w[1] + s * STEP},
                  x + 4 * s);
    if (s == n) return;
    uint8_t rest[TILE_PANELS][BLOCK_STEPS][STEP] = {{{0}}};
    for (size_t p = 0; p < TILE_PANELS; p++)
        memcpy(rest[p], w[p] + s * STEP, (n - s) * STEP);
    block_add(form, H, (const uint8_t *[]){rest[0][0], rest[1][0]}, x + 4 * s);
}

/* What the tiles of sums are stored to: [c][token][row]. */
struct sums {
    int32_t c[SUMS][TILE_ROWS][ROWS];
};

ALWAYS const int32_t *sums_of(const struct sums *s, size_t panel, size_t token)
{
    return s->c[token / TILE_ROWS * TILE_PANELS + panel][token % TILE_ROWS];
}

ALWAYS void sums_zero(int H)
{
    UNROLLED (c, 2 * H)
        tile_zero(c);
}

ALWAYS void sums_store(int H, struct sums *s)
{
    UNROLLED (c, 2 * H)
        tile_store(c, s->c[c], ROWS * 4);
}

/* n - 128 * sum: the integer sum over bytes that were q + 128. */
ALWAYS vi sum_signed(const int32_t *n, int32_t sum)
{
    return (vi)((vu)vi_load(n) - (vu)vi_set(128 * sum));
}

/* --- one scale a row, and floats ----------------------------------------- */

/* Between slabs sums are in tile->sums, [panels][tokens][16]: those of 16
 * tokens go there and come back as a tile, fewer through s. */
ALWAYS void slab_sums(const struct tile *tile, int H, struct sums *s, bool put)
{
    UNROLLED (c, 2 * H) {
        size_t p = c % TILE_PANELS, t = (size_t)(c / TILE_PANELS) * TILE_ROWS;
        size_t n = tile->tokens - t;
        float *kept = tile->sums + (p * tile->tokens + t) * ROWS;
        void *sums = n < TILE_ROWS ? s->c[c][0] : (void *)kept;
        if (put) tile_store(c, sums, ROWS * 4);
        if (n < TILE_ROWS)
            memcpy(put ? kept : sums, put ? sums : kept, n * ROWS * 4);
        if (!put) tile_load(c, sums, ROWS * 4);
    }
}

ALWAYS void amx_results(enum form form, const struct tile *tile,
                        const struct sums *s)
{
    int T = (int)tile->tokens;
    for (int v = 0; v < TILE_PANELS * PARTS; v++)
        for (int t = 0; t < T; t++) {
            const int32_t *n =
                sums_of(s, (size_t)(v / PARTS), (size_t)t) + v % PARTS * L;
            vf f = (vf)vi_load(n);
            if (form == FORM_ROW)
                f = add_scaled(
                    (vf){0}, sum_signed(n, tile->marks[t].sum),
                    group_d(form, tile->w[v / PARTS].d, 0, v % PARTS),
                    tile->marks[t].s);
            tile_result(tile, T, v, t, f);
        }
}

static __attribute__((noinline)) void tile_row_results(const struct tile *tile,
                                                       const struct sums *s)
{
    amx_results(FORM_ROW, tile, s);
}

static __attribute__((noinline, unused)) void tile_bf16_results(
    const struct tile *tile, const struct sums *s)
{
    amx_results(FORM_BF16, tile, s);
}

ALWAYS void amx_plain_half(enum form form, int H, const struct tile *tile)
{
    struct sums s;
    if (tile->first)
        sums_zero(H);
    else
        slab_sums(tile, H, &s, false);
    blocks_add(form, H, (const uint8_t *[]){tile->w[0].steps, tile->w[1].steps},
               tile->words, tile->steps);
    if (!tile->last) {
        slab_sums(tile, H, &s, true);
        return;
    }
    sums_store(H, &s);
    if (form == FORM_BF16)
        tile_bf16_results(tile, &s);
    else
        tile_row_results(tile, &s);
}

ALWAYS void amx_plain(enum form form, const struct tile *tile)
{
    if (tile->tokens > TILE_ROWS)
        amx_plain_half(form, 2, tile);
    else
        amx_plain_half(form, 1, tile);
}

/* --- groups -------------------------------------------------------------- */

/* Where a group's weights, scales and marks are. */
struct amx_group {
    const uint8_t *w[TILE_PANELS], *x;
    const char *d[TILE_PANELS];
    const float *e[TILE_PANELS];
    const struct mark *mark;
    bool second; /* of its pair */
};

ALWAYS struct amx_group first_group(const struct tile *tile)
{
    struct amx_group g = {.x = tile->words, .mark = tile->marks};
    UNROLLED (p, TILE_PANELS) {
        g.w[p] = tile->w[p].steps;
        g.d[p] = tile->w[p].d;
        g.e[p] = tile->w[p].e;
    }
    return g;
}

ALWAYS void next_group(enum form form, const struct tile *tile,
                       struct amx_group *g)
{
    size_t steps = group_steps(form);
    size_t d_bytes = ROWS * (form == FORM_16 || form == FORM_MIN ? 4 : 2);
    UNROLLED (p, TILE_PANELS) {
        g->w[p] +=
            g->second ? tile->w[p].steps_pair - steps * STEP : steps * STEP;
        g->d[p] += g->second ? tile->w[p].d_pair - d_bytes : d_bytes;
        g->e[p] += ROWS;
    }
    g->x += steps * 4;
    if (form != FORM_16 || g->second) g->mark += tile->tokens;
    g->second = !g->second;
}

/* A group's integer sums, scaled, to those of the groups before it: in
 * tile->sums, from where the last one's go to out. */
ALWAYS void group_scale(enum form form, const struct tile *tile,
                        const struct amx_group *g, const struct sums *s,
                        bool first, bool last)
{
    int T = (int)tile->tokens;
    for (int v = 0; v < TILE_PANELS * PARTS; v++) {
        int p = v / PARTS, part = v % PARTS;
        vf d = group_d(form, g->d[p], 0, part), e = {0};
        if (form == FORM_MIN) e = vf_load(g->e[p] + part * L);
        for (int t = 0; t < T; t++) {
            const struct mark *mark = &g->mark[t];
            int32_t sum = form != FORM_16 ? mark->sum
                          : g->second     ? mark->sum - mark->half
                                          : mark->half;
            vi n = sum_signed(sums_of(s, (size_t)p, (size_t)t) + part * L, sum);
            float *kept = tile_sum(tile, T, v, t);
            vf f = first ? (vf){0} : vf_load(kept);
            f = add_scaled(f, n, d, mark->s);
            if (form == FORM_MIN) f = vf_fma(e, vf_set(mark->s_sum), f);
            if (last)
                tile_result(tile, T, v, t, f);
            else
                vf_store(kept, f);
        }
    }
}

typedef void group_scaler(const struct tile *tile, const struct amx_group *g,
                          const struct sums *s, bool first, bool last);

/* Group by group; while the tiles take one the vector units scale the one
 * before it. */
ALWAYS void amx_groups_half(enum form form, int H, const struct tile *tile,
                            group_scaler *scale)
{
    struct sums s[2];
    struct amx_group g = first_group(tile), before = g;
    size_t steps = group_steps(form), groups = tile->steps / steps;
    for (size_t i = 0; i < groups; i++) {
        sums_zero(H);
        for (size_t b = 0; b < steps; b += block_steps(form))
            block_add(form, H,
                      (const uint8_t *[]){g.w[0] + b * STEP, g.w[1] + b * STEP},
                      g.x + 4 * b);
        sums_store(H, &s[i % 2]);
        if (i > 0)
            scale(tile, &before, &s[(i - 1) % 2], tile->first && i == 1, false);
        before = g;
        next_group(form, tile, &g);
    }
    scale(tile, &before, &s[(groups - 1) % 2], tile->first && groups == 1,
          tile->last);
}

ALWAYS void amx_groups(enum form form, const struct tile *tile,
                       group_scaler *scale)
{
    if (tile->tokens > TILE_ROWS)
        amx_groups_half(form, 2, tile, scale);
    else
        amx_groups_half(form, 1, tile, scale);
}

/* --- few tokens of bf16 -------------------------------------------------- */

/* Panels p and q of all; q may be p. */
static void amx_stream_two(const struct stream *s, size_t p, size_t q)
{
    const uint8_t *panels = (const uint8_t *)s->panels, *x = s->words;
    const uint8_t *w[] = {panels + p * s->panel_bytes,
                          panels + q * s->panel_bytes};
    size_t steps = (s->cols + 1) / 2;
    const struct ahead ahead = {6144, 0}; /* a slab in one burst */
    sums_zero(1);
    for (size_t i = 0, n; i < steps; i += n, x += s->tokens * TOKEN_BYTES) {
        n = steps - i < SLAB_STEPS ? steps - i : SLAB_STEPS;
        for (size_t line = 0; line < n; line++) {
            ask_ahead(ahead, w[0] + line * STEP, 1);
            ask_ahead(ahead, w[1] + line * STEP, 1);
        }
        blocks_add(FORM_BF16, 1, w, x, n);
        w[0] += n * STEP;
        w[1] += n * STEP;
    }
    float sums[2][TILE_ROWS][ROWS];
    tile_store(0, sums[0], ROWS * 4);
    tile_store(1, sums[1], ROWS * 4);
    for (size_t t = 0; t < s->results; t++)
        UNROLLED (v, PARTS) {
            stream_result(s, p, v, t, vf_load(sums[0][t] + v * L));
            if (q != p) stream_result(s, q, v, t, vf_load(sums[1][t] + v * L));
        }
}

static void amx_stream(const struct stream *s)
{
    if (!PAIRS_TILES || s->type != DTYPE_BF16) {
        AMX_VECTORS.stream(s);
        return;
    }
    struct tile_shapes shapes = tile_shapes(s->tokens, BLOCK_STEPS);
    tiles_config(&shapes);
    size_t half = (s->panel_count + 1) / 2;
    for (size_t p = 0; p < half; p++)
        amx_stream_two(s, p, p + half < s->panel_count ? p + half : p);
    tiles_release();
}

/* --- the doors ----------------------------------------------------------- */

#define AMX_GROUPS(FORM, NAME, SCALE)                       \
    static __attribute__((noinline)) void SCALE(            \
        const struct tile *tile, const struct amx_group *g, \
        const struct sums *s, bool first, bool last)        \
    {                                                       \
        group_scale(FORM, tile, g, s, first, last);         \
    }                                                       \
    static void NAME(const struct tile *tile)               \
    {                                                       \
        amx_groups(FORM, tile, SCALE);                      \
    }

AMX_GROUPS(FORM_128, tile_amx_128, tile_scale_128)
AMX_GROUPS(FORM_64, tile_amx_64, tile_scale_64)
AMX_GROUPS(FORM_32, tile_amx_32, tile_scale_32)
AMX_GROUPS(FORM_16, tile_amx_16, tile_scale_16)
AMX_GROUPS(FORM_MIN, tile_amx_min, tile_scale_min)

static void tile_amx_row(const struct tile *tile)
{
    amx_plain(FORM_ROW, tile);
}

#if PAIRS_TILES
static void tile_amx_bf16(const struct tile *tile)
{
    amx_plain(FORM_BF16, tile);
}
#else
#define tile_amx_bf16 NULL
#endif

static void amx_tile(enum form form, const struct tile *all)
{
    static void (*const by_form[FORM_COUNT])(const struct tile *) = {
        NULL,        tile_amx_bf16, tile_amx_row, tile_amx_128,
        tile_amx_64, tile_amx_32,   tile_amx_16,  tile_amx_min};
    if (!by_tiles(form)) {
        AMX_VECTORS.tile(form, all);
        return;
    }
    for (struct tile t = *all; t.groups; tile_next(&t, TILE_PANELS, t.tokens)) {
        tile_ask(t.ahead);
        by_form[form](&t);
    }
}

/* --- what they can, and how fast ----------------------------------------- */

#if AMX_TILES

/* Tiles of random bytes by the instructions and in plain C. Of bf16: numbers
 * between 2^-8 and 2^8, so that sums round and nothing is subnormal. */
static bool amx_check_shape(size_t tokens, size_t steps, bool pairs,
                            uint32_t *seed)
{
    uint8_t in[SUMS + TILES][TILE_ROWS][TILE_BYTES];
    uint8_t got[SUMS][TILE_ROWS][TILE_BYTES] = {{{0}}};
    uint8_t want[SUMS][TILE_ROWS][TILE_BYTES] = {{{0}}};
    for (size_t i = 0; i < sizeof in; i++) {
        *seed = *seed * 1664525 + 1013904223;
        ((uint8_t *)in)[i] = (uint8_t)(*seed >> 24);
        if (pairs && i % 2) ((uint8_t *)in)[i] = *seed >> 30 ? 0x3f : 0xbe;
    }
    struct tile_shapes shapes = tile_shapes(tokens, steps);
    struct plain_tiles plain;
    plain_config(&plain, &shapes);
    tiles_config(&shapes);
    UNROLLED (t, TILES) {
        tile_load(t, in[t], TILE_BYTES);
        plain_load(&plain, t, in[t], TILE_BYTES);
    }
    UNROLLED (c, SUMS) {
        tile_dot(pairs ? FORM_BF16 : FORM_ROW, c);
        if (pairs)
            plain_dot_pairs(&plain, c);
        else
            plain_dot_bytes(&plain, c);
        tile_store(c, got[c], TILE_BYTES);
        plain_store(&plain, c, want[c], TILE_BYTES);
    }
    tiles_release();
    return memcmp(got, want, sizeof got) == 0;
}

static bool amx_check(void)
{
    uint32_t seed = 1;
    for (size_t tokens = 1; tokens <= TILE_ROWS; tokens += 5)
        for (size_t steps = 4; steps <= BLOCK_STEPS; steps *= 2)
            if (!amx_check_shape(tokens, steps, false, &seed) ||
                (PAIRS_TILES && !amx_check_shape(tokens, steps, true, &seed)))
                return false;
    return true;
}

ALWAYS double amx_peak(enum form form, size_t rounds)
{
    uint8_t in[TILE_ROWS][TILE_BYTES];
    float out[TILE_ROWS][ROWS];
    memset(in, 1, sizeof in);
    struct tile_shapes shapes = tile_shapes(TILE_ROWS, BLOCK_STEPS);
    tiles_config(&shapes);
    UNROLLED (t, TILES)
        tile_load(t, in, TILE_BYTES);
    for (size_t r = 0; r < rounds; r++)
        UNROLLED (c, SUMS)
            tile_dot(form, c);
    tile_store(0, out, TILE_BYTES);
    tiles_release();
    return (double)out[0][0];
}

static double amx_peak_dots(size_t rounds)
{
    return amx_peak(FORM_ROW, rounds);
}

#if PAIRS_TILES
static double amx_peak_pairs(size_t rounds)
{
    return amx_peak(FORM_BF16, rounds);
}
enum { AMX_BF16_ROUND = SUMS * TILE_ROWS * ROWS * TILE_BYTES };
#else
#define amx_peak_pairs peak_pairs
enum { AMX_BF16_ROUND = BF16_ROUND };
#endif

enum { AMX_DOTS_ROUND = SUMS * TILE_ROWS * ROWS * TILE_BYTES * 2 };

#else

#define amx_check      NULL
#define amx_peak_dots  peak_dots
#define amx_peak_pairs peak_pairs
enum { AMX_DOTS_ROUND = DOTS_ROUND, AMX_BF16_ROUND = BF16_ROUND };

#endif

/* Any number of tokens up to TILE_TOKENS is a group. */
static const uint8_t amx_tokens[] = {32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22,
                                     21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11,
                                     10, 9,  8,  7,  6,  5,  4,  3,  2,  1,  0};
static const uint8_t amx_panels[FORM_COUNT] = {
    PLAIN_PANELS, PAIRS_TILES ? TILE_PANELS : PLAIN_PANELS,
    TILE_PANELS,  TILE_PANELS,
    TILE_PANELS,  TILE_PANELS,
    TILE_PANELS,  TILE_PANELS};

#endif
