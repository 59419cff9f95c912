#include "serve/call.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/resume.h"
#include "serve/assets.h"
#include "serve/internal.h"
#include "serve/render.h"

#include <stdlib.h>
#include <string.h>

/* One output's text and logprobs; a context's worth is far less. */
#define OUTPUT_MAX_BYTES  ((size_t)1 << 30)
/* A stream with more unsent bytes gets no further event until it has read
 * them, except its last. */
#define STREAM_HOLD_BYTES ((size_t)256 << 10)

static void release(struct call *call);

/* --- end --- */

static void output_fini(struct output *out)
{
    mem_free(out->rid);
    parts_destroy(out->parts);
    buf_fini(&out->text);
    buf_fini(&out->ids);
    for (int i = 0; i < OUTPUT_LISTS; i++)
        buf_fini(&out->lists[i]);
    mem_free((void *)(uintptr_t)out->finish.stop_text);
    mem_free((void *)(uintptr_t)out->finish.message);
}

static void call_destroy(struct call *call)
{
    if (call->prev)
        call->prev->next = call->next;
    else
        call->serve->calls = call->next;
    if (call->next) call->next->prev = call->prev;
    for (uint32_t i = 0; i < call->output_count; i++)
        output_fini(&call->outputs[i]);
    buf_fini(&call->head);
    ask_destroy(call->ask);
    mem_free(call);
}

/* Frees the call once nobody needs it. */
static void release(struct call *call)
{
    if (call->request || call->alive || call->dirty || call->guards) return;
    call_destroy(call);
}

void call_destroy_all(struct serve *serve)
{
    while (serve->calls)
        call_destroy(serve->calls);
}

/* Ends every output that still runs. Their DONE may come at once. */
static void stop_outputs(struct call *call, int status, const char *message)
{
    if (call->serve->closing) return;
    call->guards++;
    for (uint32_t i = 0; i < call->output_count; i++) {
        struct output *out = &call->outputs[i];
        if (out->submitted && !out->done)
            pd_node_abort(call->serve->opt.node, out->id, status, message);
    }
    call->guards--;
}

static void client_left(void *arg, struct http_request *request, int rc)
{
    struct call *call = arg;
    call->request = NULL;
    http_drop(request);
    if (rc == ERR_RANGE || rc == ERR_TIMEOUT)
        log_warn("serve", "%s hung up: the client reads too slowly (%s)",
                 call->outputs[0].rid, err_text(rc));
    else
        log_debug("serve", "%s client left", call->outputs[0].rid);
    call->guards++;
    /* The other half's client may still be there: to it this is a failure. */
    stop_outputs(call, 503, "The client closed the connection.");
    call->guards--;
    release(call);
}

/* The call's answer is out: nothing more goes to the client. */
static void answered(struct call *call)
{
    call->request = NULL;
}

static void fail(struct call *call, const struct fault *fault)
{
    struct http_request *request = call->request;
    if (!request) return;
    call->guards++;
    answered(call);
    log_debug("serve", "%s failed: %d %s", call->outputs[0].rid, fault->status,
              fault->message);
    if (call->begun) {
        struct buf *to = &call->serve->scratch;
        buf_reset(to);
        buf_puts(to, "data: ");
        fault_event(to, call->format->style, fault);
        buf_puts(to, "\n\ndata: [DONE]\n\n");
        http_stream_send(request, to->data, to->len);
        http_stream_end(request);
    } else {
        fault_reply(request, call->format->style, fault);
    }
    stop_outputs(call, fault->status,
                 "Another output of the same request failed.");
    call->guards--;
}

/* --- answers --- */

static void answer(struct call *call)
{
    struct buf *to = &call->serve->scratch;
    buf_reset(to);
    call->format->answer(call, to);
    if (to->failed) {
        struct fault fault = fault_of(ERR_NOMEM, "The answer is too large.");
        fail(call, &fault);
        return;
    }
    http_reply(call->request, 200, "application/json", NULL, to->data, to->len);
    answered(call);
}

/* Whether an event of out is due. */
static bool due(const struct output *out)
{
    if (out->sent.done) return false;
    if (out->done) return true;
    uint32_t interval = out->prompt->params.stream_interval;
    if (!interval) interval = out->call->serve->opt.stream_interval;
    uint32_t fresh = out->output_tokens - out->sent.tokens;
    return fresh && (!out->sent.begun || fresh >= interval);
}

static void mark_sent(struct output *out)
{
    out->sent.text = out->text.len;
    out->sent.ids = out->ids.len;
    for (int i = 0; i < OUTPUT_LISTS; i++)
        out->sent.lists[i] = out->lists[i].len;
    out->sent.tokens = out->output_tokens;
    out->sent.begun = true;
    out->sent.done = out->done;
}

