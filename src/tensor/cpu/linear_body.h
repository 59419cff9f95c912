/* tensor/cpu/linear_body.h - the products, for the instruction set of the
 * file that includes it. kernels.h has the layouts.
 *
 * What keeps bits equal on all paths: an output's float32 sum starts at 0
 * and takes its runs (block formats: mul, fma, and for minima a second fma)
 * or columns (one fma each) in ascending order; everything before that is
 * exact. Which other outputs are computed beside it does not matter. */
#ifndef BATON_TENSOR_CPU_LINEAR_BODY_H
#define BATON_TENSOR_CPU_LINEAR_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

#include "tensor/quant.h"

#include <math.h>

/* Vectors of a panel. */
enum { PARTS = ROWS / L };

/* --- activations ------------------------------------------------------- */

/* quant_round's arithmetic, and the sums that kernels start from. */
ALWAYS void round_run(struct xrun *out, const float *x)
{
    vu most = {0};
    UNROLLED (i, RUN / L) {
        vu bits = (vu)vf_load(x + i * L) & 0x7fffffff;
        vu more = (vu)(bits > most);
        most = (bits & more) | (most & ~more);
    }
    uint32_t max = vu_max(most);
    float amax, inverse = 0, s = max >= 0x7f800000 ? NAN : 0;
    memcpy(&amax, &max, 4);
    bool plain = amax >= 1e-30f && max < 0x7f800000;
    if (plain) {
        inverse = 127.0f / amax;
        s = amax / 127.0f;
    }
    int32_t sums[2] = {0};
    UNROLLED (i, RUN / L) {
        vi q = plain ? vi_round(vf_load(x + i * L) * inverse) : (vi){0};
        sums[i / (16 / L)] += vi_sum(q);
        byte_vec bytes = __builtin_convertvector(q, byte_vec);
        memcpy(out->q + i * L, &bytes, L);
    }
    int32_t sum = sums[0] + sums[1];
    out->s = s;
    out->s_sum = s * (float)sum;
    out->zero[0] = out->zero[1] = 0;
    out->less8 = -8 * sum;
    out->less128 = -128 * sum;
    out->less32[0] = -32 * sums[0];
    out->less32[1] = -32 * sums[1];
}

static void group_runs(struct xrun *out, const float *x, size_t tokens,
                       size_t cols)
{
    for (size_t t = 0; t < tokens; t++)
        for (size_t b = 0; b < cols / RUN; b++)
            round_run(out + b * tokens + t, x + t * cols + b * RUN);
}

/* Whole vectors of columns are transposed; each column's vector is stored
 * over the unused lanes of the one before it. */
static void group_floats(float *out, const float *x, size_t tokens, size_t cols)
{
    size_t c = 0;
    for (; tokens <= L && c + L <= cols; c += L) {
        vf m[L];
        UNROLLED (i, L)
            m[i] = (size_t)i < tokens ? vf_load(x + (size_t)i * cols + c)
                                      : (vf){0};
        vf_transpose(m);
        UNROLLED (i, L) {
            size_t at = (c + (size_t)i) * tokens;
            if (at + L <= cols * tokens)
                vf_store(out + at, m[i]);
            else
                vf_store_some(out + at, m[i], tokens);
        }
    }
    for (; c < cols; c++)
        for (size_t t = 0; t < tokens; t++)
            out[c * tokens + t] = x[t * cols + c];
}

/* Where a type's integer sums start: an offset into struct xrun. */
ALWAYS size_t start_of(enum dtype type)
{
    switch (type) {
    case DTYPE_Q8_0:
        return VEC_AVX2 ? offsetof(struct xrun, zero)
                        : offsetof(struct xrun, less128);
    case DTYPE_Q4_0: return offsetof(struct xrun, less8);
    case DTYPE_Q6_K: return offsetof(struct xrun, less32);
    default: return offsetof(struct xrun, zero);
    }
}

ALWAYS bool has_min(enum dtype type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K || type == DTYPE_Q5_K;
}

/* --- packed runs ------------------------------------------------------- */

