/* The answers of /v1/chat/completions, whole and streamed; sources:
 * openai.c. */
#include "serve/internal.h"
#include "serve/openai.h"
#include "serve/render.h"

enum { CHAT_CONTENT }; /* of output.lists: entries of logprobs.content */

static const char chat_chunk[] = "chat.completion.chunk";

static void chat_entry(const struct output *out, float logprob, int32_t token,
                       struct buf *to)
{
    buf_puts(to, "{\"token\":");
    render_token(to, openai_tokenizer(out), token);
    buf_puts(to, ",\"bytes\":");
    render_token_bytes(to, openai_tokenizer(out), token);
    buf_puts(to, ",\"logprob\":");
    openai_number(to, logprob);
}

static void chat_logprobs(struct output *out, const struct engine_event *event)
{
    if (!event->has_logprob) return;
    const struct token_logprob *p = &event->logprob;
    struct buf *to = &out->lists[CHAT_CONTENT];
    render_next(to);
    chat_entry(out, p->logprob, p->token, to);
    buf_puts(to, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < p->top_count; i++) {
        if (i) buf_putc(to, ',');
        chat_entry(out, p->top_values[i], p->top_ids[i], to);
        buf_putc(to, '}');
    }
    buf_puts(to, "]}");
}

static void chat_logprobs_from(const struct output *out, size_t from,
                               struct buf *to)
{
    const struct buf *list = &out->lists[CHAT_CONTENT];
    if (!out->prompt->want_logprobs || list->len == from) {
        buf_puts(to, "null");
        return;
    }
    buf_puts(to, "{\"content\":[");
    render_items(to, list, from);
    buf_puts(to, "]}");
}

/* {"id":..,"index":..,"type":"function","function":{..}}: whole, or what of it
 * was not sent. */
static void tool_call(const struct tool_call *call, uint32_t index, bool whole,
                      struct buf *to)
{
    bool named = whole || !call->begun;
    size_t from = whole ? 0 : call->sent;
    buf_puts(to, "{\"id\":");
    named ? render_string(to, call->id) : buf_puts(to, "null");
    buf_printf(
        to,
        ",\"index\":%u,\"type\":\"function\",\"function\":{\"name\":", index);
    named ? render_string(to, call->name) : buf_puts(to, "null");
    buf_puts(to, ",\"arguments\":\"");
    if (call->arguments.len > from)
        buf_add(to, call->arguments.data + from, call->arguments.len - from);
    buf_puts(to, "\"}}");
}

/* --- streamed: each delta has one member that is not null --- */

static void chunk_begin(struct output *out, struct buf *to)
{
    buf_puts(to, "data: ");
    openai_head(out->call, chat_chunk, to);
    buf_printf(to, "{\"index\":%u,\"delta\":{", out->index);
}

/* The logprobs that are new go with the first delta of an event. */
static void chunk_end(struct output *out, struct buf *to)
{
    size_t *sent = &out->sent.lists[CHAT_CONTENT];
    buf_puts(to, "},\"logprobs\":");
    chat_logprobs_from(out, *sent, to);
    *sent = out->lists[CHAT_CONTENT].len;
    buf_puts(to, ",\"finish_reason\":null,\"matched_stop\":null}");
    openai_event_end(out, to);
}

static void chunk_role(struct output *out, struct buf *to)
{
    chunk_begin(out, to);
    buf_puts(to, "\"role\":\"assistant\",\"content\":\"\","
                 "\"reasoning_content\":null,\"tool_calls\":null},"
                 "\"logprobs\":null,\"finish_reason\":null,"
                 "\"matched_stop\":null}");
    openai_event_end(out, to);
}

static void chunk_reasoning(struct output *out, struct buf *to)
{
    struct parts *parts = out->parts;
    if (!parts || parts->reasoning.len == parts->reasoning_sent) return;
    if (out->call->ask->reply.whole_reasoning && !out->done &&
        reply_in_reasoning(parts->reply))
        return;
    chunk_begin(out, to);
    buf_puts(to, "\"role\":null,\"content\":null,\"reasoning_content\":\"");
    buf_add(to, parts->reasoning.data + parts->reasoning_sent,
            parts->reasoning.len - parts->reasoning_sent);
    buf_puts(to, "\",\"tool_calls\":null");
    parts->reasoning_sent = parts->reasoning.len;
    chunk_end(out, to);
}

