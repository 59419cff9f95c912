/* serve/render.h - small pieces of JSON that several formats are made of.
 * Any thread. */
#ifndef BATON_SERVE_RENDER_H
#define BATON_SERVE_RENDER_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* text as a JSON string with its quotes; text must be UTF-8. */
void render_string(struct buf *to, const char *text);
/* What id alone decodes to, special tokens too, as a JSON string: bytes that
 * are no whole character become U+FFFD. Returns its length in characters. */
uint32_t render_token(struct buf *to, const struct tokenizer *t, int32_t id);
/* The token's bytes, [104,105]. */
void render_token_bytes(struct buf *to, const struct tokenizer *t, int32_t id);
/* The text that ids decode to, escaped, without quotes. */
void render_ids_text(struct buf *to, const struct tokenizer *t,
                     const int32_t *ids, size_t count, bool skip_special);
/* A float so that it reads back the same; what JSON cannot say is null. */
void render_float(struct buf *to, float value);

/* Starts a further item of a list: a ',' unless it is the first. */
void render_next(struct buf *list);
/* The items of list from the byte offset from on. */
void render_items(struct buf *to, const struct buf *list, size_t from);

#endif
