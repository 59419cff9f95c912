/* tensor/cpu/attention_tile_body.h - many rows of one kv head and a segment,
 * for the instruction set of the file that includes it: K turned and V made
 * ready once for all of them. */
#ifndef BATON_TENSOR_CPU_ATTENTION_TILE_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_TILE_BODY_H

#include "tensor/cpu/attention_words_body.h"

enum {
    BLOCK = 2 * L, /* tokens of a block of turned K                 */
    PV_VECS = VEC_AVX512 ? 4 : 2,
    QK_CHAINS = VEC_AVX512 ? 4 : 1, /* of a score, that meet in registers */
};

/* Tokens whose V of PV_VECS vectors stays in the first level cache. */
#define V_TOKENS(type) (V_PAIRS(type) ? SEGMENT : (size_t)64)

/* --- K and V made ready ------------------------------------------------ */

/* Where the tokens of a segment lie, NULL what nobody sees, as far as blocks
 * and what is asked for ahead reach. */
static void tile_rows(const struct attend *a, const void *base, size_t t0,
                      struct span span, const char **row)
{
    size_t begin = span.from / BLOCK * BLOCK;
    size_t end = round_up(span.to, BLOCK) + L;
    memset(row + begin, 0, (span.from - begin) * sizeof *row);
    memset(row + span.to, 0, (end - span.to) * sizeof *row);
    rows_of(a, base, a->pages, t0 + span.from, t0 + span.to, row + span.from);
}

/* K of a segment's tokens -> kv k [blocks][k_words][BLOCK]. */
ALWAYS void k_ready(enum dtype type, const struct attend *a, size_t t0,
                    struct span span)
{
    size_t d = a->kv->head_dim, words = k_words(type, d);
    size_t bytes = d * element_bytes(type), end = round_up(span.to, BLOCK);
    const char *row[SEGMENT + L], *at[L];
    tile_rows(a, a->kv->k, t0, span, row);
    for (size_t t = span.from / BLOCK * BLOCK; t < end; t += L) {
        for (size_t i = t; i < t + L; i++) {
            at[i - t] = row[i] ? row[i] : nothing;
            row_ask(row[i + L], bytes);
        }
        float *to = a->scratch->kv->k + t / BLOCK * BLOCK * words + t % BLOCK;
        for (size_t w = 0; w < words; w += L, to += L * BLOCK) {
            size_t c = w * K_CHANNELS(type);
            vf m[L];
            if (d - c >= L * K_CHANNELS(type))
                UNROLLED (i, L)
                    m[i] = k_load(type, at[i], c, L * K_CHANNELS(type));
            else
                for (size_t i = 0; i < L; i++)
                    m[i] = k_load(type, at[i], c, d - c);
            vf_transpose(m);
            UNROLLED (i, L)
                vf_store(to + i * BLOCK, m[i]);
        }
    }
    if (type == DTYPE_KV8)
        scales_load(row, scale_at(a, 0), span, a->scratch->kv->k_scale);
}

/* V of a segment's tokens -> kv v [tokens or pairs][v_words]. */
ALWAYS void v_ready(enum dtype type, const struct attend *a, size_t t0,
                    struct span span)
{
    const size_t step = V_PAIRS(type) ? 2 : 1;
    size_t d = a->kv->head_dim, wide = v_words(type, d);
    size_t bytes = d * element_bytes(type);
    const char *row[SEGMENT + L];
    tile_rows(a, a->kv->v, t0, span, row);
    for (size_t t = span.from / step * step; t < span.to; t += step) {
        const char *x = row[t] ? row[t] : nothing, *y = nothing;
        if (step == 2 && row[t + 1]) y = row[t + 1];
        for (size_t n = t + L; n < t + L + step; n++)
            row_ask(row[n], bytes);
        float *to = a->scratch->kv->v + t / step * wide;
        for (size_t c = 0; c < wide; c += step * L) {
            vf v[2];
            v_turn(type, x, y, c, d - c, v);
            vf_store(to + c, v[0]);
            if (step == 2) vf_store(to + c + L, v[1]);
        }
    }
    if (type == DTYPE_KV8)
        scales_load(row, scale_at(a, 0), span, a->scratch->kv->v_scale);
}

