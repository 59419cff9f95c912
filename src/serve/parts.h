/* serve/parts.h - an output of a chat that is taken apart (text/reply.h): its
 * reasoning and calls; the content stays the output's text. Loop thread. */
#ifndef BATON_SERVE_PARTS_H
#define BATON_SERVE_PARTS_H

#include "base/buf.h"
#include "text/reply.h"

struct ask;

struct tool_call {
    char id[32];          /* call_ and 24 hex digits */
    char *name;           /* owned */
    struct buf arguments; /* escaped for JSON */
    size_t sent;          /* bytes of it */
    bool begun;           /* its name went out */
};

struct parts {
    struct reply *reply;
    struct buf *content;  /* the output's text, escaped for JSON */
    struct buf reasoning; /* likewise */
    size_t reasoning_sent;
    uint32_t reasoning_tokens;
    bool one_call; /* further ones are not given */
    struct tool_call *calls;
    uint32_t call_count, call_cap;
};

/* NULL where the ask wants nothing taken apart. content: borrowed. */
struct parts *parts_create(const struct ask *ask, struct buf *content);
void parts_destroy(struct parts *parts); /* NULL is fine */

/* A token's text, n may be 0; no more of them. */
void parts_feed(struct parts *parts, const char *text, size_t n);
void parts_end(struct parts *parts);
bool parts_failed(const struct parts *parts);

#endif
