/* tensor/cpu/attention_words_body.h - q, K and V as the words that attention
 * multiplies, for the instruction set of the file that includes it.
 *
 * A word is 32 bits. Of K and q it holds neighbouring channels of one token:
 *
 *   4 int8     where the cache is KV8: sums are integers, so exact
 *   2 bfloat16 where it is BF16 and the instruction set multiplies pairs
 *   1 float32  otherwise
 *
 * Of V and p it holds one channel of two neighbouring tokens in bfloat16
 * (pairs), where the instruction set can and the cache is BF16 or KV8;
 * otherwise of one token in float32. */
#ifndef BATON_TENSOR_CPU_ATTENTION_WORDS_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_WORDS_BODY_H

#include "tensor/cpu/encode_body.h"
#include "tensor/cpu/turn_body.h"

#include "tensor/device_ops.h"

enum { ROWS_AHEAD = 24 }; /* of q and out, which lie far apart, asked for */

/* Channels of a word of K. */
#define K_CHANNELS(type)                             \
    ((size_t)((type) == DTYPE_KV8                ? 4 \
              : VEC_BF16 && (type) == DTYPE_BF16 ? 2 \
                                                 : 1))
/* Whether a word of V has two tokens. */
#define V_PAIRS(type) \
    (VEC_BF16 && ((type) == DTYPE_BF16 || (type) == DTYPE_KV8))

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
ALWAYS size_t k_words(enum dtype type, size_t d)
{
    return round_up(d, K_CHANNELS(type) * L) / K_CHANNELS(type);
}

ALWAYS size_t v_words(enum dtype type, size_t d)
{
    return round_up(d, V_PAIRS(type) ? 2 * L : L);
}

/* f + x w, words of q and of K. */
ALWAYS vf k_mul_add(enum dtype type, vf x, vf w, vf f)
{
    if (type == DTYPE_KV8) return (vf)vi_dot((vi)f, (vi)w, (vi)x, true);
#if VEC_BF16
    if (type == DTYPE_BF16) return vf_dot_bf16(f, x, w);
#endif
    return vf_fma(x, w, f);
}

/* f + x w, words of p and of V. */
ALWAYS vf v_mul_add(bool pairs, vf x, vf w, vf f)
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

/* Which token each row is of, and where it lies. */
static void rows_set(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t token = a->first / a->per_token, n = a->first % a->per_token;
    for (size_t i = 0; i < a->count; i++) {
        s->token[i] = token;
        s->at[i] = token * a->token_stride + n * a->kv->head_dim;
        if (++n == a->per_token) token++, n = 0;
    }
}

