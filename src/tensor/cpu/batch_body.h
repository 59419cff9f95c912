/* tensor/cpu/batch_body.h - more tokens than one stream takes, of the types
 * that batch_takes names, for the instruction set of the file that includes it.
 * The bits are those of streams and tiles (linear_body.h).
 *
 * Two panels are walked side by side, a slab of columns at a time, which stays
 * in the first level cache with all tokens' words of it: tokens pass over it in
 * fours (in eights where sums are not in groups) while the next slab comes from
 * memory. */
#ifndef BATON_TENSOR_CPU_BATCH_BODY_H
#define BATON_TENSOR_CPU_BATCH_BODY_H

#include "tensor/cpu/stream_body.h"

#if VEC_AVX512

enum {
    BATCH_PANELS = 2,
    BATCH_FOUR = 4,
    BATCH_COLUMNS = 512, /* of a slab, in groups */
    BATCH_STEPS = 128    /* of bf16 */
};

static const uint8_t batch_tokens[] = {8, 4, 2, 1, 0};

/* Some tokens of a group of them, over groups of columns, or steps, [from, to).
 */
struct pass {
    const struct stream *s;
    size_t panel, other; /* the two; of an odd last one twice the same */
    size_t from, to;
    size_t group, token; /* tokens that lie together; the first of these */
    const uint8_t *words;
    const struct mark *marks;
    float *sums; /* [BATCH_PANELS][tokens][16] */
    /* For each pair of groups so many lines are asked for, of both panels; for
     * each step one of one panel, or none. From there on. */
    const uint8_t *next;
    size_t apart, lines;
};

/* Into the first level cache where that waits for many lines at a time, and so
 * for these beside what it has to have at once; otherwise into the second. */
ALWAYS void batch_ask(const struct stream *s, const uint8_t *at)
{
    if (s->many_lines)
        __builtin_prefetch(at);
    else
        __builtin_prefetch(at, 0, 2);
}

/* Read from memory once: gcc would do it for each use. */
ALWAYS vi vi_once(vi v)
{
    __asm__("" : "+v"(v));
    return v;
}

/* A step of both panels is one vector each; n steps of bytes, or of nibbles,
 * which are two. Sums are two chains: even steps and odd, low and high. */
ALWAYS void batch_add(bool nibbles, int S, int T, const uint8_t *const w[2],
                      size_t n, const uint8_t *x, vi *acc)
{
    const int vectors = nibbles ? 4 : 2;
    const int apart = nibbles ? 4 : 1; /* steps from a vector to its second */
    vi *second = acc + BATCH_PANELS * T;
    for (size_t i = 0; i < n; i += 4, x += 4 * (nibbles ? 2 : 1) * 4 * S)
        UNROLLED (j, vectors) {
            vi q[2][BATCH_PANELS];
            UNROLLED (p, BATCH_PANELS) {
                const uint8_t *at =
                    w[p] + (i + (size_t)(nibbles ? j : 2 * j)) * STEP;
                vi v = vi_once(vi_load(at));
                q[0][p] = nibbles ? v & 0x0f0f0f0f : v;
                q[1][p] = nibbles ? (v >> 4) & 0x0f0f0f0f : vi_load(at + STEP);
            }
            const uint8_t *xs = x + 4 * S * (nibbles ? j : 2 * j);
            UNROLLED (t, T) {
                vi one = vi_spread(xs + 4 * t);
                UNROLLED (p, BATCH_PANELS)
                    acc[p * T + t] =
                        vi_dot(acc[p * T + t], q[0][p], one, !nibbles);
            }
            UNROLLED (t, T) {
                vi one = vi_spread(xs + 4 * (apart * S + t));
                UNROLLED (p, BATCH_PANELS)
                    second[p * T + t] =
                        vi_dot(second[p * T + t], q[1][p], one, !nibbles);
            }
        }
}

/* Group g, whose scales are at d. */
ALWAYS void batch_group(enum dtype kind, size_t columns, int S, int T,
                        const uint8_t *const w[2], size_t d,
                        const uint8_t *const zeros[2], size_t g,
                        const uint8_t *x, const struct mark *mark, vf *f)
{
    const bool nibbles = kind != DTYPE_Q8_0;
    vi acc[2 * BATCH_PANELS * BATCH_FOUR];
    UNROLLED (i, BATCH_PANELS * T) {
        acc[i] = group_start(kind, zeros[i / T], g, 0, mark[i % T].sum);
        acc[BATCH_PANELS * T + i] = (vi){0};
    }
    batch_add(nibbles, S, T, w, columns / (nibbles ? 8 : 4), x, acc);
    UNROLLED (p, BATCH_PANELS) {
        vf scale = vf_of_f16(w[p] + d);
        UNROLLED (t, T)
            f[p * T + t] = add_scaled(
                f[p * T + t], acc[p * T + t] + acc[(BATCH_PANELS + p) * T + t],
                scale, mark[t].s);
    }
}

