/* http/sse.h - server-sent events, as SGLang and OpenAI frame them:
 *
 *     data: {"text":"..."}\n\n   ...   data: [DONE]\n\n
 *
 * One thread owns a parser. Source: WHATWG HTML, section 9.2; the fields
 * event, id and retry are passed over. */
#ifndef BATON_HTTP_SSE_H
#define BATON_HTTP_SSE_H

#include "base/buf.h"

#include <stdbool.h>

/* Appends one event; each line of data gets its own "data: ". */
void sse_add(struct buf *out, const char *data, size_t n);

struct sse_parser {
    struct buf line; /* of the current, unfinished line  */
    struct buf data; /* of the current, unfinished event */
    bool has_data;   /* a data field was seen in this event */
    bool after_cr;   /* the last byte was CR: an LF belongs to it */
};

/* max_bytes: of one event. Fini also after a failed feed. */
void sse_init(struct sse_parser *parser, size_t max_bytes);
void sse_fini(struct sse_parser *parser);

/* Takes any piece of the stream; calls event(arg, data, n) for each event that
 * it completes (data is followed by a 0 byte, borrowed during the call). An
 * unfinished event at the end of the stream is no event. ERR_RANGE: an event
 * is over max_bytes; feed no more. */
int sse_feed(struct sse_parser *parser, const char *bytes, size_t n,
             void (*event)(void *arg, const char *data, size_t n), void *arg);

#endif
