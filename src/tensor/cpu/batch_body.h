/* tensor/cpu/batch_body.h - more tokens than one stream takes, of integers and
 * pairs of bf16, for the instruction set of the file that includes it. The bits
 * are those of streams and tiles (linear_body.h).
 *
 * Two panels are walked side by side, a slab of columns at a time: tokens pass
 * over it a few at a time while the next slab comes from memory. It stays in
 * the first level cache with all tokens' words of it, but for short panels that
 * are one slab each: those the second level has. Scales of formats that
 * keep head and runs together are made once a slab. */
#ifndef BATON_TENSOR_CPU_BATCH_BODY_H
#define BATON_TENSOR_CPU_BATCH_BODY_H

#include "tensor/cpu/stream_body.h"

#if VEC_AVX512

enum {
    BATCH_PANELS = 2,
    BATCH_GROUPED = 6,   /* tokens of a pass, as many as registers hold */
    BATCH_PLAIN = 8,     /* the same where sums are not in groups */
    BATCH_COLUMNS = 512, /* of a slab, in groups */
    BATCH_WHOLE = 1024,  /* of a panel that is one, in pairs of 32 */
    BATCH_ASK = 2 * RUN,
    BATCH_RUNS = BATCH_COLUMNS / RUN,
    BATCH_STEPS = 128 /* of one where sums are not in groups */
};