/* The last token that row i sees is the one before. */
ALWAYS size_t row_end(const struct attend *a, size_t i)
{
    return a->seen + a->scratch->token[i];
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

/* --- the cache --------------------------------------------------------- */

/* In place of tokens that nobody sees. */
static const char nothing[OP_HEAD_DIM_MAX * sizeof(float)];

ALWAYS size_t element_bytes(enum dtype type)
{
    return type == DTYPE_F32 ? 4 : type == DTYPE_KV8 ? 1 : 2;
}

ALWAYS size_t head_at(const struct attend *a, size_t head)
{
    return (a->head + head) * a->kv->head_dim * element_bytes(a->kv->type);
}

/* Asks for a row that is wanted soon. */
ALWAYS void row_ask(const char *row, size_t bytes)
{
    for (size_t b = 0; row && b < bytes; b += 64)
        __builtin_prefetch(row + b);
}

/* Asks for a row that is wanted later. */
ALWAYS void row_ask_far(const char *row, size_t bytes)
{
    for (size_t b = 0; b < bytes; b += 64)
        __builtin_prefetch(row + b, 0, 2);
}

/* Where the first kv head of the call is of the tokens [from, to), which lie in
 * these pages of K or V; the end. */
ALWAYS const char **rows_of(const struct attend *a, const void *base,
                            const uint32_t *pages, size_t from, size_t to,
                            const char **at)
{
    size_t bytes =
        op_kv_token_bytes(a->kv->type, a->kv->kv_heads, a->kv->head_dim);
    for (size_t t = from, end; t < to; t = end) {
        const char *row = (const char *)base + kv_offset(a->kv, pages, t);
        end = size_least(round_up(t + 1, a->kv->page_tokens), to);
        row += head_at(a, 0);
        for (size_t i = t; i < end; i++, row += bytes)
            *at++ = row;
    }
    return at;
}

/* KV8: bytes from the first head of the call to one's scale. */
ALWAYS size_t scale_at(const struct attend *a, size_t head)
{
    return (size_t)a->kv->kv_heads * a->kv->head_dim - head_at(a, 0) +
           (a->head + head) * sizeof(float);
}

/* KV8: the scales that lie so many bytes behind the rows of span. */
static void scales_load(const char *const *row, size_t at, struct span span,
                        float *out)
{
    for (size_t t = span.from; t < span.to; t++)
        memcpy(out + t, row[t] + at, sizeof *out);
}

/* p, or where fewer than all of its bytes are a row's, those and zeros. */
ALWAYS const char *bytes_some(const char *p, size_t bytes, size_t all,
                              char some[4 * L])
{
    if (bytes >= all) return p;
    memset(some, 0, 4 * L);
    memcpy(some, p, bytes);
    return some;
}

/* L words of K from channel c on, where left channels are left. Bytes get
 * what vi_dot's wide ones have. */
ALWAYS vf k_load(enum dtype type, const char *row, size_t c, size_t left)
{
    char some[4 * L];
    const size_t size = element_bytes(type), all = K_CHANNELS(type) * L * size;
    const char *p = bytes_some(row + c * size, left * size, all, some);
    switch (type) {
    case DTYPE_F32: return vf_load((const float *)p);
    case DTYPE_F16: return vf_of_f16(p);
    case DTYPE_KV8: return (vf)(vi_load(p) ^ vi_set((int32_t)0x80808080));
    default: return VEC_BF16 ? vf_load((const float *)p) : vf_of_bf16(p);
    }
}

/* V from channel c on, where left channels are left: floats of x, or of the
 * tokens x and y 2 L words, in the order of bf16_low and bf16_high. */
ALWAYS vf v_row(enum dtype type, const char *row, size_t c, size_t left)
{
    char some[4 * L];
    const size_t size = element_bytes(type);
    const size_t all = (V_PAIRS(type) ? 2 * L : L) * size;
    const char *p = bytes_some(row + c * size, left * size, all, some);
    switch (type) {
    case DTYPE_F32: return vf_load((const float *)p);
    case DTYPE_F16: return vf_of_f16(p);
#if VEC_BF16
    case DTYPE_BF16: return vf_load((const float *)p);
    default: return bf16_of_i8(p);
#else
    case DTYPE_BF16: return vf_of_bf16(p);
    default: return vf_of(vi_of_i8(p));
#endif
    }
}

ALWAYS void v_turn(enum dtype type, const char *x, const char *y, size_t c,
                   size_t left, vf out[2])
{
    out[0] = v_row(type, x, c, left);
#if VEC_BF16
    if (V_PAIRS(type)) {
        vf a = out[0], b = v_row(type, y, c, left);
        out[0] = bf16_low(a, b);
        out[1] = bf16_high(a, b);
    }
#endif
    (void)y;
}

/* --- q ----------------------------------------------------------------- */

/* Channels c .. c + L - 1 of row r of the call, scaled; zeros behind d. */
ALWAYS vf q_scaled(const struct attend *a, const float *q, size_t c)
{
    size_t d = a->kv->head_dim;
    if (c + L <= d) return vf_load(q + c) * a->scale;
    return c < d ? vf_load_some(q + c, d - c) * a->scale : (vf){0};
}

/* Row r in bytes, their scale, and what each sum begins with to take off the
 * 128 of K's. */
static void q_bytes(const struct attend *a, size_t r, const float *q,
                    int8_t *to)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim;
    float x[OP_HEAD_DIM_MAX + L] = {0};
    int32_t sum = 0;
    for (size_t c = 0; c < d; c += L)
        vf_store(x + c, q_scaled(a, q, c));
    memset(to, 0, k_words(DTYPE_KV8, d) * 4);
    float scale = encode_bytes(x, to, d);
    for (size_t c = 0; c < d; c++)
        sum += to[c];
    s->q_scale[r] = scale;
    s->q_start[r] = VEC_WIDE_IS_SIGNED ? 0 : -128 * sum;
}

/* Row r as it meets K, in room where it has to be made. */
ALWAYS const float *q_turned(const struct attend *a, size_t r, float *room)
{
    const float *q = a->q + a->scratch->at[r];
    if (!a->turn) return q;
    heads_turn(room, q, a->turn, a->cs + a->scratch->token[r] * OP_HEAD_DIM_MAX,
               1, a->kv->head_dim, 0);
    return room;
}

