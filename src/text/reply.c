#include "base/mem.h"
#include "text/reply_impl.h"
#include "text/utf8.h"

struct reply {
    struct reasoning reasoning;
    struct toolcall toolcall;
    struct reply_options options;
    struct buf in; /* at most an unfinished character between two feeds */
};

/* --- what the stages share --- */

size_t reply_find(const char *s, size_t n, size_t from, const char *tag,
                  enum reply_match *how)
{
    *how = REPLY_NO;
    for (size_t i = from; *tag && i < n; i++) {
        const char *p = memchr(s + i, *tag, n - i);
        if (!p) break;
        i = (size_t)(p - s);
        *how = reply_starts(p, n - i, tag);
        if (*how != REPLY_NO) return i;
    }
    return n;
}

bool reply_is_named(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (;; names++) {
        size_t len = strcspn(names, "|");
        if (len == n && memcmp(names, name, n) == 0) return true;
        names += len;
        if (!*names) return false;
    }
}

void reply_add_names(struct buf *out, const char *names)
{
    if (out->len) buf_puts(out, ", ");
    for (; *names; names++)
        *names == '|' ? buf_puts(out, ", ") : buf_putc(out, *names);
}

/* --- the whole --- */

struct reply *reply_create(const struct reply_options *options)
{
    struct reply *reply = mem_must(1, sizeof *reply);
    reply->options = *options;
    buf_init(&reply->in, REPLY_MAX_BYTES);
    if (options->toolcall)
        toolcall_init(&reply->toolcall, options->toolcall, options->tools,
                      options->sink, options->arg);
    if (options->reasoning) {
        struct reasoning *r = &reply->reasoning;
        reasoning_init(r, options->reasoning, options->in_reasoning);
        r->sink = options->sink;
        r->arg = options->arg;
        r->next = options->toolcall ? &reply->toolcall : NULL;
        r->call_ends = r->next && !options->tag_ends_reasoning;
    }
    return reply;
}

void reply_destroy(struct reply *reply)
{
    if (!reply) return;
    buf_fini(&reply->in);
    buf_fini(&reply->reasoning.in);
    buf_fini(&reply->toolcall.in);
    buf_fini(&reply->toolcall.args);
    mem_free(reply);
}

static void pass(struct reply *reply, size_t n)
{
    const char *text = reply->in.data;
    const struct reply_event event = {REPLY_CONTENT, 0, text, n};
    if (!n) return;
    if (reply->options.reasoning)
        reasoning_feed(&reply->reasoning, text, n);
    else if (reply->options.toolcall)
        toolcall_feed(&reply->toolcall, text, n);
    else
        reply->options.sink(reply->options.arg, &event);
    buf_drop_front(&reply->in, n);
}

/* Bytes at the end of s that are the beginning of a character. */
static size_t unfinished(const char *s, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        unsigned char c = (unsigned char)s[n - k];
        if ((c & 0xc0) == 0x80) continue;
        return utf8_len(c) > k ? k : 0;
    }
    return 0;
}

void reply_feed(struct reply *reply, const char *text, size_t n)
{
    if (!n) return;
    buf_add(&reply->in, text, n);
    pass(reply, reply->in.len - unfinished(reply->in.data, reply->in.len));
}

void reply_end(struct reply *reply)
{
    pass(reply, reply->in.len);
    if (reply->options.reasoning) reasoning_end(&reply->reasoning);
    if (reply->options.toolcall) toolcall_end(&reply->toolcall);
}

bool reply_in_reasoning(const struct reply *reply)
{
    return reply->options.reasoning &&
           (reply->reasoning.state == REASONING_FIRST ||
            reply->reasoning.state == REASONING_IN);
}

bool reply_failed(const struct reply *reply)
{
    return reply->in.failed || reply->reasoning.in.failed ||
           reply->toolcall.in.failed || reply->toolcall.args.failed;
}