/* The eight groups of a run, as bytes, rows part * L and up. */
ALWAYS void run_groups(enum dtype type, const uint8_t *run, int part, vi w[8])
{
    run += part * 4 * L;
    if (type == DTYPE_Q8_0) {
        UNROLLED (j, 8)
            w[j] = vi_load(run + 64 * j);
        return;
    }
    UNROLLED (j, 4) {
        vi v = vi_load(run + 64 * j);
        w[j] = v & 0x0f0f0f0f;
        w[j + 4] = (v >> 4) & 0x0f0f0f0f;
    }
    if (type == DTYPE_Q5_K) {
        vi high = vi_load(run + 256);
        UNROLLED (j, 8)
            w[j] |= (j < 4 ? high << (4 - j) : high >> (j - 4)) & 0x10101010;
    }
    if (type == DTYPE_Q6_K) {
        UNROLLED (j, 8) {
            vi high = vi_load(run + 256 + j / 4 * 64);
            int at = j % 4 * 2;
            w[j] |= (at < 4 ? high << (4 - at) : high >> (at - 4)) & 0x30303030;
        }
    }
}

ALWAYS vf signed_bytes(const uint8_t *p)
{
    return vf_of((vi_of_bytes(p) ^ 0x80) - 0x80);
}

/* d and e of struct wrun. */
ALWAYS void run_scales(enum dtype type, const uint8_t *head, const uint8_t *run,
                       int part, vf *d, vf *e)
{
    *d = vf_of_f16(head + part * 2 * L);
    *e = (vf){0};
    const uint8_t *k = run + 256 + part * L;
    switch (type) {
    case DTYPE_Q4_1: *e = vf_of_f16(head + 32 + part * 2 * L); break;
    case DTYPE_Q5_K: k += 64; /* fall through */
    case DTYPE_Q4_K:
        *d *= vf_of(vi_of_bytes(k));
        *e = vf_of_f16(head + 32 + part * 2 * L) * -vf_of(vi_of_bytes(k + 16));
        break;
    case DTYPE_Q6_K:
        *e = *d * signed_bytes(k + 144);
        *d *= signed_bytes(k + 128);
        break;
    default: break;
    }
}

ALWAYS void unpack_type(enum dtype type, const uint8_t *panel, size_t first,
                        size_t cols, struct wrun *out)
{
    struct panel_format f = panel_format(type);
    size_t block = (size_t)(f.head + f.runs * f.run);
    for (size_t b = first / RUN; b < (first + cols) / RUN; b++, out++) {
        size_t runs = (size_t)f.runs;
        const uint8_t *head = panel + b / runs * block;
        const uint8_t *run = head + f.head + (int)(b % runs) * f.run;
        for (int part = 0; part < PARTS; part++) {
            vi w[8];
            vf d, e;
            run_groups(type, run, part, w);
            run_scales(type, head, run, part, &d, &e);
            UNROLLED (j, 8)
                vi_store(&out->q[j][part * L], w[j]);
            vf_store(&out->d[part * L], d);
            vf_store(&out->e[part * L], e);
        }
    }
}

/* --- sums over runs ---------------------------------------------------- */

/* f += (integer sum n) * d * s, in the one order of operations. */
ALWAYS vf add_scaled(vf f, vi n, vf d, float s)
{
    return vf_fma(vf_of(n) * d, vf_set(s), f);
}

/* One vector of weights and T tokens, one run: from unpacked registers. */
ALWAYS void run_add(enum dtype type, int T, const vi w[8], vf d, vf e,
                    const struct xrun *x, vf *f)
{
    int wide = type == DTYPE_Q8_0, halves = type == DTYPE_Q6_K ? 2 : 1;
    size_t start = start_of(type);
    UNROLLED (t, T) {
        for (int h = 0; h < halves; h++) {
            vi n = vi_spread((const char *)&x[t] + start + 4 * (size_t)h);
            UNROLLED (i, 8 / halves)
                n = vi_dot(n, w[h * 4 + i], vi_spread(x[t].q + 4 * (h * 4 + i)),
                           wide);
            f[t] = add_scaled(f[t], n, h ? e : d, x[t].s);
        }
        if (has_min(type)) f[t] = vf_fma(e, vf_set(x[t].s_sum), f[t]);
    }
}

/* How far ahead of their use the fused kernels ask for weights. */
enum { PREFETCH_BYTES = 1024 };

