/* tensor/cpu/turn_body.h - a row normed, heads normed and turned, for the
 * instruction set of the file that includes it. */
#ifndef BATON_TENSOR_CPU_TURN_BODY_H
#define BATON_TENSOR_CPU_TURN_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

#include <math.h>
#include <string.h>

/* One row; meanwhile asks for the one that begins so far on. */
ALWAYS void row_norm(float *out, const float *x, const float *gain, size_t cols,
                     float eps, size_t next)
{
    size_t whole = cols / L * L, rest = cols - whole, c = 0;
    vf sums[4] = {{0}};
    for (; c + 4 * L <= whole; c += 4 * L)
        UNROLLED (i, 4) {
            vf v = vf_load(x + c + i * L);
            sums[i] = vf_fma(v, v, sums[i]);
        }
    for (; c < whole; c += L) {
        vf v = vf_load(x + c);
        sums[0] = vf_fma(v, v, sums[0]);
    }
    vf last = {0};
    if (rest) {
        last = vf_load_some(x + whole, rest);
        sums[0] = vf_fma(last, last, sums[0]);
    }
    float squares = vf_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    vf inverse = vf_set(1 / sqrtf(squares / (float)cols + eps));
    for (c = 0; c < whole; c += L) {
        __builtin_prefetch(x + next + c);
        vf_store(out + c, vf_load(x + c) * inverse * vf_load(gain + c));
    }
    if (rest)
        vf_store_some(out + whole,
                      last * inverse * vf_load_some(gain + whole, rest), rest);
}

/* a, b = (a, b) turned by an angle of cosine c, sine s. */
ALWAYS void pair_turn(vf *a, vf *b, vf c, vf s)
{
    vf first = *a;
    *a = vf_fma(first, c, -(*b * s));
    *b = vf_fma(*b, c, first * s);
}

static void heads_rotate(float *x, const float *cs, size_t heads, size_t rotary,
                         size_t d)
{
    size_t half = rotary / 2, whole = half / L * L, rest = half - whole;
    for (size_t h = 0; h < heads; h++, x += d) {
        for (size_t i = 0; i < whole; i += L) {
            vf a = vf_load(x + i), b = vf_load(x + half + i);
            pair_turn(&a, &b, vf_load(cs + i), vf_load(cs + half + i));
            vf_store(x + i, a);
            vf_store(x + half + i, b);
        }
        if (rest == 0) continue;
        float *p = x + whole;
        vf a = vf_load_some(p, rest), b = vf_load_some(p + half, rest);
        pair_turn(&a, &b, vf_load_some(cs + whole, rest),
                  vf_load_some(cs + half + whole, rest));
        vf_store_some(p, a, rest);
        vf_store_some(p + half, b, rest);
    }
}

/* Heads of a token; meanwhile asks for what begins so far on. */
ALWAYS void heads_turn(float *out, const float *x, const struct turn *turn,
                       const float *cs, size_t heads, size_t d, size_t next)
{
    if (turn->gain)
        for (size_t h = 0; h < heads; h++)
            row_norm(out + h * d, x + h * d, turn->gain, d, turn->eps, next);
    else
        memcpy(out, x, heads * d * sizeof *x);
    heads_rotate(out, cs, heads, turn->rope->rotary, d);
}

#endif
