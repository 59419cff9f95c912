/* tensor/cpu/attention_body.h - attention, for the instruction set of the
 * file that includes it.
 *
 * KV is walked in segments of 256 tokens at fixed positions. In a segment
 * every row has its scores (sums over d in order), their maximum, the p =
 * exp(score - max), their sum (lane by lane, then across), and the sum of
 * p v (token by token). Segments are merged in order. A row uses only tokens
 * that it sees; so none of this depends on the rows beside it. */
#ifndef BATON_TENSOR_CPU_ATTENTION_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

#include "tensor/device_ops.h"

#include <math.h>

enum {
    BLOCK = 2 * L, /* tokens of a block of transposed K               */
    V_TOKENS = 64, /* tokens whose V stays in the first level cache   */
    PV_VECS = VEC_AVX512 ? 4 : 2,
    AHEAD = 16, /* tokens between a prefetch and its use */
};

ALWAYS size_t lanes_up(size_t d)
{
    return (d + L - 1) / L * L;
}

/* --- KV to float32 ----------------------------------------------------- */

ALWAYS void elements_of(enum dtype type, const char *in, float *out, size_t d)
{
    size_t i = 0, size = type == DTYPE_F32 ? 4 : 2;
    for (; i + L <= d; i += L) {
        const char *p = in + i * size;
        vf_store(out + i, type == DTYPE_F32   ? (vf)vi_load(p)
                          : type == DTYPE_F16 ? vf_of_f16(p)
                                              : vf_of_bf16(p));
    }
    if (i < d) {
        dtype_decode(type, in + i * size, out + i, d - i);
        memset(out + d, 0, (lanes_up(d) - d) * sizeof *out);
    }
}

static void elements(enum dtype type, const char *in, float *out, size_t d)
{
    switch (type) {
    case DTYPE_F32: elements_of(DTYPE_F32, in, out, d); break;
    case DTYPE_F16: elements_of(DTYPE_F16, in, out, d); break;
    default: elements_of(DTYPE_BF16, in, out, d);
    }
}

/* Where K or V of token t of this sequence and head lies. */
ALWAYS size_t token_at(const struct attend *a, size_t t)
{
    return kv_offset(a->kv, a->pages, t) +
           a->kv_head * a->kv->head_dim * dtype_block_bytes(a->kv->type);
}

ALWAYS void token_prefetch(const struct attend *a, const void *base, size_t t)
{
    size_t bytes = a->kv->head_dim * dtype_block_bytes(a->kv->type);
    const char *p = (const char *)base + token_at(a, t);
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + i);
}

/* K of tokens t0 + from .. t0 + n - 1 -> scratch k [blocks][d][BLOCK], zeros
 * around them; end: tokens that may be read ahead. */
static void k_load(const struct attend *a, size_t t0, size_t from, size_t n,
                   size_t end)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim, wide = lanes_up(d);
    for (size_t t = from / BLOCK * BLOCK; t < (n + BLOCK - 1) / BLOCK * BLOCK;
         t += L) {
        for (size_t i = 0; i < L; i++) {
            float *row = s->row + i * wide;
            if (t0 + t + i + AHEAD < end)
                token_prefetch(a, a->kv->k, t0 + t + i + AHEAD);
            if (t + i >= from && t + i < n)
                elements(a->kv->type,
                         (const char *)a->kv->k + token_at(a, t0 + t + i), row,
                         d);
            else
                memset(row, 0, wide * sizeof *row);
        }
        float *to = s->k + t / BLOCK * BLOCK * d + t % BLOCK;
        for (size_t c = 0; c < wide; c += L) {
            vf m[L];
            UNROLLED (i, L)
                m[i] = vf_load(s->row + (size_t)i * wide + c);
            vf_transpose(m);
            size_t left = d - c < L ? d - c : L;
            if (left == L)
                UNROLLED (i, L)
                    vf_store(to + (c + (size_t)i) * BLOCK, m[i]);
            else
                for (size_t i = 0; i < left; i++)
                    vf_store(to + (c + i) * BLOCK, m[i]);
        }
    }
}

