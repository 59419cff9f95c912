/* The frame of OpenAI's answers, and those of /v1/completions. Source: the
 * OpenAI API reference; order and null members as SGLang writes them
 * (entrypoints/openai/protocol.py). */
#include "serve/openai.h"
#include "serve/assets.h"
#include "serve/internal.h"
#include "serve/render.h"

#include <math.h>
#include <string.h>
#include <strings.h>

const struct tokenizer *openai_tokenizer(const struct output *out)
{
    return assets_tokenizer(out->call->serve->opt.assets);
}

/* OpenAI's logprob is a number always: -9999 stands for minus infinity. */
void openai_number(struct buf *to, float logprob)
{
    render_float(to, isfinite(logprob) ? logprob : -9999.0f);
}

/* --- usage --- */

static uint32_t reasoning_tokens(const struct output *out)
{
    uint32_t n = out->parts ? out->parts->reasoning_tokens : 0;
    return n < out->output_tokens ? n : out->output_tokens;
}

static void usage(const struct call *call, const struct output *only,
                  struct buf *to)
{
    uint64_t prompt = 0, completion = 0, cached = 0, reasoning = 0;
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct output *out = &call->outputs[i];
        if (only && out != only) continue;
        completion += out->output_tokens;
        reasoning += reasoning_tokens(out);
        if (!only && out->sample) continue; /* one prompt counts once */
        prompt += out->prompt_tokens;
        cached += out->cached_tokens;
    }
    buf_printf(to,
               "{\"prompt_tokens\":%llu,\"total_tokens\":%llu,"
               "\"completion_tokens\":%llu,\"prompt_tokens_details\":",
               (unsigned long long)prompt,
               (unsigned long long)(prompt + completion),
               (unsigned long long)completion);
    if (call->serve->opt.enable_cache_report && cached)
        buf_printf(to, "{\"cached_tokens\":%llu}", (unsigned long long)cached);
    else
        buf_puts(to, "null");
    buf_printf(to, ",\"reasoning_tokens\":%llu}",
               (unsigned long long)reasoning);
}

/* {"id":..,"object":..,"created":..,"model":..,"choices":[ made once. */
static void head(struct call *call, const char *object)
{
    struct buf *to = &call->head;
    if (to->len) return;
    buf_puts(to, "{\"id\":");
    render_string(to, call->ask->prompts[0].rid);
    buf_printf(to, ",\"object\":\"%s\",\"created\":%llu,\"model\":", object,
               (unsigned long long)call->created);
    render_string(to, call->ask->model);
    buf_puts(to, ",\"choices\":[");
}

void openai_head(struct call *call, const char *object, struct buf *to)
{
    head(call, object);
    buf_add(to, call->head.data, call->head.len);
    to->failed |= call->head.failed;
}

/* Closes the choices of an event. */
void openai_event_end(const struct output *out, struct buf *to)
{
    buf_puts(to, "],\"usage\":");
    if (out->call->ask->usage_always)
        usage(out->call, out, to);
    else
        buf_puts(to, "null");
    buf_puts(to, "}\n\n");
}

void openai_usage_event(struct call *call, const char *object, struct buf *to)
{
    if (!call->ask->usage_event) return;
    buf_puts(to, "data: ");
    openai_head(call, object, to);
    buf_puts(to, "],\"usage\":");
    usage(call, NULL, to);
    buf_puts(to, "}\n\n");
}

/* Closes the choices of a whole answer. */
void openai_answer_end(const struct call *call, struct buf *to)
{
    buf_puts(to, "],\"usage\":");
    usage(call, NULL, to);
    buf_puts(to, ",\"metadata\":{\"weight_version\":\"default\"}}");
}

void openai_finish(const struct output *out, struct buf *to)
{
    const char *word = out->done ? output_finish_word(out) : NULL;
    bool called = word && strcmp(word, "stop") == 0 && out->parts &&
                  out->parts->call_count;
    if (called) word = "tool_calls";
    buf_puts(to, ",\"finish_reason\":");
    if (word)
        render_string(to, word);
    else
        buf_puts(to, "null");
    buf_puts(to, ",\"matched_stop\":");
    if (out->done && !called)
        output_matched(out, to);
    else
        buf_puts(to, "null");
}

void openai_text_from(const struct output *out, size_t from, struct buf *to)
{
    if (out->text.len > from)
        buf_add(to, out->text.data + from, out->text.len - from);
}

/* --- completions --- */

enum { LOGPROBS, TOKENS, OFFSETS, TOPS, LISTS }; /* of output.lists */

static const char text_object[] = "text_completion";

/* {"text": logprob, ...}; of tokens that read the same the likeliest. */
static void alternatives(struct output *out, const struct token_logprob *p)
{
    struct buf *to = &out->lists[TOPS], name;
    render_next(to);
    if (!p->top_count) {
        buf_puts(to, "null");
        return;
    }
    size_t begin = to->len;
    buf_init(&name, (size_t)1 << 20);
    for (uint32_t i = 0; i < p->top_count; i++) {
        buf_reset(&name);
        buf_putc(&name, i ? ',' : '{');
        render_token(&name, openai_tokenizer(out), p->top_ids[i]);
        buf_putc(&name, ':');
        if (i && !to->failed) {
            const char *seen = to->data + begin;
            size_t n = to->len - begin;
            if (memmem(seen + 1, n - 1, name.data + 1, name.len - 1)) continue;
        }
        buf_add(to, name.data, name.len);
        openai_number(to, p->top_values[i]);
    }
    buf_putc(to, '}');
    buf_fini(&name);
}