/* All rows of the call, scaled, as words [rows][k_words]. */
static void q_ready(const struct attend *a)
{
    float room[OP_HEAD_DIM_MAX];
    enum dtype type = a->kv->type;
    size_t words = k_words(type, a->kv->head_dim);
    float *to = a->scratch->q;
    for (size_t r = 0; r < a->count; r++, to += words) {
        const float *q = q_turned(a, r, room);
        if (r + ROWS_AHEAD < a->count)
            row_ask_far((const char *)(a->q + a->scratch->at[r + ROWS_AHEAD]),
                        a->kv->head_dim * sizeof *q);
        if (type == DTYPE_KV8) q_bytes(a, r, q, (int8_t *)to);
#if VEC_BF16
        else if (type == DTYPE_BF16)
            for (size_t c = 0; c < words; c += L)
                vf_store(to + c, bf16_of_two(q_scaled(a, q, 2 * c),
                                             q_scaled(a, q, 2 * c + L)));
#endif
        else
            for (size_t c = 0; c < words; c += L) {
                vf v = q_scaled(a, q, c);
                vf_store(to + c, type == DTYPE_BF16 ? vf_round_bf16(v) : v);
            }
    }
}

ALWAYS size_t rows_group(const uint8_t *sizes, size_t left)
{
    while (*sizes > left)
        sizes++;
    return *sizes;
}

/* n floats, a multiple of L. */
ALWAYS void zeros_set(float *to, size_t n)
{
    for (size_t c = 0; c < n; c += L)
        vf_store(to + c, (vf){0});
}

/* --- the band ------------------------------------------------------------ */

/* Row r's sums of p v lie there, v_words each. */
ALWAYS float *sum_of(const struct attend *a, size_t r)
{
    return a->scratch->sum +
           (r - a->scratch->band) * v_words(a->kv->type, a->kv->head_dim);
}

ALWAYS float *p_of(const struct attend *a, size_t r)
{
    return a->scratch->p[r - a->scratch->band];
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

/* Row r's scores at the tokens of span become words of p = exp(score - max)
 * (times V's scale); in the rest of wide, and of the vectors at its ends, 0. r
 * counts from the band's first row. */
ALWAYS void softmax_of(bool pairs, bool scaled, struct attend_scratch *s,
                       size_t r, struct span span, struct span wide)
{
    float *p = s->p[r];
    const size_t begin = wide.from / (2 * L) * (2 * L);
    const size_t end = round_up(wide.to, 2 * L);
    vf top[2] = {vf_set(-INFINITY), vf_set(-INFINITY)}, sum[2] = {{0}};
    if (scaled)
        for (size_t t = begin; t < end; t += L)
            vf_store(p + t, vf_load(p + t) * vf_load(s->kv->k_scale + t));
    for (size_t t = begin; t < end; t += L)
        if (t < span.from || t + L > span.to)
            vf_store(p + t, vf_pick(lanes_in(t, span), vf_load(p + t),
                                    vf_set(-INFINITY)));
    for (size_t t = begin; t < end; t += 2 * L)
        UNROLLED (i, 2)
            top[i] = vf_max(top[i], vf_load(p + t + i * L));
    float m = vf_top(vf_max(top[0], top[1]));
    /* Nothing but -inf so far: any finite number gives p = 0. */
    vf less = vf_set(m == -INFINITY ? 0 : -m * LOG2_E);
#if VEC_BF16
    const vf ones = bf16_of_two(vf_set(1), vf_set(1));
#endif
    for (size_t t = begin; t < end; t += 2 * L) {
        vf e[2];
        UNROLLED (i, 2) {
            vf x = vf_load(p + t + i * L);
            e[i] = vf_exp2(vf_fma(x, vf_set(LOG2_E), less));
            if (scaled || !pairs) sum[i] += e[i];
            if (scaled)
                e[i] = vf_pick(lanes_in(t + (size_t)i * L, span),
                               e[i] * vf_load(s->kv->v_scale + t + i * L),
                               (vf){0});
        }
#if VEC_BF16
        if (pairs) {
            vf word = bf16_of_two(e[0], e[1]);
            if (!scaled) sum[0] = vf_dot_bf16(sum[0], word, ones);
            vf_store(p + t / 2, word);
            continue;
        }
#endif
        UNROLLED (i, 2)
            vf_store(p + t + i * L, e[i]);
    }
    s->max[r] = m;
    s->total[r] = vf_sum(sum[0] + sum[1]);
}

static __attribute__((noinline)) void row_softmax(const struct attend *a,
                                                  size_t r, struct span span,
                                                  struct span wide)
{
    if (a->kv->type == DTYPE_KV8)
        softmax_of(VEC_BF16, true, a->scratch, r, span, wide);
    else if (V_PAIRS(a->kv->type))
        softmax_of(VEC_BF16, false, a->scratch, r, span, wide);
    else
        softmax_of(false, false, a->scratch, r, span, wide);
}

#endif
