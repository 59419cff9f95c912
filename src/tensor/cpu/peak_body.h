/* tensor/cpu/peak_body.h - loops that do one thing as fast as it goes, for
 * the instruction set of the file that includes it (tensor/roofline.h). */
#ifndef BATON_TENSOR_CPU_PEAK_BODY_H
#define BATON_TENSOR_CPU_PEAK_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

enum {
    VISIT = 256, /* bytes of a stream in a row */
    CHAINS = VEC_AVX512 ? 16 : 12,
};

/* Reads bytes (a multiple of streams * VISIT) and returns something that
 * depends on all of them. */
static double peak_read(const void *from, size_t bytes, size_t streams)
{
    const char *p = from;
    size_t part = bytes / streams;
    vi sums[4] = {{0}};
    for (size_t at = 0; at < part; at += VISIT)
        for (size_t s = 0; s < streams; s++)
            UNROLLED (i, VISIT / (4 * L))
                sums[i % 4] ^= vi_load(p + s * part + at + (size_t)i * 4 * L);
    vi all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    return all[0];
}

static double peak_floats(size_t rounds)
{
    vf f[CHAINS], a = vf_set(0.999f), b = vf_set(0.001f);
    UNROLLED (i, CHAINS)
        f[i] = vf_set((float)i);
    for (size_t r = 0; r < rounds; r++)
        UNROLLED (i, CHAINS)
            f[i] = vf_fma(f[i], a, b);
    double sum = 0;
    UNROLLED (i, CHAINS)
        sum += f[i][0];
    return sum;
}

static __attribute__((unused)) double peak_dots(size_t rounds)
{
    vi n[CHAINS], a = vi_set(0x01020304), b = vi_set(0x7f05fd01);
    UNROLLED (i, CHAINS)
        n[i] = vi_set(i);
    for (size_t r = 0; r < rounds; r++)
        UNROLLED (i, CHAINS)
            n[i] = vi_dot(n[i], a, b, 0);
    double sum = 0;
    UNROLLED (i, CHAINS)
        sum += n[i][0];
    return sum;
}

#if VEC_BF16
static __attribute__((unused)) double peak_pairs(size_t rounds)
{
    /* 1/2 and 1/4 in turn: of equal halves gcc 12 makes an fmov of half
     * floats, which bfloat16 alone does not have. */
    vf f[CHAINS], a = (vf)vi_set(0x3f003e80), b = (vf)vi_set(0x3e803f00);
    UNROLLED (i, CHAINS)
        f[i] = vf_set((float)i);
    for (size_t r = 0; r < rounds; r++)
        UNROLLED (i, CHAINS)
            f[i] = vf_dot_bf16(f[i], a, b);
    double sum = 0;
    UNROLLED (i, CHAINS)
        sum += f[i][0];
    return sum;
}
#else
#define peak_pairs NULL
#endif

enum {
    FLOATS_ROUND = CHAINS * L * 2,
    DOTS_ROUND = CHAINS * L * 8,
    BF16_ROUND = CHAINS * L * 4,
};

#endif
