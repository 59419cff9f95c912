/* tensor/cpu/stream_body.h - few tokens: weights are unpacked in registers
 * while they stream by, for the instruction set of the file that includes it.
 * The bits are those of tiles (linear_body.h). */
#ifndef BATON_TENSOR_CPU_STREAM_BODY_H
#define BATON_TENSOR_CPU_STREAM_BODY_H

#include "tensor/cpu/slab_body.h"

/* How far ahead of their use weights are asked for. */
enum { AHEAD_BYTES = 2048 };

/* P panels side by side, first of them at panel: near its end, what lies
 * ahead of a step at byte at of size is the start of the P panels behind. */
ALWAYS size_t bytes_ahead(const struct stream *s, int P, size_t at, size_t size)
{
    return at + AHEAD_BYTES < size
               ? AHEAD_BYTES
               : (size_t)P * s->panel_bytes + AHEAD_BYTES - size;
}

/* Asks for the scales (and zero points) of the next panels, whose lines are
 * few and far between. */
ALWAYS void scales_ask(const struct stream *s, int P, const uint8_t *scales)
{
    UNROLLED (p, P)
        __builtin_prefetch(scales + (size_t)(P + p) * s->panel_bytes);
}

ALWAYS void stream_results(const struct stream *s, int P, int T, size_t first,
                           const vf *f)
{
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T)
            vf_store(
                s->sums +
                    ((first + (size_t)(v / PARTS)) * (size_t)T + (size_t)t) *
                        ROWS +
                    v % PARTS * L,
                f[v * T + t]);
}

/* --- steps as they are --------------------------------------------------- */

ALWAYS void stream_plain(enum form form, int P, int T, const struct stream *s,
                         size_t first)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    size_t steps = form == FORM_F32    ? s->cols
                   : form == FORM_BF16 ? (s->cols + 1) / 2
                                       : s->cols / 4;
    size_t near = steps < AHEAD_BYTES / STEP ? steps : AHEAD_BYTES / STEP,
           far = steps - near;
    const uint8_t *w[PANELS_MAX], *x = s->words;
    vi acc[PANELS_MAX * PARTS * 4];
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T)
            acc[v * T + t] =
                form == FORM_ROW ? sum_start(s->marks[t].sum) : (vi){0};
    UNROLLED (p, P)
        w[p] = panel + (size_t)p * s->panel_bytes;
    steps_add(form, P, T, w, x, far, near * STEP, acc);
    UNROLLED (p, P)
        w[p] += far * STEP;
    steps_add(form, P, T, w, x + far * 4 * (size_t)T, near,
              (size_t)P * s->panel_bytes - far * STEP, acc);
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T) {
            f[v * T + t] = (vf)acc[v * T + t];
            if (form != FORM_ROW) continue;
            const uint8_t *d = panel + (size_t)(v / PARTS) * s->panel_bytes +
                               panel_scales(DTYPE_INT8, s->cols);
            f[v * T + t] =
                add_scaled((vf){0}, acc[v * T + t],
                           group_d(form, d, 0, v % PARTS), s->marks[t].s);
        }
    stream_results(s, P, T, first, f);
}

ALWAYS void stream_groups(enum form form, int P, int T, const struct stream *s,
                          size_t first)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *scales = panel + panel_scales(s->type, s->cols);
    const struct mark *mark = s->marks;
    size_t steps = group_steps(form), size = s->cols / 4 * STEP;
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t g = 0; g < s->cols / 4 / steps; g++, mark += T) {
        const uint8_t *w[PANELS_MAX];
        vi acc[PANELS_MAX * PARTS * 4];
        UNROLLED (p, P)
            w[p] = panel + (size_t)p * s->panel_bytes + g * steps * STEP;
        UNROLLED (i, P * PARTS * T)
            acc[i] = sum_start(mark[i % T].sum);
        if (g % 2 == 0) scales_ask(s, P, scales + g * ROWS * 2);
        steps_add(form, P, T, w,
                  (const uint8_t *)s->words + g * steps * 4 * (size_t)T, steps,
                  bytes_ahead(s, P, g * steps * STEP, size), acc);
        UNROLLED (v, P * PARTS) {
            vf d = group_d(form, scales + (size_t)(v / PARTS) * s->panel_bytes,
                           g, v % PARTS);
            UNROLLED (t, T)
                f[v * T + t] =
                    add_scaled(f[v * T + t], acc[v * T + t], d, mark[t].s);
        }
    }
    stream_results(s, P, T, first, f);
}

