/* tensor/cpu/kernels_body.h - one instruction set's table of kernels. */
#ifndef BATON_TENSOR_CPU_KERNELS_BODY_H
#define BATON_TENSOR_CPU_KERNELS_BODY_H

#include "tensor/cpu/attention_body.h"
#include "tensor/cpu/linear_body.h"
#include "tensor/cpu/peak_body.h"
#include "tensor/cpu/rows_body.h"

#define KERNELS(NAME)                                                         \
    {                                                                         \
        .name = NAME, .block_groups = block_groups,                           \
        .float_groups = float_groups, .fused_tokens = 8,                      \
        .group_runs = group_runs, .group_floats = group_floats,               \
        .fused = fused, .unpack_blocks = unpack_blocks,                       \
        .unpack_floats = unpack_floats, .tile_blocks = tile_blocks,           \
        .tile_floats = tile_floats, .rmsnorm = rmsnorm, .silu_mul = silu_mul, \
        .rope = rope, .encode = encode, .attend = attend,                     \
        .attend_merge = attend_merge, .peak_read = peak_read,                 \
        .peak_floats = peak_floats, .peak_dots = peak_dots,                   \
        .floats_round = FLOATS_ROUND, .dots_round = DOTS_ROUND,               \
    }

#endif