/* V of the same tokens -> scratch v [n][d rounded up to lanes]. */
static void v_load(const struct attend *a, size_t t0, size_t from, size_t n,
                   size_t end)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim, wide = lanes_up(d);
    for (size_t t = from; t < n; t++) {
        if (t0 + t + AHEAD < end) token_prefetch(a, a->kv->v, t0 + t + AHEAD);
        elements(a->kv->type, (const char *)a->kv->v + token_at(a, t0 + t),
                 s->v + t * wide, d);
    }
}

/* --- scores ------------------------------------------------------------ */

static const uint8_t qk_groups[] = {VEC_AVX512 ? 12 : 6, 4, 3, 2, 1};
static const uint8_t pv_groups[] = {6, 4, 3, 2, 1};

ALWAYS size_t rows_group(const uint8_t *sizes, size_t left)
{
    while (*sizes > left)
        sizes++;
    return *sizes;
}

/* R rows of q [d][R] times a block of k [d][BLOCK]. */
ALWAYS void qk_tile(int R, const float *q, const float *k, size_t d, float *p)
{
    vf f[2 * 12];
    UNROLLED (i, 2 * R)
        f[i] = (vf){0};
    for (size_t c = 0; c < d; c++, k += BLOCK, q += R) {
        vf a = vf_load(k), b = vf_load(k + L);
        UNROLLED (r, R) {
            vf x = vf_set(q[r]);
            f[2 * r] = vf_fma(x, a, f[2 * r]);
            f[2 * r + 1] = vf_fma(x, b, f[2 * r + 1]);
        }
    }
    UNROLLED (r, R) {
        vf_store(p + r * SEGMENT, f[2 * r]);
        vf_store(p + r * SEGMENT + L, f[2 * r + 1]);
    }
}

static __attribute__((noinline)) void qk(size_t rows, const float *q,
                                         const float *k, size_t d, float *p)
{
    switch (rows) {
#if VEC_AVX512
    case 12: qk_tile(12, q, k, d, p); break;
#else
    case 6: qk_tile(6, q, k, d, p); break;
#endif
    case 4: qk_tile(4, q, k, d, p); break;
    case 3: qk_tile(3, q, k, d, p); break;
    case 2: qk_tile(2, q, k, d, p); break;
    default: qk_tile(1, q, k, d, p);
    }
}

/* Row i of this call sees tokens [row_from, row_sees) of the segment at t0;
 * with from == sees == SEGMENT or sees == 0 none. */
ALWAYS size_t in_segment(size_t t, size_t t0)
{
    return t <= t0 ? 0 : t - t0 < SEGMENT ? t - t0 : SEGMENT;
}

ALWAYS size_t row_sees(const struct attend *a, size_t i, size_t t0)
{
    return in_segment(a->seen + (a->first + i) / a->ratio, t0);
}

/* The first token of all that row i sees. */
ALWAYS size_t row_begins(const struct attend *a, size_t i)
{
    size_t sees = a->seen + (a->first + i) / a->ratio;
    return a->window && sees > a->window ? sees - a->window : 0;
}

ALWAYS size_t row_from(const struct attend *a, size_t i, size_t t0)
{
    return in_segment(row_begins(a, i), t0);
}

/* q scaled and grouped for qk: rows r.. of a group as [d][group]. */
static void q_load(const struct attend *a)
{
    size_t d = a->kv->head_dim, n;
    for (size_t r = 0; r < a->count; r += n) {
        n = rows_group(qk_groups, a->count - r);
        for (size_t i = 0; i < n; i++) {
            size_t row = a->first + r + i;
            const float *q =
                a->q + row / a->ratio * a->token_stride + row % a->ratio * d;
            for (size_t c = 0; c < d; c++)
                a->scratch->q[r * d + c * n + i] = q[c] * a->scale;
        }
    }
}

/* --- softmax of a segment ---------------------------------------------- */

ALWAYS vi first_lanes(size_t n)
{
    vi at;
    UNROLLED (i, L)
        at[i] = i;
    return at < vi_set(n < L ? (int32_t)n : L);
}

