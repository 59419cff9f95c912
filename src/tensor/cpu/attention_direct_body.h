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
    TOKENS = 4, /* whose V, and whose sums of scores, are taken at a time */
    PV_FEW = VEC_AVX512 ? 8 : 4, /* vectors at a time of 1 or 2 rows */
    /* Bytes that are asked for ahead, in at most so many rows, into the second
     * level: the first takes fewer lines at a time. K is asked for once more,
     * into the first: what a core drops while much is under way it meets
     * again. */
    K_AHEAD = 10240,
    K_NEAR = 1024,
    V_AHEAD = 8192,
    ROWS_PAST = 16,
};

/* Rows in the order in which they are used: K of a segment's tokens, their V,
 * and for the sake of asking what comes then. */
struct walk {
    const char *at[2 * SEGMENT + 2 * ROWS_PAST];
    size_t bytes;                  /* of a row */
    size_t k_past, k_near, v_past; /* rows that are asked for ahead */
};

/* --- scores ------------------------------------------------------------ */

/* Rows of a head that are taken at a time. */
static const uint8_t direct_groups[] = {4, 3, 2, 1};

/* The sums of R rows at the token whose head is at k, L lanes each, a row's
 * TOKENS * L floats apart. The head at far and near is asked for, where far is
 * not NULL. */
ALWAYS void qk_direct(enum dtype type, int R, size_t d, const float *q,
                      const char *k, const char *far, const char *near,
                      float *sums)
{
    const size_t channels = L * K_CHANNELS(type), words = k_words(type, d);
    vf f[4] = {{0}};
    size_t c = 0;
    for (; d - c >= channels; c += channels, q += L) {
        if (far) {
            __builtin_prefetch(far + c * element_bytes(type), 0, 2);
            __builtin_prefetch(near + c * element_bytes(type));
        }
        vf w = k_load(type, k, c, channels);
        UNROLLED (j, R)
            f[j] = k_mul_add(type, vf_load(q + (size_t)j * words), w, f[j]);
    }
    if (channels > 32 && c < d) { /* d is a multiple of 32 */
        vf w = k_load(type, k, c, d - c);
        UNROLLED (j, R)
            f[j] = k_mul_add(type, vf_load(q + (size_t)j * words), w, f[j]);
    }
    UNROLLED (j, R)
        vf_store(sums + j * TOKENS * L, f[j]);
}

/* Those of all rows at the token k, [rows][TOKENS][L]. */
ALWAYS void token_direct(enum dtype type, const struct attend *a, size_t d,
                         const char *k, const char *far, const char *near,
                         float *sums)
{
    const size_t words = k_words(type, d), bytes = d * element_bytes(type);
    const float *q = a->scratch->q;
    for (size_t r = 0, rows; r < a->count;
         k += bytes, far += bytes, near += bytes) {
        const char *ask = far; /* by the first rows of a head */
        for (size_t end = r + a->ratio; r < end; r += rows, ask = NULL) {
            rows = rows_group(direct_groups, end - r);
            switch (rows) {
            case 4: qk_direct(type, 4, d, q, k, ask, near, sums); break;
            case 3: qk_direct(type, 3, d, q, k, ask, near, sums); break;
            case 2: qk_direct(type, 2, d, q, k, ask, near, sums); break;
            default: qk_direct(type, 1, d, q, k, ask, near, sums);
            }
            q += rows * words;
            sums += rows * TOKENS * L;
        }
    }
}

/* KV8: what the sums of L / TOKENS rows begin with and are multiplied with. */
struct k_scales {
    float scale[ATTEND_ROWS * TOKENS];
    int32_t start[ATTEND_ROWS * TOKENS];
};

static void k_scales_set(const struct attend *a, struct k_scales *to)
{
    for (size_t i = 0; i < round_up(a->count, L / TOKENS) * TOKENS; i++) {
        size_t r = size_least(i / TOKENS, a->count - 1);
        to->scale[i] = a->scratch->q_scale[r];
        to->start[i] = a->scratch->q_start[r];
    }
}

/* Scores of rows [r, end) at TOKENS tokens from t on, from all sums to p. */
ALWAYS void scores_end(enum dtype type, const struct attend *a, size_t t,
                       const float *sums, const struct k_scales *k, size_t r,
                       size_t end)
{
    struct attend_scratch *s = a->scratch;
    sums += r * TOKENS * L;
    for (end = size_least(end, a->count); r < end;
         r += L / TOKENS, sums += L * L) {
        vf m[L], f;
        UNROLLED (i, L)
            m[i] = vf_load(sums + i * L);
        if (type == DTYPE_KV8)
            f = vf_of(vi_sums((vi *)m) + vi_load(k->start + r * TOKENS)) *
                vf_load(k->scale + r * TOKENS);
        else
            f = vf_sums(m);
        UNROLLED (i, L / TOKENS)
            if (r + (size_t)i < a->count)
                memcpy(s->p[r + (size_t)i] + t, (float *)&f + i * TOKENS,
                       TOKENS * sizeof(float));
    }
}

/* KV8: asks for the scales of the token at *k, and of its V. */
ALWAYS void scales_ask(enum dtype type, const struct attend *a,
                       const char *const *k, size_t tokens)
{
    if (type != DTYPE_KV8) return;
    __builtin_prefetch(k[ROWS_PAST] + scale_at(a, 0));
    __builtin_prefetch(k[tokens] + scale_at(a, 0));
}

