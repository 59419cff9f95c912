/* text/chat.h - a conversation in OpenAI's form to the prompt a model knows.
 *
 * Around text/template.h: the variables that transformers gives a chat template
 * and the small repairs that servers make to what clients send, so that
 * templates render it:
 *   - content given as parts: templates that loop over content get the list,
 *     the others the text parts joined by a blank (as SGLang does)
 *   - content null or missing, as beside tool calls: "" unless the template
 *     itself asks whether content is none
 *   - tool calls' arguments, JSON in a string: an object where the template
 *     takes it, else the string. */
#ifndef BATON_TEXT_CHAT_H
#define BATON_TEXT_CHAT_H

#include "base/buf.h"
#include "json/json.h"
#include "text/tokenizer.h"

struct chat; /* immutable: any thread renders */

/* source NULL: the tokenizer's own template; ERR_NOT_FOUND where it has none.
 * The texts of named tokens are copied. Errors as template_compile. */
int chat_create(struct chat **out, const struct tokenizer *t,
                const char *source, struct why *why);
void chat_destroy(struct chat *chat); /* NULL is fine */

/* The text of a list of content parts, joined by a blank; a new reference.
 * NULL: ERR_INVALID (a part is no text), ERR_FORMAT, ERR_NOMEM. */
json_t *chat_join_parts(const json_t *parts, struct why *why);

struct chat_request {
    const json_t *messages; /* array of objects */
    const json_t *tools;    /* array, or NULL */
    const json_t *kwargs;   /* object: further variables, or NULL */
    bool add_generation_prompt;
};

/* Appends the prompt, which already holds bos where the template puts it:
 * encode it without TOKENIZER_ADD_SPECIAL. Nothing of the request is changed.
 * Errors as template_render, and ERR_INVALID for what is no conversation. */
int chat_render(const struct chat *chat, const struct chat_request *request,
                struct buf *out, struct why *why);

#endif
