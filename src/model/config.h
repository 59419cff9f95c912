/* model/config.h - the configuration of a model, from either kind of file.
 *
 * A config that asks for what the forward pass does not do (quantized
 * weights of another scheme, a rope we do not know, ...) is refused
 * with the field's name: a wrong answer would be worse. Any thread. */
#ifndef BATON_MODEL_CONFIG_H
#define BATON_MODEL_CONFIG_H

#include "json/json.h"
#include "model/gguf.h"
#include "model/model.h"

/* config is a Hugging Face config.json; generation its generation_config.json
 * or NULL; name stands in errors. Absent fields have the defaults of
 * transformers' LlamaConfig and Qwen3Config; dtype is what the config says,
 * DTYPE_F32 when nothing. ERR_FORMAT, ERR_UNSUPPORTED. */
int config_from_json(struct model_config *out, const json_t *config,
                     const json_t *generation, const char *name,
                     struct why *why);
/* The two files of a folder. ERR_NOT_FOUND when it has no config.json. */
int config_from_folder(struct model_config *out, const char *folder,
                       struct why *why);
/* The metadata (and the presence of some tensors) of a GGUF file; name stands
 * in errors. */
int config_from_gguf(struct model_config *out, const struct gguf *g,
                     const char *name, struct why *why);

/* The rotary frequencies [rope.rotary / 2] in radians per position, with the
 * scaling of config. divisors [rope.rotary / 2] for ROPE_DIVISORS, else NULL.
 * Source: transformers' modeling_rope_utils.py; YaRN (Peng 2023). */
void config_rope_freqs(const struct model_config *config, const float *divisors,
                       float *out);

#endif
