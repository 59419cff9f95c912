#include "router/watch.h"
#include "base/err.h"
#include "http/resume.h"
#include "http/sse.h"
#include "router/skim.h"

#include <stdio.h>
#include <string.h>

enum { COMMENT = sizeof RESUME_COMMENT - 1 };

void watch_init(struct watch *watch, size_t held_max)
{
    *watch = (struct watch){.on = false};
    buf_init(&watch->held, held_max);
    buf_init(&watch->ids, held_max);
}

void watch_fini(struct watch *watch)
{
    buf_fini(&watch->held);
    buf_fini(&watch->ids);
}

void watch_restart(struct watch *watch)
{
    watch->on = false;
    watch->line = 0;
    buf_reset(&watch->held);
}

/* They become JSON of ours. */
static bool keep_ids(struct watch *watch, const char *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] != ',' && (ids[i] < '0' || ids[i] > '9')) return false;
    if (n && watch->ids.len) buf_putc(&watch->ids, ',');
    buf_add(&watch->ids, ids, n);
    return true;
}

int watch_feed(struct watch *watch, const char *bytes, size_t n,
               void (*pass)(void *arg, const char *bytes, size_t n), void *arg)
{
    struct buf *held = &watch->held;
    size_t from = 0; /* what is before it was passed on */
    buf_add(held, bytes, n);
    if (held->failed || watch->ids.failed) return ERR_RANGE;
    for (const char *end; (end = memchr(held->data + watch->line, '\n',
                                        held->len - watch->line));) {
        const char *line = held->data + watch->line;
        size_t next = (size_t)(end + 1 - held->data);
        if ((size_t)(end - line) >= COMMENT &&
            memcmp(line, RESUME_COMMENT, COMMENT) == 0) {
            if (next == held->len) break; /* its blank line is to come */
            if (held->data[next] != '\n' ||
                !keep_ids(watch, line + COMMENT,
                          (size_t)(end - line) - COMMENT))
                return ERR_FORMAT;
            pass(arg, held->data + from, watch->line - from);
            from = ++next;
        }
        watch->line = next;
    }
    buf_drop_front(held, from);
    watch->line -= from;
    return 0;
}

struct loss {
    char *text;
    size_t size;
    bool found;
};

static void tell(struct loss *loss, struct skim status, struct skim message)
{
    if (skim_int(status, 0) != 503 || loss->found) return;
    loss->found = true;
    if (skim_kind(message) != '"') message = (struct skim){"\"\"", 2};
    snprintf(loss->text, loss->size, "%.*s", (int)message.n - 2,
             message.at + 1); /* without its quotes */
}

static void look(void *arg, const char *data, size_t n)
{
    struct skim event;
    if (skim_check(&event, data, n, NULL) || skim_kind(event) != '{') return;
    struct skim error = skim_member(event, "error");
    struct skim finish =
        skim_member(skim_member(event, "meta_info"), "finish_reason");
    if (skim_kind(error) == '{')
        tell(arg, skim_member(error, "code"), skim_member(error, "message"));
    if (skim_kind(finish) == '{')
        tell(arg, skim_member(finish, "status_code"),
             skim_member(finish, "message"));
}

bool watch_lost(const struct watch *watch, char *text, size_t size)
{
    struct loss loss = {text, size, false};
    struct sse_parser parser;
    if (!watch->held.len) return false;
    sse_init(&parser, watch->held.max);
    sse_feed(&parser, watch->held.data, watch->held.len, look, &loss);
    sse_fini(&parser);
    return loss.found;
}