/* A group of tokens over groups of columns, or steps, [from, to). */
struct pass {
    const struct stream *s;
    size_t panel, other; /* the two; of an odd last one twice the same */
    size_t from, to;
    size_t tokens, token; /* how many, the first */
    const uint8_t *words;
    const struct mark *marks;
    float *sums;                   /* [BATCH_PANELS][tokens][16] */
    vf (*scales)[BATCH_PANELS][2]; /* of each run: see run_scales */
    /* For each BATCH_ASK columns so many lines are asked for, of both panels;
     * where sums are not in groups for each step one of one panel, or none.
     * From there on. */
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

/* What is asked for at a time; what comes next. */
ALWAYS const uint8_t *batch_ask_some(const struct pass *a, const uint8_t *next)
{
    for (size_t i = 0; i < a->lines; i++, next += STEP)
        UNROLLED (p, BATCH_PANELS)
            batch_ask(a->s, next + (size_t)p * a->apart);
    return next;
}

/* Read from memory once: gcc would do it for each use. */
ALWAYS vi vi_once(vi v)
{
    __asm__("" : "+v"(v));
    return v;
}

/* A vector of both panels times T tokens' words x. */
ALWAYS void batch_step(enum dtype kind, int T, const vi q[BATCH_PANELS],
                       const uint8_t *x, vi *acc)
{
    UNROLLED (t, T) {
        vi one = vi_spread(x + 4 * t);
        UNROLLED (p, BATCH_PANELS)
            acc[p * T + t] =
                vi_dot(acc[p * T + t], q[p], one, kind == DTYPE_Q8_0);
    }
}

/* Few tokens' sums are two chains: even steps and odd, low nibbles and high. */
#define TWO_CHAINS(T) ((T) < 5)
enum { CHAIN_SUMS = BATCH_PANELS * BATCH_GROUPED };

/* n steps of bytes (kind Q8_0), or of nibbles, which are two. */
ALWAYS void batch_add(enum dtype kind, int T, const uint8_t *const w[2],
                      size_t n, const uint8_t *x, vi *acc)
{
    const bool nibbles = kind != DTYPE_Q8_0;
    const int vectors = nibbles ? 4 : 2;
    const int apart = nibbles ? 4 : 1; /* steps from a vector to its second */
    vi *second = acc + (TWO_CHAINS(T) ? BATCH_PANELS * T : 0);
    for (size_t i = 0; i < n; i += 4, x += 4 * (nibbles ? 2 : 1) * 4 * T)
        UNROLLED (j, vectors) {
            int step = nibbles ? j : 2 * j;
            vi q[2][BATCH_PANELS];
            UNROLLED (p, BATCH_PANELS) {
                const uint8_t *at = w[p] + (i + (size_t)step) * STEP;
                vi v = vi_once(vi_load(at));
                q[0][p] = nibbles ? v & 0x0f0f0f0f : v;
                q[1][p] = nibbles ? (v >> 4) & 0x0f0f0f0f : vi_load(at + STEP);
            }
            batch_step(kind, T, q[0], x + 4 * T * step, acc);
            batch_step(kind, T, q[1], x + 4 * T * (step + apart), second);
        }
}

/* Sums of a group that start with these, [BATCH_PANELS][T]. */
ALWAYS void batch_sums(enum dtype kind, int T, const uint8_t *const w[2],
                       size_t n, const uint8_t *x, vi *acc)
{
    vi all[2 * CHAIN_SUMS];
    UNROLLED (i, BATCH_PANELS * T) {
        all[i] = acc[i];
        if (TWO_CHAINS(T)) all[BATCH_PANELS * T + i] = (vi){0};
    }
    batch_add(kind, T, w, n, x, all);
    UNROLLED (i, BATCH_PANELS * T)
        acc[i] = TWO_CHAINS(T) ? all[i] + all[BATCH_PANELS * T + i] : all[i];
}

/* Half h of a run whose bytes have bits above their nibbles: the low ones, or
 * the high ones. */
ALWAYS void batch_half(enum dtype type, int T, const uint8_t *const w[2], int h,
                       const uint8_t *x, vi *acc)
{
    UNROLLED (j, 4) {
        vi q[BATCH_PANELS];
        UNROLLED (p, BATCH_PANELS) {
            vi v = vi_load(w[p] + j * STEP) >> (4 * h);
            q[p] = vi_once((v & 0x0f0f0f0f) | run_above(type, w[p], j + 4 * h));
        }
        batch_step(type, T, q, x + 4 * T * (j + 4 * h), acc);
        STAY_IN_MEMORY;
    }
}

/* Group g, whose scales are at d. */
ALWAYS void batch_group(enum dtype kind, size_t columns, int T,
                        const struct pass *a, const uint8_t **next,
                        const uint8_t *const w[2], size_t d,
                        const uint8_t *const zeros[2], size_t g,
                        const uint8_t *x, const struct mark *mark, vf *f)
{
    const size_t some = columns < BATCH_ASK ? columns : BATCH_ASK;
    const size_t steps = some / (kind == DTYPE_Q8_0 ? 4 : 8);
    vi acc[CHAIN_SUMS];
    UNROLLED (i, BATCH_PANELS * T)
        acc[i] = group_start(kind, zeros[i / T], g, 0, mark[i % T].sum);
    for (size_t c = 0, at = 0; c < columns; c += some, at += steps * STEP) {
        const uint8_t *from[BATCH_PANELS] = {w[0] + at, w[1] + at};
        if (columns > RUN || g % 2 == 0) *next = batch_ask_some(a, *next);
        batch_sums(kind, T, from, steps, x + c * (size_t)T, acc);
    }
    UNROLLED (p, BATCH_PANELS) {
        vf scale = vf_of_f16(w[p] + d);
        UNROLLED (t, T)
            f[p * T + t] =
                add_scaled(f[p * T + t], acc[p * T + t], scale, mark[t].s);
    }
}

/* Half h of a run of Q6_K, or a whole one of another type (h 0). */
ALWAYS void batch_part(enum dtype type, int T, const uint8_t *const w[2], int h,
                       const vf scales[BATCH_PANELS][2], const uint8_t *x,
                       const struct mark *mark, vf *f)
{
    vi acc[CHAIN_SUMS];
    UNROLLED (i, BATCH_PANELS * T) {
        const struct mark *m = mark + i % T;
        int32_t sum = h ? m->sum - m->half : m->half;
        acc[i] = vi_set(type == DTYPE_Q6_K ? -32 * sum : 0);
    }
    if (type == DTYPE_Q6_K || type == DTYPE_Q5_K)
        batch_half(type, T, w, h, x, acc);
    else
        batch_sums(type, T, w, 4, x, acc);
    if (type == DTYPE_Q5_K) batch_half(type, T, w, 1, x, acc);
    UNROLLED (i, BATCH_PANELS * T)
        f[i] = add_scaled(f[i], acc[i], scales[i / T][h], mark[i % T].s);
}

/* A run, whose scales these are. */
ALWAYS void batch_run(enum dtype type, int T, const uint8_t *const w[2],
                      const vf scales[BATCH_PANELS][2], const uint8_t *x,
                      const struct mark *mark, vf *f)
{
    batch_part(type, T, w, 0, scales, x, mark, f);
    if (type == DTYPE_Q6_K) batch_part(type, T, w, 1, scales, x, mark, f);
    if (has_min(type))
        UNROLLED (i, BATCH_PANELS * T)
            f[i] = vf_fma(scales[i / T][1], vf_set(mark[i % T].s_sum), f[i]);
}

/* Of a form whose sums are not in groups. */
ALWAYS size_t form_steps(enum form form, size_t cols)
{
    return form == FORM_BF16 ? (cols + 1) / 2 : cols / 4;
}

ALWAYS const uint8_t *batch_panel(const struct pass *a, int p)
{
    return (const uint8_t *)a->s->panels +
           (p ? a->other : a->panel) * a->s->panel_bytes;
}

/* Sums so far; to where they belong. */
ALWAYS void sums_begin(int T, const struct pass *a, vf *f)
{
    UNROLLED (i, BATCH_PANELS * T)
        f[i] = a->from ? vf_load(a->sums + i * ROWS) : (vf){0};
}

ALWAYS void sums_finish(int T, const struct pass *a, bool last, const vf *f)
{
    UNROLLED (i, BATCH_PANELS * T) {
        size_t panel = i / T ? a->other : a->panel;
        if (!last)
            vf_store(a->sums + i * ROWS, f[i]);
        else if (i < T || a->other != a->panel)
            stream_result(a->s, panel, 0, a->token + (size_t)(i % T), f[i]);
    }
}

/* A group of tokens over groups of columns that come in pairs. */
ALWAYS void batch_pass(enum dtype kind, size_t columns, int T,
                       const struct pass *a)
{
    const struct stream *s = a->s;
    const size_t steps = columns / (kind == DTYPE_Q8_0 ? 4 : 8) * STEP;
    const size_t pair = 2 * steps + 2 * ROWS * 2;
    const uint8_t *w[BATCH_PANELS], *zeros[BATCH_PANELS] = {0};
    const uint8_t *x = a->words, *next = a->next;
    const struct mark *mark = a->marks;
    vf f[CHAIN_SUMS];
    sums_begin(T, a, f);
    UNROLLED (p, BATCH_PANELS) {
        const uint8_t *panel = batch_panel(a, p);
        w[p] = panel + a->from / 2 * pair;
        if (kind == DTYPE_INT4_G32)
            zeros[p] = panel + panel_zeros(s->type, s->cols);
    }
    for (size_t g = a->from; g < a->to; g += 2) {
        batch_group(kind, columns, T, a, &next, w, 2 * steps, zeros, g, x, mark,
                    f);
        STAY_IN_MEMORY;
        UNROLLED (p, BATCH_PANELS)
            w[p] += steps;
        if (columns == RUN ? __builtin_expect(g + 1 < a->to, 1) : g + 1 < a->to)
            batch_group(kind, columns, T, a, &next, w, steps + ROWS * 2, zeros,
                        g + 1, x + columns * (size_t)T, mark + T, f);
        STAY_IN_MEMORY;
        UNROLLED (p, BATCH_PANELS)
            w[p] += pair - steps;
        x += 2 * columns * (size_t)T;
        mark += 2 * T;
    }
    sums_finish(T, a, a->to * columns == s->cols, f);
}

/* The scales of a slab's runs, of both panels. */
ALWAYS void runs_scales(enum dtype type, const struct pass *a)
{
    const struct panel_format fmt = panel_format(type);
    for (size_t g = a->from; g < a->to; g++)
        UNROLLED (p, BATCH_PANELS) {
            const uint8_t *panel = batch_panel(a, p);
            vf *to = a->scales[g - a->from][p];
            run_scales(type, panel + run_head(fmt, g), panel + run_at(fmt, g),
                       0, to, to + 1);
        }
}

/* A group of tokens over runs, of a format that keeps them behind a head. */
ALWAYS void runs_pass(enum dtype type, int T, const struct pass *a)
{
    const struct panel_format fmt = panel_format(type);
    const uint8_t *w[BATCH_PANELS], *x = a->words, *next = a->next;
    const struct mark *mark = a->marks;
    vf f[CHAIN_SUMS];
    if (a->token == 0) runs_scales(type, a); /* for all */
    sums_begin(T, a, f);
    UNROLLED (p, BATCH_PANELS)
        w[p] = batch_panel(a, p) + run_at(fmt, a->from);
    for (size_t g = a->from; g < a->to; g++, x += RUN * T, mark += T) {
        if (g % 2 == 0) next = batch_ask_some(a, next);
        batch_run(type, T, w, a->scales[g - a->from], x, mark, f);
        STAY_IN_MEMORY;
        UNROLLED (p, BATCH_PANELS)
            w[p] += fmt.run + ((g + 1) % (size_t)fmt.runs ? 0 : fmt.head);
    }
    sums_finish(T, a, a->to * RUN == a->s->cols, f);
}

/* Of nine tokens and more a group has at least four (batch_group_tokens). */
#define BATCH(NAME, PASS, ...)                                       \
    static __attribute__((noinline)) void NAME(const struct pass *a) \
    {                                                                \
        switch (a->tokens) {                                         \
        case 6: PASS(__VA_ARGS__, 6, a); break;                      \
        case 5: PASS(__VA_ARGS__, 5, a); break;                      \
        default: PASS(__VA_ARGS__, 4, a);                            \
        }                                                            \
    }

BATCH(stream_batch_q8_0, batch_pass, DTYPE_Q8_0, RUN)
BATCH(stream_batch_q4_0, batch_pass, DTYPE_Q4_0, RUN)
BATCH(stream_batch_int8_g128, batch_pass, DTYPE_Q8_0, 4 * RUN)
BATCH(stream_batch_int4_g32, batch_pass, DTYPE_INT4_G32, RUN)
BATCH(stream_batch_int4_g64, batch_pass, DTYPE_INT4_G32, 2 * RUN)
BATCH(stream_batch_int4_g128, batch_pass, DTYPE_INT4_G32, 4 * RUN)
BATCH(stream_batch_q4_1, runs_pass, DTYPE_Q4_1)
BATCH(stream_batch_q4_k, runs_pass, DTYPE_Q4_K)
BATCH(stream_batch_q5_k, runs_pass, DTYPE_Q5_K)
BATCH(stream_batch_q6_k, runs_pass, DTYPE_Q6_K)

/* Asks for where the results of a group of tokens go, which come with the last
 * slab: see tile_ask_results. */
static void batch_ask_results(const struct pass *a)
{
    const struct stream *s = a->s;
    for (size_t p = a->panel; p < a->panel + BATCH_PANELS; p++)
        for (size_t t = 0; t < a->tokens && (p + 1) * ROWS <= s->rows; t++)
            __builtin_prefetch(s->out + (a->token + t) * s->stride + p * ROWS,
                               1, 2);
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
        [DTYPE_INT4_G128] = stream_batch_int4_g128,
        [DTYPE_Q4_1] = stream_batch_q4_1,
        [DTYPE_Q4_K] = stream_batch_q4_k,
        [DTYPE_Q5_K] = stream_batch_q5_k,
        [DTYPE_Q6_K] = stream_batch_q6_k};
    const struct stream *s = a->s;
    size_t asks = ((a->to - a->from) * columns + BATCH_ASK - 1) / BATCH_ASK;
    for (size_t t = 0, n; t < s->tokens; t += n) {
        n = batch_group_tokens(s->tokens - t, s->group);
        a->tokens = n;
        a->token = t;
        a->words = (const uint8_t *)s->words + t * s->words_stride +
                   a->from * columns * n;
        a->marks = s->marks + t * s->marks_stride + a->from * n;
        a->sums = sums[t];
        if (a->from == 0) batch_ask_results(a);
        by_type[s->type](a);
        a->next += asks * a->lines * STEP;
    }
}

