/* tensor/cpu/acts_body.h - rows of activations made ready for the products,
 * for the instruction set of the file that includes it. kernels.h has the
 * layouts, ops.h the rounding. */
#ifndef BATON_TENSOR_CPU_ACTS_BODY_H
#define BATON_TENSOR_CPU_ACTS_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

/* Where the word of a step is. */
ALWAYS char *word_at(const struct acts_room *to, size_t step)
{
    return (char *)to->words + step / SLAB_STEPS * to->words_stride +
           step % SLAB_STEPS * to->words_step;
}

/* Its words are neighbours. */
ALWAYS bool is_alone(const struct acts_room *to)
{
    return to->words_step == 4;
}

/* n words from step on. */
ALWAYS void words_put(const struct acts_room *to, size_t step, const void *from,
                      int n)
{
    char *word = word_at(to, step); /* no slab ends within */
    if (is_alone(to)) {
        memcpy(word, from, (size_t)n * 4);
        return;
    }
    UNROLLED (i, n)
        memcpy(word + (size_t)i * to->words_step, (const char *)from + 4 * i,
               4);
}

/* quant_round's arithmetic for columns first .. first + n - 1 (multiples of
 * 32) of one row. */
ALWAYS void group_round(const struct acts_room *to, struct mark *mark,
                        const float *x, size_t first, size_t n)
{
    vu most = {0};
    for (size_t c = first; c < first + n; c += L)
        most = vu_magnitudes(most, vf_load(x + c));
    float inverse, s = round_scale(vu_max(most), &inverse);
    vi sums = {0}, half = {0};
    for (size_t c = first; c < first + n; c += L) {
        vi q = inverse > 0 ? vi_round(vf_load(x + c) * inverse) : (vi){0};
        sums += q;
        if (c + L == first + HALF) half = sums;
        byte_vec bytes = __builtin_convertvector(q, byte_vec);
        words_put(to, c / 4, &bytes, L / 4);
    }
    int32_t sum = vi_sum(sums);
    *mark = (struct mark){s, s * (float)sum, sum, vi_sum(half)};
}

/* The slab of a group of columns, and which of its groups it is; a row that has
 * one mark is one group. */
struct place {
    size_t slab, group;
};
ALWAYS struct place place_of(size_t index, size_t group)
{
    size_t in_slab = 4 * SLAB_STEPS / group;
    if (!in_slab) return (struct place){0, 0};
    return (struct place){index / in_slab, index % in_slab};
}

ALWAYS struct mark *mark_at(const struct acts_room *to, struct place at)
{
    return to->marks + at.slab * to->marks_stride + at.group * to->marks_step;
}

#if VEC_AVX512

/* Four rows side by side: a vector is a word of each, of four steps. */
enum { FOUR = ACTS_ROWS };
struct four {
    const float *x[FOUR];       /* one may come more than once: the last */
    const struct acts_room *to; /* [count] */
    size_t cols, count;
    /* Rows [0, second) are neighbours in a step, and so are the others. */
    size_t second;
};

/* How many of these rows are neighbours. */
ALWAYS size_t rooms_near(const struct acts_room *to, size_t rows)
{
    size_t n = 1;
    while (n < rows && to[n].words_step == to->words_step &&
           (char *)to[n].words == (char *)to->words + 4 * n)
        n++;
    return n;
}

/* Whether these rows can go there: they are in two places at most. */
ALWAYS bool four_at(struct four *f, const struct acts_room *to, const float *x,
                    size_t rows, size_t cols)
{
    *f = (struct four){.to = to, .cols = cols, .count = rows};
    UNROLLED (t, FOUR)
        f->x[t] = x + ((size_t)t < rows ? (size_t)t : rows - 1) * cols;
    f->second = rooms_near(to, rows);
    return f->second == rows ||
           f->second + rooms_near(to + f->second, rows - f->second) == rows;
}

/* Words of four steps. */
ALWAYS void four_put(const struct four *f, size_t step, __m512i words)
{
    char *at = word_at(f->to, step);
    const size_t far = f->to->words_step;
    if (f->second == FOUR && far == sizeof(__m128i)) {
        _mm512_storeu_si512(at, words);
        return;
    }
    const __m128i lanes[FOUR] = {_mm512_castsi512_si128(words),
                                 _mm512_extracti32x4_epi32(words, 1),
                                 _mm512_extracti32x4_epi32(words, 2),
                                 _mm512_extracti32x4_epi32(words, 3)};
    if (f->second == FOUR) {
        UNROLLED (k, FOUR)
            memcpy(at + (size_t)k * far, &lanes[k], sizeof lanes[k]);
        return;
    }
    const __mmask8 first = (__mmask8)((1 << f->second) - 1);
    UNROLLED (k, FOUR)
        _mm_mask_storeu_epi32(at + (size_t)k * far, first, lanes[k]);
    if (f->second == f->count) return;
    const struct acts_room *other = f->to + f->second;
    const __mmask8 rest = (__mmask8)((1 << f->count) - 1 - first);
    at = word_at(other, step) - 4 * f->second;
    UNROLLED (k, FOUR)
        _mm_mask_storeu_epi32(at + (size_t)k * other->words_step, rest,
                              lanes[k]);
}

