/* tensor/cpu/attention_direct_body.h - the rows of one token (a decode step)
 * and a segment, for the instruction set of the file that includes it.
 *
 * Reading K and V costs more here than using them: they are used as they lie,
 * by the rows of their head, and never stored, and the heads of a few tokens
 * are read together, since they lie side by side. The sums are those of
 * attention_tile_body.h. */
#ifndef BATON_TENSOR_CPU_ATTENTION_DIRECT_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_DIRECT_BODY_H

#include "tensor/cpu/attention_words_body.h"

enum {
    TOKENS = 4,                  /* whose K or V is taken at a time */
    K_ROWS = L / 4,              /* rows that meet those at a time  */
    PV_FEW = VEC_AVX512 ? 8 : 4, /* vectors at a time of 1 or 2 rows */
};

/* The rows to be read next, asked for piece by piece in the order of memory
 * while others are used. */
enum { ASK_LINES = 8 };
struct ahead {
    const char *const *row, *const *end;
    size_t at, pieces; /* bytes from the row; at a time */
    struct span bytes; /* of a row */
};

/* Rows [t, end) of at in so many asks. */
ALWAYS struct ahead ahead_of(const char *const *at, size_t t, size_t end,
                             struct span bytes, size_t asks)
{
    const size_t piece = ASK_LINES * 64;
    size_t pieces = (bytes.to - bytes.from + piece - 1) / piece;
    if (t < end) pieces *= end - t;
    return (struct ahead){at + t, at + end, bytes.from,
                          (pieces + asks - 1) / asks, bytes};
}

ALWAYS void ahead_ask(struct ahead *a)
{
    for (size_t i = 0; i < a->pieces && a->row < a->end; i++) {
        const char *p = *a->row + a->at;
        UNROLLED (line, ASK_LINES)
            __builtin_prefetch(p + line * 64, 0, 3);
        a->at += ASK_LINES * 64;
        if (a->at < a->bytes.to) continue;
        a->at = a->bytes.from;
        a->row++;
    }
}

/* --- scores ------------------------------------------------------------ */

/* Scores of K_ROWS rows from r on (the last of all instead of those behind it)
 * at TOKENS tokens from t on, where k has their rows and head the bytes from
 * there to each row's head. */
ALWAYS void qk_direct(enum dtype type, const struct attend *a, size_t r,
                      size_t t, const char *const k[TOKENS],
                      const size_t head[K_ROWS], struct ahead *ahead)
{
    struct attend_scratch *s = a->scratch;
    const size_t d = a->kv->head_dim, words = k_words(type, d);
    const size_t channels = L * K_CHANNELS(type);
    const float *q[K_ROWS];
    vf m[L];
    UNROLLED (i, K_ROWS)
        q[i] = s->q + size_least(r + (size_t)i, a->count - 1) * words;
    UNROLLED (i, L)
        m[i] = (vf){0};
    size_t c = 0;
    for (; d - c >= channels; c += channels) {
        ahead_ask(ahead);
        UNROLLED (i, K_ROWS) {
            vf x = vf_load(q[i] + c / K_CHANNELS(type));
            UNROLLED (j, TOKENS)
                m[4 * i + j] = k_mul_add(
                    type, x, k_load(type, k[j] + head[i], c, channels),
                    m[4 * i + j]);
        }
    }
    if (c < d)
        for (int i = 0; i < L; i++)
            m[i] =
                k_mul_add(type, vf_load(q[i / 4] + c / K_CHANNELS(type)),
                          k_load(type, k[i % 4] + head[i / 4], c, d - c), m[i]);
    float scores[L];
    if (type == DTYPE_KV8)
        vf_store(scores, vf_of(vi_sums((vi *)m) + vi_load(s->q_start + r * 4)) *
                             vf_load(s->q_scale + r * 4));
    else
        vf_store(scores, vf_sums(m));
    for (size_t i = 0; i < K_ROWS && r + i < a->count; i++)
        memcpy(s->p[r + i] + t, scores + i * 4, 4 * sizeof *scores);
}