/* p[from..n) from scores to exp(score - max). */
static void row_softmax(float *p, size_t from, size_t n, float *max,
                        float *total)
{
    vf most = vf_set(-INFINITY), sum = {0};
    size_t whole = n / L * L, begin = from / L * L;
    for (size_t i = begin; i < from; i++)
        p[i] = -INFINITY; /* adds nothing */
    for (size_t i = begin; i < whole; i += L)
        most = vf_max(most, vf_load(p + i));
    vi mask = first_lanes(n - whole);
    if (whole < n)
        most =
            vf_max(most, vf_pick(mask, vf_load(p + whole), vf_set(-INFINITY)));
    float m = most[0];
    for (int i = 1; i < L; i++)
        if (most[i] > m) m = most[i];
    /* Nothing but -inf so far: any finite number gives p = 0. */
    vf less = vf_set(m == -INFINITY ? 0 : m);
    for (size_t i = begin; i < whole; i += L) {
        vf e = vf_exp(vf_load(p + i) - less);
        vf_store(p + i, e);
        sum += e;
    }
    if (whole < n) {
        vf e = vf_exp(vf_load(p + whole) - less);
        vf_store(p + whole, e);
        sum += vf_pick(mask, e, (vf){0});
    }
    *max = m;
    *total = vf_sum(sum);
}

/* --- p v --------------------------------------------------------------- */

/* R rows times C vectors of d over n tokens, onto what is in sum. */
ALWAYS void pv_tile(int R, int C, const float *p, const float *v, size_t wide,
                    size_t n, float *sum)
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
            vf w = vf_set(p[r * SEGMENT + (int)t]);
            UNROLLED (c, C)
                f[r * C + c] = vf_fma(w, x[c], f[r * C + c]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (c, C)
            vf_store(sum + r * OP_HEAD_DIM_MAX + c * L, f[r * C + c]);
}

#define PV_ROWS(C)                                    \
    switch (rows) {                                   \
    case 6: pv_tile(6, C, p, v, wide, n, sum); break; \
    case 4: pv_tile(4, C, p, v, wide, n, sum); break; \
    case 3: pv_tile(3, C, p, v, wide, n, sum); break; \
    case 2: pv_tile(2, C, p, v, wide, n, sum); break; \
    default: pv_tile(1, C, p, v, wide, n, sum);       \
    }

static __attribute__((noinline)) void pv(size_t rows, size_t vecs,
                                         const float *p, const float *v,
                                         size_t wide, size_t n, float *sum)
{
#if VEC_AVX512
    if (vecs == 4)
        PV_ROWS(4)
    else if (vecs == 2)
        PV_ROWS(2)
    else
        PV_ROWS(1)
#else
    if (vecs == 2)
        PV_ROWS(2)
    else
        PV_ROWS(1)
#endif
}

ALWAYS size_t in_block(size_t at, size_t t)
{
    return at <= t ? 0 : at - t < V_TOKENS ? at - t : V_TOKENS;
}

/* What row i sees of tokens t + [from, to) of the segment. */
static void pv_one(const struct attend *a, size_t i, size_t vecs,
                   const float *v, size_t t0, size_t t, size_t from, size_t to,
                   size_t c)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = lanes_up(a->kv->head_dim);
    size_t begin = in_block(row_from(a, i, t0), t);
    size_t end = in_block(row_sees(a, i, t0), t);
    if (begin < from) begin = from;
    if (end > to) end = to;
    if (begin < end)
        pv(1, vecs, s->p[i] + t + begin, v + begin * wide, wide, end - begin,
           s->sum[i] + c);
}

