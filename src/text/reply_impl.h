/* text/reply_impl.h - the inside of text/reply.h: its two stages. */
#ifndef BATON_TEXT_REPLY_IMPL_H
#define BATON_TEXT_REPLY_IMPL_H

#include "text/reply.h"

#include <string.h>

enum { REPLY_MAX_BYTES = 1 << 28 }; /* held back at once */

static inline bool reply_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Blanks at s, and at the end of s; of a longer run, the first or last
 * REPLY_MAX_BLANKS: what has to be held back, and looked at again, is short. */
enum { REPLY_MAX_BLANKS = 1024 };
static inline size_t reply_blanks(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && i < REPLY_MAX_BLANKS && reply_blank(s[i]))
        i++;
    return i;
}
static inline size_t reply_last_blanks(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && i < REPLY_MAX_BLANKS && reply_blank(s[n - 1 - i]))
        i++;
    return i;
}

/* How s begins: with the tag, with a part of it that s ends in, or not. */
enum reply_match { REPLY_NO, REPLY_PART, REPLY_YES };
static inline enum reply_match reply_starts(const char *s, size_t n,
                                            const char *tag)
{
    size_t len = strlen(tag), some = n < len ? n : len;
    if (memcmp(s, tag, some) != 0) return REPLY_NO;
    return some == len ? REPLY_YES : REPLY_PART;
}

/* Where tag, or a part of it that s ends in, begins at or after from; n where
 * neither is there. *how tells which. An empty tag is nowhere. */
size_t reply_find(const char *s, size_t n, size_t from, const char *tag,
                  enum reply_match *how);

/* Names are "a|b". */
bool reply_is_named(const char *names, const char *name);
void reply_add_names(struct buf *out, const char *names);

struct reasoning_format {
    const char *names;
    const char *begin, *end;
    bool forced; /* the answer begins with reasoning, without a tag */
};

struct reasoning {
    const struct reasoning_format *format;
    reply_sink *sink;
    void *arg;
    struct toolcall *next; /* NULL: what comes after is content */
    bool call_ends;        /* reasoning, which was not closed then */
    enum {
        REASONING_BEFORE, /* blanks, perhaps a tag */
        REASONING_FIRST,  /* blanks, perhaps the tag once more */
        REASONING_IN,
        REASONING_PAST, /* blanks behind the closing tag */
        REASONING_OVER
    } state;
    struct buf in; /* held back */
};

struct toolcall;

enum toolcall_found {
    TOOLCALL_MORE, /* the text ends before the call does */
    TOOLCALL_DONE,
    TOOLCALL_NONE /* no call; only before toolcall_open */
};

/* A row; NULL where there is no such tag. */
struct toolcall_format {
    const char *names;
    const char *section, *section_end; /* around all calls */
    const char *call, *call_end;       /* around each      */
    const char *between;  /* characters that may stand between calls */
    const char *name_end; /* behind the name, where it is a header   */
    /* Looks at what follows the call's tag, from t->at on. */
    enum toolcall_found (*body)(struct toolcall *t);
    /* How calls are written: begin, then for each a name between lead and
     * follow, its arguments, tail; joint between two; end. NULL: nothing. */
    struct {
        const char *begin, *lead, *follow, *tail, *joint, *end;
    } write;
    bool bare;    /* an answer that is a call's object needs no tag */
    bool special; /* tags are special tokens */
};

/* A JSON value under way. */
struct json_scan {
    uint32_t depth;
    bool string, escape, begun;
};

struct toolcall {
    const struct toolcall_format *format;
    const json_t *tools;
    reply_sink *sink;
    void *arg;
    enum {
        TOOLCALL_TEXT,
        TOOLCALL_SECTION, /* between calls */
        TOOLCALL_BODY,
        TOOLCALL_CLOSE /* behind a body */
    } state;
    struct buf in; /* from the call's beginning on, if there is one */
    size_t at;     /* of it, what was looked at */
    bool last;     /* there will be no more text: parts of tags are none */
    uint32_t calls;
    bool said;          /* content that is no blank, or a call */
    bool opened;        /* the call under way was told of */
    const json_t *tool; /* its function, of the list */
    struct buf args;    /* of it, not told of yet */

    /* The body's own. */
    enum { BODY_OPEN, BODY_KEY, BODY_KEY_TEXT, BODY_COLON, BODY_VALUE } phase;
    struct json_scan scan;
    size_t mark, mark_len; /* a key, in in; or where blanks end  */
    size_t value;          /* where its value begins */
    bool is_name, is_args, has_args;
    uint32_t params; /* of an XML call, so far */
};

/* Whether s begins as a call's tags and the beginning of its body do. */
enum reply_match toolcall_begins(const struct toolcall_format *format,
                                 const char *s, size_t n);

/* toolcall.c, for the bodies. Whether in goes on with tag at t->at; where tag
 * or a part of it is next. */
enum reply_match toolcall_starts(const struct toolcall *t, const char *tag);
size_t toolcall_search(const struct toolcall *t, const char *tag,
                       enum reply_match *how);
/* Tells of the call, if a function of that name was offered. */
bool toolcall_open(struct toolcall *t, const char *name, size_t n);
/* Tells of the arguments that gathered, where the call was told of. */
void toolcall_tell_args(struct toolcall *t);

enum toolcall_found toolcall_body_object(struct toolcall *t);
enum toolcall_found toolcall_body_header(struct toolcall *t);
enum toolcall_found toolcall_body_xml(struct toolcall *t);

void reasoning_init(struct reasoning *r, const struct reasoning_format *format,
                    bool inside);
void reasoning_feed(struct reasoning *r, const char *text, size_t n);
void reasoning_end(struct reasoning *r);

void toolcall_init(struct toolcall *t, const struct toolcall_format *format,
                   const json_t *tools, reply_sink *sink, void *arg);
void toolcall_feed(struct toolcall *t, const char *text, size_t n);
void toolcall_end(struct toolcall *t);

#endif