/* Scores of all rows at the tokens of span. */
ALWAYS void scores_direct(enum dtype type, const struct attend *a,
                          struct span span, struct span bytes,
                          const char *const *k_at, const char *const *v_at)
{
    size_t head[ATTEND_ROWS + K_ROWS], count = round_up(a->count, K_ROWS);
    for (size_t r = 0; r < count; r++)
        head[r] = head_at(a, size_least(r, a->count - 1) / a->ratio);
    size_t asks =
        count / K_ROWS * size_most(a->kv->head_dim / (L * K_CHANNELS(type)), 1);
    size_t from = span.from / TOKENS * TOKENS, next;
    for (size_t t = from; t < span.to; t = next) {
        next = t + TOKENS;
        struct ahead ahead =
            next < span.to
                ? ahead_of(k_at, next, size_least(next + TOKENS, span.to),
                           bytes, asks)
                : ahead_of(v_at, span.from,
                           size_least(span.from + TOKENS, span.to), bytes,
                           asks);
        const char *k[TOKENS];
        for (size_t i = 0; i < TOKENS; i++) /* softmax leaves others out */
            k[i] = k_at[k_at[t + i] ? t + i : span.from];
        for (size_t r = 0; r < a->count; r += K_ROWS)
            qk_direct(type, a, r, t, k, head + r, &ahead);
    }
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of V from channel c on, over n tokens. */
ALWAYS void pv_direct(enum dtype type, int R, int C, const char *const *v,
                      size_t c, size_t n, const float *p, float *sum,
                      struct ahead *ahead)
{
    const bool pairs = V_PAIRS(type);
    const int step = pairs ? 2 : 1;
    vf f[16];
    UNROLLED (r, R)
        UNROLLED (i, C)
            f[r * C + i] = vf_load(sum + r * OP_HEAD_DIM_MAX + i * L);
    for (size_t t = 0; t < n; t += (size_t)step, v += step) {
        ahead_ask(ahead);
        vf x[8];
        for (int i = 0; i < C; i += step)
            v_turn(type, v[0], v[step - 1], c + (size_t)i * L, 2 * L, x + i);
        UNROLLED (r, R) {
            vf w = (vf)vi_spread(p + (size_t)r * SEGMENT + t / (size_t)step);
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
        pv_direct(type, R, C, v, c, n, p, sum + c, ahead);

static const uint8_t pv_direct_groups[] = {4, 3, 2, 1};

/* rows rows of a head over the n tokens at v. */
ALWAYS void pv_few(enum dtype type, size_t rows, const char *const *v, size_t d,
                   size_t n, const float *p, float *sum, struct ahead *ahead)
{
    size_t c = 0;
    switch (rows) {
    case 4: PV_VECTORS(4, PV_FEW / 2) PV_VECTORS(4, 2) break;
    case 3: PV_VECTORS(3, PV_FEW / 2) PV_VECTORS(3, 2) break;
    case 2: PV_VECTORS(2, PV_FEW) PV_VECTORS(2, 2) break;
    default: PV_VECTORS(1, PV_FEW) PV_VECTORS(1, 2)
    }
}

/* How often a head's rows walk the tokens at least. */
ALWAYS size_t pv_walks(size_t ratio, size_t d)
{
    size_t wide = d / L, few = size_most(wide / PV_FEW, 1);
    return ratio / 4 * size_most(wide / (PV_FEW / 2), 1) +
           (ratio % 4 == 3   ? size_most(wide / (PV_FEW / 2), 1)
            : ratio % 4 != 0 ? few
                             : 0);
}

/* All rows' sums of p v over the tokens of span. */
ALWAYS void sums_direct(enum dtype type, const struct attend *a,
                        struct span span, struct span bytes,
                        const char *const *v_at)
{
    struct attend_scratch *s = a->scratch;
    const size_t d = a->kv->head_dim, step = V_PAIRS(type) ? 2 : 1;
    const size_t walks = a->count / a->ratio * pv_walks(a->ratio, d);
    for (size_t t = span.from / TOKENS * TOKENS; t < span.to; t += TOKENS) {
        size_t from = size_most(span.from, t) / step * step;
        size_t to = size_least(t + TOKENS, span.to);
        struct ahead ahead =
            ahead_of(v_at, to, size_least(to + TOKENS, span.to), bytes,
                     walks * ((to - from + step - 1) / step));
        for (size_t h = 0, r = 0, n; r < a->count; h++) {
            const char *row[TOKENS];
            for (size_t i = from; i < t + TOKENS; i++)
                row[i - from] = v_at[i] ? v_at[i] + head_at(a, h) : nothing;
            for (size_t end = r + a->ratio; r < end; r += n) {
                n = rows_group(pv_direct_groups, end - r);
                pv_few(type, n, row, d, to - from, s->p[r] + from / step,
                       s->sum[r], &ahead);
            }
        }
    }
}

/* --- a segment --------------------------------------------------------- */

ALWAYS void segment_direct(enum dtype type, const struct attend *a, size_t t0)
{
    struct attend_scratch *s = a->scratch;
    const size_t d = a->kv->head_dim, heads = a->count / a->ratio;
    struct span bytes = {head_at(a, 0), head_at(a, heads)};
    if (a->head + heads == a->kv->kv_heads) /* and scales */
        bytes.to = op_kv_token_bytes(type, a->kv->kv_heads, d);
    struct span span = row_span(a, 0, t0);
    const char *k_at[SEGMENT], *v_at[SEGMENT];
    rows_of(a, a->kv->k, t0, span, k_at);
    rows_of(a, a->kv->v, t0, span, v_at);
    scores_direct(type, a, span, bytes, k_at, v_at);
    for (size_t h = 0, r = 0; r < a->count; h++) {
        if (type == DTYPE_KV8) {
            scales_load(a, k_at, a->head + h, span, s->k_scale);
            scales_load(a, v_at, a->head + h, span, s->v_scale);
        }
        for (size_t end = r + a->ratio; r < end; r++) {
            row_softmax(a, r, span);
            zeros_set(s->sum[r], d);
        }
    }
    sums_direct(type, a, span, bytes, v_at);
}

#endif
