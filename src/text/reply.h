/* text/reply.h - what a chat model wrote, taken apart: reasoning, answer, calls
 * of tools.
 *
 *     text --reasoning.c--> reasoning
 *            \--toolcall.c--> content, calls
 *
 * Text goes in as it comes, split at any byte; events come out as soon as they
 * are sure, and are never taken back. The events' texts put together do not
 * depend on how the input was split, so a streamed answer is the whole one: no
 * half tag and no half character ever leaves. Nothing that the model wrote is
 * lost but tags and the blanks around them; what only looks like a call (no
 * JSON, a function that was not offered) is content as it was written.
 *
 * Arguments are the model's own text, whether or not it is JSON in the end
 * (OpenAI's contract too); control characters inside of strings are escaped.
 * One thread at a time. */
#ifndef BATON_TEXT_REPLY_H
#define BATON_TEXT_REPLY_H

#include "base/buf.h"
#include "json/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reasoning_format; /* a row of reasoning.c */
struct toolcall_format;  /* a row of toolcall.c */

/* By SGLang's name; NULL: unknown. */
const struct reasoning_format *reasoning_find(const char *name);
const struct toolcall_format *toolcall_find(const char *name);
/* The names, "a, b, c". */
void reasoning_list(struct buf *out);
void toolcall_list(struct buf *out);

/* Whether what follows prompt begins inside of the reasoning: the prompt ends
 * with the opening tag, or does not end with a closed block and the model is
 * known to begin so. */
bool reasoning_begins(const struct reasoning_format *format, const char *prompt,
                      size_t n);
/* Whether the reasoning is open behind text that the model, as it were, began
 * its answer with; inside: whether it was before. */
bool reasoning_goes_on(const struct reasoning_format *format, bool inside,
                       const char *text, size_t n);
/* The tags around reasoning. */
const char *reasoning_begin_tag(const struct reasoning_format *format);
const char *reasoning_end_tag(const struct reasoning_format *format);
/* Whether a prompt has closed the reasoning already: none follows. */
bool reasoning_is_over(const struct reasoning_format *format,
                       const char *prompt, size_t n);
/* Appends what closes reasoning that the prompt has opened. */
void reasoning_close(const struct reasoning_format *format, struct buf *out);

/* Whether tags of the format are special tokens, which must not be skipped. */
bool toolcall_is_special(const struct toolcall_format *format);

enum reply_kind {
    REPLY_REASONING,
    REPLY_CONTENT,
    REPLY_CALL,     /* a call begins; text is the function's name */
    REPLY_ARGUMENTS /* of the call that began last */
};

struct reply_event {
    enum reply_kind kind;
    uint32_t call; /* of the last two: which, from 0 on */
    const char *text;
    size_t len;
};

typedef void reply_sink(void *arg, const struct reply_event *event);

struct reply_options {
    const struct reasoning_format *reasoning; /* NULL: not looked for */
    bool in_reasoning;                        /* as reasoning_begins says */
    bool tag_ends_reasoning; /* only its tag does; else a call, too */
    const struct toolcall_format *toolcall; /* NULL: not looked for */
    const json_t *tools; /* OpenAI's list; borrowed as long as the reply */
    reply_sink *sink;    /* called inside of feed and end */
    void *arg;
};

struct reply;
struct reply *reply_create(const struct reply_options *options);
void reply_destroy(struct reply *reply); /* NULL is fine */

void reply_feed(struct reply *reply, const char *text, size_t n);
/* No more text: what was held back leaves. Nothing may be fed after it. */
void reply_end(struct reply *reply);

bool reply_in_reasoning(const struct reply *reply);
/* Memory was short, and text is lost. */
bool reply_failed(const struct reply *reply);

#endif
