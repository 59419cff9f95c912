/* tensor/cpu/stream_body.h - few tokens: weights are unpacked in registers
 * while they stream by, for the instruction set of the file that includes it.
 * The bits are those of tiles (linear_body.h). */
#ifndef BATON_TENSOR_CPU_STREAM_BODY_H
#define BATON_TENSOR_CPU_STREAM_BODY_H

#include "tensor/cpu/slab_body.h"

/* Most tokens at once; as many as there are registers for. */
#if VEC_AVX512
enum { STREAM_TOKENS = 8 };
static const uint8_t stream_tokens[] = {8, 6, 4, 2, 1, 0};
#define IF_MANY(CASE) CASE
#else
enum { STREAM_TOKENS = 4 };
static const uint8_t stream_tokens[] = {4, 2, 1, 0};
#define IF_MANY(CASE)
#endif

ALWAYS void stream_result(const struct stream *s, size_t panel, int part,
                          size_t t, vf f)
{
    size_t row = panel * ROWS + (size_t)(part * L);
    if (s->rows - panel * ROWS < ROWS)
        vf_store(s->part + t * ROWS + part * L, f);
    else
        result_put(s->out + t * s->stride + row, s->bias ? s->bias + row : NULL,
                   s->add, f);
}

ALWAYS void stream_results(const struct stream *s, int T, size_t panel,
                           const vf *f)
{
    UNROLLED (v, PARTS)
        UNROLLED (t, T)
            if ((size_t)t < s->results)
                stream_result(s, panel, v, (size_t)t, f[v * T + t]);
}

/* Integer sums of a panel and one token would be one long chain of additions:
 * they are two, which changes no bit. */
#define CHAINS_OF(T) ((T) == 1 && PARTS == 1 ? 2 : 1)
enum { SUMS_MAX = PARTS * STREAM_TOKENS }; /* 2 chains: 1 token of 8 */

ALWAYS void sums_start(int T, vi *acc, const vi *start)
{
    UNROLLED (i, PARTS * T) {
        acc[i] = start[i];
        if (CHAINS_OF(T) > 1) acc[PARTS * T + i] = (vi){0};
    }
}

ALWAYS void sums_end(int T, vi *acc)
{
    UNROLLED (i, PARTS * T)
        if (CHAINS_OF(T) > 1) acc[i] += acc[PARTS * T + i];
}

/* n steps of a panel of bytes. */
ALWAYS void bytes_add(int T, struct ahead ahead, const uint8_t *w,
                      const uint8_t *x, size_t n, vi *acc)
{
    const int C = CHAINS_OF(T);
    _Pragma("GCC unroll 2") for (size_t s = 0; s < n; s += (size_t)C)
    {
        ask_ahead(ahead, w + s * STEP, C);
        UNROLLED (c, C) {
            const uint8_t *xs = x + (s + (size_t)c) * 4 * (size_t)T;
            UNROLLED (v, PARTS) {
                vi q = vi_load(w + (s + (size_t)c) * STEP + v * 4 * L);
                UNROLLED (t, T) {
                    vi *to = &acc[(c * PARTS + v) * T + t];
                    *to = vi_dot(*to, q, vi_spread(xs + 4 * t), 1);
                }
            }
        }
    }
}

/* --- integers, one scale a row ------------------------------------------- */

ALWAYS void stream_row(enum form form, int T, const struct stream *s,
                       size_t first)
{
    const uint8_t *w = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *d = w + panel_scales(s->cols);
    vi acc[SUMS_MAX], start[PARTS * STREAM_TOKENS];
    UNROLLED (i, PARTS * T)
        start[i] = sum_start(s->marks[i % T].sum);
    sums_start(T, acc, start);
    bytes_add(T, ahead_of(s, T), w, s->words, s->cols / 4, acc);
    sums_end(T, acc);
    vf f[PARTS * STREAM_TOKENS];
    UNROLLED (i, PARTS * T)
        f[i] = add_scaled((vf){0}, acc[i], group_d(form, d, 0, i / T),
                          s->marks[i % T].s);
    stream_results(s, T, first, f);
}

/* --- integers in groups -------------------------------------------------- */

/* The runs of a group: nibbles of low halves and of high ones are two chains
 * by themselves. */
