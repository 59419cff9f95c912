/* tensor/cpu/acts_body.h - rows of activations made ready for the products,
 * for the instruction set of the file that includes it. kernels.h has the
 * layouts, ops.h the rounding. */
#ifndef BATON_TENSOR_CPU_ACTS_BODY_H
#define BATON_TENSOR_CPU_ACTS_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

/* Where the word of a step and a token is. */
ALWAYS char *word_at(const struct acts_room *to, size_t step, size_t token,
                     size_t tokens)
{
    size_t in_slab = step % SLAB_STEPS;
    return (char *)to->words + step / SLAB_STEPS * to->words_stride +
           (to->by_token ? token * SLAB_STEPS + in_slab
                         : in_slab * tokens + token) *
               4;
}

/* n words from step on, of one token. */
ALWAYS void words_put(const struct acts_room *to, size_t step, size_t token,
                      size_t tokens, const void *from, int n)
{
    char *word = word_at(to, step, token, tokens); /* no slab ends within */
    if (to->by_token) {
        memcpy(word, from, (size_t)n * 4);
        return;
    }
    UNROLLED (i, n)
        memcpy(word + (size_t)i * tokens * 4, (const char *)from + 4 * i, 4);
}

/* quant_round's arithmetic for columns first .. first + n - 1 (multiples of
 * 32) of one row. */
ALWAYS void group_round(const struct acts_room *to, struct mark *mark,
                        const float *x, size_t first, size_t n, size_t token,
                        size_t tokens)
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
        words_put(to, c / 4, token, tokens, &bytes, L / 4);
    }
    int32_t sum = vi_sum(sums);
    *mark = (struct mark){s, s * (float)sum, sum, vi_sum(half)};
}

static void acts_int8(const struct acts_room *to, const float *x, size_t tokens,
                      size_t cols, size_t group)
{
    size_t in_slab = 4 * SLAB_STEPS / group; /* 0: a row has one mark */
    for (size_t t = 0; t < tokens; t++, x += cols)
        for (size_t g = 0; g < cols / group; g++) {
            struct mark *mark = to->marks + t;
            if (in_slab)
                mark += g / in_slab * to->marks_stride + g % in_slab * tokens;
            group_round(to, mark, x, g * group, group, t, tokens);
        }
}

static void acts_floats(const struct acts_room *to, const float *x,
                        size_t tokens, size_t cols, bool round_bf16)
{
    for (size_t t = 0; t < tokens; t++, x += cols) {
        size_t c = 0;
        for (; c + L <= cols; c += L) {
            vf v = vf_load(x + c);
            if (round_bf16) v = vf_round_bf16(v);
            words_put(to, c, t, tokens, &v, L);
        }
        for (; c < cols; c++) {
            float v = round_bf16 ? bf16_to_f32(f32_to_bf16(x[c])) : x[c];
            words_put(to, c, t, tokens, &v, 1);
        }
    }
}

#if BF16_PAIRS
static void acts_pairs(const struct acts_room *to, const float *x,
                       size_t tokens, size_t cols)
{
    for (size_t t = 0; t < tokens; t++, x += cols) {
        size_t c = 0;
        uint16_t lanes[L];
        for (; c + L <= cols; c += L) {
            bf16_of_vf(lanes, vf_load(x + c));
            words_put(to, c / 2, t, tokens, lanes, L / 2);
        }
        for (; c < cols; c += 2) {
            lanes[0] = f32_to_bf16(x[c]);
            lanes[1] = c + 1 < cols ? f32_to_bf16(x[c + 1]) : 0;
            words_put(to, c / 2, t, tokens, lanes, 1);
        }
        if (to->by_token) /* zeros to the end of the slab: for a last tile */
            memset(word_at(to, c / 2 - 1, t, tokens) + 4, 0,
                   (SLAB_STEPS - 1 - (c / 2 - 1) % SLAB_STEPS) * 4);
    }
}
#else
#define acts_pairs NULL
#endif

#endif