/* Closes the events of out: with them it has these tokens. */
static void name_tokens(const struct output *out, struct buf *to)
{
    if (!out->call->resumable || out->done) return;
    buf_puts(to, RESUME_COMMENT);
    render_items(to, &out->ids, out->sent.ids);
    buf_puts(to, "\n\n");
}

static void begin(struct call *call)
{
    if (call->begun) return;
    const struct prompt *prompt = &call->ask->prompts[0];
    const struct http_header resumable[] = {
        {RESUME_HEADER, prompt->made_rid ? prompt->rid : "1"}, {NULL, NULL}};
    http_stream_begin(call->request, 200, NULL,
                      call->resumable ? resumable : NULL);
    call->begun = true;
}

static void stream(struct call *call)
{
    struct buf *to = &call->serve->scratch;
    bool held =
        call->begun && http_stream_pending(call->request) > STREAM_HOLD_BYTES;
    buf_reset(to);
    for (uint32_t i = 0; i < call->output_count; i++) {
        struct output *out = &call->outputs[i];
        if (!due(out) || (held && !out->done)) continue;
        call->format->event(out, to);
        name_tokens(out, to);
        mark_sent(out);
    }
    bool last = call->alive == 0;
    if (last) {
        if (call->format->last) call->format->last(call, to);
        buf_puts(to, "data: [DONE]\n\n");
    }
    if (to->failed) {
        struct fault fault = fault_of(ERR_NOMEM, "The event is too large.");
        fail(call, &fault);
        return;
    }
    if (!to->len) return;
    begin(call);
    /* An error means that the reader is gone: client_left comes. */
    int rc = http_stream_send(call->request, to->data, to->len);
    if (last && !rc) {
        http_stream_end(call->request);
        answered(call);
    }
}

/* --- the turn's end: what events brought leaves once --- */

static void flush(void *arg)
{
    struct serve *serve = arg;
    serve->flush_posted = false;
    struct call *call = serve->dirty;
    serve->dirty = NULL;
    serve->dirty_end = &serve->dirty;
    while (call) {
        struct call *next = call->next_dirty;
        call->dirty = false;
        call->guards++;
        if (call->request && call->ask->stream) stream(call);
        if (call->request && !call->ask->stream && !call->alive) answer(call);
        call->guards--;
        release(call);
        call = next;
    }
}

static void mark_dirty(struct call *call)
{
    struct serve *serve = call->serve;
    if (call->dirty || !call->request) return;
    call->dirty = true;
    call->next_dirty = NULL;
    *serve->dirty_end = call;
    serve->dirty_end = &call->next_dirty;
    if (serve->flush_posted) return;
    serve->flush_posted = true;
    if (loop_post(serve->opt.loop, flush, serve)) flush(serve);
}

/* --- events --- */

static void take_counts(struct output *out, const struct engine_event *event)
{
    out->prompt_tokens = event->prompt_tokens;
    out->cached_tokens = event->cached_tokens;
    out->output_tokens = event->output_tokens;
    /* A prefill's one token is not an output of its engine. */
    if (out->output_tokens < out->tokens_seen)
        out->output_tokens = out->tokens_seen;
    out->retractions = event->retractions;
}

static void take_text(struct output *out, const struct engine_event *event)
{
    if (out->parts)
        parts_feed(out->parts, event->text, event->text_len);
    else if (event->text_len)
        buf_json(&out->text, event->text, event->text_len);
}

/* Nor does a prefill's engine make text of it. */
static void take_prefill_text(struct output *out, int32_t token)
{
    const struct serve *serve = out->call->serve;
    if (serve->env.mode != PD_PREFILL || out->text.len) return;
    render_ids_text(&out->text, assets_tokenizer(serve->opt.assets), &token, 1,
                    out->prompt->params.sampling.skip_special_tokens);
}

static void take_token(struct output *out, const struct engine_event *event)
{
    struct metrics *metrics = out->call->serve->metrics;
    uint64_t now = clock_us();
    if (!out->first_us) {
        out->first_us = now;
        metrics_observe(metrics, HISTOGRAM_TTFT,
                        (double)(now - out->call->start_us) * 1e-6);
    } else {
        metrics_observe(metrics, HISTOGRAM_ITL,
                        (double)(now - out->last_us) * 1e-6);
    }
    out->last_us = now;
    out->tokens_seen++;
    take_counts(out, event);
    take_text(out, event);
    take_prefill_text(out, event->token);
    buf_printf(&out->ids, out->ids.len ? ",%d" : "%d", event->token);
    if (out->prompt->want_logprobs) out->call->format->logprobs(out, event);
}