/* --- nibbles -------------------------------------------------------------- */

/* One run of one vector of rows. */
ALWAYS void nibbles_add(int T, const uint8_t *run, const uint8_t *x, vi *acc)
{
    UNROLLED (j, 4) {
        vi v = vi_load(run + STEP * j);
        vi low = v & 0x0f0f0f0f, high = (v >> 4) & 0x0f0f0f0f;
        UNROLLED (t, T) {
            acc[t] = vi_dot(acc[t], low, vi_spread(x + 4 * (j * T + t)), 0);
            acc[t] =
                vi_dot(acc[t], high, vi_spread(x + 4 * ((j + 4) * T + t)), 0);
        }
    }
    STAY_IN_MEMORY; /* x too, for the next panel */
}

ALWAYS void stream_nibbles(enum dtype type, int P, int T,
                           const struct stream *s, size_t first)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *scales = panel + panel_scales(type, s->cols);
    const uint8_t *zeros = panel + panel_zeros(type, s->cols);
    const uint8_t *x = s->words;
    const struct mark *mark = s->marks;
    size_t runs = quant_group(type, s->cols) / RUN, size = s->cols / 8 * STEP;
    size_t groups = s->cols / RUN / runs;
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t g = 0; g < groups; g++, mark += T) {
        vi acc[PANELS_MAX * PARTS * 4];
        UNROLLED (v, P * PARTS) {
            vi z =
                zeros_load(type, zeros + (size_t)(v / PARTS) * s->panel_bytes,
                           g, v % PARTS);
            UNROLLED (t, T)
                acc[v * T + t] = -(z * vi_set(mark[t].sum));
        }
        if (g % 2 == 0) scales_ask(s, P, scales + g * ROWS * 2);
        if (type != DTYPE_Q4_0 && g % 4 == 0)
            scales_ask(s, P, zeros + g * ROWS);
        for (size_t r = 0; r < runs; r++, x += 32 * T) {
            size_t at = (g * runs + r) * 4 * STEP;
            size_t ahead = bytes_ahead(s, P, at, size);
            UNROLLED (p, P) {
                const uint8_t *run = panel + (size_t)p * s->panel_bytes + at;
                UNROLLED (j, 4)
                    __builtin_prefetch(run + STEP * j + ahead);
                UNROLLED (part, PARTS)
                    nibbles_add(T, run + part * 4 * L, x,
                                acc + (p * PARTS + part) * T);
            }
        }
        UNROLLED (v, P * PARTS) {
            vf d = vf_of_f16(scales + (size_t)(v / PARTS) * s->panel_bytes +
                             (g * ROWS + (size_t)(v % PARTS * L)) * 2);
            UNROLLED (t, T)
                f[v * T + t] =
                    add_scaled(f[v * T + t], acc[v * T + t], d, mark[t].s);
        }
    }
    stream_results(s, P, T, first, f);
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

ALWAYS void stream_runs(enum dtype type, int P, int T, const struct stream *s,
                        size_t first)
{
    struct panel_format fmt = panel_format(type);
    size_t block = (size_t)(fmt.head + fmt.runs * fmt.run), at = 0;
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const uint8_t *x = s->words;
    const struct mark *mark = s->marks;
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t b = 0; b < s->cols / RUN / (size_t)fmt.runs; b++, at += block) {
        for (int r = 0; r < fmt.runs; r++, x += 32 * T, mark += T) {
            size_t ahead = bytes_ahead(s, P, at, s->panel_bytes);
            UNROLLED (p, P) {
                const uint8_t *head = panel + (size_t)p * s->panel_bytes + at;
                const uint8_t *run = head + fmt.head + r * fmt.run;
                UNROLLED (line, (fmt.run + fmt.head + 63) / 64)
                    __builtin_prefetch(run + 64 * line + ahead);
                UNROLLED (part, PARTS) {
                    vi w[8];
                    vf d, e;
                    run_groups(type, run, part, w);
                    run_scales(type, head, run, part, &d, &e);
                    run_add(type, T, w, d, e, x, mark,
                            f + (p * PARTS + part) * T);
                    STAY_IN_MEMORY;
                }
            }
        }
    }
    stream_results(s, P, T, first, f);
}

/* --- halves of floats ------------------------------------------------------ */