/* The largest of the lanes of each of four rows. */
ALWAYS __m128i four_max(const vu m[FOUR])
{
    __m512i v[FOUR];
    UNROLLED (i, FOUR)
        v[i] = (__m512i)m[i];
    __m512i a = _mm512_max_epu32(_mm512_unpacklo_epi32(v[0], v[1]),
                                 _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_max_epu32(_mm512_unpacklo_epi32(v[2], v[3]),
                                 _mm512_unpackhi_epi32(v[2], v[3]));
    a = _mm512_max_epu32(_mm512_unpacklo_epi64(a, b),
                         _mm512_unpackhi_epi64(a, b));
    a = _mm512_max_epu32(a, _mm512_shuffle_i64x2(a, a, 0x4e));
    a = _mm512_max_epu32(a, _mm512_shuffle_i64x2(a, a, 0xb1));
    return _mm512_castsi512_si128(a);
}

/* Sums over the steps. */
ALWAYS __m128i four_sum(vi v)
{
    __m512i a = (__m512i)v;
    a = _mm512_add_epi32(a, _mm512_shuffle_i64x2(a, a, 0x4e));
    a = _mm512_add_epi32(a, _mm512_shuffle_i64x2(a, a, 0xb1));
    return _mm512_castsi512_si128(a);
}

/* Asks for the columns at c + apart of all rows, or what comes behind them, of
 * the four rows that follow. */
ALWAYS void four_ask(const struct four *f, size_t c, size_t apart)
{
    size_t at = c + apart < f->cols ? c + apart : c + apart + 3 * f->cols;
    UNROLLED (t, FOUR)
        UNROLLED (i, 2)
            __builtin_prefetch(f->x[t] + at + i * L);
}

/* Row t's lane in all steps. */
ALWAYS vf four_spread(vf v, int t)
{
    switch (t) {
    case 0: return _mm512_permute_ps(v, 0x00);
    case 1: return _mm512_permute_ps(v, 0x55);
    case 2: return _mm512_permute_ps(v, 0xaa);
    default: return _mm512_permute_ps(v, 0xff);
    }
}

/* What group_round does, for groups [first, first + n), in three steps of
 * which each is many short chains; the same bits. */
enum { ROUND_GROUPS = 16, ROUND_AHEAD = 256 /* columns */ };
struct round {
    size_t group, first, n, apart; /* columns from one to the next */
    /* A group's magnitudes (bits), scales and their inverses. */
    uint32_t most[ROUND_GROUPS][FOUR];
    float s[ROUND_GROUPS][FOUR], inverse[ROUND_GROUPS][FOUR];
};

ALWAYS void round_most(const struct four *f, struct round *r)
{
    for (size_t g = 0; g < r->n; g++) {
        size_t c = (r->first + g) * r->apart, end = c + r->group;
        vu most[FOUR] = {{0}};
        for (; c < end; c += 2 * L) {
            four_ask(f, c, ROUND_AHEAD);
            UNROLLED (t, FOUR)
                UNROLLED (i, 2)
                    most[t] = (vu)_mm512_max_epu32(
                        (__m512i)most[t],
                        (__m512i)((vu)vf_load(f->x[t] + c + i * L) &
                                  0x7fffffff));
        }
        _mm_storeu_si128((__m128i *)r->most[g], four_max(most));
    }
}

/* round_scale, lane by lane. */
ALWAYS void round_scales(struct round *r)
{
    for (size_t g = 0; g < r->n; g += L / FOUR) {
        __m512i bits = (__m512i)vi_load(r->most[g]);
        vf most = (vf)bits, q = vf_set(127.0f);
        __mmask16 odd =
            _mm512_cmpge_epu32_mask(bits, _mm512_set1_epi32(0x7f800000));
        __mmask16 any = _mm512_cmp_ps_mask(most, vf_set(1e-30f), _CMP_GE_OQ);
        any &= (__mmask16)~odd;
        vf_store(r->inverse[g], _mm512_maskz_div_ps(any, q, most));
        vf_store(r->s[g], _mm512_mask_mov_ps(_mm512_maskz_div_ps(any, most, q),
                                             odd, vf_set(NAN)));
    }
}

ALWAYS void four_marks(struct mark *const mark[FOUR], size_t count,
                       const float s[FOUR], __m128i sum, __m128i half)
{
    __m128 a = _mm_loadu_ps(s), b = a * _mm_cvtepi32_ps(sum);
    __m128 c = _mm_castsi128_ps(sum), d = _mm_castsi128_ps(half);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    const __m128 rows[FOUR] = {a, b, c, d};
    UNROLLED (t, FOUR)
        if ((size_t)t < count) memcpy(mark[t], &rows[t], sizeof *mark[t]);
}

ALWAYS void round_words(const struct four *f, const struct round *r)
{
    for (size_t g = 0; g < r->n; g++) {
        size_t first = (r->first + g) * r->group;
        vf inverse = _mm512_broadcast_f32x4(_mm_loadu_ps(r->inverse[g]));
        vi any = (vi)(inverse > 0), sum = {0}, half = {0}; /* else 0 */
        for (size_t c = first; c < first + r->group; c += L) {
            __m512i q[FOUR];
            UNROLLED (t, FOUR)
                q[t] = (__m512i)vi_round(vf_load(f->x[t] + c) *
                                         four_spread(inverse, t));
            vi words =
                any & (vi)_mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]),
                                             _mm512_packs_epi32(q[2], q[3]));
            four_put(f, c / 4, (__m512i)words);
            sum = vi_dot(sum, vi_set(0x01010101), words, 0);
            if (c + L == first + HALF) half = sum;
        }
        struct mark *mark[FOUR] = {0};
        const struct place at = place_of(r->first + g, r->group);
        for (size_t t = 0; t < f->count; t++)
            mark[t] = mark_at(f->to + t, at);
        four_marks(mark, f->count, r->s[g], four_sum(sum), four_sum(half));
    }
}

