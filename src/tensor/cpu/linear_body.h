/* tensor/cpu/linear_body.h - the products, for the instruction set of the
 * file that includes it. kernels.h has the layouts.
 *
 * What keeps bits equal on all paths: an output's float32 sum starts at 0
 * and takes its groups (integers: mul, fma, and for minima a second fma) or
 * its steps (floats: one fma a column; pairs of bf16) in ascending order;
 * integer sums are exact. Which other outputs are computed beside it does not
 * matter. */
#ifndef BATON_TENSOR_CPU_LINEAR_BODY_H
#define BATON_TENSOR_CPU_LINEAR_BODY_H

#include "tensor/cpu/acts_body.h"
#include "tensor/cpu/mmla_body.h"

/* acc + a step's weights times four bytes of activations. */
ALWAYS vi step_add(enum form form, vi acc, vi w, vi x)
{
    switch (form) {
    case FORM_F32: return (vi)vf_fma((vf)w, (vf)x, (vf)acc);
#if VEC_BF16
    case FORM_BF16: return (vi)vf_dot_bf16((vf)acc, (vf)w, (vf)x);
#endif
    default: return vi_dot(acc, w, x, 1);
    }
}

/* Integer sums over bytes q + 128 start so, for the 128 to be gone. */
ALWAYS vi sum_start(int32_t sum)
{
    return vi_set(VEC_WIDE_IS_SIGNED ? 0 : -128 * sum);
}

/* f += (integer sum n) * d * s, in the one order of operations. */
ALWAYS vf add_scaled(vf f, vi n, vf d, float s)
{
    return vf_fma(vf_of(n) * d, vf_set(s), f);
}

/* Results where they belong. */
ALWAYS void result_put(float *out, const float *bias, bool add, vf f)
{
    if (bias) f += vf_load(bias);
    vf_store(out, add ? vf_load(out) + f : f);
}

/* What lies in memory shall lie there: gcc would keep it in registers that it
 * does not have, and store those on the stack. */
#define STAY_IN_MEMORY __asm__ volatile("" ::: "memory")

/* How many bytes before their use weights are asked for, into the first and
 * into the second level cache; 0: not at all. Memory is walked from one end of
 * the panels to the other without a gap, so this is a distance and the next
 * panel follows by itself. */
struct ahead {
    size_t first, second;
};

/* Where the first level takes few lines at a time the processor fetches better
 * by itself as long as memory limits; where arithmetic does, it fetches too
 * late. Of formats that are not read line by line it loses its way where much
 * is computed, or where x does not stay in the first level while a panel passes
 * by. As measured, docs/speed.md. */
static struct ahead ahead_of(const struct stream *s, int tokens)
{
    /* From so many tokens on 6 KB ahead into the second level, and 16 KB ahead
     * into the second and 4 into the first. */
    struct from {
        uint8_t second, both;
    };
    static const struct {
        struct from normal, long_panels;
        bool twice; /* of many lines: into both levels */
    } by_type[DTYPE_COUNT] = {
        [DTYPE_F32] = {{8, 8}, {8, 8}, false},
        [DTYPE_F16] = {{8, 8}, {8, 8}, false},
        [DTYPE_BF16] = {{8, 8}, {8, 8}, false},
        [DTYPE_Q8_0] = {{6, 6}, {4, 4}, false},
        [DTYPE_Q4_0] = {{4, 4}, {2, 4}, true},
        [DTYPE_Q4_1] = {{4, 4}, {2, 4}, false},
        [DTYPE_Q4_K] = {{2, 4}, {1, 4}, false},
        [DTYPE_Q5_K] = {{1, 4}, {1, 4}, false},
        [DTYPE_Q6_K] = {{1, 4}, {1, 4}, false},
        [DTYPE_INT8] = {{8, 8}, {8, 8}, false},
        [DTYPE_INT8_G128] = {{6, 6}, {4, 4}, false},
        [DTYPE_INT4_G32] = {{1, 4}, {1, 4}, true},
        [DTYPE_INT4_G64] = {{4, 4}, {2, 4}, true},
        [DTYPE_INT4_G128] = {{4, 4}, {2, 4}, true},
    };
    enum { LONG_PANEL = 16 << 10 };
    const struct ahead none = {0, 0}, second = {0, 6144}, both = {4096, 16384};
    if (s->many_lines)
        return tokens < 4               ? (struct ahead){6144, 0}
               : by_type[s->type].twice ? both
                                        : (struct ahead){12288, 0};
    struct from from = s->panel_bytes < LONG_PANEL
                           ? by_type[s->type].normal
                           : by_type[s->type].long_panels;
    return tokens >= from.both ? both : tokens >= from.second ? second : none;
}

