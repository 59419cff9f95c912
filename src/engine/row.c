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
#ifdef __clang__ /* unrolls such loops by itself */
#define UNROLLED
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif
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

/* A whole block's largest, NaN if there is one. */
BODY float top_of(const float *x)
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
    int32_t any = 0;
    for (int i = 0; i < 8; i++) {
        if (top[i] > best) best = top[i];
        any |= bad[i];
    }
    return any ? NAN : best;
}

/* Eight vectors at a time are looked through; most have none. */
BODY uint32_t between(const float *x, float lo, float hi, int32_t first,
                      int32_t *ids)
{
    enum { AT_ONCE = 64 };
    typedef int64_t l4 __attribute__((vector_size(32)));
    const f8_mem *in = (const f8_mem *)x;
    uint32_t n = 0;
    for (int at = 0; at < ROW_BLOCK; at += AT_ONCE) {
        i8 any = {0};
        UNROLLED
            for (int i = 0; i < AT_ONCE / 8; i++) {
                f8 v = in[at / 8 + i];
                any |= (v > lo) & (v <= hi);
            }
        l4 some = (l4)any;
        if (!(some[0] | some[1] | some[2] | some[3])) continue;
        for (int i = at; i < at + AT_ONCE; i++) {
            ids[n] = first + i; /* no branch: n <= i */
            n += (x[i] > lo) & (x[i] <= hi);
        }
    }
    return n;
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

BODY void weigh_all(const struct row_scale *k, const float *x, uint32_t n,
                    float *weights, double *masses)
{
    float room[ROW_BLOCK];
    for (uint32_t at = 0; at < n; at += ROW_BLOCK)
        *masses++ = weigh(k, whole(x + at, n - at, room), weights + at);
}

struct lanes {
    f8 mass[ROW_FLOORS];
    i8 count[ROW_FLOORS];
};

/* Floors [from, to) of a block: as many as there are registers for. */
BODY void split_block(const f8_mem *in, const f8_mem *w, const float *floors,
                      int from, int to, struct lanes *all)
{
    struct lanes l = {0};
    for (int i = 0; i < ROW_BLOCK / 8; i++) {
        f8 x = in[i];
        i8 weight = (i8)w[i];
        UNROLLED
            for (int k = from; k < to; k++) {
                i8 above = x > floors[k];
                l.mass[k] += (f8)(weight & above);
                l.count[k] -= above;
            }
    }
    UNROLLED
        for (int k = from; k < to; k++) {
            all->mass[k] += l.mass[k];
            all->count[k] += l.count[k];
        }
}

BODY void split(const float *x, const float *weights, const float *tops,
                uint32_t n, const float *floors, struct row_above *out)
{
    float room[ROW_BLOCK];
    struct lanes all = {0};
    for (uint32_t at = 0; at < n; at += ROW_BLOCK) {
        if (!(*tops++ > floors[ROW_FLOORS - 1])) continue;
        const f8_mem *in = (const f8_mem *)whole(x + at, n - at, room);
        const f8_mem *w = (const f8_mem *)(weights + at);
        split_block(in, w, floors, 0, 4, &all);
        split_block(in, w, floors, 4, ROW_FLOORS, &all);
    }
    for (int k = 0; k < ROW_FLOORS; k++) {
        out->mass[k] = 0;
        out->count[k] = 0;
        for (int i = 0; i < 8; i++) {
            out->mass[k] += (double)all.mass[k][i];
            out->count[k] += (uint32_t)all.count[k][i];
        }
    }
}

BODY double kept(const float *x, const float *weights, float floor, float least)
{
    const f8_mem *in = (const f8_mem *)x, *w = (const f8_mem *)weights;
    f8 mass = {0};
    for (int i = 0; i < ROW_BLOCK / 8; i++)
        mass += (f8)((i8)w[i] & (in[i] > floor) & (w[i] >= least));
    double sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (double)mass[i];
    return sum;
}

BODY void tops(const float *x, uint32_t n, float *out)
{
    float room[ROW_BLOCK];
    for (uint32_t at = 0; at < n; at += ROW_BLOCK)
        *out++ = top_of(whole(x + at, n - at, room));
}

WIDE static void weigh_wide(const struct row_scale *k, const float *x,
                            uint32_t n, float *weights, double *masses)
{
    weigh_all(k, x, n, weights, masses);
}

WIDE static void split_wide(const float *x, const float *weights,
                            const float *tops, uint32_t n, const float *floors,
                            struct row_above *out)
{
    split(x, weights, tops, n, floors, out);
}

WIDE static uint32_t between_wide(const float *x, float lo, float hi,
                                  int32_t first, int32_t *ids)
{
    return between(x, lo, hi, first, ids);
}

WIDE static double kept_wide(const float *x, const float *weights, float floor,
                             float least)
{
    return kept(x, weights, floor, least);
}

WIDE static void tops_wide(const float *x, uint32_t n, float *out)
{
    tops(x, n, out);
}

void row_weigh(const struct row_scale *k, const float *x, uint32_t n,
               float *weights, double *masses)
{
    (HAS_WIDE ? weigh_wide : weigh_all)(k, x, n, weights, masses);
}

void row_split(const float *x, const float *weights, const float *tops,
               uint32_t n, const float floors[ROW_FLOORS],
               struct row_above *out)
{
    (HAS_WIDE ? split_wide : split)(x, weights, tops, n, floors, out);
}

uint32_t row_between(const float *x, uint32_t n, float lo, float hi,
                     int32_t first, int32_t *ids)
{
    float room[ROW_BLOCK];
    x = whole(x, n, room);
    return (HAS_WIDE ? between_wide : between)(x, lo, hi, first, ids);
}

double row_kept(const float *x, const float *weights, uint32_t n, float floor,
                float least)
{
    float room[ROW_BLOCK];
    x = whole(x, n, room);
    return (HAS_WIDE ? kept_wide : kept)(x, weights, floor, least);
}

void row_tops(const float *x, uint32_t n, float *out)
{
    (HAS_WIDE ? tops_wide : tops)(x, n, out);
}