/* Takes what is kept of a segment of the head's K and V, if the tokens of span
 * are among it. Otherwise they have to be made ready. A worker takes the tiles
 * of a head one after another, the last rows first, each from its first segment
 * on: so the first segments are kept, and all others share one place. */
static bool kv_kept(const struct attend *a, size_t t0, struct span span)
{
    const size_t segment = t0 / SEGMENT;
    struct attend_kv *kv =
        &a->scratch->kept[size_least(segment, ATTEND_KEPT - 1)];
    a->scratch->kv = kv;
    if (kv->call == a->call && kv->pages == a->pages && kv->head == a->head &&
        kv->t0 == t0 && kv->span.from <= span.from && kv->span.to >= span.to)
        return true;
    kv->call = a->call;
    kv->pages = a->pages;
    kv->head = a->head;
    kv->t0 = t0;
    kv->span = span;
    return false;
}

/* --- scores ------------------------------------------------------------ */

/* Rows of a tile that are multiplied at a time; of scores that are sums of
 * chains, which want registers of their own. */
static const uint8_t row_groups[] = {6, 4, 3, 2, 1};
#define SIX_TOO(TILE) \
    case 6:           \
        TILE(6);      \
        break;
#if VEC_AVX512
static const uint8_t chain_groups[] = {4, 3, 2, 1};
#define SIX_CHAINS(TILE)
#else
#define chain_groups row_groups
#define SIX_CHAINS   SIX_TOO
#endif

/* A chain of R rows of q, words apart, times a block of k: f [2 R]. */
ALWAYS void qk_chain(enum dtype type, int R, size_t words, const float *q,
                     const float *k, vf *f)
{
    UNROLLED (i, 2 * R)
        f[i] = (vf){0};
    _Pragma("GCC unroll 4") for (size_t n = words / L; n; n--)
    {
        vf a = vf_load(k), b = vf_load(k + L);
        UNROLLED (r, R) {
            vf x = (vf)vi_spread(q + (size_t)r * words);
            f[2 * r] = k_mul_add(type, x, a, f[2 * r]);
            f[2 * r + 1] = k_mul_add(type, x, b, f[2 * r + 1]);
        }
        q += L;
        k += L * BLOCK;
    }
}

/* The sum of QK_CHAINS chains. */
ALWAYS void qk_chains(enum dtype type, int R, size_t words, const float *q,
                      const float *k, vf *f)
{
    vf pair[2 * 6], one[2 * 6];
    qk_chain(type, R, words, q, k, f);
    if (QK_CHAINS == 1) return;
    qk_chain(type, R, words, q + 1, k + BLOCK, one);
    UNROLLED (i, 2 * R)
        f[i] += one[i];
    qk_chain(type, R, words, q + 2, k + 2 * BLOCK, pair);
    qk_chain(type, R, words, q + 3, k + 3 * BLOCK, one);
    UNROLLED (i, 2 * R)
        f[i] += pair[i] + one[i];
}

/* Rows r .. r + R - 1 times the block at token b. Floats add up in the order
 * of attention_body.h: chains' sums meet in pairs as soon as both are there,
 * kept[i] waits for another sum of QK_CHAINS << i chains. */