static void text_position(struct output *out, const struct token_logprob *p)
{
    struct buf *lists = out->lists;
    for (int i = 0; i < TOPS; i++)
        render_next(&lists[i]);
    if (isnan(p->logprob))
        buf_puts(&lists[LOGPROBS], "null");
    else
        openai_number(&lists[LOGPROBS], p->logprob);
    buf_printf(&lists[OFFSETS], "%u", out->text_chars);
    out->text_chars +=
        render_token(&lists[TOKENS], openai_tokenizer(out), p->token);
    if (out->prompt->top_logprobs) alternatives(out, p);
}

static void text_logprobs(struct output *out, const struct engine_event *event)
{
    for (uint32_t i = 0; i < event->input_logprob_count; i++)
        text_position(out, &event->input_logprobs[i]);
    if (event->has_logprob) text_position(out, &event->logprob);
}

static void text_logprobs_from(const struct output *out, const size_t *from,
                               struct buf *to)
{
    static const struct {
        const char *name;
        int list;
    } members[] = {{"text_offset", OFFSETS},
                   {"token_logprobs", LOGPROBS},
                   {"tokens", TOKENS},
                   {"top_logprobs", TOPS}};
    if (!out->prompt->want_logprobs ||
        (from && out->lists[TOKENS].len == from[TOKENS])) {
        buf_puts(to, "null");
        return;
    }
    for (int i = 0; i < LISTS; i++) {
        int list = members[i].list;
        buf_printf(to, "%c\"%s\":[", i ? ',' : '{', members[i].name);
        render_items(to, &out->lists[list], from ? from[list] : 0);
        buf_putc(to, ']');
    }
    buf_putc(to, '}');
}

static void echo(const struct output *out, struct buf *to)
{
    const struct prompt *prompt = out->prompt;
    if (!out->call->ask->echo) return;
    if (prompt->text)
        buf_json(to, prompt->text, prompt->text_len);
    else
        render_ids_text(to, openai_tokenizer(out), prompt->tokens,
                        prompt->token_count,
                        prompt->params.sampling.skip_special_tokens);
}

/* from: of what was sent before; NULL: the whole. */
static void text_choice(const struct output *out, bool whole, struct buf *to)
{
    buf_printf(to, "{\"index\":%u,\"text\":\"", out->index);
    if (whole || !out->sent.begun) echo(out, to);
    openai_text_from(out, whole ? 0 : out->sent.text, to);
    buf_puts(to, "\",\"logprobs\":");
    text_logprobs_from(out, whole ? NULL : out->sent.lists, to);
    openai_finish(out, to);
    buf_putc(to, '}');
}

static void text_event(struct output *out, struct buf *to)
{
    bool fresh = out->text.len > out->sent.text || !out->sent.begun ||
                 out->lists[TOKENS].len > out->sent.lists[TOKENS];
    if (!fresh && !out->done) return;
    buf_puts(to, "data: ");
    openai_head(out->call, text_object, to);
    text_choice(out, false, to);
    openai_event_end(out, to);
}

static void text_last(struct call *call, struct buf *to)
{
    openai_usage_event(call, text_object, to);
}

static void text_answer(struct call *call, struct buf *to)
{
    openai_head(call, text_object, to);
    for (uint32_t i = 0; i < call->output_count; i++) {
        if (i) buf_putc(to, ',');
        text_choice(&call->outputs[i], true, to);
    }
    openai_answer_end(call, to);
}

static const struct call_format text_format = {
    .style = API_OPENAI,
    .logprobs = text_logprobs,
    .event = text_event,
    .last = text_last,
    .answer = text_answer,
};

/* --- handlers --- */

static bool is_json(const struct http_request *request)
{
    static const char json[] = "application/json";
    const char *type = http_request_header(request, "content-type");
    size_t n = type ? strcspn(type, "; \t") : 0;
    return n == sizeof json - 1 && strncasecmp(type, json, n) == 0;
}

void openai_handle(struct serve *serve, struct http_request *request,
                   int (*parse)(struct ask **, const struct ask_env *,
                                const char *, size_t, struct why *),
                   const struct call_format *format)
{
    size_t n;
    const char *body = http_request_body(request, &n);
    struct ask *ask = NULL;
    struct why why = {0};
    int rc = is_json(request)
                 ? parse(&ask, &serve->env, body, n, &why)
                 : err_set(&why, ERR_FORMAT,
                           "Unsupported Media Type: Only 'application/json' "
                           "is allowed");
    if (rc)
        call_refuse(serve, request, API_OPENAI, rc, &why);
    else
        call_start(serve, request, ask, format);
}

void completions_handle(void *serve, struct http_request *request)
{
    openai_handle(serve, request, ask_parse_completion, &text_format);
}