/* P packed panels times T tokens. */
ALWAYS void fused_blocks(enum dtype type, int P, int T, const struct tile *tile,
                         size_t first)
{
    struct panel_format fmt = panel_format(type);
    size_t block = (size_t)(fmt.head + fmt.runs * fmt.run);
    const uint8_t *panel =
        (const uint8_t *)tile->panels + first * tile->panel_stride;
    const struct xrun *x = tile->x;
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t b = 0; b < tile->cols / RUN / (size_t)fmt.runs;
         b++, panel += block) {
        for (int r = 0; r < fmt.runs; r++, x += T) {
            UNROLLED (p, P) {
                const uint8_t *head = panel + (size_t)p * tile->panel_stride;
                const uint8_t *run = head + fmt.head + r * fmt.run;
                UNROLLED (line, (fmt.run + fmt.head + 63) / 64)
                    __builtin_prefetch(run + PREFETCH_BYTES + 64 * line);
                UNROLLED (part, PARTS) {
                    vi w[8];
                    vf d, e;
                    run_groups(type, run, part, w);
                    run_scales(type, head, run, part, &d, &e);
                    run_add(type, T, w, d, e, x, f + (p * PARTS + part) * T);
                    /* Or gcc loads all panels' weights first and stores
                     * them on the stack. */
                    __asm__ volatile("" ::: "memory");
                }
            }
        }
    }
    UNROLLED (i, P * PARTS)
        UNROLLED (t, T)
            vf_store(
                tile->sums +
                    ((first + (size_t)(i / PARTS)) * (size_t)T + (size_t)t) *
                        ROWS +
                    i % PARTS * L,
                f[i * T + t]);
}

/* Lanes part * L and up of a tile's sums: where they start, and where they
 * go in the end. */
ALWAYS void sums_begin(const struct tile_sums *s, int part, int T, vf *f)
{
    UNROLLED (t, T)
        f[t] = s->first ? (vf){0} : vf_load(s->sums + t * ROWS + part * L);
}

ALWAYS void sums_end(const struct tile_sums *s, int part, int T, const vf *f)
{
    if (!s->out) {
        UNROLLED (t, T)
            vf_store(s->sums + t * ROWS + part * L, f[t]);
        return;
    }
    vf bias = s->bias ? vf_load(s->bias + part * L) : (vf){0};
    UNROLLED (t, T) {
        float *out = s->out + (size_t)t * s->stride + part * L;
        vf y = s->bias ? f[t] + bias : f[t];
        vf_store(out, s->add ? vf_load(out) + y : y);
    }
}

/* V vectors of unpacked weights times T tokens; n in registers beside f. */
ALWAYS void tile_blocks_of(enum dtype type, int V, int T,
                           const struct wrun *const w[2], int part, size_t runs,
                           const struct xrun *x, const struct tile_sums sums[2])
{
    int wide = type == DTYPE_Q8_0, halves = type == DTYPE_Q6_K ? 2 : 1;
    size_t start = start_of(type);
    vf f[2 * TOKENS_MAX];
    UNROLLED (v, V)
        sums_begin(&sums[v], part, T, f + v * T);
    for (size_t b = 0; b < runs; b++, x += T) {
        UNROLLED (h, halves) {
            vi n[2 * TOKENS_MAX];
            UNROLLED (t, T) {
                vi begin =
                    vi_spread((const char *)&x[t] + start + 4 * (size_t)h);
                UNROLLED (v, V)
                    n[v * T + t] = begin;
            }
            UNROLLED (i, 8 / halves) {
                int j = h * 4 + i;
                vi q[2];
                UNROLLED (v, V)
                    q[v] = vi_load(w[v][b].q[j][part * L]);
                UNROLLED (t, T) {
                    vi xs = vi_spread(x[t].q + 4 * j);
                    UNROLLED (v, V)
                        n[v * T + t] = vi_dot(n[v * T + t], q[v], xs, wide);
                }
            }
            UNROLLED (v, V) {
                vf d = vf_load(h ? w[v][b].e + part * L : w[v][b].d + part * L);
                UNROLLED (t, T)
                    f[v * T + t] =
                        add_scaled(f[v * T + t], n[v * T + t], d, x[t].s);
            }
        }
        if (has_min(type)) {
            UNROLLED (v, V) {
                vf e = vf_load(w[v][b].e + part * L);
                UNROLLED (t, T)
                    f[v * T + t] = vf_fma(e, vf_set(x[t].s_sum), f[v * T + t]);
            }
        }
    }
    UNROLLED (v, V)
        sums_end(&sums[v], part, T, f + v * T);
}

/* --- float weights ----------------------------------------------------- */

