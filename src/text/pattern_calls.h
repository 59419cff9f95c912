/* text/pattern_calls.h - answers in which every call of a tool is one: of a
 * function that was offered, in the model's own format, with arguments of its
 * JSON Schema (text/pattern_schema.h).
 *
 * Either calls and nothing else, behind reasoning where the model may think; or
 * any text, which may end in calls. A format's tags are its added tokens where
 * the tokenizer has them, else text; in any text they stand for nothing but
 * calls. Arguments as XML (qwen3_coder) hold strings as they are, so that of a
 * string's schema only type, enum and const can be kept; others are refused.
 *
 * Source: the formats of toolcall.c; SGLang's structural tags. */
#ifndef BATON_TEXT_PATTERN_CALLS_H
#define BATON_TEXT_PATTERN_CALLS_H

#include "base/buf.h"
#include "json/json.h"
#include "text/pattern.h"
#include "text/reply.h"

struct tokenizer; /* text/tokenizer.h */

struct calls_spec {
    const struct toolcall_format *format;
    const struct reasoning_format *reasoning; /* NULL: none is told apart */
    bool inside;         /* the answer begins in its reasoning */
    bool over;           /* none may come */
    bool must;           /* calls and nothing else */
    bool one;            /* of them, not more */
    const char *name;    /* must: of this function; NULL: any */
    const json_t *tools; /* OpenAI's list, which was checked */
};

/* Appends the spec as JSON, the text of a GRAMMAR_CALLS. Functions that are not
 * strict may have any arguments, unless the calls must come. */
void pattern_calls_text(const struct calls_spec *spec, struct buf *out);

/* Defines rule 0 of an empty pattern of such a text. ERR_INVALID,
 * ERR_UNSUPPORTED, ERR_RANGE: with the function's name. */
int pattern_calls(struct pattern *p, const struct tokenizer *tokenizer,
                  const json_t *text, struct why *why);

#endif