/* Rows r0 .. r1 - 1 of the call, tokens [t, t + V_TOKENS) of the segment. */
static void pv_block(const struct attend *a, size_t r0, size_t r1, size_t t0,
                     size_t t)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = lanes_up(a->kv->head_dim), vecs, rows;
    for (size_t c = 0; c < wide; c += vecs * L) {
        vecs = (wide - c) / L >= PV_VECS ? PV_VECS
               : (wide - c) / L >= 2     ? 2
                                         : 1;
        for (size_t r = r0; r < r1; r += rows) {
            rows = rows_group(pv_groups, r1 - r);
            /* all of them see [from, both): the last begins last, the first
             * ends first; each adds what it sees before and behind alone */
            size_t from = in_block(row_from(a, r + rows - 1, t0), t);
            size_t both = in_block(row_sees(a, r, t0), t);
            if (from >= both) from = both = 0;
            const float *v = s->v + t * wide + c;
            for (size_t i = r; i < r + rows; i++)
                pv_one(a, i, vecs, v, t0, t, 0, from, c);
            if (both > from)
                pv(rows, vecs, s->p[r] + t + from, v + from * wide, wide,
                   both - from, s->sum[r] + c);
            for (size_t i = r; i < r + rows; i++)
                pv_one(a, i, vecs, v, t0, t, both, V_TOKENS, c);
        }
    }
}

/* --- few rows ---------------------------------------------------------- */

/* The same sums for the rows of one token (a decode step), where loading K
 * and V costs more than using them: they are converted and turned around in
 * registers and never stored. */

ALWAYS vf elements_load(enum dtype type, const char *p)
{
    return type == DTYPE_F32   ? (vf)vi_load(p)
           : type == DTYPE_F16 ? vf_of_f16(p)
                               : vf_of_bf16(p);
}

/* R rows of q [d][R] times L tokens, n of which exist. */
ALWAYS void qk_direct(enum dtype type, int R, const float *q,
                      const char *const k[L], size_t n, size_t d, float *p)
{
    size_t size = type == DTYPE_F32 ? 4 : 2;
    vf f[8];
    UNROLLED (r, R)
        f[r] = (vf){0};
    for (size_t c = 0; c < d; c += L) {
        vf m[L];
        UNROLLED (i, L)
            m[i] =
                (size_t)i < n ? elements_load(type, k[i] + c * size) : (vf){0};
        vf_transpose(m);
        UNROLLED (i, L)
            UNROLLED (r, R)
                f[r] = vf_fma(vf_set(q[(c + (size_t)i) * R + (size_t)r]), m[i],
                              f[r]);
    }
    UNROLLED (r, R)
        vf_store(p + r * SEGMENT, f[r]);
}

/* R rows times C vectors of V (at v[t] + c0) over n tokens. */
ALWAYS void pv_direct(enum dtype type, int R, int C, const char *const *v,
                      size_t n, const float *p, float *sum)
{
    size_t size = type == DTYPE_F32 ? 4 : 2;
    vf f[4 * PV_VECS];
    UNROLLED (i, R * C)
        f[i] = (vf){0};
    for (size_t t = 0; t < n; t++) {
        vf x[PV_VECS];
        UNROLLED (c, C)
            x[c] = elements_load(type, v[t] + (size_t)c * L * size);
        UNROLLED (r, R) {
            vf w = vf_set(p[(size_t)r * SEGMENT + t]);
            UNROLLED (c, C)
                f[r * C + c] = vf_fma(w, x[c], f[r * C + c]);
        }
    }
    UNROLLED (r, R)
        UNROLLED (c, C)
            vf_store(sum + r * OP_HEAD_DIM_MAX + c * L, f[r * C + c]);
}

ALWAYS void qk_rows(enum dtype type, size_t rows, const float *q,
                    const char *const k[L], size_t n, size_t d, float *p)
{
    switch (rows) {
#if VEC_AVX512
    case 8: qk_direct(type, 8, q, k, n, d, p); break;
#else
    case 6: qk_direct(type, 6, q, k, n, d, p); break;
#endif
    case 4: qk_direct(type, 4, q, k, n, d, p); break;
    case 3: qk_direct(type, 3, q, k, n, d, p); break;
    case 2: qk_direct(type, 2, q, k, n, d, p); break;
    default: qk_direct(type, 1, q, k, n, d, p);
    }
}