/* Columns k and k + 1 of a packed panel as float32 (F32, F16: only k). */
ALWAYS void columns(enum dtype type, const uint8_t *panel, size_t k, int part,
                    vf w[2])
{
    if (type == DTYPE_F32)
        w[0] =
            vf_load((const float *)(const void *)panel + k * ROWS + part * L);
    else if (type == DTYPE_F16)
        w[0] = vf_of_f16(panel + (k * ROWS + (size_t)part * L) * 2);
    else {
        vi pair = vi_load(panel + (k / 2 * ROWS + (size_t)part * L) * 4);
        w[0] = (vf)(pair << 16);
        w[1] = (vf)(pair & (int32_t)0xffff0000);
    }
}

ALWAYS void unpack_columns(enum dtype type, const void *panel, size_t first,
                           size_t cols, float *out)
{
    int step = type == DTYPE_BF16 ? 2 : 1; /* first is even */
    for (size_t k = first; k < first + cols; k += (size_t)step) {
        for (int part = 0; part < PARTS; part++) {
            vf w[2];
            columns(type, panel, k, part, w);
            vf_store(out + (k - first) * ROWS + part * L, w[0]);
            if (step == 2 && k + 1 < first + cols)
                vf_store(out + (k + 1 - first) * ROWS + part * L, w[1]);
        }
    }
}

ALWAYS void fused_floats(enum dtype type, int P, int T, const struct tile *tile,
                         size_t first)
{
    const uint8_t *panel =
        (const uint8_t *)tile->panels + first * tile->panel_stride;
    const float *x = tile->x;
    int step = type == DTYPE_BF16 ? 2 : 1;
    size_t cols = tile->cols / (size_t)step * (size_t)step;
    size_t column_bytes = ROWS * dtype_block_bytes(type);
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t k = 0; k < cols; k += (size_t)step) {
        UNROLLED (i, P * PARTS) {
            vf w[2];
            const uint8_t *from =
                panel + (size_t)(i / PARTS) * tile->panel_stride;
            columns(type, from, k, i % PARTS, w);
            if (i % PARTS == 0)
                __builtin_prefetch(from + k * column_bytes + PREFETCH_BYTES);
            UNROLLED (c, step)
                UNROLLED (t, T)
                    f[i * T + t] = vf_fma(
                        w[c],
                        vf_set(x[(k + (size_t)c) * (size_t)T + (size_t)t]),
                        f[i * T + t]);
        }
    }
    if (cols < tile->cols) { /* the odd last column of BF16 */
        for (int i = 0; i < P * PARTS; i++) {
            vf w[2];
            columns(type, panel + (size_t)(i / PARTS) * tile->panel_stride,
                    cols, i % PARTS, w);
            for (int t = 0; t < T; t++)
                f[i * T + t] =
                    vf_fma(w[0], vf_set(x[cols * (size_t)T + (size_t)t]),
                           f[i * T + t]);
        }
    }
    UNROLLED (i, P * PARTS)
        UNROLLED (t, T)
            vf_store(
                tile->sums +
                    ((first + (size_t)(i / PARTS)) * (size_t)T + (size_t)t) *
                        ROWS +
                    i % PARTS * L,
                f[i * T + t]);
}

/* V vectors at w[v] (16 floats a column), of part[v] of sums[v], times T
 * tokens. */
ALWAYS void tile_floats_of(int V, int T, const float *const w[2],
                           const int part[2], size_t cols, const float *x,
                           const struct tile_sums *const sums[2])
{
    vf f[2 * TOKENS_MAX];
    UNROLLED (v, V)
        sums_begin(sums[v], part[v], T, f + v * T);
    const float *w0 = w[0], *w1 = w[V - 1];
    for (size_t k = 0; k < cols; k++, x += T, w0 += ROWS, w1 += ROWS) {
        vf a = vf_load(w0), b = vf_load(w1);
        UNROLLED (t, T) {
            vf xs = vf_set(x[t]);
            f[t] = vf_fma(a, xs, f[t]);
            if (V == 2) f[T + t] = vf_fma(b, xs, f[T + t]);
        }
    }
    UNROLLED (v, V)
        sums_end(sums[v], part[v], T, f + v * T);
}

/* --- the doors: constants for types and sizes -------------------------- */

#if VEC_AVX512
static const uint8_t block_groups[] = {6, 4, 2, 1, 0};
static const uint8_t float_groups[] = {12, 8, 4, 2, 1, 0};
#elif VEC_AVX2
static const uint8_t block_groups[] = {4, 2, 1, 0};
static const uint8_t float_groups[] = {6, 4, 2, 1, 0};
#else
static const uint8_t block_groups[] = {4, 2, 1, 0};
static const uint8_t float_groups[] = {4, 2, 1, 0};
#endif

