/* tensor/cpu/vec.h - the few vector operations that the kernels are made of.
 *
 * One instruction set per file that includes this, chosen by its compiler
 * flags: AVX-512 (with VNNI, perhaps BF16), AVX2 (with FMA, F16C, perhaps
 * AVX-VNNI), NEON (with dot products, or those and matrix products and BF16)
 * where the file asks for it, or GNU C vectors that any compiler lowers to what
 * it has. L lanes of 32 bits; ordinary operators
 * work on vf and vi. The generic set has no fused multiply-add, and no file
 * here may contract a * b + c by itself (-ffp-contract=off): equal
 * operations in equal order is what makes equal rows give equal bits. */
#ifndef BATON_TENSOR_CPU_VEC_H
#define BATON_TENSOR_CPU_VEC_H

#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#define VEC_AVX512 1
#define VEC_AVX2   0
enum { L = 16 };
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define VEC_AVX512 0
#define VEC_AVX2   1
enum { L = 8 };
#else
#define VEC_AVX512 0
#define VEC_AVX2   0
enum { L = 4 };
#endif

#if !defined(VEC_NEON)
#define VEC_NEON 0
#endif
#if VEC_NEON && defined(__ARM_FEATURE_MATMUL_INT8)
#define VEC_I8MM 1
#else
#define VEC_I8MM 0
#endif
#if VEC_NEON && defined(__ARM_FEATURE_DOTPROD)
#define VEC_DOT 1
#else
#define VEC_DOT 0
#endif

/* Products of bfloat16, on top of AVX-512, beside matrix products of NEON. */
#if (VEC_AVX512 && defined(__AVX512BF16__)) || VEC_I8MM
#define VEC_BF16 1
#else
#define VEC_BF16 0
#endif

/* Whether products take bfloat16 in pairs: by vectors, by tiles
 * (amx_body.h). */
#if !defined(PAIRS_TILES)
#define PAIRS_TILES 0
#endif
#define BF16_PAIRS (VEC_BF16 || PAIRS_TILES)

#if VEC_AVX2 && defined(__AVXVNNI__)
#define VEC_VNNI 1 /* vpdpbusd in 256 bits */
#else
#define VEC_VNNI 0
#endif

/* vi_dot takes bytes q + 128 for signed ones where "wide" is asked for. */
#define VEC_WIDE_IS_SIGNED ((VEC_AVX2 && !VEC_VNNI) || (VEC_NEON && !VEC_I8MM))

#if VEC_AVX512 || VEC_AVX2
#include <immintrin.h>
#elif VEC_NEON
#include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(4 * L)));
typedef int32_t vi __attribute__((vector_size(4 * L)));
typedef uint32_t vu __attribute__((vector_size(4 * L)));
typedef int16_t vs __attribute__((vector_size(4 * L)));
typedef uint16_t vw __attribute__((vector_size(4 * L)));
typedef uint8_t vb __attribute__((vector_size(4 * L)));
typedef int32_t vi_any __attribute__((vector_size(4 * L), aligned(1)));
typedef float vf_any __attribute__((vector_size(4 * L), aligned(1)));
typedef uint16_t half_any __attribute__((vector_size(2 * L), aligned(1)));
typedef uint16_t half_vec __attribute__((vector_size(2 * L)));
typedef int8_t byte_vec __attribute__((vector_size(L)));
typedef uint8_t byte_any __attribute__((vector_size(L), aligned(1)));
typedef int8_t char_any __attribute__((vector_size(L), aligned(1)));