static void four_round(const struct four *f, size_t group)
{
    struct round r = {.group = group, .apart = group};
    for (; r.first < f->cols / group; r.first += r.n) {
        r.n = f->cols / group - r.first;
        if (r.n > ROUND_GROUPS) r.n = ROUND_GROUPS;
        round_most(f, &r);
        round_scales(&r);
        round_words(f, &r);
    }
}

/* Groups of RUN columns of one row, four side by side as if they were four
 * rows. */
enum { QUAD = FOUR * RUN };

/* A quad's words and the sums of its groups, and of their first columns. */
ALWAYS void quad_words(const float *x, char *words, vf inverse, __m128i *sum,
                       __m128i *half)
{
    /* What packing makes of a, b, c, d: lane by lane four of each. */
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i firsts =
        _mm512_setr_epi32(0, 8, 16, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const vi any = (vi)(inverse > 0); /* else 0 */
    __m512i sums[2];
    UNROLLED (i, 2) {
        __m512i q[FOUR];
        UNROLLED (j, FOUR) {
            int t = 2 * i + j / 2;
            vf v = vf_load(x + i * 2 * RUN + j * L) * four_spread(inverse, t);
            q[j] = (__m512i)(vi_round(v) & (vi)four_spread((vf)any, t));
        }
        q[0] = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]),
                                  _mm512_packs_epi32(q[2], q[3]));
        q[0] = _mm512_permutexvar_epi32(order, q[0]);
        _mm512_storeu_si512(words + i * 64, q[0]);
        sums[i] = (__m512i)vi_dot((vi){0}, vi_set(0x01010101), (vi)q[0], 0);
        UNROLLED (k, 2)
            sums[i] = _mm512_add_epi32(sums[i],
                                       k ? _mm512_shuffle_epi32(sums[i], 0xb1)
                                         : _mm512_shuffle_epi32(sums[i], 0x4e));
    }
    *half = _mm512_castsi512_si128(
        _mm512_permutex2var_epi32(sums[0], firsts, sums[1]));
    *sum = _mm_add_epi32(
        *half,
        _mm512_castsi512_si128(_mm512_permutex2var_epi32(
            sums[0], _mm512_add_epi32(firsts, _mm512_set1_epi32(4)), sums[1])));
}