/* Panels at a time for T tokens: as many as there are registers for sums,
 * since each is a stream of its own from memory. */
#define FUSED_PANELS(T) \
    (VEC_AVX512 ? (T) == 4 ? 4 : 8 : VEC_AVX2 ? 4 / (T) : (T) == 1 ? 2 : 1)

#define FUSED(NAME, TYPE, CORE)                                         \
    static __attribute__((noinline)) void NAME(const struct tile *tile, \
                                               size_t tokens)           \
    {                                                                   \
        size_t p = 0, n = tile->panel_count;                            \
        if (tokens == 4) {                                              \
            for (; p + FUSED_PANELS(4) <= n; p += FUSED_PANELS(4))      \
                CORE(TYPE, FUSED_PANELS(4), 4, tile, p);                \
            for (; FUSED_PANELS(4) > 1 && p < n; p++)                   \
                CORE(TYPE, 1, 4, tile, p);                              \
        } else if (tokens == 2) {                                       \
            for (; p + FUSED_PANELS(2) <= n; p += FUSED_PANELS(2))      \
                CORE(TYPE, FUSED_PANELS(2), 2, tile, p);                \
            for (; FUSED_PANELS(2) > 1 && p < n; p++)                   \
                CORE(TYPE, 1, 2, tile, p);                              \
        } else {                                                        \
            for (; p + FUSED_PANELS(1) <= n; p += FUSED_PANELS(1))      \
                CORE(TYPE, FUSED_PANELS(1), 1, tile, p);                \
            for (; FUSED_PANELS(1) > 1 && p < n; p++)                   \
                CORE(TYPE, 1, 1, tile, p);                              \
        }                                                               \
    }

FUSED(fused_f32, DTYPE_F32, fused_floats)
FUSED(fused_f16, DTYPE_F16, fused_floats)
FUSED(fused_bf16, DTYPE_BF16, fused_floats)
FUSED(fused_q8_0, DTYPE_Q8_0, fused_blocks)
FUSED(fused_q4_0, DTYPE_Q4_0, fused_blocks)
FUSED(fused_q4_1, DTYPE_Q4_1, fused_blocks)
FUSED(fused_q4_k, DTYPE_Q4_K, fused_blocks)
FUSED(fused_q5_k, DTYPE_Q5_K, fused_blocks)
FUSED(fused_q6_k, DTYPE_Q6_K, fused_blocks)

static void fused(const struct tile *tile, size_t tokens)
{
    static void (*const by_type[DTYPE_COUNT])(const struct tile *, size_t) = {
        fused_f32,  fused_f16,  fused_bf16, fused_q8_0, fused_q4_0,
        fused_q4_1, fused_q4_k, fused_q5_k, fused_q6_k};
    by_type[tile->type](tile, tokens);
}

static void unpack_blocks(enum dtype type, const void *panel, size_t first,
                          size_t cols, struct wrun *out)
{
    switch (type) {
    case DTYPE_Q8_0: unpack_type(DTYPE_Q8_0, panel, first, cols, out); break;
    case DTYPE_Q4_0: unpack_type(DTYPE_Q4_0, panel, first, cols, out); break;
    case DTYPE_Q4_1: unpack_type(DTYPE_Q4_1, panel, first, cols, out); break;
    case DTYPE_Q4_K: unpack_type(DTYPE_Q4_K, panel, first, cols, out); break;
    case DTYPE_Q5_K: unpack_type(DTYPE_Q5_K, panel, first, cols, out); break;
    default: unpack_type(DTYPE_Q6_K, panel, first, cols, out);
    }
}

static void unpack_floats(enum dtype type, const void *panel, size_t first,
                          size_t cols, float *out)
{
    if (type == DTYPE_F16)
        unpack_columns(DTYPE_F16, panel, first, cols, out);
    else
        unpack_columns(DTYPE_BF16, panel, first, cols, out);
}

#define TILE_CASE(TYPE, V, T)                               \
    case T:                                                 \
        tile_blocks_of(TYPE, V, T, w, part, runs, x, sums); \
        break;

#if VEC_AVX512
#define TILE_SIZES(TYPE, V) \
    TILE_CASE(TYPE, V, 6)   \
    TILE_CASE(TYPE, V, 4) TILE_CASE(TYPE, V, 2) TILE_CASE(TYPE, V, 1)