/* T of S tokens that lie together. */
ALWAYS void batch_pass(enum dtype kind, size_t columns, int S, int T,
                       const struct pass *a)
{
    const struct stream *s = a->s;
    const size_t steps = columns / (kind == DTYPE_Q8_0 ? 4 : 8) * STEP;
    const size_t pair = 2 * steps + 2 * ROWS * 2;
    const uint8_t *w[BATCH_PANELS], *zeros[BATCH_PANELS] = {0};
    const uint8_t *x = a->words, *next = a->next;
    const struct mark *mark = a->marks;
    vf f[BATCH_PANELS * BATCH_FOUR];
    UNROLLED (p, BATCH_PANELS) {
        const uint8_t *panel = (const uint8_t *)s->panels +
                               (p ? a->other : a->panel) * s->panel_bytes;
        w[p] = panel + a->from / 2 * pair;
        if (kind == DTYPE_INT4_G32)
            zeros[p] = panel + panel_zeros(s->type, s->cols);
        UNROLLED (t, T)
            f[p * T + t] =
                a->from ? vf_load(a->sums + (p * T + t) * ROWS) : (vf){0};
    }
    for (size_t g = a->from; g < a->to; g += 2) {
        for (size_t i = 0; i < a->lines; i++, next += STEP)
            UNROLLED (p, BATCH_PANELS)
                batch_ask(s, next + (size_t)p * a->apart);
        batch_group(kind, columns, S, T, w, 2 * steps, zeros, g, x, mark, f);
        STAY_IN_MEMORY;
        UNROLLED (p, BATCH_PANELS)
            w[p] += steps;
        if (columns == RUN ? __builtin_expect(g + 1 < a->to, 1) : g + 1 < a->to)
            batch_group(kind, columns, S, T, w, steps + ROWS * 2, zeros, g + 1,
                        x + columns * (size_t)S, mark + S, f);
        STAY_IN_MEMORY;
        UNROLLED (p, BATCH_PANELS)
            w[p] += pair - steps;
        x += 2 * columns * (size_t)S;
        mark += 2 * S;
    }
    bool last = a->to * columns == s->cols;
    UNROLLED (i, BATCH_PANELS * T) {
        size_t panel = i / T ? a->other : a->panel;
        if (!last)
            vf_store(a->sums + i * ROWS, f[i]);
        else if (i < T || a->other != a->panel)
            stream_result(s, panel, 0, a->token + (size_t)(i % T), f[i]);
    }
}

#define BATCH(NAME, ...)                                             \
    static __attribute__((noinline)) void NAME(const struct pass *a) \
    {                                                                \
        switch (a->group) {                                          \
        case 8: batch_pass(__VA_ARGS__, 8, 4, a); break;             \
        case 4: batch_pass(__VA_ARGS__, 4, 4, a); break;             \
        case 2: batch_pass(__VA_ARGS__, 2, 2, a); break;             \
        default: batch_pass(__VA_ARGS__, 1, 1, a);                   \
        }                                                            \
    }

BATCH(stream_batch_q8_0, DTYPE_Q8_0, RUN)
BATCH(stream_batch_q4_0, DTYPE_Q4_0, RUN)
BATCH(stream_batch_int8_g128, DTYPE_Q8_0, 4 * RUN)
BATCH(stream_batch_int4_g32, DTYPE_INT4_G32, RUN)
BATCH(stream_batch_int4_g64, DTYPE_INT4_G32, 2 * RUN)
BATCH(stream_batch_int4_g128, DTYPE_INT4_G32, 4 * RUN)

static size_t batch_group_at(size_t left)
{
    const uint8_t *sizes = batch_tokens;
    while (*sizes > left)
        sizes++;
    return *sizes;
}

/* All tokens over one slab of two panels. */
static void groups_slab(struct pass *a, size_t columns,
                        float (*sums)[BATCH_PANELS * ROWS])
{
    static void (*const by_type[DTYPE_COUNT])(const struct pass *) = {
        [DTYPE_Q8_0] = stream_batch_q8_0,
        [DTYPE_Q4_0] = stream_batch_q4_0,
        [DTYPE_INT8_G128] = stream_batch_int8_g128,
        [DTYPE_INT4_G32] = stream_batch_int4_g32,
        [DTYPE_INT4_G64] = stream_batch_int4_g64,
        [DTYPE_INT4_G128] = stream_batch_int4_g128};
    const struct stream *s = a->s;
    for (size_t t = 0, n; t < s->tokens; t += n) {
        n = batch_group_at(s->tokens - t);
        for (size_t i = 0; i < n; i += BATCH_FOUR) {
            a->group = n;
            a->token = t + i;
            a->words = (const uint8_t *)s->words + t * s->words_stride +
                       a->from * columns * n + i * 4;
            a->marks = s->marks + t * s->marks_stride + a->from * n + i;
            a->sums = sums[a->token];
            by_type[s->type](a);
            a->next += (a->to - a->from + 1) / 2 * a->lines * STEP;
        }
    }
}

