/* tensor/cpu/attention_body.h - attention, for the instruction set of the
 * file that includes it.
 *
 * KV is walked in segments of 256 tokens at fixed positions. In a segment
 * every row has its scores, their maximum, the p = exp(score - max), their
 * sum (lane by lane, then across), and the sum of p v (token by token).
 * Segments are merged in order. What a row does not see has p = 0, which adds
 * nothing; so none of this depends on the rows beside it.
 *
 * A score is a sum over d of words (attention_words_body.h), in L chains: word
 * w, in order, onto chain w % L. The chains' sums meet in pairs: 0 and 1, 2
 * and 3, ..., then the sums of those, and so on. That is the order of a decode
 * step, which multiplies vectors of words as they lie in the cache and sums
 * over their lanes; tiles, which have a token in each lane, keep to it. */
#ifndef BATON_TENSOR_CPU_ATTENTION_BODY_H
#define BATON_TENSOR_CPU_ATTENTION_BODY_H

#include "tensor/cpu/attention_direct_body.h"
#include "tensor/cpu/attention_tile_body.h"

/* Takes row r's part of segment g into what is merged of it so far. */
ALWAYS void row_merge(const struct attend *a, size_t r, size_t g,
                      const float *sum, float max, float total)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    float *all = s->all + r * wide;
    if (g == row_begin(a, r) / SEGMENT) { /* the first that it sees */
        if (sum != all) memcpy(all, sum, wide * sizeof *all);
        s->all_max[r] = max;
        s->all_total[r] = total;
        return;
    }
    float m = max > s->all_max[r] ? max : s->all_max[r];
    if (max != max) m = max;
    float less = m == -INFINITY ? 0 : m;
    vf e = vf_exp2(vf_set((s->all_max[r] - less) * LOG2_E));
    vf f = vf_exp2(vf_set((max - less) * LOG2_E));
    for (size_t c = 0; c < wide; c += L)
        vf_store(all + c, vf_fma(vf_load(all + c), e, vf_load(sum + c) * f));
    s->all_total[r] = s->all_total[r] * e[0] + total * f[0];
    s->all_max[r] = m;
}

/* A row's d results. Zeros are those above 0: what it got from tokens that it
 * does not see, 0 times V, may have turned one's sign. */
ALWAYS void row_end_store(bool pairs, const float *all, float total, size_t d,
                          float *out)
{
    vf inverse = vf_set(1 / total);
    for (size_t c = 0; c < d; c += 2 * L) {
        vf x = vf_load(all + c) * inverse + vf_set(0);
        vf y = vf_load(all + c + L) * inverse + vf_set(0);
#if VEC_BF16
        if (pairs) bf16_in_order(&x, &y);
#endif
        float some[2 * L], *to = d - c < 2 * L ? some : out + c;
        vf_store(to, x);
        vf_store(to + L, y);
        if (to == some) memcpy(out + c, some, (d - c) * sizeof *out);
    }
    (void)pairs;
}

static void rows_end(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    size_t d = a->kv->head_dim, wide = v_words(a->kv->type, d);
    for (size_t r = 0; r < a->count; r++) {
        if (r + ROWS_AHEAD < a->count)
            row_ask_far((const char *)(a->out + s->at[r + ROWS_AHEAD]),
                        d * sizeof *a->out);
        row_end_store(V_PAIRS(a->kv->type), s->all + r * wide, s->all_total[r],
                      d, a->out + s->at[r]);
    }
}

/* The segments of this call: [first, end). */
static struct span segments_of(const struct attend *a)
{
    return (struct span){row_begin(a, 0) / SEGMENT,
                         (row_end(a, a->count - 1) + SEGMENT - 1) / SEGMENT};
}

/* --- a segment --------------------------------------------------------- */

/* The rows of a band are next. */
static void band_begin(const struct attend *a, size_t g, struct rows rows)
{
    struct attend_scratch *s = a->scratch;
    size_t from = segments_of(a).from;
    bool first = g == from && g == row_begin(a, a->count - 1) / SEGMENT;
    s->band = rows.begin;
    s->sum = s->part;
    if (first && !a->parts)
        s->sum = s->all + rows.begin * v_words(a->kv->type, a->kv->head_dim);
}

/* Their parts of segment g are there. */
static void band_end(const struct attend *a, size_t g, struct rows rows)
{
    struct attend_scratch *s = a->scratch;
    size_t wide = v_words(a->kv->type, a->kv->head_dim);
    for (size_t r = rows.begin, i = 0; r < rows.end; r++, i++) {
        const float *sum = sum_of(a, r);
        if (!a->parts) {
            row_merge(a, r, g, sum, s->max[i], s->total[i]);
            continue;
        }
        float *part = a->parts + r * ATTEND_PART(a->kv->head_dim);
        part[0] = s->max[i];
        part[1] = s->total[i];
        memcpy(part + 2, sum, wide * sizeof *part);
    }
}

ALWAYS void segment_of(enum dtype type, const struct attend *a, size_t g)
{
    struct rows rows = {0, a->count};
    if (a->direct) {
        band_begin(a, g, rows);
        segment_direct(type, a, g * SEGMENT);
        band_end(a, g, rows);
        return;
    }
    rows = tile_begin(type, a, g * SEGMENT);
    for (struct rows band = {.end = rows.begin}; band.end < rows.end;) {
        band.begin = band.end;
        band.end = size_least(band.begin + ATTEND_BAND, rows.end);
        band_begin(a, g, band);
        tile_band(type, a, band);
        band_end(a, g, band);
    }
}

#define SEGMENT_OF(name, type)                                         \
    static __attribute__((noinline)) void name(const struct attend *a, \
                                               size_t g)               \
    {                                                                  \
        segment_of(type, a, g);                                        \
    }
SEGMENT_OF(segment_f32, DTYPE_F32)
SEGMENT_OF(segment_f16, DTYPE_F16)
SEGMENT_OF(segment_bf16, DTYPE_BF16)
SEGMENT_OF(segment_kv8, DTYPE_KV8)

static void segment_run(const struct attend *a, size_t g)
{
    switch (a->kv->type) {
    case DTYPE_F32: segment_f32(a, g); break;
    case DTYPE_F16: segment_f16(a, g); break;
    case DTYPE_KV8: segment_kv8(a, g); break;
    default: segment_bf16(a, g);
    }
}

/* Unless they are those of the segment before. */
static void rows_ready(const struct attend *a)
{
    struct attend_scratch *s = a->scratch;
    if (s->q_call == a->call && s->q_of == a->q && s->q_first == a->first)
        return;
    rows_set(a);
    q_ready(a);
    s->q_call = a->call;
    s->q_of = a->q;
    s->q_first = a->first;
}

static void attend(const struct attend *a)
{
    rows_ready(a);
    if (a->parts) {
        segment_run(a, a->segment);
        return;
    }
    struct span segments = segments_of(a);
    for (size_t g = segments.from; g < segments.to; g++)
        segment_run(a, g);
    rows_end(a);
}

static void attend_merge(const struct attend *a)
{
    size_t part = ATTEND_PART(a->kv->head_dim);
    rows_set(a);
    a->scratch->q_call = 0; /* its rows may be others */
    struct span segments = segments_of(a);
    for (size_t g = segments.from; g < segments.to; g++) {
        const float *p = a->parts + (g - segments.from) * a->count * part;
        for (size_t r = 0; r < a->count; r++, p += part) {
            struct span span = row_span(a, r, g * SEGMENT);
            if (span.from < span.to) row_merge(a, r, g, p + 2, p[0], p[1]);
        }
    }
    rows_end(a);
}

#endif