/* UNROLLED: for (int i = 0; i < n; i++), unrolled whole: the arrays that it
 * indexes are then registers. ALWAYS: a function that becomes part of its
 * callers, with what they pass known. Under sanitizers neither: the checks of
 * that much code take gcc minutes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNROLLED(i, n) for (int i = 0; i < (n); i++)
#define ALWAYS         static __attribute__((unused))
#else
#define UNROLLED(i, n) _Pragma("GCC unroll 32") for (int i = 0; i < (n); i++)
#define ALWAYS         static inline __attribute__((always_inline, unused))
#endif

ALWAYS vf vf_load(const float *p)
{
    return *(const vf_any *)p;
}

ALWAYS void vf_store(float *p, vf v)
{
    *(vf_any *)p = v;
}

ALWAYS vi vi_load(const void *p)
{
    return *(const vi_any *)p;
}

ALWAYS void vi_store(void *p, vi v)
{
    *(vi_any *)p = v;
}

ALWAYS vf vf_set(float f)
{
    return f - (vf){0};
}

ALWAYS vi vi_set(int32_t i)
{
    return i - (vi){0};
}

/* The four bytes at p in every lane. */
ALWAYS vi vi_spread(const void *p)
{
    int32_t i;
    memcpy(&i, p, 4);
    return vi_set(i);
}

ALWAYS vf vf_of(vi v)
{
    return __builtin_convertvector(v, vf);
}

/* yes where mask (all ones or zeros) is set, else no. */
ALWAYS vf vf_pick(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* L bytes, halves, signed bytes, as integers. */
#if VEC_AVX512
ALWAYS vi vi_of_bytes(const void *p)
{
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}

ALWAYS vi vi_of_halves(const void *p)
{
    return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}

ALWAYS vi vi_of_i8(const void *p)
{
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
#elif VEC_AVX2
ALWAYS vi vi_of_bytes(const void *p)
{
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
}

ALWAYS vi vi_of_halves(const void *p)
{
    return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128(p));
}

ALWAYS vi vi_of_i8(const void *p)
{
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
#elif VEC_NEON
#include "tensor/cpu/vec_neon.h"
#else
ALWAYS vi vi_of_bytes(const void *p)
{
    return __builtin_convertvector(*(const byte_any *)p, vi);
}

ALWAYS vi vi_of_halves(const void *p)
{
    return __builtin_convertvector(*(const half_any *)p, vi);
}

ALWAYS vi vi_of_i8(const void *p)
{
    return __builtin_convertvector(*(const char_any *)p, vi);
}
#endif

/* L / 4 units of 16 bytes, unit i at p + at[i]. */
ALWAYS vi vi_of_units(const uint8_t *p, const size_t at[L / 4])
{
#if VEC_AVX512
    __m512i v =
        _mm512_castsi128_si512(_mm_loadu_si128((const __m128i_u *)(p + at[0])));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i_u *)(p + at[1])),
                           1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i_u *)(p + at[2])),
                           2);
    return (vi)_mm512_inserti32x4(
        v, _mm_loadu_si128((const __m128i_u *)(p + at[3])), 3);
#elif VEC_AVX2
    return (vi)_mm256_loadu2_m128i((const __m128i_u *)(p + at[1]),
                                   (const __m128i_u *)(p + at[0]));
#else
    return vi_load(p + at[0]);
#endif
}

ALWAYS vf vf_of_bf16(const void *p)
{
    return (vf)(vi_of_halves(p) << 16);
}

/* a * b + c; x where it is NaN, else the larger; nearest-even integers of
 * |v| < 2^22; L halves as floats; floats as halves. */
#if VEC_AVX512

ALWAYS vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

ALWAYS vf vf_max(vf x, vf low)
{
    return _mm512_max_ps(low, x);
}

ALWAYS vf vf_min(vf x, vf high)
{
    return _mm512_min_ps(high, x);
}

ALWAYS vi vi_round(vf v)
{
    return (vi)_mm512_cvtps_epi32(v);
}

ALWAYS vf vf_of_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

ALWAYS void f16_of_vf(void *p, vf v)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* acc + the dot product, lane by lane, of four unsigned bytes and four signed
 * ones. Inline assembly because gcc 12 copies every accumulator to the stack
 * around the intrinsic. */
ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    (void)wide;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(bytes), "v"(x));
    return acc;
}

/* v * 2^n for n of any size. */
ALWAYS vf vf_scale2(vf v, vf n)
{
    return _mm512_scalef_ps(v, n);
}

ALWAYS float vf_sum(vf v)
{
    return _mm512_reduce_add_ps(v);
}

