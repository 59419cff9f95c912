/* tensor/cpu/kernels_body.h - one instruction set's table of kernels. */
#ifndef BATON_TENSOR_CPU_KERNELS_BODY_H
#define BATON_TENSOR_CPU_KERNELS_BODY_H

#if defined(AMX_TILES)
#include "tensor/cpu/amx_body.h"
#else
#include "tensor/cpu/batch_body.h"
#endif
#include "tensor/cpu/pack_body.h"
#include "tensor/cpu/peak_body.h"
#include "tensor/cpu/round_body.h"
#include "tensor/cpu/rows_body.h"
#include "tensor/cpu/stream_body.h"

/* Tokens of bf16 that batches take. */
#define BF16_FEW (VEC_AVX512 && VEC_BF16 ? BATCH_TOKENS : 8)

/* clang-format off */
#define VECTOR_PRODUCTS                                              \
    .tile_panels = tile_panels, .tiles_long = true,                  \
    .tiles = {{.sizes = tile_tokens}, {.sizes = tile_tokens},        \
              {.sizes = tile_tokens}},                               \
    .streams = {{.sizes = stream_tokens}, {.sizes = stream_tokens},  \
                {.sizes = stream_tokens}},                           \
    .few = {8, BF16_FEW, 32}, .stream = stream,                      \
    .batch = batch_panels,                                           \
    .batches = {{.sizes = batch_plain}, {.sizes = batch_grouped}},   \
    .tile = tile,                                                    \
    .peak_dots = peak_dots, .dots_round = DOTS_ROUND,                \
    .peak_bf16 = peak_pairs, .bf16_round = BF16_ROUND

#define AMX_PRODUCTS                                                 \
    .tile_panels = amx_panels,                                       \
    .tiles = {{.sizes = tile_tokens},                                \
              {PAIRS_TILES ? amx_tokens : tile_tokens, PAIRS_TILES}, \
              {amx_tokens, true}},                                   \
    .streams = {{.sizes = stream_tokens},                            \
                {stream_tokens, PAIRS_TILES},                        \
                {.sizes = stream_tokens}},                           \
    .few = {8, 8, 8}, .stream = amx_stream, .tile = amx_tile,        \
    .tiles_begin = amx_begin, .tiles_end = amx_end,                  \
    .check = amx_check, .peak_dots = amx_peak_dots,                  \
    .dots_round = AMX_DOTS_ROUND, .peak_bf16 = amx_peak_pairs,      \
    .bf16_round = AMX_BF16_ROUND
/* clang-format on */

#define KERNELS(NAME, PRODUCTS, ATTENTION)                            \
    {                                                                 \
        .name = NAME, .bf16 = BF16_PAIRS, PRODUCTS,                   \
        .acts_floats = acts_floats, .acts_bf16 = acts_pairs,          \
        .acts_int8 = acts_int8, .pack = pack_words, .pack_k = pack_k, \
        .round = round_row, .unpack = unpack, .rmsnorm = rmsnorm,     \
        .silu_mul = silu_mul, .turn = turn, .encode = encode,         \
        .attention = &(ATTENTION), .peak_read = peak_read,            \
        .peak_floats = peak_floats, .floats_round = FLOATS_ROUND,     \
    }

#endif