/* How a slab's columns lie in a panel: columns of a group, groups of a slab,
 * bytes of BATCH_COLUMNS columns. */
struct slabs {
    size_t columns, groups, bytes;
};

static struct slabs slabs_of(enum dtype type, size_t cols)
{
    if (panel_has_pairs(type)) {
        struct pairs pairs = panel_pairs(type);
        bool whole = cols <= BATCH_WHOLE && pairs.columns == RUN;
        size_t slab = whole ? BATCH_WHOLE : BATCH_COLUMNS;
        return (struct slabs){pairs.columns, slab / pairs.columns,
                              BATCH_COLUMNS / pairs.columns / 2 * pairs.bytes};
    }
    return (struct slabs){RUN, BATCH_RUNS,
                          run_head(panel_format(type), BATCH_RUNS)};
}

static void groups_panels(const struct stream *s)
{
    struct slabs slabs = slabs_of(s->type, s->cols);
    size_t groups = s->cols / slabs.columns;
    size_t passes = (s->tokens + s->group - 1) / s->group;
    size_t asks = passes * (BATCH_COLUMNS / BATCH_ASK);
    float sums[BATCH_TOKENS][BATCH_PANELS * ROWS];
    vf scales[BATCH_RUNS][BATCH_PANELS][2];
    struct pass a = {.s = s, .apart = s->panel_bytes, .scales = scales};
    a.lines = (slabs.bytes / STEP + asks - 1) / asks;
    for (a.panel = 0; a.panel < s->panel_count; a.panel += BATCH_PANELS) {
        a.other = a.panel + (a.panel + 1 < s->panel_count);
        size_t at = 0; /* of the slab, in the panel */
        for (a.from = 0; a.from < groups; a.from = a.to) {
            a.to = a.from + slabs.groups;
            size_t next = a.panel;
            at += slabs.bytes;
            if (a.to >= groups) a.to = groups, next += BATCH_PANELS, at = 0;
            a.next = (const uint8_t *)s->panels + next * s->panel_bytes + at;
            groups_slab(&a, slabs.columns, sums);
        }
    }
}

