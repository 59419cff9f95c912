/* /generate: the answer's JSON. Source: SGLang's TokenizerManager
 * (_handle_batch_output, convert_logprob_style) and http_server.py. */
#include "base/clock.h"
#include "serve/assets.h"
#include "serve/internal.h"
#include "serve/render.h"

#include <math.h>

/* output.lists: input and output of each kind of logprobs. */
enum { TOKENS, TOPS = 2, IDS = 4, INPUT = 0, OUTPUT = 1 };

static void triple(const struct output *out, struct buf *to, float logprob,
                   int32_t token)
{
    buf_putc(to, '[');
    render_float(to, logprob);
    buf_printf(to, ",%d,", token);
    if (out->call->ask->text_in_logprobs)
        render_token(to, assets_tokenizer(out->call->serve->opt.assets), token);
    else
        buf_puts(to, "null");
    buf_putc(to, ']');
}

/* [[logprob, id, text], ...], or null where the position has none. */
static void alternatives(const struct output *out, struct buf *to,
                         const float *values, const int32_t *ids,
                         uint32_t count)
{
    render_next(to);
    if (!values || !count) {
        buf_puts(to, "null");
        return;
    }
    buf_putc(to, '[');
    for (uint32_t i = 0; i < count; i++) {
        if (i) buf_putc(to, ',');
        triple(out, to, values[i], ids[i]);
    }
    buf_putc(to, ']');
}

static void position(struct output *out, int side,
                     const struct token_logprob *p)
{
    const struct prompt *prompt = out->prompt;
    render_next(&out->lists[TOKENS + side]);
    triple(out, &out->lists[TOKENS + side], p->logprob, p->token);
    if (prompt->top_logprobs)
        alternatives(out, &out->lists[TOPS + side], p->top_values, p->top_ids,
                     p->top_count);
    if (prompt->logprob_id_count)
        alternatives(out, &out->lists[IDS + side], p->id_values,
                     prompt->logprob_ids, p->id_count);
}

static void logprobs(struct output *out, const struct engine_event *event)
{
    for (uint32_t i = 0; i < event->input_logprob_count; i++)
        position(out, INPUT, &event->input_logprobs[i]);
    if (event->has_logprob) position(out, OUTPUT, &event->logprob);
}

static void finish_reason(const struct output *out, struct buf *to)
{
    const struct finish *finish = &out->finish;
    switch (out->done ? finish->kind : FINISH_NONE) {
    case FINISH_NONE: buf_puts(to, "null"); break;
    case FINISH_STOP_TOKEN:
    case FINISH_STOP_TEXT:
        buf_puts(to, "{\"type\":\"stop\",\"matched\":");
        output_matched(out, to);
        buf_putc(to, '}');
        break;
    case FINISH_LENGTH:
        /* A prefill server says 0: its one token is not the answer. */
        buf_printf(
            to, "{\"type\":\"length\",\"length\":%u}",
            out->call->serve->env.mode == PD_PREFILL ? 0 : out->output_tokens);
        break;
    case FINISH_ABORT:
        buf_puts(to, "{\"type\":\"abort\",\"message\":");
        render_string(to, finish->message ? finish->message : "Aborted");
        buf_puts(to, ",\"status_code\":");
        if (finish->status)
            buf_printf(to, "%d", finish->status);
        else
            buf_puts(to, "null");
        buf_puts(to, ",\"err_type\":null}");
        break;
    }
}

static void list(const struct output *out, struct buf *to, const char *name,
                 int which, bool deltas)
{
    buf_printf(to, "\"%s\":[", name);
    render_items(to, &out->lists[which], deltas ? out->sent.lists[which] : 0);
    buf_puts(to, "],");
}

static void logprob_lists(const struct output *out, struct buf *to, bool deltas)
{
    const struct prompt *prompt = out->prompt;
    if (!prompt->want_logprobs) return;
    list(out, to, "input_token_logprobs", TOKENS + INPUT, deltas);
    list(out, to, "output_token_logprobs", TOKENS + OUTPUT, deltas);
    if (prompt->top_logprobs) {
        list(out, to, "input_top_logprobs", TOPS + INPUT, deltas);
        list(out, to, "output_top_logprobs", TOPS + OUTPUT, deltas);
    }
    if (prompt->logprob_id_count) {
        list(out, to, "input_token_ids_logprobs", IDS + INPUT, deltas);
        list(out, to, "output_token_ids_logprobs", IDS + OUTPUT, deltas);
    }
}

static void meta_info(const struct output *out, struct buf *to, bool deltas)
{
    buf_puts(to, "{\"id\":");
    render_string(to, out->rid);
    buf_puts(to, ",\"finish_reason\":");
    finish_reason(out, to);
    buf_printf(to,
               ",\"prompt_tokens\":%u,\"weight_version\":\"default\","
               "\"total_retractions\":%u,",
               out->prompt_tokens, out->retractions);
    logprob_lists(out, to, deltas);
    buf_printf(to, "\"completion_tokens\":%u,\"cached_tokens\":%u",
               out->output_tokens, out->cached_tokens);
    if (out->done)
        buf_printf(to,
                   ",\"e2e_latency\":%.6f,"
                   "\"response_sent_to_client_ts\":%.6f",
                   output_seconds(out), clock_unix());
    buf_putc(to, '}');
}

/* The object, without its closing brace. */
static void object(const struct output *out, struct buf *to, bool deltas)
{
    size_t from = deltas ? out->sent.text : 0;
    buf_puts(to, "{\"text\":\"");
    if (out->text.len > from)
        buf_add(to, out->text.data + from, out->text.len - from);
    buf_puts(to, "\",\"output_ids\":[");
    render_items(to, &out->ids, deltas ? out->sent.ids : 0);
    buf_puts(to, "],\"meta_info\":");
    meta_info(out, to, deltas);
}

static void event(struct output *out, struct buf *to)
{
    buf_puts(to, "data: ");
    object(out, to, out->call->serve->opt.stream_output);
    if (out->call->ask->batch) buf_printf(to, ",\"index\":%u", out->index);
    buf_puts(to, "}\n\n");
}

static void answer(struct call *call, struct buf *to)
{
    if (call->ask->batch) buf_putc(to, '[');
    for (uint32_t i = 0; i < call->output_count; i++) {
        if (i) buf_putc(to, ',');
        object(&call->outputs[i], to, false);
        buf_putc(to, '}');
    }
    if (call->ask->batch) buf_putc(to, ']');
}

static const struct call_format format = {
    .style = API_GENERATE,
    .logprobs = logprobs,
    .event = event,
    .answer = answer,
};

void generate_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    size_t n;
    const char *body = http_request_body(request, &n);
    struct ask *ask;
    struct why why = {0};
    int rc = ask_parse_generate(&ask, &serve->env, body, n, &why);
    if (rc)
        call_refuse(serve, request, API_GENERATE, rc, &why);
    else
        call_start(serve, request, ask, &format);
}