static void quads_round(const struct acts_room *to, const float *x, size_t n)
{
    struct four f = {.x = {x, x + RUN, x + 2 * RUN, x + 3 * RUN},
                     .cols = n * QUAD};
    struct round r = {.group = RUN, .apart = QUAD};
    for (; r.first < n; r.first += r.n) {
        r.n = n - r.first < ROUND_GROUPS ? n - r.first : ROUND_GROUPS;
        round_most(&f, &r);
        round_scales(&r);
        for (size_t g = 0; g < r.n; g++) {
            size_t c = (r.first + g) * QUAD;
            __m128i sum, half;
            quad_words(x + c, word_at(to, c / 4),
                       _mm512_broadcast_f32x4(_mm_loadu_ps(r.inverse[g])), &sum,
                       &half);
            struct mark *m = mark_at(to, place_of(c / RUN, RUN));
            struct mark *const mark[FOUR] = {m, m + 1, m + 2, m + 3};
            four_marks(mark, FOUR, r.s[g], sum, half);
        }
    }
}

#endif

static void acts_int8(const struct acts_room *to, const float *x, size_t rows,
                      size_t cols, size_t group)
{
    size_t done = 0; /* groups of a single row */
#if VEC_AVX512
    struct four f;
    if (rows > 1 && four_at(&f, to, x, rows, cols)) {
        four_round(&f, group);
        return;
    }
    /* Its marks are neighbours too: not in a group by token. */
    if (rows == 1 && group == RUN && is_alone(to) && to->marks_step == 1) {
        quads_round(to, x, cols / QUAD);
        done = cols / QUAD * FOUR;
    }
#endif
    for (size_t t = 0; t < rows; t++, to++, x += cols)
        for (size_t g = done; g < cols / group; g++)
            group_round(to, mark_at(to, place_of(g, group)), x, g * group,
                        group);
}

static void acts_floats(const struct acts_room *to, const float *x, size_t rows,
                        size_t cols, bool round_bf16)
{
    for (size_t t = 0; t < rows; t++, to++, x += cols) {
        size_t c = 0;
        for (; c + L <= cols; c += L) {
            vf v = vf_load(x + c);
            if (round_bf16) v = vf_round_bf16(v);
            words_put(to, c, &v, L);
        }
        for (; c < cols; c++) {
            float v = round_bf16 ? bf16_to_f32(f32_to_bf16(x[c])) : x[c];
            words_put(to, c, &v, 1);
        }
    }
}

#if BF16_PAIRS

#if VEC_AVX512 && VEC_BF16
/* Two rows of 16 columns as 8 words each, one row behind the other. What is
 * subnormal becomes 0: products take it for that. */
ALWAYS __m512i pairs_of_vf(vf first, vf second)
{
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/* Columns [0, cols) of four rows, 16 at a time. */
static void four_pairs(const struct four *f, size_t cols)
{
    const __m512i steps = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10,
                                            18, 26, 3, 11, 19, 27);
    const __m512i next = _mm512_add_epi32(steps, _mm512_set1_epi32(4));
    for (size_t c = 0; c < cols; c += L) {
        __m512i two[2];
        UNROLLED (i, 2)
            two[i] = pairs_of_vf(vf_load(f->x[2 * i] + c),
                                 vf_load(f->x[2 * i + 1] + c));
        four_put(f, c / 2, _mm512_permutex2var_epi32(two[0], steps, two[1]));
        four_put(f, c / 2 + 4, _mm512_permutex2var_epi32(two[0], next, two[1]));
    }
}
#endif

static void acts_pairs(const struct acts_room *to, const float *x, size_t rows,
                       size_t cols)
{
    size_t done = 0;
#if VEC_AVX512 && VEC_BF16
    struct four f;
    if (rows > 1 && four_at(&f, to, x, rows, cols)) {
        done = cols / L * L;
        four_pairs(&f, done);
    }
#endif
    for (size_t t = 0; t < rows; t++, to++, x += cols) {
        size_t c = done;
        uint16_t lanes[L];
        for (; c + L <= cols; c += L) {
            bf16_of_vf(lanes, vf_load(x + c));
            words_put(to, c / 2, lanes, L / 2);
        }
        for (; c < cols; c += 2) {
            lanes[0] = f32_to_bf16(x[c]);
            lanes[1] = c + 1 < cols ? f32_to_bf16(x[c + 1]) : 0;
            words_put(to, c / 2, lanes, 1);
        }
        if (is_alone(to)) /* zeros to the end of the slab: for a last tile */
            memset(word_at(to, c / 2 - 1) + 4, 0,
                   (SLAB_STEPS - 1 - (c / 2 - 1) % SLAB_STEPS) * 4);
    }
}
#else
#define acts_pairs NULL
#endif

#endif
