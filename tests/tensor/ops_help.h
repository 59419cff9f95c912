/* tests/tensor/ops_help.h - devices, random inputs and comparisons for the
 * tests of operations. */
#ifndef BATON_TESTS_TENSOR_OPS_HELP_H
#define BATON_TESTS_TENSOR_OPS_HELP_H

#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tensor/ops.h"

#include <math.h>

/* Instruction sets, the best last, and behind them one whose products alone
 * are of its own; and what device_describe calls them. */
static const struct {
    const char *isa, *name;
} isas[] = {
    {"generic", "cpu generic,"},
#if defined(__aarch64__)
    {"neon", "cpu neon,"},         {"neondot", "cpu neondot,"},
    {"neoni8mm", "cpu neoni8mm,"},
#else
    {"avx2", "cpu avx2,"},          {"avxvnni", "cpu avxvnni,"},
    {"avx512", "cpu avx512-vnni,"}, {"avx512bf16", "cpu avx512bf16,"},
    {"amxint8", "cpu amxint8,"},    {"amxbf16", "cpu amxbf16,"},
#endif
    {"amxplain", "cpu amxplain,"},
};
enum { PRODUCT_ISAS = sizeof isas / sizeof *isas, ISAS = PRODUCT_ISAS - 1 };

/* Whether case i of many is left out: under an emulator some have to do. */
static inline bool left_out(size_t i)
{
    return getenv("BATON_EMULATOR") && i % 8;
}

static inline struct device *open_device(const char *kind, const char *isa,
                                         int threads)
{
    struct why why = {0};
    struct device *dev = NULL;
    struct device_options options = {kind, threads, isa};
    if (device_open(&dev, &options, &why)) fail_msg("%s", why.text);
    if (device_reserve(dev, 1100, 2048, &why)) fail_msg("%s", why.text);
    return dev;
}

static inline struct device *open_ref(void)
{
    return open_device("ref", NULL, 1);
}

/* With isas[i]; NULL where this processor lacks it. Threads are shared alike by
 * all, so the thread sanitizer looks at one: the best that is here. */
static inline struct device *open_cpu(int i, int threads)
{
#if defined(__SANITIZE_THREAD__)
    if (i != ISAS - 1) return NULL;
    return open_device("cpu", NULL, threads);
#endif
    if (left_out(1) && i == 0) return NULL;
    struct device *dev = open_device("cpu", isas[i].isa, threads);
    if (strstr(device_describe(dev), isas[i].name)) return dev;
    device_close(dev);
    return NULL;
}

/* Roughly normal. */
static inline float random_float(uint64_t *seed)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += rng_unit(seed) - 0.5;
    return (float)(sum * 1.7);
}

static inline float *random_floats(size_t n, uint64_t *seed)
{
    float *x = mem_must(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(seed);
    return x;
}

static inline float *floats(size_t n)
{
    return mem_must(n, sizeof(float));
}

/* A matrix of any type: random values, or for types without an encoder
 * random bytes with scales of sane size. */
static inline void *random_matrix(enum dtype type, size_t rows, size_t cols,
                                  uint64_t *seed)
{
    size_t bytes = dtype_row_bytes(type, cols) * rows;
    uint8_t *m = mem_must(bytes, 1);
    if (type < DTYPE_Q4_K || type > DTYPE_Q6_K) {
        float *x = random_floats(rows * cols, seed);
        for (size_t r = 0; r < rows; r++)
            dtype_encode(type, x + r * cols, m + r * (bytes / rows), cols);
        mem_free(x);
        return m;
    }
    for (size_t i = 0; i < bytes; i++)
        m[i] = (uint8_t)rng_next(seed);
    size_t block = dtype_block_bytes(type), at = type == DTYPE_Q6_K ? 208 : 0;
    for (size_t b = 0; b < bytes; b += block) {
        for (size_t i = 0; i < (type == DTYPE_Q6_K ? 1 : 2); i++) {
            uint16_t h = f32_to_f16(random_float(seed) * 0.002f);
            memcpy(m + b + at + 2 * i, &h, 2);
        }
    }
    return m;
}

static inline void check_close(const float *got, const float *want, size_t n,
                               double absolute, double relative)
{
    for (size_t i = 0; i < n; i++) {
        double limit = absolute + relative * fabs((double)want[i]);
        if (!(fabs((double)got[i] - want[i]) <= limit))
            fail_msg("element %zu: %.9g, want %.9g +- %.3g", i, got[i], want[i],
                     limit);
    }
}

static inline double largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)x[i]));
    return most;
}

#endif