ALWAYS void pv_rows(enum dtype type, int C, size_t rows, const char *const *v,
                    size_t n, const float *p, float *sum)
{
    switch (rows) {
    case 4: pv_direct(type, 4, C, v, n, p, sum); break;
    case 3: pv_direct(type, 3, C, v, n, p, sum); break;
    case 2: pv_direct(type, 2, C, v, n, p, sum); break;
    default: pv_direct(type, 1, C, v, n, p, sum);
    }
}

/* segment_run for the rows of one token. */
ALWAYS void segment_direct(enum dtype type, const struct attend *a, size_t t0)
{
    static const uint8_t v_groups[] = {4, 3, 2, 1};
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim, size = type == DTYPE_F32 ? 4 : 2, n;
    size_t tokens = row_sees(a, 0, t0), from = row_from(a, 0, t0);
    size_t end = a->seen + a->first / a->ratio;
    const char *at[SEGMENT + L];
    /* K of the lanes before from is read, so it is some that is seen */
    for (size_t t = from / L * L; t < tokens; t++)
        at[t] =
            (const char *)a->kv->k + token_at(a, t0 + (t < from ? from : t));
    for (size_t t = from / L * L; t < tokens; t += L) {
        for (size_t i = t + L; i < t + 2 * L && t0 + i < end; i++)
            token_prefetch(a, a->kv->k, t0 + i);
        size_t some = tokens - t < L ? tokens - t : L;
        for (size_t r = 0; r < a->count; r += n) {
            n = rows_group(qk_groups, a->count - r);
            qk_rows(type, n, s->q + r * d, at + t, some, d, s->p[r] + t);
        }
    }
    for (size_t r = 0; r < a->count; r++)
        row_softmax(s->p[r], from, tokens, &s->max[r], &s->total[r]);
    for (size_t t = from; t < tokens; t++) {
        at[t] = (const char *)a->kv->v + token_at(a, t0 + t);
        for (size_t i = 0; i < d * size; i += 64)
            __builtin_prefetch(at[t] + i, 0, 2);
    }
    for (size_t c = 0, vecs; c < d; c += vecs * L) {
        vecs = (d - c) / L >= PV_VECS ? PV_VECS : (d - c) / L >= 2 ? 2 : 1;
        for (size_t r = 0; r < a->count; r += n) {
            n = rows_group(v_groups, a->count - r);
            const float *p = s->p[r] + from;
            float *sum = s->sum[r] + c;
            if (vecs == PV_VECS)
                pv_rows(type, PV_VECS, n, at + from, tokens - from, p, sum);
            else if (vecs == 2)
                pv_rows(type, 2, n, at + from, tokens - from, p, sum);
            else
                pv_rows(type, 1, n, at + from, tokens - from, p, sum);
        }
        for (size_t t = from; t < tokens; t++)
            at[t] += vecs * L * size;
    }
}

static bool is_direct(const struct attend *a)
{
    return a->count <= 8 && a->kv->head_dim % L == 0 &&
           a->first / a->ratio == (a->first + a->count - 1) / a->ratio;
}

static __attribute__((noinline)) void segment_few(const struct attend *a,
                                                  size_t t0)
{
    switch (a->kv->type) {
    case DTYPE_F32: segment_direct(DTYPE_F32, a, t0); break;
    case DTYPE_F16: segment_direct(DTYPE_F16, a, t0); break;
    default: segment_direct(DTYPE_BF16, a, t0);
    }
}

/* --- segments ---------------------------------------------------------- */

/* max, total and sum over segment g of the rows that see any of it. */
struct rows {
    size_t begin, end;
};