ALWAYS void nibbles_add(int T, struct ahead ahead, const uint8_t *w,
                        const uint8_t *x, size_t runs, vi *acc)
{
    const int C = CHAINS_OF(T) - 1;
    for (size_t r = 0; r < runs; r++, w += 4 * STEP, x += 32 * T) {
        ask_ahead(ahead, w, 4);
        UNROLLED (j, 4)
            UNROLLED (v, PARTS) {
                vi q = vi_load(w + STEP * j + v * 4 * L);
                vi low = q & 0x0f0f0f0f, high = (q >> 4) & 0x0f0f0f0f;
                UNROLLED (t, T) {
                    vi *a = &acc[v * T + t], *b = a + C * PARTS * T;
                    *a = vi_dot(*a, low, vi_spread(x + 4 * (j * T + t)), 0);
                    *b = vi_dot(*b, high, vi_spread(x + 4 * ((j + 4) * T + t)),
                                0);
                }
            }
    }
}

/* What the integer sums of a group start with: q + 128 and z be gone. */
ALWAYS vi group_start(enum dtype type, const uint8_t *zeros, size_t g, int v,
                      int32_t sum)
{
    if (type == DTYPE_Q8_0) return sum_start(sum);
    return -(zeros_load(type, zeros, g, v) * vi_set(sum));
}

/* Integer sums of one group. */
ALWAYS void group_sums(enum dtype type, int T, struct ahead ahead,
                       const uint8_t *w, const uint8_t *zeros, size_t g,
                       size_t columns, const uint8_t *x,
                       const struct mark *mark, vi *acc)
{
    vi start[PARTS * STREAM_TOKENS];
    UNROLLED (i, PARTS * T)
        start[i] = group_start(type, zeros, g, i / T, mark[i % T].sum);
    sums_start(T, acc, start);
    if (type == DTYPE_Q8_0)
        bytes_add(T, ahead, w, x, columns / 4, acc);
    else
        nibbles_add(T, ahead, w, x, columns / RUN, acc);
    sums_end(T, acc);
}

/* What they add with the group's scales d. */
ALWAYS void group_add(int T, const uint8_t *d, const struct mark *mark,
                      const vi *acc, vf *f)
{
    UNROLLED (v, PARTS) {
        vf scale = vf_of_f16(d + v * L * 2);
        UNROLLED (t, T)
            f[v * T + t] =
                add_scaled(f[v * T + t], acc[v * T + t], scale, mark[t].s);
    }
}

/* A processor that fetches a stream by itself loses it where lines are read
 * out of order. Scales lie behind the steps of two groups, so sums of both are
 * made before, where there are registers for that. */
#define BOTH_FIRST(T) (3 * PARTS * (T) <= (VEC_AVX512 || VEC_NEON ? 18 : 12))

/* kind: Q8_0 for all formats of bytes, INT4_G32 for all of nibbles with zero
 * points, or Q4_0. */
ALWAYS void stream_groups(enum dtype kind, size_t columns, int T,
                          const struct stream *s, size_t first)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *zeros =
        kind == DTYPE_INT4_G32 ? panel + panel_zeros(s->type, s->cols) : NULL;
    const uint8_t *w = panel, *x = s->words;
    const size_t steps = columns / (kind == DTYPE_Q8_0 ? 4 : 8) * STEP;
    const size_t groups = s->cols / columns, words = columns * (size_t)T;
    const struct mark *mark = s->marks;
    const struct ahead ahead = ahead_of(s, T);
    vf f[PARTS * STREAM_TOKENS];
    UNROLLED (i, PARTS * T)
        f[i] = (vf){0};
    for (size_t g = 0; g < groups; g += 2) {
        const uint8_t *d = w + 2 * steps;
        vi acc[SUMS_MAX], next[SUMS_MAX];
        if (kind == DTYPE_INT4_G32 && g % 4 == 0)
            __builtin_prefetch(zeros + s->panel_bytes + g * ROWS);
        group_sums(kind, T, ahead, w, zeros, g, columns, x, mark, acc);
        if (!BOTH_FIRST(T)) group_add(T, d, mark, acc, f);
        STAY_IN_MEMORY;
        if (g + 1 < groups) {
            group_sums(kind, T, ahead, w + steps, zeros, g + 1, columns,
                       x + words, mark + T, next);
            STAY_IN_MEMORY;
            if (BOTH_FIRST(T)) group_add(T, d, mark, acc, f);
            group_add(T, d + ROWS * 2, mark + T, next, f);
        } else if (BOTH_FIRST(T))
            group_add(T, d, mark, acc, f);
        ask_ahead(ahead, d, 1);
        STAY_IN_MEMORY;
        w = d + ROWS * 4;
        x += 2 * words;
        mark += 2 * T;
    }
    stream_results(s, T, first, f);
}

