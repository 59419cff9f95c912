/* tensor/cpu/attention_body.h - attention, for the instruction set of the
 * file that includes it.
 *
 * KV is walked in segments of 256 tokens at fixed positions. In a segment
 * every row has its scores (sums over d in order), their maximum, the p =
 * exp(score - max), their sum (lane by lane, then across), and the sum of
 * p v (token by token). Segments are merged in order. A row uses only tokens
 * that it sees; so none of this depends on the rows beside it.
 *
 * K, V, q and p are handled in words of 32 bits: one float32, or, where the
 * instruction set multiplies bfloat16 and the cache holds what bfloat16 can
 * say (PAIRS), two bfloat16: of K and q neighbouring channels, of V and p
 * neighbouring tokens. A product of words adds both products. */
#ifndef BATON_TENSOR_CPU_ATTENTION_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

#include "tensor/device_ops.h"

#include <math.h>

enum {
    BLOCK = 2 * L, /* tokens of a block of transposed K             */
    V_TOKENS = 64, /* tokens whose V stays in the first level cache */
    K_STEP = 32,   /* tokens of K, of V that a decode step takes at */
    V_STEP = 32,   /* a time of a head                              */
    PV_VECS = VEC_AVX512 ? 4 : 2,
};

#define PAIRS(type) (VEC_BF16 && ((type) == DTYPE_BF16 || (type) == DTYPE_KV8))

ALWAYS size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

ALWAYS size_t size_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

ALWAYS size_t size_most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Words of a row of K or q, filled up with zeros; of a row of V and sums. */
ALWAYS size_t k_words(bool pairs, size_t d)
{
    return pairs ? round_up(d, 2 * L) / 2 : round_up(d, L);
}

ALWAYS size_t v_words(bool pairs, size_t d)
{
    return round_up(d, pairs ? 2 * L : L);
}

static bool is_pairs(const struct attend *a)
{
    return PAIRS(a->kv->type);
}

/* f + x w */
ALWAYS vf mul_add(bool pairs, vf x, vf w, vf f)
{
#if VEC_BF16
    if (pairs) return vf_dot_bf16(f, x, w);
#endif
    (void)pairs;
    return vf_fma(x, w, f);
}

/* --- what a row sees --------------------------------------------------- */

ALWAYS size_t in_segment(size_t t, size_t t0)
{
    return t <= t0 ? 0 : size_least(t - t0, SEGMENT);
}

/* The last token that row i sees is the one before. */
ALWAYS size_t row_end(const struct attend *a, size_t i)
{
    return a->seen + (a->first + i) / a->per_token;
}

ALWAYS size_t row_begin(const struct attend *a, size_t i)
{
    size_t end = row_end(a, i);
    return a->window && end > a->window ? end - a->window : 0;
}

ALWAYS struct span row_span(const struct attend *a, size_t i, size_t t0)
{
    return (struct span){in_segment(row_begin(a, i), t0),
                         in_segment(row_end(a, i), t0)};
}

/* Floats from a->q (or a->out) to row i. */
ALWAYS size_t row_at(const struct attend *a, size_t i)
{
    size_t row = a->first + i;
    return row / a->per_token * a->token_stride +
           row % a->per_token * a->kv->head_dim;
}

/* --- KV to words ------------------------------------------------------- */

/* In place of tokens that nobody sees. */
static const char nothing[OP_HEAD_DIM_MAX * sizeof(float)];

ALWAYS size_t element_bytes(enum dtype type)
{
    return type == DTYPE_F32 ? 4 : type == DTYPE_KV8 ? 1 : 2;
}

/* L words of a row from element e on, where left elements are left. */
ALWAYS vf words_load(enum dtype type, const char *row, size_t e, size_t left)
{
    const char *p = row + e * element_bytes(type);
    char some[4 * L];
    if (left < (PAIRS(type) ? 2 * L : L)) {
        memset(some, 0, sizeof some);
        memcpy(some, p, left * element_bytes(type));
        p = some;
    }
    switch (type) {
    case DTYPE_F32: return (vf)vi_load(p);
    case DTYPE_F16: return vf_of_f16(p);
#if VEC_BF16
    case DTYPE_BF16: return (vf)vi_load(p);
    default: return bf16_of_i8(p);
#else
    case DTYPE_BF16: return vf_of_bf16(p);
    default: return vf_of(vi_of_i8(p));
#endif
    }
}