/* The output so far: its events are the client's already. */
static void take_resumed(struct output *out, const struct engine_event *event)
{
    const struct prompt *prompt = out->prompt;
    struct buf *unsent = &out->call->serve->scratch;
    struct engine_event token = *event;
    for (uint32_t i = 0; i < prompt->output_count; i++) {
        buf_printf(&out->ids, out->ids.len ? ",%d" : "%d",
                   prompt->tokens[prompt->token_count + i]);
        token.text_len =
            event->text_ends[i] - (i ? event->text_ends[i - 1] : 0);
        take_text(out, &token);
        token.text += token.text_len;
    }
    out->tokens_seen = prompt->output_count;
    take_counts(out, event);
    buf_reset(unsent);
    out->call->format->event(out, unsent);
    mark_sent(out);
}

static void take_done(struct output *out, const struct engine_event *event)
{
    struct call *call = out->call;
    out->done = true;
    out->done_us = clock_us();
    call->alive--;
    /* A request that never ran tells no counts. */
    if (event->prompt_tokens) take_counts(out, event);
    if (event->text_len) take_text(out, event);
    if (out->parts) parts_end(out->parts);
    out->finish = event->finish;
    if (out->finish.stop_text)
        out->finish.stop_text = mem_dup(out->finish.stop_text);
    if (out->finish.message) out->finish.message = mem_dup(out->finish.message);
    /* With max_new_tokens 0 no token brought them. */
    if (out->prompt->want_logprobs && event->input_logprobs)
        call->format->logprobs(out, event);
    metrics_request_done(call->serve->metrics, out, event);
}

/* An abort with a status is the whole call's failure, except in a stream of
 * /generate that is under way: there it is an event like others. */
static bool fails_call(const struct output *out)
{
    const struct call *call = out->call;
    if (out->finish.kind != FINISH_ABORT || out->finish.status < 400)
        return false;
    return !call->begun || call->format->style != API_GENERATE;
}

static bool too_large(const struct output *out)
{
    bool failed = out->text.failed || out->ids.failed ||
                  (out->parts && parts_failed(out->parts));
    for (int i = 0; i < OUTPUT_LISTS; i++)
        failed = failed || out->lists[i].failed;
    return failed;
}

static void on_event(void *arg, const struct engine_event *event)
{
    struct output *out = arg;
    struct call *call = out->call;
    call->guards++;
    health_note_event(call->serve->health);
    if (event->kind == EVENT_RESUMED && call->request) take_resumed(out, event);
    if (event->kind == EVENT_TOKEN && call->request) take_token(out, event);
    if (event->kind == EVENT_DONE) take_done(out, event);
    if (out->done && fails_call(out)) {
        struct fault fault = fault_of_status(
            out->finish.status,
            out->finish.message ? out->finish.message : "Generation aborted.");
        fail(call, &fault);
    } else if (too_large(out)) {
        struct fault fault = fault_of(ERR_NOMEM, "The answer is too large.");
        fail(call, &fault);
    }
    if (call->ask->stream || call->alive == 0) mark_dirty(call);
    call->guards--;
    release(call);
}

/* --- start --- */

static void output_init(struct call *call, uint32_t index)
{
    struct output *out = &call->outputs[index];
    struct ask *ask = call->ask;
    out->call = call;
    out->index = index;
    out->prompt = &ask->prompts[index / ask->sample_count];
    out->sample = index % ask->sample_count;
    if (ask->sample_count == 1) {
        out->rid = mem_dup(out->prompt->rid);
    } else {
        size_t n = strlen(out->prompt->rid) + 16;
        out->rid = mem_must(n, 1);
        snprintf(out->rid, n, "%s_%u", out->prompt->rid, out->sample);
    }
    out->prompt_tokens = out->prompt->token_count;
    buf_init(&out->text, OUTPUT_MAX_BYTES);
    if (call->serve->env.mode != PD_PREFILL)
        out->parts = parts_create(ask, &out->text);
    buf_init(&out->ids, OUTPUT_MAX_BYTES);
    for (int i = 0; i < OUTPUT_LISTS; i++)
        buf_init(&out->lists[i], OUTPUT_MAX_BYTES);
}

static struct call *call_create(struct serve *serve,
                                struct http_request *request, struct ask *ask,
                                const struct call_format *format)
{
    uint32_t count = ask->prompt_count * ask->sample_count;
    struct call *call =
        mem_must(1, sizeof *call + count * sizeof *call->outputs);
    call->serve = serve;
    call->request = request;
    call->ask = ask;
    call->format = format;
    call->output_count = count;
    call->created = (uint64_t)clock_unix();
    call->start_us = clock_us();
    buf_init(&call->head, (size_t)1 << 20);
    for (uint32_t i = 0; i < count; i++)
        output_init(call, i);
    call->next = serve->calls;
    if (call->next) call->next->prev = call;
    serve->calls = call;
    return call;
}