/* To ask for what is at hand is as good as not to ask, and needs no branch. gcc
 * would keep the distance of each line in a register of its own. */
ALWAYS void ask_ahead(struct ahead a, const uint8_t *from, int lines)
{
    const uint8_t *first = from + a.first, *second = from + a.second;
    __asm__("" : "+r"(first), "+r"(second));
    UNROLLED (i, lines) {
        __builtin_prefetch(first + STEP * i);
        __builtin_prefetch(second + STEP * i, 0, 2);
    }
}

/* n steps of P panels and T tokens. Weights that stream by are asked for
 * (ahead is not NULL), and words of x that are not near, so many bytes before
 * their use; 0: they are. */
ALWAYS void steps_add(enum form form, int P, int T,
                      const uint8_t *const w[PANELS_MAX], const uint8_t *x,
                      size_t n, const struct ahead *ahead, size_t x_ahead,
                      vi *acc)
{
    if (VEC_I8MM && form != FORM_F32 && form != FORM_BF16 && T % 2 == 0) {
        mmla_add(P, T, w, x, n, acc);
        return;
    }
    _Pragma("GCC unroll 1") for (size_t s = 0; s < n; s++, x += 4 * T)
    {
        if (x_ahead) __builtin_prefetch(x + x_ahead);
        if (ahead)
            UNROLLED (p, P)
                ask_ahead(*ahead, w[p] + s * STEP, 1);
        vi q[PANELS_MAX * PARTS];
        UNROLLED (v, P * PARTS)
            q[v] = vi_load(w[v / PARTS] + s * STEP + v % PARTS * 4 * L);
        UNROLLED (t, T) {
            vi xs = vi_spread(x + 4 * t);
            UNROLLED (v, P * PARTS)
                acc[v * T + t] = step_add(form, acc[v * T + t], q[v], xs);
        }
    }
}

/* Steps of a group of a form. */
ALWAYS size_t group_steps(enum form form)
{
    return form == FORM_128  ? 32
           : form == FORM_64 ? 16
           : form == FORM_16 ? 4
                             : 8;
}

ALWAYS vf group_d(enum form form, const void *d, size_t group, int part)
{
    if (form == FORM_16 || form == FORM_MIN || form == FORM_ROW)
        return vf_load((const float *)d + group * ROWS + part * L);
    return vf_of_f16((const char *)d + (group * ROWS + (size_t)part * L) * 2);
}

/* --- tiles: many tokens ------------------------------------------------- */

/* Asks for what a group of tokens' share of the next slab is. */
ALWAYS void tile_ask(struct slab_ahead *a)
{
    for (size_t i = 0; i < a->lines_each && a->panels; i++) {
        __builtin_prefetch(a->panel + a->line * STEP, 0, 2);
        if (++a->line < a->lines) continue;
        a->line = 0;
        a->panel += a->panel_bytes;
        a->panels--;
    }
}

/* The next group of T tokens. */
ALWAYS void tile_next(struct tile *tile, int P, size_t T)
{
    tile->groups--;
    tile->words = (const char *)tile->words + T * SLAB_STEPS * 4;
    tile->marks += T * tile->token_marks;
    tile->sums += T * PANELS_MAX * ROWS;
    UNROLLED (p, P)
        if (tile->out[p]) tile->out[p] += T * tile->stride;
}

ALWAYS float *tile_sum(const struct tile *tile, int T, int v, int t)
{
    return tile->sums + (v / PARTS * T + t) * ROWS + v % PARTS * L;
}

