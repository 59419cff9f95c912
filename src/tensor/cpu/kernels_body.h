/* tensor/cpu/kernels_body.h - one instruction set's table of kernels. */
#ifndef BATON_TENSOR_CPU_KERNELS_BODY_H
#define BATON_TENSOR_CPU_KERNELS_BODY_H

#include "tensor/cpu/attention_body.h"
#include "tensor/cpu/pack_body.h"
#include "tensor/cpu/peak_body.h"
#include "tensor/cpu/rows_body.h"
#include "tensor/cpu/stream_body.h"

#define KERNELS(NAME)                                                      \
    {                                                                      \
        .name = NAME, .bf16 = VEC_BF16, .tile_panels = tile_panels,        \
        .tiles = {{tile_tokens, false},                                    \
                  {tile_tokens, false},                                    \
                  {tile_tokens, false}},                                   \
        .streams = {{stream_tokens, false},                                \
                    {stream_tokens, false},                                \
                    {stream_tokens, false}},                               \
        .few = {8, 8, 32}, .acts_floats = acts_floats,                     \
        .acts_bf16 = acts_pairs, .acts_int8 = acts_int8, .stream = stream, \
        .pack = pack_words, .unpack = unpack, .tile = tile,                \
        .rmsnorm = rmsnorm, .silu_mul = silu_mul, .rope = rope,            \
        .encode = encode, .attend = attend, .attend_merge = attend_merge,  \
        .peak_read = peak_read, .peak_floats = peak_floats,                \
        .peak_dots = peak_dots, .floats_round = FLOATS_ROUND,              \
        .dots_round = DOTS_ROUND,                                          \
    }

#endif
