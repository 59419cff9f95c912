#include "engine/row.h"

#include <math.h>
#include <string.h>

/* Eight floats at a time, by the compiler's vectors: one register with AVX2,
 * two where there is less. No fused multiply-add in either, so both round
 * alike. Vectors go by pointer: by value their ABI would depend on the set. */
typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
/* The same in memory, at any address. (memcpy to and from an f8 would go
 * through the stack in halves.) */
typedef float f8_mem __attribute__((vector_size(32), aligned(4), may_alias));

#define BODY static inline __attribute__((always_inline))
#if defined __x86_64__
#define WIDE     __attribute__((target("avx2")))
#define HAS_WIDE __builtin_cpu_supports("avx2")
#else
#define WIDE
#define HAS_WIDE 0
#endif

/* e^x for x <= 0: Cody and Waite's reduction to [-ln2/2, ln2/2] (constants of
 * Cephes' expf), Taylor to degree 7. */
BODY void exp8(f8 *v)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds */
    f8 x = *v, shift = {magic, magic, magic, magic, magic, magic, magic, magic};
    i8 alive = x >= -87.0f;
    x = (f8)((i8)x & alive);
    f8 n = x * 1.44269504f + shift;
    i8 power = (i8)n - (i8)shift;
    n -= shift;
    f8 r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    f8 e = r * 1.98412698e-4f + 1.38888889e-3f;
    e = e * r + 8.33333333e-3f;
    e = e * r + 4.16666667e-2f;
    e = e * r + 1.66666667e-1f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    *v = (f8)(((i8)e + (power << 23)) & alive);
}

/* A whole block; returns the sum. */
BODY double weigh(const struct row_scale *k, const float *x, float *out)
{
    const f8_mem *in = (const f8_mem *)x;
    f8_mem *to = (f8_mem *)out;
    f8 even = {0}, odd = {0};
    for (int i = 0; i < ROW_BLOCK / 8; i += 2) {
        f8 a = (in[i] - k->top) * k->inverse;
        f8 b = (in[i + 1] - k->top) * k->inverse;
        exp8(&a);
        exp8(&b);
        to[i] = a;
        to[i + 1] = b;
        even += a;
        odd += b;
    }
    even += odd;
    double sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (double)even[i];
    return sum;
}

/* A whole block's largest; *nan gets bits where there is one. */
BODY float top_of(const float *x, int32_t *nan)
{
    const f8_mem *in = (const f8_mem *)x;
    f8 top = in[0];
    i8 bad = top != top;
    for (int i = 1; i < ROW_BLOCK / 8; i++) {
        f8 v = in[i];
        i8 more = v > top;
        bad |= v != v;
        top = (f8)(((i8)v & more) | ((i8)top & ~more));
    }
    float best = top[0];
    for (int i = 0; i < 8; i++) {
        if (top[i] > best) best = top[i];
        *nan |= bad[i];
    }
    return best;
}

/* The last block, filled up with what weighs nothing. */
static const float *whole(const float *x, uint32_t n, float *room)
{
    if (n >= ROW_BLOCK) return x;
    memcpy(room, x, n * sizeof *x);
    for (uint32_t i = n; i < ROW_BLOCK; i++)
        room[i] = -INFINITY;
    return room;
}

BODY double masses(const struct row_scale *k, const float *x, uint32_t n,
                   double *out)
{
    float room[ROW_BLOCK], weights[ROW_BLOCK];
    double total = 0;
    for (uint32_t at = 0; at < n; at += ROW_BLOCK) {
        *out = weigh(k, whole(x + at, n - at, room), weights);
        total += *out++;
    }
    return total;
}

BODY bool tops(const float *x, uint32_t n, float *out, float *top)
{
    float room[ROW_BLOCK];
    int32_t nan = 0;
    *top = -INFINITY;
    for (uint32_t at = 0; at < n; at += ROW_BLOCK, out++) {
        *out = top_of(whole(x + at, n - at, room), &nan);
        if (*out > *top) *top = *out;
    }
    return !nan && isfinite(*top);
}

WIDE static void weights_wide(const struct row_scale *k, const float *x,
                              float *out)
{
    weigh(k, x, out);
}

WIDE static double masses_wide(const struct row_scale *k, const float *x,
                               uint32_t n, double *out)
{
    return masses(k, x, n, out);
}

WIDE static bool tops_wide(const float *x, uint32_t n, float *out, float *top)
{
    return tops(x, n, out, top);
}

void row_weights(const struct row_scale *k, const float *x, uint32_t n,
                 float *out)
{
    float room[ROW_BLOCK];
    x = whole(x, n, room);
    if (HAS_WIDE)
        weights_wide(k, x, out);
    else
        weigh(k, x, out);
}

double row_masses(const struct row_scale *k, const float *x, uint32_t n,
                  double *out)
{
    return HAS_WIDE ? masses_wide(k, x, n, out) : masses(k, x, n, out);
}

bool row_tops(const float *x, uint32_t n, float *out, float *top)
{
    return HAS_WIDE ? tops_wide(x, n, out, top) : tops(x, n, out, top);
}