static void groups_panels(const struct stream *s)
{
    struct pairs pairs = panel_pairs(s->type);
    size_t groups = s->cols / pairs.columns;
    size_t passes = (s->tokens + BATCH_FOUR - 1) / BATCH_FOUR;
    float sums[BATCH_TOKENS][BATCH_PANELS * ROWS];
    struct pass a = {.s = s, .apart = s->panel_bytes};
    a.lines = (pairs.bytes / STEP + passes - 1) / passes;
    for (a.panel = 0; a.panel < s->panel_count; a.panel += BATCH_PANELS) {
        a.other = a.panel + (a.panel + 1 < s->panel_count);
        for (a.from = 0; a.from < groups; a.from = a.to) {
            a.to = a.from + BATCH_COLUMNS / pairs.columns;
            size_t next = a.panel;
            if (a.to >= groups) a.to = groups, next += BATCH_PANELS;
            a.next = (const uint8_t *)s->panels + next * s->panel_bytes +
                     a.to % groups / 2 * pairs.bytes;
            groups_slab(&a, pairs.columns, sums);
        }
    }
}

/* --- pairs of bf16 -------------------------------------------------------- */

#if VEC_BF16

/* Steps of two panels times the T tokens of a group. */
ALWAYS void batch_steps(int T, const struct pass *a)
{
    const struct stream *s = a->s;
    const uint8_t *w[BATCH_PANELS], *x = a->words, *next = a->next;
    vi acc[BATCH_PANELS * STREAM_TOKENS];
    UNROLLED (p, BATCH_PANELS)
        w[p] = (const uint8_t *)s->panels +
               (p ? a->other : a->panel) * s->panel_bytes;
    UNROLLED (i, BATCH_PANELS * T)
        acc[i] = a->from ? vi_load(a->sums + i * ROWS) : (vi){0};
    _Pragma("GCC unroll 1") for (size_t i = a->from; i < a->to; i++)
    {
        batch_ask(s, next);
        next += a->lines * STEP;
        vi q[BATCH_PANELS];
        UNROLLED (p, BATCH_PANELS)
            q[p] = vi_load(w[p] + i * STEP);
        UNROLLED (t, T) {
            vi one = vi_spread(x + 4 * t);
            UNROLLED (p, BATCH_PANELS)
                acc[p * T + t] = step_add(FORM_BF16, acc[p * T + t], q[p], one);
        }
        x += 4 * T;
    }
    bool last = a->to == (s->cols + 1) / 2;
    UNROLLED (i, BATCH_PANELS * T) {
        size_t panel = i / T ? a->other : a->panel;
        if (!last)
            vi_store(a->sums + i * ROWS, acc[i]);
        else if (i < T || a->other != a->panel)
            stream_result(s, panel, 0, a->token + (size_t)(i % T), (vf)acc[i]);
    }
}

static __attribute__((noinline)) void stream_batch_bf16(const struct pass *a)
{
    switch (a->group) {
    case 8: batch_steps(8, a); break;
    case 4: batch_steps(4, a); break;
    case 2: batch_steps(2, a); break;
    default: batch_steps(1, a);
    }
}

/* All tokens over one slab of two panels. The first two groups of them ask for
 * the next slab, each for that of one panel. */
static void bf16_slab(struct pass *a, float (*sums)[BATCH_PANELS * ROWS])
{
    const struct stream *s = a->s;
    const uint8_t *next = a->next;
    size_t pass = 0;
    for (size_t t = 0; t < s->tokens; t += a->group, pass++) {
        a->group = batch_group_at(s->tokens - t);
        a->token = t;
        a->words = (const uint8_t *)s->words + t * s->words_stride +
                   a->from * a->group * 4;
        a->sums = sums[t];
        a->lines = pass < BATCH_PANELS;
        a->next = next + (a->lines ? pass : 0) * a->apart;
        stream_batch_bf16(a);
    }
}

static void bf16_panels(const struct stream *s)
{
    size_t steps = (s->cols + 1) / 2;
    float sums[BATCH_TOKENS][BATCH_PANELS * ROWS];
    struct pass a = {.s = s, .apart = s->panel_bytes};
    for (a.panel = 0; a.panel < s->panel_count; a.panel += BATCH_PANELS) {
        a.other = a.panel + (a.panel + 1 < s->panel_count);
        for (a.from = 0; a.from < steps; a.from = a.to) {
            a.to = a.from + BATCH_STEPS;
            size_t next = a.panel;
            if (a.to >= steps) a.to = steps, next += BATCH_PANELS;
            a.next = (const uint8_t *)s->panels + next * s->panel_bytes +
                     a.to % steps * STEP;
            bf16_slab(&a, sums);
        }
    }
}

#else
#define bf16_panels groups_panels /* never: see few */
#endif

static void batch_panels(const struct stream *s)
{
    (s->type == DTYPE_BF16 ? bf16_panels : groups_panels)(s);
}

#else
#define batch_panels NULL
#define batch_tokens NULL
#endif
#endif