ALWAYS void qk_tile(enum dtype type, int R, size_t words,
                    const struct attend *a, size_t r, size_t b)
{
    struct attend_scratch *s = a->scratch;
    const float *q = s->q + r * words, *k = s->kv->k + b * words;
    vf f[2 * 6], kept[4][2 * 6];
    for (size_t c = 0; c < L; c += QK_CHAINS) {
        qk_chains(type, R, words, q + c, k + c * BLOCK, f);
        vf(*level)[2 * 6] = kept;
        for (size_t n = c / QK_CHAINS; n % 2; n /= 2, level++)
            UNROLLED (i, 2 * R)
                f[i] = (*level)[i] + f[i];
        if (c + QK_CHAINS == L) break;
        UNROLLED (i, 2 * R)
            (*level)[i] = f[i];
    }
    UNROLLED (i, 2 * R)
        vf_store(p_of(a, r + (size_t)i / 2) + b + i % 2 * L, f[i]);
}

/* The same of bytes, whose sums are integers. */
ALWAYS void qk_tile_bytes(int R, const struct attend *a, size_t r, size_t b)
{
    struct attend_scratch *s = a->scratch;
    size_t words = k_words(DTYPE_KV8, a->kv->head_dim);
    const float *q = s->q + r * words, *k = s->kv->k + b * words;
    vf f[2 * 6];
    UNROLLED (i, 2 * R)
        f[i] = (vf)vi_set(s->q_start[r + (size_t)i / 2]);
    for (size_t n = 0; n < words; n++, k += BLOCK, q++) {
        vf x = vf_load(k), y = vf_load(k + L);
        UNROLLED (i, R) {
            vf w = (vf)vi_spread(q + (size_t)i * words);
            f[2 * i] = k_mul_add(DTYPE_KV8, w, x, f[2 * i]);
            f[2 * i + 1] = k_mul_add(DTYPE_KV8, w, y, f[2 * i + 1]);
        }
    }
    UNROLLED (i, 2 * R)
        vf_store(p_of(a, r + (size_t)i / 2) + b + i % 2 * L,
                 vf_of((vi)f[i]) * s->q_scale[r + (size_t)i / 2]);
}

#define QK_OF(name, SIX, TILE)                                   \
    static __attribute__((noinline)) void name(                  \
        size_t rows, const struct attend *a, size_t r, size_t b) \
    {                                                            \
        switch (rows) {                                          \
            SIX(TILE)                                            \
        case 4: TILE(4); break;                                  \
        case 3: TILE(3); break;                                  \
        case 2: TILE(2); break;                                  \
        default: TILE(1);                                        \
        }                                                        \
    }
#define TILE_FLOATS(R) \
    qk_tile(DTYPE_F32, R, k_words(DTYPE_F32, a->kv->head_dim), a, r, b)
#define TILE_PAIRS(R) \
    qk_tile(DTYPE_BF16, R, k_words(DTYPE_BF16, a->kv->head_dim), a, r, b)
#define TILE_128(R)   qk_tile(DTYPE_BF16, R, k_words(DTYPE_BF16, 128), a, r, b)
#define TILE_BYTES(R) qk_tile_bytes(R, a, r, b)
QK_OF(qk_floats, SIX_CHAINS, TILE_FLOATS)
QK_OF(qk_pairs, SIX_CHAINS, TILE_PAIRS)
QK_OF(qk_pairs_128, SIX_CHAINS, TILE_128) /* its loops are unrolled */
QK_OF(qk_bytes, SIX_TOO, TILE_BYTES)

