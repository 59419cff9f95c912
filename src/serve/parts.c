#include "serve/parts.h"
#include "base/clock.h"
#include "base/mem.h"
#include "serve/ask.h"

#include <stdio.h>

#define PART_MAX_BYTES ((size_t)1 << 30)

static struct tool_call *add_call(struct parts *parts)
{
    if (parts->call_count == parts->call_cap) {
        parts->call_cap = parts->call_cap ? 2 * parts->call_cap : 4;
        parts->calls =
            mem_remust(parts->calls, parts->call_cap * sizeof *parts->calls);
    }
    struct tool_call *call = &parts->calls[parts->call_count++];
    unsigned char bytes[12];
    *call = (struct tool_call){.id = "call_"};
    random_bytes(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(call->id + 5 + 2 * i, 3, "%02x", bytes[i]);
    buf_init(&call->arguments, PART_MAX_BYTES);
    return call;
}

static void take(void *arg, const struct reply_event *event)
{
    struct parts *parts = arg;
    bool given = !parts->one_call || event->call == 0;
    switch (event->kind) {
    case REPLY_REASONING:
        buf_json(&parts->reasoning, event->text, event->len);
        break;
    case REPLY_CONTENT:
        buf_json(parts->content, event->text, event->len);
        break;
    case REPLY_CALL:
        if (given) add_call(parts)->name = mem_dup_n(event->text, event->len);
        break;
    case REPLY_ARGUMENTS:
        if (given)
            buf_json(&parts->calls[event->call].arguments, event->text,
                     event->len);
        break;
    }
}

struct parts *parts_create(const struct ask *ask, struct buf *content)
{
    const struct ask_reply *want = &ask->reply;
    if (!want->reasoning && !want->toolcall) return NULL;
    struct parts *parts = mem_must(1, sizeof *parts);
    parts->content = content;
    parts->one_call = want->one_call;
    buf_init(&parts->reasoning, PART_MAX_BYTES);
    const struct reply_options options = {.reasoning = want->reasoning,
                                          .in_reasoning = want->in_reasoning,
                                          .tag_ends_reasoning =
                                              want->tag_ends_reasoning,
                                          .toolcall = want->toolcall,
                                          .tools = want->tools,
                                          .sink = take,
                                          .arg = parts};
    parts->reply = reply_create(&options);
    return parts;
}

void parts_destroy(struct parts *parts)
{
    if (!parts) return;
    reply_destroy(parts->reply);
    buf_fini(&parts->reasoning);
    for (uint32_t i = 0; i < parts->call_count; i++) {
        mem_free(parts->calls[i].name);
        buf_fini(&parts->calls[i].arguments);
    }
    mem_free(parts->calls);
    mem_free(parts);
}

void parts_feed(struct parts *parts, const char *text, size_t n)
{
    bool before = reply_in_reasoning(parts->reply);
    reply_feed(parts->reply, text, n);
    parts->reasoning_tokens += before || reply_in_reasoning(parts->reply);
}

void parts_end(struct parts *parts)
{
    reply_end(parts->reply);
}

bool parts_failed(const struct parts *parts)
{
    bool failed = reply_failed(parts->reply) || parts->reasoning.failed;
    for (uint32_t i = 0; i < parts->call_count; i++)
        failed = failed || parts->calls[i].arguments.failed;
    return failed;
}