/* K or V of the first kv head of this call; its scale (KV8). */
ALWAYS const char *token_row(const struct attend *a, const void *base, size_t t)
{
    return (const char *)base + kv_offset(a->kv, a->pages, t);
}

ALWAYS size_t head_at(const struct attend *a, size_t head)
{
    return (a->head + head) * a->kv->head_dim * element_bytes(a->kv->type);
}

static void scales_load(const struct attend *a, const void *base, size_t head,
                        size_t t0, struct span span, float *out)
{
    size_t at = (size_t)a->kv->kv_heads * a->kv->head_dim +
                (a->head + head) * sizeof(float);
    for (size_t t = span.from; t < span.to; t++)
        memcpy(out + t, token_row(a, base, t0 + t) + at, sizeof *out);
}

/* The words of L tokens from element e on, turned: m[i] is word i of all. */
ALWAYS void k_turn(enum dtype type, const char *const at[L], size_t e, size_t d,
                   vf m[L])
{
    if (d - e >= (PAIRS(type) ? 2 * L : L))
        UNROLLED (i, L)
            m[i] = words_load(type, at[i], e, 2 * L);
    else
        for (size_t i = 0; i < L; i++)
            m[i] = words_load(type, at[i], e, d - e);
    vf_transpose(m);
}

/* Where the tokens of a segment lie; NULL: nobody sees it. */
ALWAYS void rows_of(const struct attend *a, const void *base, size_t t0,
                    struct span span, const char **at /* [SEGMENT] */)
{
    size_t end = round_up(span.to, V_STEP);
    for (size_t t = span.from / V_STEP * V_STEP; t < end; t++)
        at[t] =
            t < span.from || t >= span.to ? NULL : token_row(a, base, t0 + t);
}

/* K of a segment's tokens -> scratch k [blocks][k_words][BLOCK]. */
ALWAYS void k_load(enum dtype type, const struct attend *a, size_t t0,
                   struct span span)
{
    const bool pairs = PAIRS(type);
    size_t d = a->kv->head_dim, words = k_words(pairs, d), head = head_at(a, 0);
    size_t bytes = d * element_bytes(type), end = round_up(span.to, BLOCK);
    const char *row[SEGMENT + L] = {NULL}, *at[L];
    rows_of(a, a->kv->k, t0, span, row);
    for (size_t t = span.from / BLOCK * BLOCK; t < end; t += L) {
        for (size_t i = t; i < t + L; i++) {
            at[i - t] = row[i] ? row[i] + head : nothing;
            if (row[i + L])
                for (size_t b = 0; b < bytes; b += 64)
                    __builtin_prefetch(row[i + L] + head + b);
        }
        float *to = a->scratch->k + t / BLOCK * BLOCK * words + t % BLOCK;
        for (size_t w = 0; w < words; w += L) {
            vf m[L];
            k_turn(type, at, w * (pairs ? 2 : 1), d, m);
            UNROLLED (i, L)
                vf_store(to + (w + (size_t)i) * BLOCK, m[i]);
        }
    }
    if (type == DTYPE_KV8)
        scales_load(a, a->kv->k, 0, t0, span, a->scratch->k_scale);
}

/* Words of V from channel c on, of one token, or of two: then two vectors. */
ALWAYS void v_turn(enum dtype type, const char *x, const char *y, size_t c,
                   size_t left, vf out[2])
{
    out[0] = words_load(type, x, c, left);
#if VEC_BF16
    if (PAIRS(type)) {
        vf a = out[0], b = words_load(type, y, c, left);
        out[0] = bf16_low(a, b);
        out[1] = bf16_high(a, b);
    }
#endif
    (void)y;
}