ALWAYS int32_t vi_sum(vi v)
{
    return _mm512_reduce_add_epi32((__m512i)v);
}

ALWAYS uint32_t vu_max(vu v)
{
    return _mm512_reduce_max_epu32((__m512i)v);
}

/* The largest lane; any where there is a NaN. */
ALWAYS float vf_top(vf v)
{
    return _mm512_reduce_max_ps(v);
}

#elif VEC_AVX2

ALWAYS vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

ALWAYS vf vf_max(vf x, vf low)
{
    return _mm256_max_ps(low, x);
}

ALWAYS vf vf_min(vf x, vf high)
{
    return _mm256_min_ps(high, x);
}

ALWAYS vi vi_round(vf v)
{
    return (vi)_mm256_cvtps_epi32(v);
}

ALWAYS vf vf_of_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

ALWAYS void f16_of_vf(void *p, vf v)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#if VEC_VNNI
ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    (void)wide;
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(bytes), "x"(x));
    return acc;
}
#else
/* As above; pairs of products pass through 16 bits. wide: bytes are signed
 * ones plus 128, whose pairs could overflow, so the sign moves to x (and the
 * 128 is gone: VEC_WIDE_IS_SIGNED). */
ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    __m256i w = (__m256i)bytes, s = (__m256i)x;
    if (wide) {
        w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        s = _mm256_sign_epi8(s, w);
        w = _mm256_abs_epi8(w);
    }
    __m256i pairs = _mm256_maddubs_epi16(w, s);
    return acc + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

#elif !VEC_NEON

ALWAYS vf vf_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

ALWAYS vf vf_max(vf x, vf low)
{
    return vf_pick(x < low, low, x);
}

ALWAYS vf vf_min(vf x, vf high)
{
    return vf_pick(x > high, high, x);
}

ALWAYS vi vi_round(vf v)
{
    return (vi)(v + 0x1.8p23f) - 0x4b400000;
}

ALWAYS vf vf_of_f16(const void *p)
{
    vi h = vi_of_halves(p), rest = (h & 0x7fff) << 13;
    vi special = rest >= 0x0f800000; /* infinity or NaN */
    vi odd = rest > 0x0f800000;
    vi plain = (vi)((vf)rest * 0x1p112f);
    vi other = 0x7f800000 | rest | (odd & 0x00400000);
    return (vf)((h & 0x8000) << 16 | (special & other) | (~special & plain));
}

ALWAYS void f16_of_vf(void *p, vf v)
{
    for (int i = 0; i < L; i++) {
        uint16_t h = f32_to_f16(v[i]);
        memcpy((char *)p + 2 * i, &h, 2);
    }
}

/* As above; even and odd bytes are multiplied apart in 16 bits: a product is
 * at most 255 * 127. */
ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    (void)wide;
    vs even = (vs)((vw)bytes & 0xff) * (((vs)x << 8) >> 8);
    vs odd = (vs)((vw)bytes >> 8) * ((vs)x >> 8);
    vi even_sum = (((vi)even << 16) >> 16) + ((vi)even >> 16);
    vi odd_sum = (((vi)odd << 16) >> 16) + ((vi)odd >> 16);
    return acc + even_sum + odd_sum;
}

#endif

#if !VEC_AVX512

/* In two steps, since one factor cannot reach subnormals and infinity. */
ALWAYS vf vf_scale2(vf v, vf n)
{
    vi all = vi_round(n), half = all >> 1;
    vf a = (vf)((half + 127) << 23), b = (vf)((all - half + 127) << 23);
    return v * a * b;
}

/* Halves of the lanes are added until one is left. */
ALWAYS float vf_sum(vf v)
{
    float lanes[L];
    vf_store(lanes, v);
    for (int n = L / 2; n; n /= 2)
        for (int i = 0; i < n; i++)
            lanes[i] += lanes[i + n];
    return lanes[0];
}

#endif

#if !VEC_AVX512 && !VEC_NEON

ALWAYS int32_t vi_sum(vi v)
{
    int32_t sum = 0;
    UNROLLED (i, L)
        sum += v[i];
    return sum;
}

