/* tensor/cpu/attention_direct_body.h - the rows of one token (a decode step)
 * and a segment, for the instruction set of the file that includes it.
 *
 * Reading K and V costs more here than using them: they are used as they lie,
 * by the rows of their head, and never stored. K is read as it lies in memory,
 * token by token with all their heads, V a few tokens at a time; the rows that
 * come then are asked for meanwhile, of V behind K, of the next segment's or
 * sequence's K behind V. The sums are those of attention_tile_body.h. */
#ifndef BATON_TENSOR_CPU_ATTENTION_DIRECT_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_DIRECT_BODY_H

#include "tensor/cpu/attention_words_body.h"

enum {
    TOKENS = 4,                  /* whose V is taken at a time */
    R_MOST = 3,                  /* rows that share a head's K */
    PV_FEW = VEC_AVX512 ? 8 : 4, /* vectors at a time of 1 or 2 rows */
    /* Bytes that are asked for ahead, in at most so many rows. */
    K_AHEAD = 6144,
    V_AHEAD = 8192,
    ROWS_PAST = 16,
};

/* Rows in the order in which they are used: K of a segment's tokens, their V,
 * and for the sake of asking what comes then. */
struct walk {
    const char *at[2 * SEGMENT + 2 * ROWS_PAST];
    size_t bytes;          /* of a row */
    size_t k_past, v_past; /* rows that are asked for ahead */
};

/* --- scores ------------------------------------------------------------ */

/* Each R rows of a head: where their words and their head's bytes are. Rows
 * behind the last, up to L of them, are the last ones again. */
struct k_rows {
    uint32_t q[ATTEND_ROWS + L], head[ATTEND_ROWS + L];
};

ALWAYS void k_rows_set(enum dtype type, int R, const struct attend *a, size_t d,
                       struct k_rows *at)
{
    for (size_t r = 0, i = 0; r < round_up(a->count, L); r += (size_t)R, i++) {
        size_t row = size_least(r, a->count - (size_t)R);
        at->q[i] = (uint32_t)(row * k_words(type, d));
        at->head[i] = (uint32_t)(row / a->ratio * d * element_bytes(type));
    }
}

/* The sums of so many times R rows at the token k, L lanes each, a row's so
 * many floats apart; next is asked for. */
ALWAYS void qk_direct(enum dtype type, int R, size_t d, const float *q,
                      const struct k_rows *at, size_t first, size_t count,
                      const char *k, const char *next, float *sums,
                      size_t apart)
{
    const size_t channels = L * K_CHANNELS(type), words = k_words(type, d);
    for (size_t i = first; i < first + count; i++, sums += (size_t)R * apart) {
        const float *x = q + at->q[i];
        const char *row = k + at->head[i], *then = next + at->head[i];
        vf f[R_MOST] = {{0}};
        size_t c = 0;
        for (; d - c >= channels; c += channels, x += L) {
            __builtin_prefetch(then + c * element_bytes(type));
            vf w = k_load(type, row, c, channels);
            UNROLLED (j, R)
                f[j] = k_mul_add(type, vf_load(x + (size_t)j * words), w, f[j]);
        }
        if (channels > 32 && c < d) { /* d is a multiple of 32 */
            vf w = k_load(type, row, c, d - c);
            UNROLLED (j, R)
                f[j] = k_mul_add(type, vf_load(x + (size_t)j * words), w, f[j]);
        }
        UNROLLED (j, R)
            vf_store(sums + (size_t)j * apart, f[j]);
    }
}

/* The scores of L times L lanes (their integers, of KV8). */
ALWAYS vf sums_across(enum dtype type, const float *sums)
{
    vf m[L];
    UNROLLED (i, L)
        m[i] = vf_load(sums + i * L);
    return type == DTYPE_KV8 ? (vf)vi_sums((vi *)m) : vf_sums(m);
}