/* Scores of all rows at the tokens of span. Those of TOKENS tokens are taken
 * from their sums while the next ones' are made, a share for each: memory is
 * asked for in even steps. */
ALWAYS void scores_direct(enum dtype type, const struct attend *a, size_t d,
                          struct span span, const struct walk *walk)
{
    float sums[2][ATTEND_ROWS * TOKENS * L]; /* whole L / TOKENS rows */
    struct k_scales scales;
    const char *const *k = walk->at;
    const size_t each = round_up(a->count, L) / TOKENS;
    if (type == DTYPE_KV8) k_scales_set(a, &scales);
    /* Nobody takes the scores of tokens that are not of span, nor of rows
     * behind the last, but what sums are made of must be numbers. */
    const bool ends = span.from % TOKENS || span.to % TOKENS;
    const size_t from = (ends ? 0 : a->count) * TOKENS * L;
    const size_t to = round_up(a->count, L / TOKENS) * TOKENS * L;
    for (int i = 0; i < 2; i++)
        memset(sums[i] + from, 0, (to - from) * sizeof(float));
    for (size_t t = span.from; t < span.to; t++, k++) {
        size_t n = t % TOKENS, block = t / TOKENS;
        scales_ask(type, a, k, span.to - span.from);
        token_direct(type, a, d, *k, k[walk->k_past], k[walk->k_near],
                     sums[block % 2] + n * L);
        if (block > span.from / TOKENS)
            scores_end(type, a, (block - 1) * TOKENS, sums[(block - 1) % 2],
                       &scales, n * each, (n + 1) * each);
    }
    const size_t last = (span.to - 1) / TOKENS, n = span.to - last * TOKENS;
    if (last > span.from / TOKENS)
        scores_end(type, a, (last - 1) * TOKENS, sums[(last - 1) % 2], &scales,
                   n * each, a->count);
    scores_end(type, a, last * TOKENS, sums[last % 2], &scales, 0, a->count);
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of V from channel c on, over n tokens; next are asked
 * for. */
ALWAYS void pv_direct(enum dtype type, int R, int C, const char *const *v,
                      const char *const *next, size_t d, size_t c, int n,
                      const float *p, float *sum)
{
    const bool pairs = V_PAIRS(type);
    const int step = pairs ? 2 : 1;
    const size_t wide = v_words(type, d);
    vf f[16];
    UNROLLED (r, R)
        UNROLLED (i, C)
            f[r * C + i] = vf_load(sum + (size_t)r * wide + i * L);
    const int lines = C * L * (int)element_bytes(type) / 64;
    for (int t = 0; t < n; t += step) {
        UNROLLED (i, step)
            for (int line = 0; line == 0 || line < lines; line++)
                __builtin_prefetch(
                    next[t + i] + c * element_bytes(type) + line * 64, 0, 2);
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
            vf_store(sum + (size_t)r * wide + i * L, f[r * C + i]);
}

#define PV_VECTORS(R, C)               \
    for (; d - c >= (C)*L; c += (C)*L) \
        pv_direct(type, R, C, v, next, d, c, n, p, sum + c);

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
            rows = rows_group(direct_groups, end - r);
            pv_few(type, rows, row, then, d, TOKENS, s->p[r] + t / step,
                   sum_of(a, r));
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
                   s->p[r] + (t + (size_t)i) / (size_t)step, sum_of(a, r));
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
    walk->k_near = size_least(K_NEAR / walk->bytes + 1, ROWS_PAST);
    walk->k_past = size_least(K_AHEAD / walk->bytes + 1, ROWS_PAST);
    walk->v_past = size_least(V_AHEAD / walk->bytes + 1, ROWS_PAST);
}

ALWAYS void segment_direct(enum dtype type, const struct attend *a, size_t t0)
{
    struct attend_scratch *s = a->scratch;
    struct span span = row_span(a, 0, t0);
    size_t n = span.to - span.from, d = a->kv->head_dim;
    struct walk walk;
    s->kv = &s->kept[0];
    s->kv->call = 0; /* its scales are written over */
    walk_set(a, t0, span, &walk);
    for (size_t i = 0; i < walk.k_past; i++)
        row_ask_far(walk.at[i], walk.bytes);
    /* Of these channels loops are unrolled. */
    if (d == 128)
        scores_direct(type, a, 128, span, &walk);
    else if (d == 64)
        scores_direct(type, a, 64, span, &walk);
    else
        scores_direct(type, a, d, span, &walk);
    /* V's first rows a share for each head: a core drops what it is asked for
     * while some 90 lines are under way. */
    size_t asked = walk.k_past;
    for (size_t h = 0, r = 0; r < a->count; h++) {
        size_t share = walk.k_past + (walk.v_past + TOKENS - walk.k_past) *
                                         (h + 1) / (a->count / a->ratio);
        for (; asked < share; asked++)
            row_ask_far(walk.at[n + asked], walk.bytes);
        if (type == DTYPE_KV8) {
            const char *const *at = walk.at - span.from;
            scales_load(at, scale_at(a, h), span, s->kv->k_scale);
            scales_load(at + n, scale_at(a, h), span, s->kv->v_scale);
        }
        for (size_t end = r + a->ratio; r < end; r++) {
            row_softmax(a, r, span, span);
            zeros_set(sum_of(a, r), d);
        }
    }
    if (d == 128)
        sums_direct(type, a, 128, span, &walk);
    else if (d == 64)
        sums_direct(type, a, 64, span, &walk);
    else
        sums_direct(type, a, d, span, &walk);
}

#endif