ALWAYS uint32_t vu_max(vu v)
{
    uint32_t most = 0;
    UNROLLED (i, L)
        most = v[i] > most ? v[i] : most;
    return most;
}

ALWAYS float vf_top(vf v)
{
    float top = v[0];
    UNROLLED (i, L)
        top = v[i] > top ? v[i] : top;
    return top;
}

#endif

/* The head of quant_round (tensor/quant.h): the larger of magnitudes as bits;
 * then, from the largest of all, the scale s and 1 / s, which is 0 where all
 * values round to 0. */
ALWAYS vu vu_magnitudes(vu most, vf x)
{
    vu bits = (vu)x & 0x7fffffff, more = (vu)(bits > most);
    return (bits & more) | (most & ~more);
}

ALWAYS float round_scale(uint32_t bits, float *inverse)
{
    float most;
    memcpy(&most, &bits, sizeof most);
    *inverse = 0;
    if (!(most >= 1e-30f && bits < 0x7f800000))
        return bits >= 0x7f800000 ? NAN : 0;
    *inverse = 127.0f / most;
    return most / 127.0f;
}

/* The last n < L floats at p, zeros behind them. */
ALWAYS vf vf_load_some(const float *p, size_t n)
{
    float lanes[L] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return vf_load(lanes);
}

ALWAYS void vf_store_some(float *p, vf v, size_t n)
{
    float lanes[L];
    vf_store(lanes, v);
    memcpy(p, lanes, n * sizeof *p);
}

/* The L x L transpose: blocks of h lanes are exchanged between rows h apart,
 * for h = 1, 2, 4, ... */
#define VEC_LOW(h, l)  ((l) & (h) ? L + (l) - (h) : (l))
#define VEC_HIGH(h, l) ((l) & (h) ? L + (l) : (l) + (h))
#define VEC_4(F, h, l) F(h, l), F(h, l + 1), F(h, l + 2), F(h, l + 3)
#if VEC_AVX512
#define VEC_LANES(F, h) \
    VEC_4(F, h, 0), VEC_4(F, h, 4), VEC_4(F, h, 8), VEC_4(F, h, 12)
#elif VEC_AVX2
#define VEC_LANES(F, h) VEC_4(F, h, 0), VEC_4(F, h, 4)
#else
#define VEC_LANES(F, h) VEC_4(F, h, 0)
#endif
#define VEC_EXCHANGE(h)                                                     \
    UNROLLED (i, L) {                                                       \
        if (i & (h)) continue;                                              \
        vf a = m[i], b = m[i + (h)];                                        \
        m[i] = __builtin_shufflevector(a, b, VEC_LANES(VEC_LOW, h));        \
        m[i + (h)] = __builtin_shufflevector(a, b, VEC_LANES(VEC_HIGH, h)); \
    }

ALWAYS void vf_transpose(vf m[L])
{
    VEC_EXCHANGE(1)
    VEC_EXCHANGE(2)
#if VEC_AVX512 || VEC_AVX2
    VEC_EXCHANGE(4)
#endif
#if VEC_AVX512
    VEC_EXCHANGE(8)
#endif
}

/* In lane i the sum of m[i]'s lanes: of neighbours first, then of neighbouring
 * sums, and so on. */
#define VEC_GATHER(h)                                                          \
    UNROLLED (i, L) {                                                          \
        if (i % (2 * (h))) continue;                                           \
        m[i] =                                                                 \
            __builtin_shufflevector(m[i], m[i + (h)], VEC_LANES(VEC_LOW, h)) + \
            __builtin_shufflevector(m[i], m[i + (h)], VEC_LANES(VEC_HIGH, h)); \
    }
#if VEC_AVX512
#define VEC_GATHER_ALL VEC_GATHER(1) VEC_GATHER(2) VEC_GATHER(4) VEC_GATHER(8)
#elif VEC_AVX2
#define VEC_GATHER_ALL VEC_GATHER(1) VEC_GATHER(2) VEC_GATHER(4)
#else
#define VEC_GATHER_ALL VEC_GATHER(1) VEC_GATHER(2)
#endif