/* V of a segment's tokens -> scratch v [tokens or pairs][v_words]. */
ALWAYS void v_load(enum dtype type, const struct attend *a, size_t t0,
                   struct span span)
{
    const bool pairs = PAIRS(type);
    const size_t step = pairs ? 2 : 1;
    size_t d = a->kv->head_dim, wide = v_words(pairs, d), head = head_at(a, 0);
    size_t bytes = d * element_bytes(type);
    const char *row[SEGMENT + L] = {NULL};
    rows_of(a, a->kv->v, t0, span, row);
    for (size_t t = span.from / step * step; t < span.to; t += step) {
        const char *x = row[t] ? row[t] + head : nothing, *y = nothing;
        if (pairs && row[t + 1]) y = row[t + 1] + head;
        for (size_t n = t + L; n < t + L + step; n++)
            for (size_t b = 0; row[n] && b < bytes; b += 64)
                __builtin_prefetch(row[n] + head + b);
        float *to = a->scratch->v + t / step * wide;
        for (size_t c = 0; c < wide; c += step * L) {
            vf v[2];
            v_turn(type, x, y, c, d - c, v);
            vf_store(to + c, v[0]);
            if (pairs) vf_store(to + c + L, v[1]);
        }
    }
    if (type == DTYPE_KV8)
        scales_load(a, a->kv->v, 0, t0, span, a->scratch->v_scale);
}

/* --- scores ------------------------------------------------------------ */

static const uint8_t qk_groups[] = {VEC_AVX512 ? 12 : 6, 4, 3, 2, 1};
static const uint8_t direct_groups[] = {VEC_AVX512 ? 8 : 4, 4, 3, 2, 1};
static const uint8_t pv_groups[] = {6, 4, 3, 2, 1};

ALWAYS size_t rows_group(const uint8_t *sizes, size_t left)
{
    while (*sizes > left)
        sizes++;
    return *sizes;
}

/* One row of q, scaled, as words. */
static void q_words(const struct attend *a, const float *q, float *out)
{
    enum dtype type = a->kv->type;
    size_t d = a->kv->head_dim;
    bool rounds = type == DTYPE_BF16 || type == DTYPE_KV8;
    for (size_t c = 0; c < round_up(d, 2 * L); c += L) {
        vf x = {0};
        if (c < d) x = d - c < L ? vf_load_some(q + c, d - c) : vf_load(q + c);
        x *= a->scale;
        if (is_pairs(a)) {
            bf16_of_vf((char *)out + 2 * c, x);
        } else if (rounds) {
            char half[2 * L];
            bf16_of_vf(half, x);
            vf_store(out + c, vf_of_bf16(half));
        } else {
            vf_store(out + c, x);
        }
    }
}

/* All rows, in the groups that qk takes: [group][words][rows of it]. Rows of
 * different heads are in different groups. */
static void q_load(const struct attend *a)
{
    size_t d = a->kv->head_dim, words = k_words(is_pairs(a), d), n;
    float row[OP_HEAD_DIM_MAX + 2 * L];
    for (size_t r = 0; r < a->count; r += n) {
        n = a->direct ? rows_group(direct_groups, a->ratio - r % a->ratio)
                      : rows_group(qk_groups, a->count - r);
        for (size_t i = 0; i < n; i++) {
            q_words(a, a->q + row_at(a, r + i), row);
            float *to = a->scratch->q + r * words + i;
            for (size_t w = 0; w < words; w++)
                memcpy(to + w * n, row + w, sizeof *to);
        }
    }
}

/* R rows of q [words][R] times a block of k [words][BLOCK]. */
ALWAYS void qk_tile(bool pairs, int R, const float *q, const float *k,
                    size_t words, float *p)
{
    vf f[2 * 12];
    UNROLLED (i, 2 * R)
        f[i] = (vf){0};
    for (size_t w = 0; w < words; w++, k += BLOCK, q += R) {
        vf a = vf_load(k), b = vf_load(k + L);
        UNROLLED (r, R) {
            vf x = (vf)vi_spread(q + r);
            f[2 * r] = mul_add(pairs, x, a, f[2 * r]);
            f[2 * r + 1] = mul_add(pairs, x, b, f[2 * r + 1]);
        }
    }
    UNROLLED (r, R) {
        vf_store(p + r * SEGMENT, f[2 * r]);
        vf_store(p + r * SEGMENT + L, f[2 * r + 1]);
    }
}