/* --- head and runs together ----------------------------------------------- */

/* One vector of weights and T tokens, one run: from unpacked registers. */
ALWAYS void run_add(enum dtype type, int T, const vi w[8], vf d, vf e,
                    const uint8_t *x, const struct mark *mark, vf *f)
{
    int halves = type == DTYPE_Q6_K ? 2 : 1;
    UNROLLED (t, T) {
        for (int h = 0; h < halves; h++) {
            int32_t sum = h ? mark[t].sum - mark[t].half : mark[t].half;
            vi n = vi_set(halves == 2 ? -32 * sum : 0);
            UNROLLED (i, 8 / halves) {
                int j = h * 4 + i;
                n = vi_dot(n, w[j], vi_spread(x + 4 * (j * T + t)), 0);
            }
            f[t] = add_scaled(f[t], n, h ? e : d, mark[t].s);
        }
        if (has_min(type)) f[t] = vf_fma(e, vf_set(mark[t].s_sum), f[t]);
    }
}

ALWAYS void stream_runs(enum dtype type, int T, const struct stream *s,
                        size_t first)
{
    struct panel_format fmt = panel_format(type);
    size_t block = (size_t)(fmt.head + fmt.runs * fmt.run), at = 0;
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *x = s->words;
    const struct mark *mark = s->marks;
    const struct ahead ahead = ahead_of(s, T);
    vf f[PARTS * STREAM_TOKENS];
    UNROLLED (i, PARTS * T)
        f[i] = (vf){0};
    for (size_t b = 0; b < s->cols / RUN / (size_t)fmt.runs; b++, at += block) {
        const uint8_t *head = panel + at;
        ask_ahead(ahead, head, (fmt.head + 63) / 64);
        for (int r = 0; r < fmt.runs; r++, x += 32 * T, mark += T) {
            const uint8_t *run = head + fmt.head + r * fmt.run;
            ask_ahead(ahead, run, (fmt.run + 63) / 64);
            UNROLLED (part, PARTS) {
                vi w[8];
                vf d, e;
                run_groups(type, run, part, w);
                run_scales(type, head, run, part, &d, &e);
                run_add(type, T, w, d, e, x, mark, f + part * T);
                STAY_IN_MEMORY;
            }
        }
    }
    stream_results(s, T, first, f);
}

/* --- floats -------------------------------------------------------------- */

/* A sum of floats is one chain in the order of columns, so where that is
 * slower than memory, P panels that lie apart are walked at once. */
ALWAYS void floats_results(const struct stream *s, int P, int T, size_t first,
                           size_t apart, const vf *f)
{
    UNROLLED (p, P)
        stream_results(s, T, first + (size_t)p * apart, f + p * PARTS * T);
}

/* Steps as they are: floats, and pairs of bf16. */
ALWAYS void stream_plain(enum form form, int P, int T, const struct stream *s,
                         size_t first, size_t apart)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *w[PANELS_MAX];
    size_t steps = form == FORM_F32 ? s->cols : (s->cols + 1) / 2;
    const struct ahead ahead = ahead_of(s, T);
    vi acc[PANELS_MAX * PARTS * STREAM_TOKENS];
    UNROLLED (i, P * PARTS * T)
        acc[i] = (vi){0};
    UNROLLED (p, P)
        w[p] = panel + (size_t)p * apart * s->panel_bytes;
    steps_add(form, P, T, w, s->words, steps, &ahead, 0, acc);
    floats_results(s, P, T, first, apart, (const vf *)acc);
}

ALWAYS void stream_halves(enum dtype type, int P, int T, const struct stream *s,
                          size_t first, size_t apart)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const float *x = s->words;
    size_t step = type == DTYPE_BF16 ? 2 : 1, cols = s->cols / step * step;
    const struct ahead ahead = ahead_of(s, T);
    vf f[PANELS_MAX * PARTS * STREAM_TOKENS];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t k = 0; k < s->cols; k += step) {
        UNROLLED (v, P * PARTS) {
            vf w[2];
            const uint8_t *from =
                panel + (size_t)(v / PARTS) * apart * s->panel_bytes;
            columns(type, from, k, v % PARTS, w);
            if (v % PARTS == 0) ask_ahead(ahead, from + k * ROWS * 2, 1);
            UNROLLED (t, T)
                f[v * T + t] = vf_fma(
                    w[0], vf_set(x[k * (size_t)T + (size_t)t]), f[v * T + t]);
            if (step == 2 && k < cols) /* but for an odd last column */
                UNROLLED (t, T)
                    f[v * T + t] =
                        vf_fma(w[1], vf_set(x[(k + 1) * (size_t)T + (size_t)t]),
                               f[v * T + t]);
            STAY_IN_MEMORY;
        }
    }
    floats_results(s, P, T, first, apart, f);
}