/* --- sums that are not in groups ------------------------------------------ */

/* Steps of two panels times T tokens: pairs of bf16, or integers of which a row
 * has one scale. */
ALWAYS void batch_steps(enum form form, int T, const struct pass *a)
{
    const struct stream *s = a->s;
    const uint8_t *w[BATCH_PANELS], *x = a->words, *next = a->next;
    vi acc[BATCH_PANELS * BATCH_PLAIN];
    UNROLLED (p, BATCH_PANELS)
        w[p] = batch_panel(a, p);
    UNROLLED (i, BATCH_PANELS * T)
        acc[i] = a->from            ? vi_load(a->sums + i * ROWS)
                 : form == FORM_ROW ? sum_start(a->marks[i % T].sum)
                                    : (vi){0};
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
                acc[p * T + t] = step_add(form, acc[p * T + t], q[p], one);
        }
        x += 4 * T;
    }
    if (a->to < form_steps(form, s->cols)) {
        UNROLLED (i, BATCH_PANELS * T)
            vi_store(a->sums + i * ROWS, acc[i]);
        return;
    }
    vf f[BATCH_PANELS * BATCH_PLAIN];
    UNROLLED (p, BATCH_PANELS) {
        vf d = {0};
        if (form == FORM_ROW)
            d = group_d(form, w[p] + panel_scales(s->cols), 0, 0);
        UNROLLED (t, T) {
            vi sum = acc[p * T + t];
            f[p * T + t] = form == FORM_ROW
                               ? add_scaled((vf){0}, sum, d, a->marks[t].s)
                               : (vf)sum;
        }
    }
    sums_finish(T, a, true, f);
}