/* Scores of rows r .. r + L - 1 at L tokens from t on, [token][row], to p. */
ALWAYS void scores_turn(enum dtype type, const struct attend *a, size_t r,
                        size_t t, const float *scores)
{
    struct attend_scratch *s = a->scratch;
    vf m[L];
    UNROLLED (i, L) {
        m[i] = vf_load(scores + i * L);
        if (type == DTYPE_KV8)
            m[i] = vf_of((vi)m[i] + vi_load(s->q_start + r)) *
                   vf_load(s->q_scale + r);
    }
    vf_transpose(m);
    UNROLLED (i, L)
        if (r + (size_t)i < a->count) vf_store(s->p[r + (size_t)i] + t, m[i]);
}

/* KV8: asks for the scales of the token at *k, and of its V. */
ALWAYS void scales_ask(enum dtype type, const struct attend *a,
                       const char *const *k, size_t tokens)
{
    if (type != DTYPE_KV8) return;
    __builtin_prefetch(k[ROWS_PAST] + scale_at(a, 0));
    __builtin_prefetch(k[tokens] + scale_at(a, 0));
}

/* Whether vectors of L tokens have some that are not of span: softmax takes
 * none of their scores, but there must be numbers. */
ALWAYS bool ends_within(struct span span)
{
    return span.from % L || span.to % L;
}

/* Scores of all rows at the tokens of span, of L rows at a time. */
ALWAYS void scores_many(enum dtype type, int R, const struct attend *a,
                        size_t d, struct span span, const struct walk *walk,
                        const struct k_rows *at)
{
    const size_t groups = round_up(a->count, L) / L;
    float scores[ATTEND_ROWS / L][L * L], sums[L * L];
    const char *const *k = walk->at;
    if (ends_within(span)) memset(scores, 0, groups * sizeof scores[0]);
    for (size_t t = span.from; t < span.to; t++, k++) {
        scales_ask(type, a, k, span.to - span.from);
        for (size_t g = 0; g < groups; g++) {
            qk_direct(type, R, d, a->scratch->q, at, g * (L / (size_t)R),
                      L / (size_t)R, *k, k[walk->k_past], sums, L);
            vf_store(scores[g] + t % L * L, sums_across(type, sums));
        }
        if (t % L != L - 1 && t + 1 != span.to) continue;
        for (size_t g = 0; g < groups; g++)
            scores_turn(type, a, g * L, t / L * L, scores[g]);
    }
}

/* The same of fewer rows than L: each row's sums at L tokens meet at once. */
ALWAYS void scores_few(enum dtype type, int R, const struct attend *a, size_t d,
                       struct span span, const struct walk *walk,
                       const struct k_rows *at)
{
    struct attend_scratch *s = a->scratch;
    float sums[L * L * L]; /* [row][token][L] */
    const char *const *k = walk->at;
    if (ends_within(span)) memset(sums, 0, a->count * L * L * sizeof *sums);
    for (size_t t = span.from; t < span.to; t++, k++) {
        scales_ask(type, a, k, span.to - span.from);
        qk_direct(type, R, d, s->q, at, 0, a->count / (size_t)R, *k,
                  k[walk->k_past], sums + t % L * L, L * L);
        if (t % L != L - 1 && t + 1 != span.to) continue;
        for (size_t r = 0; r < a->count; r++) {
            vf scores = sums_across(type, sums + r * L * L);
            if (type == DTYPE_KV8)
                scores = vf_of((vi)scores + vi_set(s->q_start[r])) *
                         vf_set(s->q_scale[r]);
            vf_store(s->p[r] + t / L * L, scores);
        }
    }
}