ALWAYS vf vf_sums(vf m[L])
{
    VEC_GATHER_ALL
    return m[0];
}

ALWAYS vi vi_sums(vi m[L])
{
    VEC_GATHER_ALL
    return m[0];
}

/* Rounds to nearest even; a NaN stays one. */
ALWAYS void bf16_of_vf(void *p, vf v)
{
    vu bits = (vu)v;
    vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    vu nan = (vu)((bits & 0x7fffffff) > 0x7f800000);
    rounded = (nan & (bits >> 16 | 0x40)) | (~nan & rounded);
    half_vec h = __builtin_convertvector(rounded, half_vec);
    memcpy(p, &h, sizeof h);
}

/* The nearest bf16, even at ties, as a float. */
ALWAYS vf vf_round_bf16(vf v)
{
    vu bits = (vu)v;
    vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    vu nan = (vu)((bits & 0x7fffffff) > 0x7f800000);
    return (vf)((nan & (bits | 0x400000)) | (~nan & rounded));
}

/* e^x within 2 units in the last place; 0 for what is below all floats,
 * infinity above; NaN stays. The polynomial is Cephes' expf. */
ALWAYS vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_set(-104)), vf_set(89));
    vf n = vf_of(vi_round(x * 0x1.715476p+0f));
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + 1;
    return vf_scale2(p, n);
}

#define LOG2_E 0x1.715476p+0f

/* 2^x within 2 units in the last place, for x that is not above 127; 0 for what
 * is below all floats; NaN stays. The polynomial is 2^r's of least relative
 * error on [0, 1] (8e-8) with 1 at 0. */
ALWAYS vf vf_exp2(vf x)
{
#if VEC_AVX512
    vf n = x, r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | 8);
#else
    x = vf_max(x, vf_set(-160));
    vf n = vf_of(vi_round(x - 0.5f)), r = x - n;
#endif
    vf p = vf_set(0x1.e974fap-10f);
    p = vf_fma(p, r, vf_set(0x1.277856p-7f));
    p = vf_fma(p, r, vf_set(0x1.c91ce6p-5f));
    p = vf_fma(p, r, vf_set(0x1.ebdb56p-3f));
    p = vf_fma(p, r, vf_set(0x1.62e4bap-1f));
    p = vf_fma(p, r, vf_set(1));
    return vf_scale2(p, n); /* of AVX-512: by the integer not above n */
}

/* Words of two bfloat16. */
#if VEC_BF16 && VEC_AVX512

/* acc + both products of each word. Inline assembly for vi_dot's reason. */
ALWAYS vf vf_dot_bf16(vf acc, vf a, vf b)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

/* L words of 2 L floats, to nearest even; subnormals become 0, NaN and infinity
 * stay. */
ALWAYS vf bf16_of_two(vf low, vf high)
{
    return (vf)_mm512_cvtne2ps_pbh(high, low);
}

/* Half of the words (a[i], b[i]): those of elements 8 l + 0 .. 3 and of
 * 8 l + 4 .. 7. */
ALWAYS vf bf16_low(vf a, vf b)
{
    return (vf)_mm512_unpacklo_epi16((__m512i)a, (__m512i)b);
}

ALWAYS vf bf16_high(vf a, vf b)
{
    return (vf)_mm512_unpackhi_epi16((__m512i)a, (__m512i)b);
}

/* 2 L floats in the order of bf16_low, bf16_high as they were. */
ALWAYS void bf16_in_order(vf *low, vf *high)
{
    vf a = *low, b = *high;
    *low = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7,
                                   20, 21, 22, 23);
    *high = __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13,
                                    14, 15, 28, 29, 30, 31);
}

#endif

#if VEC_BF16
/* 2 L signed bytes, exactly. */
ALWAYS vf bf16_of_i8(const void *p)
{
    return bf16_of_two(vf_of(vi_of_i8(p)),
                       vf_of(vi_of_i8((const char *)p + L)));
}
#endif

#endif