ALWAYS void tile_result(const struct tile *tile, int T, int v, int t, vf f)
{
    float *out = tile->out[v / PARTS];
    if (!out) {
        vf_store(tile_sum(tile, T, v, t), f);
        return;
    }
    const float *bias = tile->bias[v / PARTS];
    result_put(out + (size_t)t * tile->stride + v % PARTS * L,
               bias ? bias + v % PARTS * L : NULL, tile->add, f);
}

/* Asks for where the results of the next group of tokens go: a store that
 * waits for its line holds up those behind it. */
ALWAYS void tile_ask_results(const struct tile *tile, int P, int T)
{
    if (!tile->last) return;
    UNROLLED (p, P)
        UNROLLED (t, T)
            if (tile->out[p])
                __builtin_prefetch(
                    tile->out[p] + (size_t)(T + t) * tile->stride, 1, 2);
}

/* Sums that stay in registers for the whole of it. */
ALWAYS void tile_plain(enum form form, int P, int T, const struct tile *tile)
{
    const uint8_t *w[PANELS_MAX];
    UNROLLED (p, P)
        w[p] = tile->w[p].steps;
    vi acc[PANELS_MAX * PARTS * TOKENS_MAX];
    tile_ask_results(tile, P, T);
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T)
            acc[v * T + t] = !tile->first ? vi_load(tile_sum(tile, T, v, t))
                             : form == FORM_ROW ? sum_start(tile->marks[t].sum)
                                                : (vi){0};
    /* Fewer panels meet the same words again. */
    size_t next = P == PANELS_MAX ? (size_t)T * SLAB_STEPS * 4 : 0;
    const uint8_t *x = tile->words;
    for (size_t s = 0, n; s < tile->steps; s += n, x += tile->words_slab) {
        n = tile->steps - s < SLAB_STEPS ? tile->steps - s : SLAB_STEPS;
        steps_add(form, P, T, w, x, n, NULL, next, acc);
        UNROLLED (p, P)
            w[p] += n * STEP;
    }
    if (!tile->last) {
        UNROLLED (v, P * PARTS)
            UNROLLED (t, T)
                vi_store(tile_sum(tile, T, v, t), acc[v * T + t]);
        return;
    }
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T) {
            vf f = (vf)acc[v * T + t];
            if (form == FORM_ROW)
                f = add_scaled(
                    (vf){0}, acc[v * T + t],
                    group_d(form, tile->w[v / PARTS].d, 0, v % PARTS),
                    tile->marks[t].s);
            tile_result(tile, T, v, t, f);
        }
}

/* Integer sums of one group and scaled sums of all in registers. */
ALWAYS void tile_groups(enum form form, int P, int T, const struct tile *tile)
{
    size_t steps = group_steps(form), groups = tile->steps / steps;
    size_t d_bytes = ROWS * (form == FORM_16 || form == FORM_MIN ? 4 : 2);
    size_t to_pair = tile->w[0].steps_pair - steps * STEP;
    size_t d_to_pair = tile->w[0].d_pair - d_bytes;
    const uint8_t *w[PANELS_MAX], *x = tile->words;
    const char *d[PANELS_MAX];
    const float *e[PANELS_MAX];
    const struct mark *mark = tile->marks;
    UNROLLED (p, P) {
        w[p] = tile->w[p].steps;
        d[p] = tile->w[p].d;
        e[p] = tile->w[p].e;
    }
    vf f[PANELS_MAX * PARTS * TOKENS_MAX];
    tile_ask_results(tile, P, T);
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T)
            f[v * T + t] =
                tile->first ? (vf){0} : vf_load(tile_sum(tile, T, v, t));
    for (size_t i = 0; i < groups; i++) {
        vi acc[PANELS_MAX * PARTS * TOKENS_MAX];
        UNROLLED (t, T) {
            int32_t sum = mark[t].sum, half = mark[t].half;
            if (form == FORM_16) sum = i % 2 ? sum - half : half;
            vi start = sum_start(sum);
            UNROLLED (v, P * PARTS)
                acc[v * T + t] = start;
        }
        steps_add(form, P, T, w, x, steps, NULL, 0, acc);
        UNROLLED (v, P * PARTS) {
            int part = v % PARTS;
            vf dv = group_d(form, d[v / PARTS], 0, part), ev = {0};
            if (form == FORM_MIN) ev = vf_load(e[v / PARTS] + part * L);
            UNROLLED (t, T) {
                vf g = add_scaled(f[v * T + t], acc[v * T + t], dv, mark[t].s);
                if (form == FORM_MIN) g = vf_fma(ev, vf_set(mark[t].s_sum), g);
                f[v * T + t] = g;
            }
        }
        UNROLLED (p, P) {
            w[p] += i % 2 ? to_pair : steps * STEP;
            d[p] += i % 2 ? d_to_pair : d_bytes;
            e[p] += ROWS;
        }
        x += steps * 4 * (size_t)T;
        if (form != FORM_16 || i % 2) mark += T;
    }
    UNROLLED (v, P * PARTS)
        UNROLLED (t, T) {
            if (tile->last)
                tile_result(tile, T, v, t, f[v * T + t]);
            else
                vf_store(tile_sum(tile, T, v, t), f[v * T + t]);
        }
}