/* R divides L, or there are fewer rows than L. */
ALWAYS void scores_direct(enum dtype type, int R, const struct attend *a,
                          size_t d, struct span span, const struct walk *walk)
{
    struct k_rows at;
    k_rows_set(type, R, a, d, &at);
    if (L % R || a->count < L)
        scores_few(type, R, a, d, span, walk, &at);
    else
        scores_many(type, R, a, d, span, walk, &at);
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of V from channel c on, over n tokens; next are asked
 * for. */
ALWAYS void pv_direct(enum dtype type, int R, int C, const char *const *v,
                      const char *const *next, size_t c, int n, const float *p,
                      float *sum)
{
    const bool pairs = V_PAIRS(type);
    const int step = pairs ? 2 : 1;
    vf f[16];
    UNROLLED (r, R)
        UNROLLED (i, C)
            f[r * C + i] = vf_load(sum + r * OP_HEAD_DIM_MAX + i * L);
    const int lines = C * L * (int)element_bytes(type) / 64;
    for (int t = 0; t < n; t += step) {
        UNROLLED (i, step)
            for (int line = 0; line == 0 || line < lines; line++)
                __builtin_prefetch(next[t + i] + c * element_bytes(type) +
                                   line * 64);
        vf x[8];
        UNROLLED (i, C)
            if (i % step == 0)
                v_turn(type, v[t], v[t + step - 1], c + (size_t)i * L, 2 * L,
                       x + i);
        UNROLLED (r, R) {
            vf w = (vf)vi_spread(p + r * SEGMENT + t / step);
            UNROLLED (i, C)
                f[r * C + i] = v_mul_add(pairs, w, x[i], f[r * C + i]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (i, C)
            vf_store(sum + r * OP_HEAD_DIM_MAX + i * L, f[r * C + i]);
}

#define PV_VECTORS(R, C)               \
    for (; d - c >= (C)*L; c += (C)*L) \
        pv_direct(type, R, C, v, next, c, n, p, sum + c);

static const uint8_t pv_direct_groups[] = {4, 3, 2, 1};

/* rows rows of a head over the n tokens at v. */
ALWAYS void pv_few(enum dtype type, size_t rows, const char *const *v,
                   const char *const *next, size_t d, int n, const float *p,
                   float *sum)
{
    size_t c = 0;
    switch (rows) {
    case 4: PV_VECTORS(4, PV_FEW / 2) PV_VECTORS(4, 2) break;
    case 3: PV_VECTORS(3, PV_FEW / 2) PV_VECTORS(3, 2) break;
    case 2: PV_VECTORS(2, PV_FEW) PV_VECTORS(2, 2) break;
    default: PV_VECTORS(1, PV_FEW) PV_VECTORS(1, 2)
    }
}

/* All heads' rows over the TOKENS tokens at v. */
ALWAYS void heads_direct(enum dtype type, const struct attend *a, size_t d,
                         const char *const *v, const char *const *next,
                         size_t t)
{
    struct attend_scratch *s = a->scratch;
    const size_t step = V_PAIRS(type) ? 2 : 1, bytes = d * element_bytes(type);
    size_t ratio = a->ratio, count = a->count;
    const char *row[TOKENS], *then[TOKENS];
    UNROLLED (i, TOKENS) {
        row[i] = v[i];
        then[i] = next[i];
    }
    for (size_t r = 0, rows; r < count;) {
        for (size_t end = r + ratio; r < end; r += rows) {
            rows = rows_group(pv_direct_groups, end - r);
            pv_few(type, rows, row, then, d, TOKENS, s->p[r] + t / step,
                   s->sum[r]);
        }
        UNROLLED (i, TOKENS) {
            row[i] += bytes;
            then[i] += bytes;
        }
    }
}

/* The same where some of the TOKENS are NULL, which nobody sees. */
ALWAYS void heads_some(enum dtype type, const struct attend *a, size_t d,
                       const char *const *v, size_t t)
{
    struct attend_scratch *s = a->scratch;
    const int step = V_PAIRS(type) ? 2 : 1;
    for (size_t r = 0; r < a->count; r++) {
        size_t at = r / a->ratio * d * element_bytes(type);
        for (int i = 0; i < TOKENS; i += step) {
            if (!v[i] && !v[i + step - 1]) continue;
            const char *row[2];
            for (int j = 0; j < step; j++)
                row[j] = v[i + j] ? v[i + j] + at : nothing;
            pv_few(type, 1, row, row, d, step,
                   s->p[r] + (t + (size_t)i) / (size_t)step, s->sum[r]);
        }
    }
}

/* All rows' sums of p v over the tokens of span. */
ALWAYS void sums_direct(enum dtype type, const struct attend *a, size_t d,
                        struct span span, const struct walk *walk)
{
    const char *const *v = walk->at + (span.to - span.from);
    for (size_t t = span.from / TOKENS * TOKENS; t < span.to; t += TOKENS) {
        if (t >= span.from && t + TOKENS <= span.to) {
            heads_direct(type, a, d, v, v + walk->v_past, t);
            v += TOKENS;
            continue;
        }
        const char *some[TOKENS] = {NULL};
        for (size_t i = 0; i < TOKENS; i++)
            if (t + i >= span.from && t + i < span.to) some[i] = *v++;
        heads_some(type, a, d, some, t);
    }
}

/* --- a segment --------------------------------------------------------- */

ALWAYS void walk_set(const struct attend *a, size_t t0, struct span span,
                     struct walk *walk)
{
    const size_t heads = a->count / a->ratio, seen = row_end(a, 0);
    const char **at = walk->at;
    at = rows_of(a, a->kv->k, a->pages, t0 + span.from, t0 + span.to, at);
    at = rows_of(a, a->kv->v, a->pages, t0 + span.from, t0 + span.to, at);
    size_t next = t0 + SEGMENT;
    if (next >= seen && a->then_pages)
        at = rows_of(a, a->kv->k, a->then_pages, a->then.from,
                     size_least(a->then.to, a->then.from + ROWS_PAST), at);
    else
        at = rows_of(a, a->kv->k, a->pages, next,
                     size_least(seen, next + ROWS_PAST), at);
    size_t past = 2 * (span.to - span.from + ROWS_PAST);
    for (const char *last = at[-1]; at < walk->at + past;)
        *at++ = last;
    walk->bytes = head_at(a, heads) - head_at(a, 0);
    walk->k_past = size_least(K_AHEAD / walk->bytes + 1, ROWS_PAST);
    walk->v_past = size_least(V_AHEAD / walk->bytes + 1, ROWS_PAST);
}

ALWAYS void segment_direct(enum dtype type, const struct attend *a, size_t t0)
{
    struct attend_scratch *s = a->scratch;
    struct span span = row_span(a, 0, t0);
    size_t n = span.to - span.from, d = a->kv->head_dim;
    struct walk walk;
    walk_set(a, t0, span, &walk);
    for (size_t i = 0; i < walk.k_past; i++)
        row_ask(walk.at[i], walk.bytes);
    /* Of 128 channels loops are unrolled. */
    if (a->ratio % 2 == 0 && d == 128)
        scores_direct(type, 2, a, 128, span, &walk);
    else if (a->ratio % 2 == 0)
        scores_direct(type, 2, a, d, span, &walk);
    else if (a->ratio % 3 == 0 && a->count < L)
        scores_direct(type, 3, a, d, span, &walk);
    else
        scores_direct(type, 1, a, d, span, &walk);
    /* V's first rows a share for each head: a core drops what it is asked for
     * while some 90 lines are under way. */
    size_t asked = walk.k_past;
    for (size_t h = 0, r = 0; r < a->count; h++) {
        size_t share = walk.k_past + (walk.v_past + TOKENS - walk.k_past) *
                                         (h + 1) / (a->count / a->ratio);
        for (; asked < share; asked++)
            row_ask(walk.at[n + asked], walk.bytes);
        if (type == DTYPE_KV8) {
            const char *const *at = walk.at - span.from;
            scales_load(at, scale_at(a, h), span, s->k_scale);
            scales_load(at + n, scale_at(a, h), span, s->v_scale);
        }
        for (size_t end = r + a->ratio; r < end; r++) {
            row_softmax(a, r, span, span);
            zeros_set(s->sum[r], d);
        }
    }
    if (d == 128)
        sums_direct(type, a, 128, span, &walk);
    else
        sums_direct(type, a, d, span, &walk);
}

#endif
