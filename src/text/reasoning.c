/* The first stage of text/reply.h. Tags and names: SGLang's reasoning parsers.
 * Blanks around the tags are dropped. A block that does not begin the answer is
 * content, tags and all. A model that forgets the closing tag and calls a tool
 * has ended its reasoning. */
#include "text/reply_impl.h"

/* The tags of Qwen3, DeepSeek-R1 and most others, and Kimi's. */
static const struct reasoning_format formats[] = {
    {"qwen3|deepseek-v3|glm45|kimi_k2", "<think>", "</think>", false},
    {"deepseek-r1|qwen3-thinking|minimax|step3", "<think>", "</think>", true},
    {"kimi", "◁think▷", "◁/think▷", false},
};
enum { FORMATS = sizeof formats / sizeof *formats };

const struct reasoning_format *reasoning_find(const char *name)
{
    for (size_t i = 0; i < FORMATS; i++)
        if (reply_is_named(formats[i].names, name)) return &formats[i];
    return NULL;
}

void reasoning_list(struct buf *out)
{
    for (size_t i = 0; i < FORMATS; i++)
        reply_add_names(out, formats[i].names);
}

static bool ends_with(const char *s, size_t n, const char *tag)
{
    size_t len = strlen(tag);
    return n >= len && memcmp(s + n - len, tag, len) == 0;
}

bool reasoning_begins(const struct reasoning_format *format, const char *prompt,
                      size_t n)
{
    n -= reply_last_blanks(prompt, n);
    if (ends_with(prompt, n, format->begin)) return true;
    return format->forced && !ends_with(prompt, n, format->end);
}

const char *reasoning_begin_tag(const struct reasoning_format *format)
{
    return format->begin;
}

const char *reasoning_end_tag(const struct reasoning_format *format)
{
    return format->end;
}

bool reasoning_is_over(const struct reasoning_format *format,
                       const char *prompt, size_t n)
{
    n -= reply_last_blanks(prompt, n);
    return ends_with(prompt, n, format->end);
}

bool reasoning_goes_on(const struct reasoning_format *format, bool inside,
                       const char *text, size_t n)
{
    enum reply_match how;
    for (size_t at = 0;;) {
        const char *tag = inside ? format->end : format->begin;
        at = reply_find(text, n, at, tag, &how);
        if (how != REPLY_YES) return inside;
        at += strlen(tag);
        inside = !inside;
    }
}

void reasoning_close(const struct reasoning_format *format, struct buf *out)
{
    buf_puts(out, "\n");
    buf_puts(out, format->end);
    buf_puts(out, "\n\n");
}

void reasoning_init(struct reasoning *r, const struct reasoning_format *format,
                    bool inside)
{
    r->format = format;
    r->state = inside ? REASONING_FIRST : REASONING_BEFORE;
    buf_init(&r->in, REPLY_MAX_BYTES);
}

static void tell(struct reasoning *r, size_t n)
{
    const struct reply_event event = {REPLY_REASONING, 0, r->in.data, n};
    if (n) r->sink(r->arg, &event);
    buf_drop_front(&r->in, n);
}

/* The rest of the answer, to the next stage. */
static void pass(struct reasoning *r)
{
    const struct reply_event event = {REPLY_CONTENT, 0, r->in.data, r->in.len};
    if (r->next)
        toolcall_feed(r->next, r->in.data, r->in.len);
    else if (r->in.len)
        r->sink(r->arg, &event);
    buf_drop_front(&r->in, r->in.len);
}

static void drop_blanks(struct reasoning *r)
{
    size_t n;
    while ((n = reply_blanks(r->in.data, r->in.len)))
        buf_drop_front(&r->in, n);
}

/* Blanks, then perhaps the opening tag: true when that was decided. */
static bool step_first(struct reasoning *r, bool inside)
{
    const char *begin = r->format->begin;
    if (inside) drop_blanks(r);
    size_t blanks = reply_blanks(r->in.data, r->in.len);
    if (blanks == r->in.len) return false;
    enum reply_match how =
        reply_starts(r->in.data + blanks, r->in.len - blanks, begin);
    if (how == REPLY_PART) return false;
    if (how == REPLY_YES) {
        buf_drop_front(&r->in, blanks + strlen(begin));
        r->state = REASONING_FIRST;
    } else {
        r->state = inside ? REASONING_IN : REASONING_OVER;
    }
    return true;
}

/* Where a call begins, or may; in.len: nowhere. */
static size_t find_call(const struct reasoning *r, enum reply_match *how)
{
    const struct toolcall_format *f = r->next->format;
    const char *tag = f->section ? f->section : f->call;
    for (size_t from = 0;; from++) {
        from = reply_find(r->in.data, r->in.len, from, tag, how);
        if (from == r->in.len) return from;
        *how = toolcall_begins(f, r->in.data + from, r->in.len - from);
        if (*how != REPLY_NO) return from;
    }
}

static bool step_in(struct reasoning *r)
{
    enum reply_match how, call;
    size_t at = reply_find(r->in.data, r->in.len, 0, r->format->end, &how);
    size_t other = r->call_ends ? find_call(r, &call) : at;
    if (other < at) {
        tell(r, other - reply_last_blanks(r->in.data, other));
        if (call != REPLY_YES) return false;
        r->state = REASONING_PAST;
        return true;
    }
    size_t blanks = reply_last_blanks(r->in.data, at);
    tell(r, at - blanks);
    if (how != REPLY_YES) return false;
    buf_drop_front(&r->in, blanks + strlen(r->format->end));
    r->state = REASONING_PAST;
    return true;
}

/* One state's work; false: it needs more text. */
static bool step(struct reasoning *r)
{
    if (!r->in.len) return false;
    switch (r->state) {
    case REASONING_BEFORE: return step_first(r, false);
    case REASONING_FIRST: return step_first(r, true);
    case REASONING_IN: return step_in(r);
    case REASONING_PAST:
        drop_blanks(r);
        if (r->in.len) r->state = REASONING_OVER;
        return r->in.len > 0;
    case REASONING_OVER: pass(r);
    }
    return false;
}

void reasoning_feed(struct reasoning *r, const char *text, size_t n)
{
    buf_add(&r->in, text, n);
    while (step(r)) {
    }
}

void reasoning_end(struct reasoning *r)
{
    if (r->state == REASONING_BEFORE)
        pass(r);
    else if (r->state == REASONING_FIRST || r->state == REASONING_IN)
        tell(r, r->in.len - reply_last_blanks(r->in.data, r->in.len));
}
