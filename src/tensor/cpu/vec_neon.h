/* tensor/cpu/vec_neon.h - the operations of vec.h for 64-bit Arm, by what the
 * compiler is told to use: NEON, with dot products (sdot), or with those of
 * mixed signs, matrix products and bfloat16 (usdot, usmmla, bfdot). Included
 * by vec.h alone. */
#ifndef BATON_TENSOR_CPU_VEC_NEON_H
#define BATON_TENSOR_CPU_VEC_NEON_H

#include "tensor/cpu/vec.h"

#if VEC_NEON

ALWAYS vi vi_of_bytes(const void *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}

ALWAYS vi vi_of_halves(const void *p)
{
    uint64_t four;
    memcpy(&four, p, 8);
    return (vi)vmovl_u16(vcreate_u16(four));
}

ALWAYS vi vi_of_i8(const void *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}

ALWAYS vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

ALWAYS vf vf_max(vf x, vf low)
{
    return vmaxq_f32(x, low); /* NaN stays */
}

ALWAYS vf vf_min(vf x, vf high)
{
    return vminq_f32(x, high);
}

ALWAYS vi vi_round(vf v)
{
    return vcvtnq_s32_f32(v);
}

ALWAYS vf vf_of_f16(const void *p)
{
    uint64_t four;
    memcpy(&four, p, 8);
    return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(four)));
}

ALWAYS void f16_of_vf(void *p, vf v)
{
    float16x4_t h = vcvt_f16_f32(v);
    memcpy(p, &h, sizeof h);
}

ALWAYS int32_t vi_sum(vi v)
{
    return vaddvq_s32(v);
}

ALWAYS uint32_t vu_max(vu v)
{
    return vmaxvq_u32(v);
}

ALWAYS float vf_top(vf v)
{
    return vmaxvq_f32(v);
}

/* Bytes q + 128 as signed ones. */
ALWAYS vi vi_signed(vi bytes)
{
    return bytes ^ vi_set((int32_t)0x80808080);
}

#if VEC_I8MM

ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    (void)wide;
    return vusdotq_s32(acc, (uint8x16_t)bytes, (int8x16_t)x);
}

/* The sums of two rows and two tokens, r0t0 r0t1 r1t0 r1t1, + eight products
 * each: two rows of eight unsigned bytes, two tokens of eight signed ones. */
ALWAYS vi vi_mmla(vi acc, vi rows, vi tokens)
{
    return vusmmlaq_s32(acc, (uint8x16_t)rows, (int8x16_t)tokens);
}

ALWAYS vf vf_dot_bf16(vf acc, vf a, vf b)
{
    return vbfdotq_f32(acc, (bfloat16x8_t)a, (bfloat16x8_t)b);
}

ALWAYS vf bf16_of_two(vf low, vf high)
{
    return (vf)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high);
}

ALWAYS vf bf16_low(vf a, vf b)
{
    return (vf)vzip1q_u16((uint16x8_t)a, (uint16x8_t)b);
}

ALWAYS vf bf16_high(vf a, vf b)
{
    return (vf)vzip2q_u16((uint16x8_t)a, (uint16x8_t)b);
}

ALWAYS void bf16_in_order(vf *low, vf *high)
{
    (void)low, (void)high; /* they are: a vector has eight, in order */
}

#elif VEC_DOT

ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    return vdotq_s32(acc, (int8x16_t)(wide ? vi_signed(bytes) : bytes),
                     (int8x16_t)x);
}

#else

/* Two products of signed bytes, of which one is at least -127, fit 16 bits. */
ALWAYS vi vi_dot(vi acc, vi bytes, vi x, int wide)
{
    int8x16_t w = (int8x16_t)(wide ? vi_signed(bytes) : bytes);
    int8x16_t s = (int8x16_t)x;
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(s));
    return vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, s)));
}

#endif

#endif

#endif
