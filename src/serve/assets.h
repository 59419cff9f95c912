/* serve/assets.h - what turns text into a model's tokens and chats into text:
 * tokenizer, chat template, and the model's generation defaults.
 *
 * They come from where the model is: a Hugging Face folder (tokenizer.json or
 * else tokenizer.model, tokenizer_config.json, chat_template.jinja,
 * generation_config.json) or the metadata of a GGUF file. Immutable once open;
 * any thread. */
#ifndef BATON_SERVE_ASSETS_H
#define BATON_SERVE_ASSETS_H

#include "base/buf.h"
#include "json/json.h"

#include <stdbool.h>

struct assets;
struct tokenizer; /* text/tokenizer.h */

struct assets_options {
    const char *model_path;     /* folder or .gguf                          */
    const char *tokenizer_path; /* NULL: model_path; else folder or .gguf   */
    const char *chat_template;  /* NULL: the model's; else a template file  */
};

/* ERR_IO, ERR_NOT_FOUND, ERR_FORMAT, ERR_UNSUPPORTED (names the construct of
 * the tokenizer or template that cannot be done), ERR_NOMEM. A model without
 * a chat template is no error. */
int assets_open(struct assets **out, const struct assets_options *options,
                struct why *why);
void assets_close(struct assets *assets); /* NULL is fine */

const struct tokenizer *assets_tokenizer(const struct assets *assets);
/* Where it came from: "tokenizer.json", "tokenizer.model" or "GGUF". */
const char *assets_tokenizer_source(const struct assets *assets);
bool assets_has_chat(const struct assets *assets);

/* The prompt of a chat, as text/chat.h makes it. tools: a list or NULL;
 * variables: an object of further template variables. ERR_INVALID: the
 * template refuses (its own words), or there is none. */
int assets_render_chat(const struct assets *assets, const json_t *messages,
                       const json_t *tools, const json_t *variables,
                       struct buf *out, struct why *why);

/* generation_config.json, as --sampling-defaults model uses it: NULL where
 * the model has none. */
struct generation_defaults;
const struct generation_defaults *assets_generation_defaults(
    const struct assets *assets);
/* Sets, in an object of sampling parameters, those that are missing. */
void generation_defaults_apply(const struct generation_defaults *defaults,
                               json_t *params);

#endif