/* --- the doors ----------------------------------------------------------- */

#define STREAM_EACH(CORE, T, ...)                   \
    {                                               \
        for (size_t p = 0; p < s->panel_count; p++) \
            CORE(__VA_ARGS__, T, s, p);             \
        break;                                      \
    }

#define STREAM(NAME, CORE, ...)                                        \
    static __attribute__((noinline)) void NAME(const struct stream *s) \
    {                                                                  \
        switch (s->tokens) {                                           \
            IF_MANY(case 8 : STREAM_EACH(CORE, 8, __VA_ARGS__))        \
            IF_MANY(case 6 : STREAM_EACH(CORE, 6, __VA_ARGS__))        \
        case 4: STREAM_EACH(CORE, 4, __VA_ARGS__)                      \
        case 2: STREAM_EACH(CORE, 2, __VA_ARGS__)                      \
        default: STREAM_EACH(CORE, 1, __VA_ARGS__)                     \
        }                                                              \
    }

/* Two halves of the panels at once where vectors are long and few, and so are
 * the chains of sums. */
#define STREAM_HALVES(CORE, KIND, T)                \
    {                                               \
        size_t half = s->panel_count / 2, p = 0;    \
        if (PARTS > 1 || (T) == 8) half = 0;        \
        for (; p < half; p++)                       \
            CORE(KIND, 2, T, s, p, half);           \
        for (p = 2 * half; p < s->panel_count; p++) \
            CORE(KIND, 1, T, s, p, 0);              \
        break;                                      \
    }

#define STREAM_FLOATS(NAME, CORE, KIND)                                \
    static __attribute__((noinline)) void NAME(const struct stream *s) \
    {                                                                  \
        switch (s->tokens) {                                           \
            IF_MANY(case 8 : STREAM_HALVES(CORE, KIND, 8))             \
            IF_MANY(case 6 : STREAM_HALVES(CORE, KIND, 6))             \
        case 4: STREAM_HALVES(CORE, KIND, 4)                           \
        case 2: STREAM_HALVES(CORE, KIND, 2)                           \
        default: STREAM_HALVES(CORE, KIND, 1)                          \
        }                                                              \
    }

STREAM_FLOATS(stream_f32, stream_plain, FORM_F32)
STREAM_FLOATS(stream_f16, stream_halves, DTYPE_F16)
#if VEC_BF16
STREAM_FLOATS(stream_bf16, stream_plain, FORM_BF16)
#else
STREAM_FLOATS(stream_bf16, stream_halves, DTYPE_BF16)
#endif
STREAM(stream_q8_0, stream_groups, DTYPE_Q8_0, RUN)
STREAM(stream_q4_0, stream_groups, DTYPE_Q4_0, RUN)
STREAM(stream_q4_1, stream_runs, DTYPE_Q4_1)
STREAM(stream_q4_k, stream_runs, DTYPE_Q4_K)
STREAM(stream_q5_k, stream_runs, DTYPE_Q5_K)
STREAM(stream_q6_k, stream_runs, DTYPE_Q6_K)
STREAM(stream_int8, stream_row, FORM_ROW)
STREAM(stream_int8_g128, stream_groups, DTYPE_Q8_0, 4 * RUN)
STREAM(stream_int4_g32, stream_groups, DTYPE_INT4_G32, RUN)
STREAM(stream_int4_g64, stream_groups, DTYPE_INT4_G32, 2 * RUN)
STREAM(stream_int4_g128, stream_groups, DTYPE_INT4_G32, 4 * RUN)

static __attribute__((unused)) void stream(const struct stream *s)
{
    static void (*const by_type[DTYPE_COUNT])(const struct stream *) = {
        stream_f32,      stream_f16,      stream_bf16,      stream_q8_0,
        stream_q4_0,     stream_q4_1,     stream_q4_k,      stream_q5_k,
        stream_q6_k,     stream_int8,     stream_int8_g128, stream_int4_g32,
        stream_int4_g64, stream_int4_g128};
    by_type[s->type](s);
}

#endif