#define BATCH_STEPS_OF(NAME, FORM)                                   \
    static __attribute__((noinline)) void NAME(const struct pass *a) \
    {                                                                \
        switch (a->tokens) {                                         \
        case 8: batch_steps(FORM, 8, a); break;                      \
        case 7: batch_steps(FORM, 7, a); break;                      \
        case 6: batch_steps(FORM, 6, a); break;                      \
        case 5: batch_steps(FORM, 5, a); break;                      \
        default: batch_steps(FORM, 4, a);                            \
        }                                                            \
    }

BATCH_STEPS_OF(stream_batch_int8, FORM_ROW)
#if VEC_BF16
BATCH_STEPS_OF(stream_batch_bf16, FORM_BF16)
#else
#define stream_batch_bf16 NULL /* never: see few */
#endif

/* All tokens over one slab of two panels. The first two groups of them ask for
 * the next slab, each for that of one panel. */
static void steps_slab(struct pass *a, float (*sums)[BATCH_PANELS * ROWS])
{
    const struct stream *s = a->s;
    const uint8_t *next = a->next;
    size_t pass = 0;
    for (size_t t = 0; t < s->tokens; t += a->tokens, pass++) {
        a->tokens = batch_group_tokens(s->tokens - t, s->group);
        a->token = t;
        a->words = (const uint8_t *)s->words + t * s->words_stride +
                   a->from * a->tokens * 4;
        a->marks = s->marks + t * s->marks_stride;
        a->sums = sums[t];
        a->lines = pass < BATCH_PANELS;
        a->next = next + (a->lines ? pass : 0) * a->apart;
        if (a->from == 0) batch_ask_results(a);
        (s->type == DTYPE_BF16 ? stream_batch_bf16 : stream_batch_int8)(a);
    }
}

static void steps_panels(const struct stream *s)
{
    bool pairs = s->type == DTYPE_BF16;
    size_t steps = form_steps(pairs ? FORM_BF16 : FORM_ROW, s->cols);
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
            steps_slab(&a, sums);
        }
    }
}

static void batch_panels(const struct stream *s)
{
    bool steps = s->type == DTYPE_BF16 || s->type == DTYPE_INT8;
    (steps ? steps_panels : groups_panels)(s);
}

static const uint8_t batch_grouped[] = {BATCH_GROUPED};
static const uint8_t batch_plain[] = {BATCH_PLAIN};

#else
#define batch_panels  NULL
#define batch_grouped NULL
#define batch_plain   NULL
#endif
#endif