static struct rows segment_run(const struct attend *a, size_t g)
{
    struct attend_scratch *s = a->scratch;
    size_t t0 = g * SEGMENT, d = a->kv->head_dim, r0 = 0, r1 = a->count, n;
    size_t tokens = row_sees(a, a->count - 1, t0); /* the last sees most */
    size_t end = a->seen + (a->first + a->count - 1) / a->ratio;
    if (is_direct(a)) {
        segment_few(a, t0);
        return (struct rows){0, r1};
    }
    while (row_sees(a, r0, t0) == 0)
        r0++;
    while (row_from(a, r1 - 1, t0) == SEGMENT)
        r1--;
    size_t from = row_from(a, r0, t0); /* it sees the earliest */
    k_load(a, t0, from, tokens, end);
    for (size_t b = from / BLOCK * BLOCK; b < tokens; b += BLOCK) {
        for (size_t r = 0; r < a->count; r += n) {
            n = rows_group(qk_groups, a->count - r);
            if (r + n > r0) qk(n, s->q + r * d, s->k + b * d, d, s->p[r] + b);
        }
    }
    for (size_t r = r0; r < r1; r++) {
        row_softmax(s->p[r], row_from(a, r, t0), row_sees(a, r, t0), &s->max[r],
                    &s->total[r]);
        memset(s->sum[r], 0, lanes_up(d) * sizeof(float));
    }
    v_load(a, t0, from, tokens, end);
    for (size_t t = from / V_TOKENS * V_TOKENS; t < tokens; t += V_TOKENS)
        pv_block(a, r0, r1, t0, t);
    return (struct rows){r0, r1};
}

/* Takes one more segment (max, total, sum) of a row into what is merged. */
ALWAYS void row_merge(float *all, float *all_max, float *all_total,
                      const float *sum, float max, float total, size_t d)
{
    float m = max > *all_max ? max : *all_max;
    if (max != max) m = max;
    float less = m == -INFINITY ? 0 : m;
    vf e = vf_exp(vf_set(*all_max - less)), f = vf_exp(vf_set(max - less));
    for (size_t c = 0; c < d; c += L)
        vf_store(all + c, vf_fma(vf_load(all + c), e, vf_load(sum + c) * f));
    *all_total = *all_total * e[0] + total * f[0];
    *all_max = m;
}

static void rows_begin(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    for (size_t r = 0; r < a->count; r++) {
        memset(s->all[r], 0, lanes_up(a->kv->head_dim) * sizeof(float));
        s->all_max[r] = -INFINITY;
        s->all_total[r] = 0;
    }
}

static void rows_end(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim;
    for (size_t r = 0; r < a->count; r++) {
        size_t row = a->first + r;
        float *out =
            a->out + row / a->ratio * a->token_stride + row % a->ratio * d;
        float inverse = 1 / s->all_total[r];
        for (size_t c = 0; c < d; c++)
            out[c] = s->all[r][c] * inverse;
    }
}

static size_t segments_of(const struct attend *a)
{
    size_t sees = a->seen + (a->first + a->count - 1) / a->ratio;
    return (sees + SEGMENT - 1) / SEGMENT;
}

static void attend(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim;
    q_load(a);
    if (a->parts) {
        struct rows rows = segment_run(a, a->segment);
        for (size_t r = rows.begin; r < rows.end; r++) {
            float *part = a->parts + r * (d + 2);
            memcpy(part, s->sum[r], d * sizeof *part);
            part[d] = s->max[r];
            part[d + 1] = s->total[r];
        }
        return;
    }
    rows_begin(a);
    for (size_t g = row_begins(a, 0) / SEGMENT; g < segments_of(a); g++) {
        struct rows rows = segment_run(a, g);
        for (size_t r = rows.begin; r < rows.end; r++)
            row_merge(s->all[r], &s->all_max[r], &s->all_total[r], s->sum[r],
                      s->max[r], s->total[r], d);
    }
    rows_end(a);
}

static void attend_merge(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim;
    rows_begin(a);
    for (size_t g = 0; g < segments_of(a); g++) {
        for (size_t r = 0; r < a->count; r++) {
            const float *part = a->parts + (g * a->count + r) * (d + 2);
            if (row_sees(a, r, g * SEGMENT) == 0 ||
                row_from(a, r, g * SEGMENT) == SEGMENT)
                continue;
            memcpy(s->sum[r], part, d * sizeof *part);
            row_merge(s->all[r], &s->all_max[r], &s->all_total[r], s->sum[r],
                      part[d], part[d + 1], d);
        }
    }
    rows_end(a);
}

#endif
