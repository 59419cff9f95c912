/* tensor/cpu/mmla_body.h - integer products by matrices of two rows and two
 * tokens, eight columns at a time, where the instruction set of the file that
 * includes it has them. Sums are exact, so they are those of vi_dot. */
#ifndef BATON_TENSOR_CPU_MMLA_BODY_H
#define BATON_TENSOR_CPU_MMLA_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

/* Vectors of a panel. */
enum { PARTS = ROWS / L };

#if VEC_I8MM

/* Words of two tokens: of a step, and of the next. */
ALWAYS vi mmla_tokens(const uint8_t *x, size_t step)
{
    uint64_t first, second;
    memcpy(&first, x, 8);
    memcpy(&second, x + step, 8);
    return (vi)vzip1q_u32(vreinterpretq_u32_u64(vdupq_n_u64(first)),
                          vreinterpretq_u32_u64(vdupq_n_u64(second)));
}

/* steps_add (linear_body.h) for integers, T and n even. */
ALWAYS void mmla_add(int P, int T, const uint8_t *const w[PANELS_MAX],
                     const uint8_t *x, size_t n, vi *acc)
{
    vi m[PANELS_MAX * PARTS * TOKENS_MAX], tokens[TOKENS_MAX / 2];
    UNROLLED (i, P * PARTS * T / 2) {
        m[2 * i] = vzip1q_s32(acc[2 * i], acc[2 * i + 1]);
        m[2 * i + 1] = vzip2q_s32(acc[2 * i], acc[2 * i + 1]);
    }
    _Pragma("GCC unroll 1") for (size_t s = 0; s < n; s += 2, x += 8 * T)
    {
        UNROLLED (t, T / 2)
            tokens[t] = mmla_tokens(x + 8 * t, 4 * (size_t)T);
        UNROLLED (v, P * PARTS) {
            const uint8_t *from =
                w[v / PARTS] + s * STEP + (size_t)(v % PARTS * 4 * L);
            vi even = vi_load(from), odd = vi_load(from + STEP);
            vi low = vzip1q_s32(even, odd), high = vzip2q_s32(even, odd);
            UNROLLED (t, T / 2) {
                vi *sums = &m[v * T + 2 * t];
                sums[0] = vi_mmla(sums[0], low, tokens[t]);
                sums[1] = vi_mmla(sums[1], high, tokens[t]);
            }
        }
    }
    UNROLLED (i, P * PARTS * T / 2) {
        acc[2 * i] = vuzp1q_s32(m[2 * i], m[2 * i + 1]);
        acc[2 * i + 1] = vuzp2q_s32(m[2 * i], m[2 * i + 1]);
    }
}

#else
#define mmla_add(P, T, w, x, n, acc) ((void)0)
#endif

#endif
