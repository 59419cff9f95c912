/* model/quantize.h - a folder of float weights into one of integers.
 *
 * What comes out is a Hugging Face folder in the format of compressed-tensors,
 * which Baton, vLLM, SGLang and transformers load:
 *
 *   w8a8_int8   NAME.weight I8 [rows, cols], NAME.weight_scale F32 [rows, 1]
 *               ("int-quantized", activations rounded row by row)
 *   int8        NAME.weight_packed I32 [rows, cols / 4], bytes q + 128,
 *               NAME.weight_scale F16 [rows, groups], NAME.weight_shape
 *   int4        NAME.weight_packed I32 [rows, cols / 8], nibbles, and
 *               NAME.weight_zero_point I32 [rows / 8, groups] too
 *               ("pack-quantized", in groups of 128, or for int4 of 64 or 32
 *               where 128 does not divide the columns of every matrix)
 *
 * Rounded are the projections of attention, feed-forwards and experts
 * (NAME ends in _proj) whose columns are whole groups and rows a multiple of 8;
 * all else is copied, the folder's other files too. config.json is written
 * last: a folder without it is not finished. */
#ifndef BATON_MODEL_QUANTIZE_H
#define BATON_MODEL_QUANTIZE_H

#include "model/model.h"

struct quantize_options {
    const char *in, *out; /* folders; out is made, and must hold no model */
    enum model_quantize kind;
    /* As model_options'; bytes of in. */
    void (*progress)(void *arg, size_t done_bytes, size_t total_bytes);
    void *arg;
};

/* ERR_INVALID (in is no folder of floats), ERR_EXISTS (out holds a model),
 * ERR_IO, and what model_survey says of in. */
int model_quantize(const struct quantize_options *options, struct why *why);

#endif