#if VEC_AVX512
enum { PLAIN_PANELS = 4, GROUPS_PANELS = 2 };
#else
enum { PLAIN_PANELS = 1, GROUPS_PANELS = 1 };
#endif
static const uint8_t tile_panels[FORM_COUNT] = {
    PLAIN_PANELS,  PLAIN_PANELS,  PLAIN_PANELS,  GROUPS_PANELS,
    GROUPS_PANELS, GROUPS_PANELS, GROUPS_PANELS, GROUPS_PANELS};

#if VEC_AVX512 || VEC_VNNI
static const uint8_t tile_tokens[] = {6, 4, 2, 1, 0};
#define TILE_SIX(CORE, FORM, P) \
    case 6:                     \
        TILE_GROUPS(CORE, FORM, P, 6) break;
#else
static const uint8_t tile_tokens[] = {4, 2, 1, 0};
#define TILE_SIX(CORE, FORM, P)
#endif

#define TILE_GROUPS(CORE, FORM, P, T)                                    \
    for (struct tile tile = *all; tile.groups; tile_next(&tile, P, T)) { \
        tile_ask(all->ahead);                                            \
        CORE(FORM, P, T, &tile);                                         \
    }

#define TILE(NAME, CORE, FORM, P)                                      \
    static __attribute__((noinline)) void NAME(const struct tile *all) \
    {                                                                  \
        switch (all->tokens) {                                         \
            TILE_SIX(CORE, FORM, P)                                    \
        case 4: TILE_GROUPS(CORE, FORM, P, 4) break;                   \
        case 2: TILE_GROUPS(CORE, FORM, P, 2) break;                   \
        default: TILE_GROUPS(CORE, FORM, P, 1)                         \
        }                                                              \
    }

TILE(tile_f32, tile_plain, FORM_F32, PLAIN_PANELS)
TILE(tile_row, tile_plain, FORM_ROW, PLAIN_PANELS)
TILE(tile_128, tile_groups, FORM_128, GROUPS_PANELS)
TILE(tile_64, tile_groups, FORM_64, GROUPS_PANELS)
TILE(tile_32, tile_groups, FORM_32, GROUPS_PANELS)
TILE(tile_16, tile_groups, FORM_16, GROUPS_PANELS)
TILE(tile_min, tile_groups, FORM_MIN, GROUPS_PANELS)
#if VEC_BF16
TILE(tile_bf16, tile_plain, FORM_BF16, PLAIN_PANELS)
#else
#define tile_bf16 NULL
#endif

static __attribute__((unused)) void tile(enum form form,
                                         const struct tile *tile)
{
    static void (*const by_form[FORM_COUNT])(const struct tile *) = {
        tile_f32, tile_bf16, tile_row, tile_128,
        tile_64,  tile_32,   tile_16,  tile_min};
    by_form[form](tile);
}

#endif