ALWAYS void qk_any(enum dtype type, size_t rows, const struct attend *a,
                   size_t r, size_t b)
{
    if (type == DTYPE_KV8)
        qk_bytes(rows, a, r, b);
    else if (K_CHANNELS(type) == 2)
        (a->kv->head_dim == 128 ? qk_pairs_128 : qk_pairs)(rows, a, r, b);
    else
        qk_floats(rows, a, r, b);
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of v over n of its rows, onto what is in sum. */
ALWAYS void pv_tile(bool pairs, int R, int C, const float *p, const float *v,
                    size_t wide, size_t n, bool first, float *sum)
{
    vf f[6 * 4];
    UNROLLED (r, R)
        UNROLLED (c, C)
            f[r * C + c] =
                first ? (vf){0} : vf_load(sum + (size_t)r * wide + c * L);
    for (size_t t = 0; t < n; t++, v += wide) {
        vf x[4];
        UNROLLED (c, C)
            x[c] = vf_load(v + c * L);
        UNROLLED (r, R) {
            vf w = (vf)vi_spread(p + r * SEGMENT + (int)t);
            UNROLLED (c, C)
                f[r * C + c] = v_mul_add(pairs, w, x[c], f[r * C + c]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (c, C)
            vf_store(sum + (size_t)r * wide + c * L, f[r * C + c]);
}

#define PV_ROWS(C)                                                  \
    switch (rows) {                                                 \
    case 6: pv_tile(pairs, 6, C, p, v, wide, n, first, sum); break; \
    case 4: pv_tile(pairs, 4, C, p, v, wide, n, first, sum); break; \
    case 3: pv_tile(pairs, 3, C, p, v, wide, n, first, sum); break; \
    case 2: pv_tile(pairs, 2, C, p, v, wide, n, first, sum); break; \
    default: pv_tile(pairs, 1, C, p, v, wide, n, first, sum);       \
    }

ALWAYS void pv_rows(bool pairs, size_t rows, size_t vecs, const float *p,
                    const float *v, size_t wide, size_t n, bool first,
                    float *sum)
{
#if VEC_AVX512
    if (vecs == 4) {
        PV_ROWS(4)
        return;
    }
#endif
    if (vecs == 2)
        PV_ROWS(2)
    else
        PV_ROWS(1)
}

static __attribute__((noinline)) void pv(bool pairs, size_t rows, size_t vecs,
                                         const float *p, const float *v,
                                         size_t wide, size_t n, bool first,
                                         float *sum)
{
    if (VEC_BF16 && pairs)
        pv_rows(true, rows, vecs, p, v, wide, n, first, sum);
    else
        pv_rows(false, rows, vecs, p, v, wide, n, first, sum);
}

/* Rows r .. r + rows - 1 over those of V_TOKENS tokens from t on that any of
 * them sees; p of the others is 0. first: the sums start here. */
static void pv_group(const struct attend *a, size_t c, size_t vecs, size_t rows,
                     size_t r, size_t t, bool first)
{
    struct attend_scratch *s = a->scratch;
    const bool pairs = V_PAIRS(a->kv->type);
    const size_t step = pairs ? 2 : 1;
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    /* the first begins and ends first */
    size_t from = size_most(s->span[r].from, t) / step;
    size_t to = size_least(s->span[r + rows - 1].to, t + V_TOKENS(a->kv->type));
    to = round_up(to, step) / step;
    if (from < to || first)
        pv(pairs, rows, vecs, p_of(a, r) + from, s->kv->v + from * wide + c,
           wide, from < to ? to - from : 0, first, sum_of(a, r) + c);
}

/* Rows [r0, r1), V_TOKENS tokens from t on. */
static void pv_block(const struct attend *a, size_t r0, size_t r1, size_t t,
                     bool first)
{
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    for (size_t c = 0, vecs; c < wide; c += vecs * L) {
        size_t left = (wide - c) / L, rows;
        vecs = left >= PV_VECS ? PV_VECS : left >= 2 ? 2 : 1;
        for (size_t r = r0; r < r1; r += rows) {
            rows = rows_group(row_groups, r1 - r);
            pv_group(a, c, vecs, rows, r, t, first);
        }
    }
}

/* Row r over the tokens that it sees and nothing else. */
static void pv_alone(const struct attend *a, size_t r)
{
    struct attend_scratch *s = a->scratch;
    const bool pairs = V_PAIRS(a->kv->type);
    const size_t step = pairs ? 2 : 1;
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    struct span span = s->span[r];
    float *sum = sum_of(a, r);
    zeros_set(sum, wide);
    for (size_t t = span.from / step * step; t < span.to; t += step) {
        vi seen = vi_set(t < span.from               ? (int32_t)0xffff0000
                         : pairs && t + 1 == span.to ? 0x0000ffff
                                                     : -1);
        vf p = (vf)(vi_spread(p_of(a, r) + t / step) & seen);
        const float *v = s->kv->v + t / step * wide;
        for (size_t c = 0; c < wide; c += L)
            vf_store(sum + c, v_mul_add(pairs, p, (vf)(vi_load(v + c) & seen),
                                        vf_load(sum + c)));
    }
}

/* Whether all n floats, a multiple of L, are finite. */
ALWAYS bool all_finite(const float *x, size_t n)
{
    vu most = {0};
    for (size_t c = 0; c < n; c += L)
        most = vu_magnitudes(most, vf_load(x + c));
    return vu_max(most) < 0x7f800000;
}

/* Sums of p v of rows [r0, r1) over the tokens of all. */
static void sums_tile(const struct attend *a, size_t r0, size_t r1,
                      struct span all)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    size_t step = V_TOKENS(a->kv->type), begin = all.from / step * step;
    for (size_t t = begin; t < all.to; t += step)
        pv_block(a, r0, r1, t, t == begin);
    /* 0 times what a row does not see is not 0 where that is not finite. */
    if (s->span[r0].from == all.from && s->span[r1 - 1].from == all.from &&
        s->span[r0].to == all.to)
        return;
    for (size_t r = r0; r < r1; r++)
        if (!all_finite(sum_of(a, r), wide)) pv_alone(a, r);
}

/* --- a segment --------------------------------------------------------- */

/* Rows [begin, end) see some of a segment. */
struct rows {
    size_t begin, end;
};

static void spans_set(const struct attend *a, size_t t0)
{
    struct span *span = a->scratch->span;
    const size_t *token = a->scratch->token;
    for (size_t r = 0; r < a->count; r++)
        span[r] =
            r && token[r] == token[r - 1] ? span[r - 1] : row_span(a, r, t0);
}

/* Makes K and V of a segment ready; the rows that see some of it. */
ALWAYS struct rows tile_begin(enum dtype type, const struct attend *a,
                              size_t t0)
{
    struct attend_scratch *s = a->scratch;
    struct rows rows = {0, a->count};
    spans_set(a, t0);
    while (s->span[rows.begin].to == 0)
        rows.begin++;
    while (s->span[rows.end - 1].from == SEGMENT)
        rows.end--;
    struct span all = {s->span[rows.begin].from, s->span[rows.end - 1].to};
    if (!kv_kept(a, t0, all)) {
        k_ready(type, a, t0, all);
        v_ready(type, a, t0, all);
    }
    return rows;
}

/* max, total and sum of the rows of a band. */
ALWAYS void tile_band(enum dtype type, const struct attend *a, struct rows rows)
{
    struct attend_scratch *s = a->scratch;
    struct span all = {s->span[rows.begin].from, s->span[rows.end - 1].to};
    const uint8_t *groups = type == DTYPE_KV8 ? row_groups : chain_groups;
    size_t n;
    for (size_t b = all.from / BLOCK * BLOCK; b < all.to; b += BLOCK) {
        for (size_t r = rows.begin; r < rows.end; r += n) {
            n = rows_group(groups, rows.end - r);
            if (s->span[r + n - 1].to <= b || s->span[r].from >= b + BLOCK)
                continue;
            qk_any(type, n, a, r, b);
        }
    }
    for (size_t r = rows.begin; r < rows.end; r += n) {
        n = rows_group(row_groups, rows.end - r);
        struct span wide = {s->span[r].from, s->span[r + n - 1].to};
        for (size_t i = r; i < r + n; i++)
            row_softmax(a, i - rows.begin, s->span[i], wide);
    }
    sums_tile(a, rows.begin, rows.end, all);
}

#endif