static int submit(struct output *out, struct why *why)
{
    const struct prompt *prompt = out->prompt;
    const struct call *call = out->call;
    struct request_spec spec = {
        .tokens = prompt->tokens,
        .token_count = prompt->token_count + prompt->output_count,
        .output_count = prompt->output_count,
        .sampling = prompt->params.sampling,
        .want_logprobs = prompt->want_logprobs,
        .logprob_start = prompt->logprob_start,
        .top_logprobs = prompt->top_logprobs,
        .logprob_ids = prompt->logprob_ids,
        .logprob_id_count = prompt->logprob_id_count,
        .grammar = prompt->grammar,
        .grammar_open = call->ask->grammar_open,
        .grammar_after = call->ask->grammar_after,
        .cache_key = prompt->cache_key,
    };
    /* Samples of one seeded prompt differ, and in the same way each time. */
    spec.sampling.seed += out->sample;
    struct pd_meeting meeting = prompt->meeting;
    meeting.room = ask_room(meeting.room, out->sample, call->ask->prompt_count);
    out->submitted = true;
    out->call->alive++;
    int rc = pd_node_submit(call->serve->opt.node, &spec, &meeting, on_event,
                            out, &out->id, why);
    if (!rc) return 0;
    out->submitted = false;
    out->call->alive--;
    return rc;
}

/* Whether a router watches this stream, and says when it was begun. */
static void note_resumable(struct call *call)
{
    const struct prompt *prompt = &call->ask->prompts[0];
    const char *created = http_request_header(call->request, RESUME_HEADER);
    if (!created || !call->ask->stream || call->ask->batch ||
        prompt->want_logprobs || prompt->logprob_start >= 0 ||
        call->serve->env.mode == PD_PREFILL)
        return;
    char *end;
    unsigned long long at = strtoull(created, &end, 10);
    if (*end || end == created) return;
    call->resumable = true;
    call->created = at;
}

void call_start(struct serve *serve, struct http_request *request,
                struct ask *ask, const struct call_format *format)
{
    struct call *call = call_create(serve, request, ask, format);
    note_resumable(call);
    http_on_close(request, client_left, call);
    call->guards++;
    for (uint32_t i = 0; i < call->output_count && call->request; i++) {
        struct why why = {0};
        int rc = submit(&call->outputs[i], &why);
        if (!rc) continue;
        struct fault fault = fault_of(rc, why_text(&why, rc));
        fail(call, &fault);
    }
    call->guards--;
    release(call);
}

void call_refuse(struct serve *serve, struct http_request *request,
                 enum api_style style, int rc, const struct why *why)
{
    struct fault fault = fault_of(rc, why_text(why, rc));
    size_t n;
    const char *body = http_request_body(request, &n);
    uint64_t room;
    if (serve->env.mode == PD_PREFILL && ask_first_room(body, n, &room))
        pd_node_refuse(serve->opt.node, room, fault.status, fault.message);
    fault_reply(request, style, &fault);
}

void call_abort_rid(struct serve *serve, const char *prefix)
{
    size_t n = strlen(prefix);
    struct call *call = serve->calls;
    while (call) {
        call->guards++;
        for (uint32_t i = 0; i < call->output_count; i++) {
            struct output *out = &call->outputs[i];
            if (out->submitted && !out->done && !strncmp(out->rid, prefix, n))
                pd_node_abort(serve->opt.node, out->id, 0, "Aborted");
        }
        struct call *next = call->next;
        call->guards--;
        release(call);
        call = next;
    }
}

/* --- for formats --- */

const char *output_finish_word(const struct output *out)
{
    switch (out->finish.kind) {
    case FINISH_NONE: break;
    case FINISH_STOP_TOKEN:
    case FINISH_STOP_TEXT: return "stop";
    case FINISH_LENGTH: return "length";
    case FINISH_ABORT: return "abort";
    }
    return NULL;
}

void output_matched(const struct output *out, struct buf *to)
{
    if (out->finish.kind == FINISH_STOP_TOKEN) {
        buf_printf(to, "%d", out->finish.stop_token);
    } else if (out->finish.kind == FINISH_STOP_TEXT) {
        const char *text = out->finish.stop_text;
        buf_putc(to, '"');
        if (text) buf_json(to, text, strlen(text));
        buf_putc(to, '"');
    } else {
        buf_puts(to, "null");
    }
}

double output_seconds(const struct output *out)
{
    uint64_t end = out->done_us ? out->done_us : clock_us();
    return (double)(end - out->call->start_us) * 1e-6;
}
