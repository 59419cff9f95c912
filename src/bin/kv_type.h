/* bin/kv_type.h - --kv-cache-dtype of all commands. */
#ifndef BATON_BIN_KV_TYPE_H
#define BATON_BIN_KV_TYPE_H

#include "model/model.h"

#define KV_TYPE_CHOICES "auto|bf16|bfloat16|f16|float16|f32|float32|int8"

/* auto is the model's own type, bf16 for quantized files. */
enum dtype kv_type_of(const char *choice, const struct model_config *config);

#endif