#else
#define TILE_SIZES(TYPE, V) \
    TILE_CASE(TYPE, V, 4) TILE_CASE(TYPE, V, 2) TILE_CASE(TYPE, V, 1)
#endif

/* Types share code where only the contents of struct wrun differ. */
#define TILE(NAME, TYPE, V)                                                  \
    static __attribute__((noinline)) void NAME(                              \
        const struct wrun *const w[2], int part, size_t runs,                \
        const struct xrun *x, size_t tokens, const struct tile_sums sums[2]) \
    {                                                                        \
        switch (tokens) {                                                    \
            TILE_SIZES(TYPE, V)                                              \
        }                                                                    \
    }

#define TILES(V)                       \
    TILE(tile_q8_0_##V, DTYPE_Q8_0, V) \
    TILE(tile_q4_0_##V, DTYPE_Q4_0, V) \
    TILE(tile_min_##V, DTYPE_Q4_1, V)  \
    TILE(tile_q6_k_##V, DTYPE_Q6_K, V)

typedef void tile_fn(const struct wrun *const w[2], int part, size_t runs,
                     const struct xrun *x, size_t tokens,
                     const struct tile_sums sums[2]);
TILES(1)

static tile_fn *tile_1(enum dtype type)
{
    return type == DTYPE_Q8_0   ? tile_q8_0_1
           : type == DTYPE_Q4_0 ? tile_q4_0_1
           : type == DTYPE_Q6_K ? tile_q6_k_1
                                : tile_min_1;
}

#if VEC_AVX512
TILES(2)

static tile_fn *tile_2(enum dtype type)
{
    return type == DTYPE_Q8_0   ? tile_q8_0_2
           : type == DTYPE_Q4_0 ? tile_q4_0_2
           : type == DTYPE_Q6_K ? tile_q6_k_2
                                : tile_min_2;
}
#endif

static void tile_blocks(enum dtype type, const struct wrun *const w[2],
                        size_t panels, size_t runs, const struct xrun *x,
                        size_t tokens, const struct tile_sums sums[2])
{
#if VEC_AVX512
    (panels == 2 ? tile_2 : tile_1)(type)(w, 0, runs, x, tokens, sums);
#else
    for (size_t p = 0; p < panels; p++)
        for (int part = 0; part < PARTS; part++)
            tile_1(type)(w + p, part, runs, x, tokens, sums + p);
#endif
}

#define FLOAT_CASE(V, T) \
    case T: tile_floats_of(V, T, w, part, cols, x, sums); break;

static __attribute__((noinline)) void tile_floats_2(
    const float *const w[2], const int part[2], size_t cols, const float *x,
    size_t tokens, const struct tile_sums *const sums[2])
{
    switch (tokens) {
#if VEC_AVX512
        FLOAT_CASE(2, 12)
        FLOAT_CASE(2, 8)
#elif VEC_AVX2
        FLOAT_CASE(2, 6)
#endif
        FLOAT_CASE(2, 4)
        FLOAT_CASE(2, 2)
        FLOAT_CASE(2, 1)
    }
}

#if VEC_AVX512
static __attribute__((noinline)) void tile_floats_1(
    const float *const w[2], const int part[2], size_t cols, const float *x,
    size_t tokens, const struct tile_sums *const sums[2])
{
    switch (tokens) {
        FLOAT_CASE(1, 12)
        FLOAT_CASE(1, 8)
        FLOAT_CASE(1, 4)
        FLOAT_CASE(1, 2)
        FLOAT_CASE(1, 1)
    }
}
#endif

static void tile_floats(const float *const w[2], size_t panels, size_t cols,
                        const float *x, size_t tokens,
                        const struct tile_sums sums[2])
{
#if VEC_AVX512
    static const int whole[2] = {0, 0};
    const struct tile_sums *const each[2] = {sums, sums + panels - 1};
    (panels == 2 ? tile_floats_2 : tile_floats_1)(w, whole, cols, x, tokens,
                                                  each);
#else
    for (size_t p = 0; p < panels; p++) {
        for (int i = 0; i < PARTS; i += 2) {
            const int part[2] = {i, i + 1};
            const float *half[2] = {w[p] + i * L, w[p] + (i + 1) * L};
            const struct tile_sums *const both[2] = {sums + p, sums + p};
            tile_floats_2(half, part, cols, x, tokens, both);
        }
    }
#endif
}

#endif
