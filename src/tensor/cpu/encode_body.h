/* tensor/cpu/encode_body.h - a head of K, V or q in bytes, for the instruction
 * set of the file that includes it. */
#ifndef BATON_TENSOR_CPU_ENCODE_BODY_H
#define BATON_TENSOR_CPU_ENCODE_BODY_H

#include "tensor/cpu/vec.h"

/* One head of DTYPE_KV8; returns its scale. */
static float encode_bytes(const float *in, int8_t *out, size_t d)
{
    vu most = {0};
    for (size_t c = 0; c < d; c += L)
        most = vu_magnitudes(most, d - c < L ? vf_load_some(in + c, d - c)
                                             : vf_load(in + c));
    float inverse, s = round_scale(vu_max(most), &inverse);
    if (inverse == 0) {
        memset(out, 0, d);
        return s;
    }
    for (size_t c = 0; c < d; c += L) {
        size_t n = d - c < L ? d - c : L;
        vf x = n < L ? vf_load_some(in + c, n) : vf_load(in + c);
        byte_vec q = __builtin_convertvector(vi_round(x * inverse), byte_vec);
        memcpy(out + c, &q, n);
    }
    return s;
}

#endif