ALWAYS void qk_rows(bool pairs, size_t rows, const float *q, const float *k,
                    size_t words, float *p)
{
    switch (rows) {
#if VEC_AVX512
    case 12: qk_tile(pairs, 12, q, k, words, p); break;
#else
    case 6: qk_tile(pairs, 6, q, k, words, p); break;
#endif
    case 4: qk_tile(pairs, 4, q, k, words, p); break;
    case 3: qk_tile(pairs, 3, q, k, words, p); break;
    case 2: qk_tile(pairs, 2, q, k, words, p); break;
    default: qk_tile(pairs, 1, q, k, words, p);
    }
}

static __attribute__((noinline)) void qk(bool pairs, size_t rows,
                                         const float *q, const float *k,
                                         size_t words, float *p)
{
    if (VEC_BF16 && pairs)
        qk_rows(true, rows, q, k, words, p);
    else
        qk_rows(false, rows, q, k, words, p);
}

/* --- softmax of a segment ---------------------------------------------- */

ALWAYS vi lanes_in(size_t at, struct span span)
{
    vi lane;
    UNROLLED (i, L)
        lane[i] = i;
    lane += (int32_t)at;
    return (lane >= (int32_t)span.from) & (lane < (int32_t)span.to);
}

/* A row's scores at the tokens of span become words of p = exp(score - max)
 * (times V's scale). What the first and the last vector hold outside of the
 * span becomes 0. */