static void chunk_content(struct output *out, struct buf *to)
{
    chunk_begin(out, to);
    buf_puts(to, "\"role\":null,\"content\":\"");
    openai_text_from(out, out->sent.text, to);
    buf_puts(to, "\",\"reasoning_content\":null,\"tool_calls\":null");
    chunk_end(out, to);
}

/* A call's name and its arguments are deltas of their own. */
static void chunk_call(struct output *out, struct tool_call *call,
                       uint32_t index, struct buf *to)
{
    struct tool_call name = *call;
    name.arguments.len = 0;
    for (int i = 0; i < 2; i++) {
        bool due = i ? call->arguments.len > call->sent : !call->begun;
        if (!due) continue;
        chunk_begin(out, to);
        buf_puts(to, "\"role\":null,\"content\":null,"
                     "\"reasoning_content\":null,\"tool_calls\":[");
        tool_call(i ? call : &name, index, false, to);
        buf_putc(to, ']');
        chunk_end(out, to);
        call->begun = true;
        if (i) call->sent = call->arguments.len;
    }
}

static void chunk_finish(struct output *out, struct buf *to)
{
    chunk_begin(out, to);
    buf_puts(to, "\"role\":null,\"content\":null,\"reasoning_content\":null,"
                 "\"tool_calls\":null},\"logprobs\":null");
    openai_finish(out, to);
    buf_putc(to, '}');
    openai_event_end(out, to);
}

static void chat_event(struct output *out, struct buf *to)
{
    const size_t *sent = &out->sent.lists[CHAT_CONTENT];
    struct parts *parts = out->parts;
    if (!out->sent.begun) chunk_role(out, to);
    chunk_reasoning(out, to);
    if (out->text.len > out->sent.text) chunk_content(out, to);
    for (uint32_t i = 0; parts && i < parts->call_count; i++)
        chunk_call(out, &parts->calls[i], i, to);
    if (out->lists[CHAT_CONTENT].len > *sent) {
        out->sent.text = out->text.len;
        chunk_content(out, to);
    }
    if (out->done) chunk_finish(out, to);
}

static void chat_last(struct call *call, struct buf *to)
{
    openai_usage_event(call, chat_chunk, to);
}

/* --- whole --- */

static void message(const struct output *out, struct buf *to)
{
    const struct parts *parts = out->parts;
    bool other = parts && (parts->reasoning.len || parts->call_count);
    buf_puts(to, "{\"role\":\"assistant\",\"content\":");
    if (out->text.len || !other) {
        buf_putc(to, '"');
        openai_text_from(out, 0, to);
        buf_putc(to, '"');
    } else {
        buf_puts(to, "null");
    }
    buf_puts(to, ",\"reasoning_content\":");
    if (parts && parts->reasoning.len)
        buf_printf(to, "\"%s\"", parts->reasoning.data);
    else
        buf_puts(to, "null");
    buf_puts(to, ",\"tool_calls\":");
    if (!parts || !parts->call_count) buf_puts(to, "null");
    for (uint32_t i = 0; parts && i < parts->call_count; i++) {
        buf_putc(to, i ? ',' : '[');
        tool_call(&parts->calls[i], i, true, to);
        if (i + 1 == parts->call_count) buf_putc(to, ']');
    }
    buf_putc(to, '}');
}

static void chat_answer(struct call *call, struct buf *to)
{
    openai_head(call, "chat.completion", to);
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct output *out = &call->outputs[i];
        buf_printf(to, "%s{\"index\":%u,\"message\":", i ? "," : "",
                   out->index);
        message(out, to);
        buf_puts(to, ",\"logprobs\":");
        chat_logprobs_from(out, 0, to);
        openai_finish(out, to);
        buf_putc(to, '}');
    }
    openai_answer_end(call, to);
}

static const struct call_format chat_format = {
    .style = API_OPENAI,
    .logprobs = chat_logprobs,
    .event = chat_event,
    .last = chat_last,
    .answer = chat_answer,
};

void chat_handle(void *serve, struct http_request *request)
{
    openai_handle(serve, request, ask_parse_chat, &chat_format);
}