ALWAYS void stream_halves(enum dtype type, int P, int T, const struct stream *s,
                          size_t first)
{
    const uint8_t *panel = (const uint8_t *)s->panels + first * s->panel_bytes;
    const float *x = s->words;
    size_t step = type == DTYPE_BF16 ? 2 : 1, cols = s->cols / step * step;
    vf f[PANELS_MAX * PARTS * 4];
    UNROLLED (i, P * PARTS * T)
        f[i] = (vf){0};
    for (size_t k = 0; k < s->cols; k += step) {
        size_t ahead = bytes_ahead(s, P, k * ROWS * 2, s->panel_bytes);
        UNROLLED (v, P * PARTS) {
            vf w[2];
            const uint8_t *from = panel + (size_t)(v / PARTS) * s->panel_bytes;
            columns(type, from, k, v % PARTS, w);
            if (v % PARTS == 0) __builtin_prefetch(from + k * ROWS * 2 + ahead);
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
    stream_results(s, P, T, first, f);
}

/* --- the doors ------------------------------------------------------------- */

/* Panels side by side for T tokens: as many as there are registers for, and
 * no more than hide the latency of sums; one where unpacking is long. */
#define WIDE_PANELS(T) \
    (VEC_AVX512 ? (T) == 4 ? 4 : 2 : VEC_AVX2 && (T) == 1 ? 2 : 1)

#define NARROW_PANELS(T) (VEC_AVX512 || (VEC_AVX2 && (T) == 1) ? 2 : 1)
#define ONE_PANEL(T)     1

#define STREAM_ALL(CORE, KIND, P, T)      \
    {                                     \
        size_t p = 0, n = s->panel_count; \
        for (; p + (P) <= n; p += (P))    \
            CORE(KIND, P, T, s, p);       \
        for (; (P) > 1 && p < n; p++)     \
            CORE(KIND, 1, T, s, p);       \
        break;                            \
    }

#define STREAM(NAME, CORE, KIND, PANELS)                               \
    static __attribute__((noinline)) void NAME(const struct stream *s) \
    {                                                                  \
        switch (s->tokens) {                                           \
        case 4: STREAM_ALL(CORE, KIND, PANELS(4), 4)                   \
        case 2: STREAM_ALL(CORE, KIND, PANELS(2), 2)                   \
        default: STREAM_ALL(CORE, KIND, PANELS(1), 1)                  \
        }                                                              \
    }

STREAM(stream_f32, stream_plain, FORM_F32, WIDE_PANELS)
STREAM(stream_f16, stream_halves, DTYPE_F16, NARROW_PANELS)
#if VEC_BF16
STREAM(stream_bf16, stream_plain, FORM_BF16, NARROW_PANELS)
#else
STREAM(stream_bf16, stream_halves, DTYPE_BF16, NARROW_PANELS)
#endif
STREAM(stream_q8_0, stream_groups, FORM_32, WIDE_PANELS)
STREAM(stream_q4_0, stream_nibbles, DTYPE_Q4_0, NARROW_PANELS)
STREAM(stream_q4_1, stream_runs, DTYPE_Q4_1, ONE_PANEL)
STREAM(stream_q4_k, stream_runs, DTYPE_Q4_K, ONE_PANEL)
STREAM(stream_q5_k, stream_runs, DTYPE_Q5_K, ONE_PANEL)
STREAM(stream_q6_k, stream_runs, DTYPE_Q6_K, ONE_PANEL)
STREAM(stream_int8, stream_plain, FORM_ROW, WIDE_PANELS)
STREAM(stream_int8_g128, stream_groups, FORM_128, WIDE_PANELS)
STREAM(stream_int4_g32, stream_nibbles, DTYPE_INT4_G32, NARROW_PANELS)
STREAM(stream_int4_g64, stream_nibbles, DTYPE_INT4_G64, NARROW_PANELS)
STREAM(stream_int4_g128, stream_nibbles, DTYPE_INT4_G128, NARROW_PANELS)

static void stream(const struct stream *s)
{
    static void (*const by_type[DTYPE_COUNT])(const struct stream *) = {
        stream_f32,      stream_f16,      stream_bf16,      stream_q8_0,
        stream_q4_0,     stream_q4_1,     stream_q4_k,      stream_q5_k,
        stream_q6_k,     stream_int8,     stream_int8_g128, stream_int4_g32,
        stream_int4_g64, stream_int4_g128};
    by_type[s->type](s);
}

#endif