static void row_softmax(const struct attend *a, size_t r, struct span span)
{
    struct attend_scratch *s = a->scratch;
    const bool pairs = is_pairs(a), scaled = a->kv->type == DTYPE_KV8;
    float *p = s->p[r];
    char *out = (char *)p;
    vf top = vf_set(-INFINITY), sum = {0};
    size_t begin = span.from / L * L;
    for (size_t t = begin; t < span.to; t += L) {
        vf x = vf_load(p + t);
        if (scaled) x *= vf_load(s->k_scale + t);
        if (t < span.from || t + L > span.to)
            x = vf_pick(lanes_in(t, span), x, vf_set(-INFINITY));
        vf_store(p + t, x);
        top = vf_max(top, x);
    }
    float m = vf_top(top);
    /* Nothing but -inf so far: any finite number gives p = 0. */
    vf less = vf_set(m == -INFINITY ? 0 : m);
    for (size_t t = begin; t < span.to; t += L) {
        vf e = vf_exp(vf_load(p + t) - less);
        vf weight = e;
        if (scaled) weight *= vf_load(s->v_scale + t);
        if (t < span.from || t + L > span.to) {
            vi mask = lanes_in(t, span);
            e = vf_pick(mask, e, (vf){0});
            weight = vf_pick(mask, weight, (vf){0});
        }
#if VEC_BF16
        if (pairs) {
            vf rounded = bf16_of_normal(out + 2 * t, weight);
            if (!scaled) e = rounded;
        } else
#endif
            vf_store(p + t, weight);
        sum += e;
    }
    (void)pairs;
    (void)out;
    s->max[r] = m;
    s->total[r] = vf_sum(sum);
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of v over n of its rows, onto what is in sum. */
ALWAYS void pv_tile(bool pairs, int R, int C, const float *p, const float *v,
                    size_t wide, size_t n, float *sum)
{
    vf f[6 * 4];
    UNROLLED (r, R)
        UNROLLED (c, C)
            f[r * C + c] = vf_load(sum + r * OP_HEAD_DIM_MAX + c * L);
    for (size_t t = 0; t < n; t++, v += wide) {
        vf x[4];
        UNROLLED (c, C)
            x[c] = vf_load(v + c * L);
        UNROLLED (r, R) {
            vf w = (vf)vi_spread(p + r * SEGMENT + (int)t);
            UNROLLED (c, C)
                f[r * C + c] = mul_add(pairs, w, x[c], f[r * C + c]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (c, C)
            vf_store(sum + r * OP_HEAD_DIM_MAX + c * L, f[r * C + c]);
}

#define PV_ROWS(C)                                           \
    switch (rows) {                                          \
    case 6: pv_tile(pairs, 6, C, p, v, wide, n, sum); break; \
    case 4: pv_tile(pairs, 4, C, p, v, wide, n, sum); break; \
    case 3: pv_tile(pairs, 3, C, p, v, wide, n, sum); break; \
    case 2: pv_tile(pairs, 2, C, p, v, wide, n, sum); break; \
    default: pv_tile(pairs, 1, C, p, v, wide, n, sum);       \
    }

ALWAYS void pv_rows(bool pairs, size_t rows, size_t vecs, const float *p,
                    const float *v, size_t wide, size_t n, float *sum)
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
                                         size_t wide, size_t n, float *sum)
{
    if (VEC_BF16 && pairs)
        pv_rows(true, rows, vecs, p, v, wide, n, sum);
    else
        pv_rows(false, rows, vecs, p, v, wide, n, sum);
}

/* Where a call of pv_block works: channels and tokens. */
struct corner {
    size_t c, vecs, wide;
    bool pairs;
};

/* One token of a pair of which row r does not see the other. */
static void pv_half(const struct attend *a, const struct corner *at, size_t r,
                    size_t t)
{
    struct attend_scratch *s = a->scratch;
    float *sum = s->sum[r] + at->c;
    const float *v = s->v + t / 2 * at->wide + at->c;
    vi mask = vi_set(t % 2 ? (int32_t)0xffff0000 : 0x0000ffff);
    vf p = (vf)(vi_spread(s->p[r] + t / 2) & mask);
    for (size_t c = 0; c < at->vecs * L; c += L) {
        vf x = (vf)(vi_load(v + c) & mask);
        vf_store(sum + c, mul_add(at->pairs, p, x, vf_load(sum + c)));
    }
}

/* Row r over tokens [from, to). */
static void pv_one(const struct attend *a, const struct corner *at, size_t r,
                   size_t from, size_t to)
{
    struct attend_scratch *s = a->scratch;
    if (at->pairs && from < to && from % 2) pv_half(a, at, r, from++);
    bool half = at->pairs && from < to && to % 2;
    if (half) to--;
    size_t step = at->pairs ? 2 : 1, i = from / step;
    if (from < to)
        pv(at->pairs, 1, at->vecs, s->p[r] + i, s->v + i * at->wide + at->c,
           at->wide, to / step - i, s->sum[r] + at->c);
    if (half) pv_half(a, at, r, to);
}

/* rows rows from r on over tokens [t, t + V_TOKENS) of the segment. Most of
 * it all of them see; before and behind that each goes alone. */
static void pv_group(const struct attend *a, const struct corner *at,
                     size_t rows, size_t r, size_t t)
{
    struct attend_scratch *s = a->scratch;
    size_t step = at->pairs ? 2 : 1, end = t + V_TOKENS;
    /* the last begins last, the first ends first */
    size_t from = round_up(size_most(s->span[r + rows - 1].from, t), step);
    size_t to = size_least(s->span[r].to, end) / step * step;
    if (from >= to) from = to = end;
    for (size_t i = r; i < r + rows; i++)
        pv_one(a, at, i, size_most(s->span[i].from, t),
               size_least(s->span[i].to, from));
    if (from == end) return;
    size_t n = from / step;
    pv(at->pairs, rows, at->vecs, s->p[r] + n, s->v + n * at->wide + at->c,
       at->wide, to / step - n, s->sum[r] + at->c);
    for (size_t i = r; i < r + rows; i++)
        pv_one(a, at, i, to, size_least(s->span[i].to, end));
}

/* Rows [r0, r1), tokens [t, t + V_TOKENS). */
static void pv_block(const struct attend *a, size_t r0, size_t r1, size_t t)
{
    struct corner at = {.pairs = is_pairs(a)};
    at.wide = v_words(at.pairs, a->kv->head_dim);
    for (; at.c < at.wide; at.c += at.vecs * L) {
        size_t left = (at.wide - at.c) / L, rows;
        at.vecs = left >= PV_VECS ? PV_VECS : left >= 2 ? 2 : 1;
        for (size_t r = r0; r < r1; r += rows) {
            rows = rows_group(pv_groups, r1 - r);
            pv_group(a, &at, rows, r, t);
        }
    }
}

/* --- one token of a sequence (a decode step) --------------------------- */

/* Here reading K and V costs more than using them: they are turned in
 * registers, used by the rows of their head and never stored, and all heads
 * of a token are read at about the same time, since they lie side by side.
 * The sums are the same. */

/* The rows to be read next, asked for line by line in the order of memory
 * while others are used. */
struct ahead {
    const char *const *row, *const *end;
    size_t at;
    struct span bytes; /* of a row */
    size_t lines;      /* at a time */
};

ALWAYS void ahead_ask(struct ahead *a)
{
    for (size_t i = 0; i < a->lines && a->row < a->end; i++) {
        __builtin_prefetch(*a->row + a->at, 0, 0);
        a->at += 64;
        if (a->at < a->bytes.to) continue;
        a->at = a->bytes.from;
        a->row++;
    }
}

/* Adds words of R rows of q [L][R] and of L tokens, from element e on. */
ALWAYS void qk_step(enum dtype type, int R, const float *q,
                    const char *const k[L], size_t e, float *p)
{
    vf f[8], m[L];
    k_turn(type, k, e, e + 2 * L, m);
    UNROLLED (r, R)
        f[r] = e ? vf_load(p + r * SEGMENT) : (vf){0};
    UNROLLED (i, L)
        UNROLLED (r, R)
            f[r] =
                mul_add(PAIRS(type), (vf)vi_spread(q + i * R + r), m[i], f[r]);
    UNROLLED (r, R)
        vf_store(p + r * SEGMENT, f[r]);
}

/* R rows of q times n tokens. The sums of L tokens wait for each other, so
 * many L take turns. */
ALWAYS void qk_direct(enum dtype type, int R, const float *q,
                      const char *const *k, size_t n, size_t d, float *p,
                      struct ahead *ahead)
{
    for (size_t e = 0; e < d; e += PAIRS(type) ? 2 * L : L, q += L * R)
        for (size_t t = 0; t < n; t += L) {
            ahead_ask(ahead);
            qk_step(type, R, q, k + t, e, p + t);
        }
}

ALWAYS void qk_few(enum dtype type, size_t rows, const float *q,
                   const char *const *k, size_t n, size_t d, float *p,
                   struct ahead *ahead)
{
    switch (rows) {
#if VEC_AVX512
    case 8: qk_direct(type, 8, q, k, n, d, p, ahead); break;
#endif
    case 4: qk_direct(type, 4, q, k, n, d, p, ahead); break;
    case 3: qk_direct(type, 3, q, k, n, d, p, ahead); break;
    case 2: qk_direct(type, 2, q, k, n, d, p, ahead); break;
    default: qk_direct(type, 1, q, k, n, d, p, ahead);
    }
}

/* R rows times C vectors of V from channel c on, over n tokens. */
ALWAYS void pv_direct(enum dtype type, int R, int C, const char *const *v,
                      size_t c, size_t n, const float *p, float *sum,
                      struct ahead *ahead)
{
    const bool pairs = PAIRS(type);
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
                f[r * C + i] = mul_add(pairs, w, x[i], f[r * C + i]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (i, C)
            vf_store(sum + r * OP_HEAD_DIM_MAX + i * L, f[r * C + i]);
}

#define PV_VECTORS(R, C)               \
    for (; d - c >= (C)*L; c += (C)*L) \
        pv_direct(type, R, C, v, c, n, p, sum + c, ahead);

/* rows rows of a head over the n tokens at v. */
ALWAYS void pv_few(enum dtype type, size_t rows, const char *const *v, size_t d,
                   size_t n, const float *p, float *sum, struct ahead *ahead)
{
    size_t c = 0;
    switch (rows) {
    case 4: PV_VECTORS(4, PV_VECS) PV_VECTORS(4, 2) break;
    case 3: PV_VECTORS(3, PV_VECS) PV_VECTORS(3, 2) break;
    case 2: PV_VECTORS(2, 2 * PV_VECS) PV_VECTORS(2, 2) break;
    default: PV_VECTORS(1, 2 * PV_VECS) PV_VECTORS(1, 2)
    }
}

/* n of those rows at one head. */
ALWAYS void head_of(const char *const *at, size_t n, size_t head,
                    const char **out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = at[i] ? at[i] + head : nothing;
}

/* Rows [t, end) of at, all heads of the call. */
ALWAYS struct ahead ahead_of(const char *const *at, size_t t, size_t end,
                             struct span heads, size_t lines)
{
    return (struct ahead){at + t, at + end, heads.from, heads, lines};
}

ALWAYS void segment_direct(enum dtype type, const struct attend *a, size_t t0)
{
    struct attend_scratch *s = a->scratch;
    const size_t d = a->kv->head_dim, words = k_words(PAIRS(type), d);
    const struct span heads = {head_at(a, 0), head_at(a, a->count / a->ratio)};
    struct span span = row_span(a, 0, t0);
    const char *k_at[SEGMENT], *v_at[SEGMENT], *row[K_STEP];
    rows_of(a, a->kv->k, t0, span, k_at);
    rows_of(a, a->kv->v, t0, span, v_at);
    for (size_t t = span.from / L * L, some; t < span.to; t += some) {
        some = size_least(K_STEP, round_up(span.to, L) - t);
        struct ahead ahead =
            t + some < span.to
                ? ahead_of(k_at, t + some,
                           size_least(t + some + K_STEP, span.to), heads, L)
                : ahead_of(v_at, span.from,
                           size_least(span.from + V_STEP, span.to), heads, L);
        for (size_t h = 0, r = 0, n; r < a->count; h++) {
            head_of(k_at + t, some, head_at(a, h), row);
            for (size_t end = r + a->ratio; r < end; r += n) {
                n = rows_group(direct_groups, end - r);
                qk_few(type, n, s->q + r * words, row, some, d, s->p[r] + t,
                       &ahead);
            }
        }
    }
    for (size_t h = 0, r = 0; r < a->count; h++) {
        if (type == DTYPE_KV8) {
            scales_load(a, a->kv->k, h, t0, span, s->k_scale);
            scales_load(a, a->kv->v, h, t0, span, s->v_scale);
        }
        for (size_t end = r + a->ratio; r < end; r++) {
            row_softmax(a, r, span);
            memset(s->sum[r], 0, d * sizeof(float));
        }
    }
    static const uint8_t groups[] = {4, 3, 2, 1};
    const size_t step = PAIRS(type) ? 2 : 1;
    for (size_t t = span.from / V_STEP * V_STEP; t < span.to; t += V_STEP) {
        size_t from = size_most(span.from, t) / step * step;
        size_t to = size_least(t + V_STEP, span.to);
        struct ahead ahead =
            ahead_of(v_at, to, size_least(to + V_STEP, span.to), heads, 4);
        for (size_t h = 0, r = 0, n; r < a->count; h++) {
            head_of(v_at + t, V_STEP, head_at(a, h), row);
            for (size_t end = r + a->ratio; r < end; r += n) {
                n = rows_group(groups, end - r);
                pv_few(type, n, row + (from - t), d, to - from,
                       s->p[r] + from / step, s->sum[r], &ahead);
            }
        }
    }
}

/* --- segments ---------------------------------------------------------- */

/* Rows [begin, end) see some of a segment. */
struct rows {
    size_t begin, end;
};

ALWAYS struct rows segment_tile(enum dtype type, const struct attend *a,
                                size_t t0)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim, words = k_words(PAIRS(type), d), n;
    struct rows rows = {0, a->count};
    for (size_t r = 0; r < a->count; r++)
        s->span[r] = row_span(a, r, t0);
    while (s->span[rows.begin].to == 0)
        rows.begin++;
    while (s->span[rows.end - 1].from == SEGMENT)
        rows.end--;
    struct span all = {s->span[rows.begin].from, s->span[rows.end - 1].to};
    k_load(type, a, t0, all);
    for (size_t b = all.from / BLOCK * BLOCK; b < all.to; b += BLOCK) {
        for (size_t r = 0; r < a->count; r += n) {
            n = rows_group(qk_groups, a->count - r);
            if (r + n <= rows.begin || r >= rows.end ||
                s->span[size_least(r + n, rows.end) - 1].to <= b)
                continue;
            qk(PAIRS(type), n, s->q + r * words, s->k + b * words, words,
               s->p[r] + b);
        }
    }
    v_load(type, a, t0, all);
    for (size_t r = rows.begin; r < rows.end; r++) {
        row_softmax(a, r, s->span[r]);
        memset(s->sum[r], 0, v_words(PAIRS(type), d) * sizeof(float));
    }
    for (size_t t = all.from / V_TOKENS * V_TOKENS; t < all.to; t += V_TOKENS)
        pv_block(a, rows.begin, rows.end, t);
    return rows;
}

ALWAYS struct rows segment_of(enum dtype type, const struct attend *a,
                              size_t t0)
{
    if (!a->direct) return segment_tile(type, a, t0);
    segment_direct(type, a, t0);
    return (struct rows){0, a->count};
}

#define SEGMENT_OF(name, type)                                                \
    static __attribute__((noinline)) struct rows name(const struct attend *a, \
                                                      size_t t0)              \
    {                                                                         \
        return segment_of(type, a, t0);                                       \
    }
SEGMENT_OF(segment_f32, DTYPE_F32)
SEGMENT_OF(segment_f16, DTYPE_F16)
SEGMENT_OF(segment_bf16, DTYPE_BF16)
SEGMENT_OF(segment_kv8, DTYPE_KV8)

/* max, total and sum of segment g of the rows that see any of it. */
static struct rows segment_run(const struct attend *a, size_t g)
{
    switch (a->kv->type) {
    case DTYPE_F32: return segment_f32(a, g * SEGMENT);
    case DTYPE_F16: return segment_f16(a, g * SEGMENT);
    case DTYPE_KV8: return segment_kv8(a, g * SEGMENT);
    default: return segment_bf16(a, g * SEGMENT);
    }
}

/* Takes one more segment (max, total, sum) of a row into what is merged. */
ALWAYS void row_merge(float *all, float *all_max, float *all_total,
                      const float *sum, float max, float total, size_t wide)
{
    float m = max > *all_max ? max : *all_max;
    if (max != max) m = max;
    float less = m == -INFINITY ? 0 : m;
    vf e = vf_exp(vf_set(*all_max - less)), f = vf_exp(vf_set(max - less));
    for (size_t c = 0; c < wide; c += L)
        vf_store(all + c, vf_fma(vf_load(all + c), e, vf_load(sum + c) * f));
    *all_total = *all_total * e[0] + total * f[0];
    *all_max = m;
}

static void rows_begin(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    for (size_t r = 0; r < a->count; r++) {
        memset(s->all[r], 0, sizeof s->all[r]);
        s->all_max[r] = -INFINITY;
        s->all_total[r] = 0;
    }
}

static void rows_end(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim;
    for (size_t r = 0; r < a->count; r++) {
        float *all = s->all[r], *out = a->out + row_at(a, r);
#if VEC_BF16
        if (is_pairs(a)) bf16_in_order(all, d);
#endif
        float inverse = 1 / s->all_total[r];
        for (size_t c = 0; c < d; c++)
            out[c] = all[c] * inverse;
    }
}

/* The segments of this call: [first, end). */
static struct span segments_of(const struct attend *a)
{
    return (struct span){row_begin(a, 0) / SEGMENT,
                         (row_end(a, a->count - 1) + SEGMENT - 1) / SEGMENT};
}

static void attend(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = v_words(is_pairs(a), a->kv->head_dim);
    q_load(a);
    if (a->parts) {
        struct rows rows = segment_run(a, a->segment);
        for (size_t r = rows.begin; r < rows.end; r++) {
            float *part = a->parts + r * ATTEND_PART(a->kv->head_dim);
            part[0] = s->max[r];
            part[1] = s->total[r];
            memcpy(part + 2, s->sum[r], wide * sizeof *part);
        }
        return;
    }
    rows_begin(a);
    struct span segments = segments_of(a);
    for (size_t g = segments.from; g < segments.to; g++) {
        struct rows rows = segment_run(a, g);
        for (size_t r = rows.begin; r < rows.end; r++)
            row_merge(s->all[r], &s->all_max[r], &s->all_total[r], s->sum[r],
                      s->max[r], s->total[r], wide);
    }
    rows_end(a);
}

static void attend_merge(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t part = ATTEND_PART(a->kv->head_dim);
    rows_begin(a);
    struct span segments = segments_of(a);
    for (size_t g = segments.from; g < segments.to; g++) {
        const float *p = a->parts + (g - segments.from) * a->count * part;
        for (size_t r = 0; r < a->count; r++, p += part) {
            struct span span = row_span(a, r, g * SEGMENT);
            if (span.from < span.to)
                row_merge(s->all[r], &s->all_max[r], &s->all_total[r], p + 2,
                          p[0], p[1], v_words(is_pairs(a), a->kv->head_dim));
        }
    }
    rows_end(a);
}

#endif
