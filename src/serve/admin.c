/* The management routes and /v1/models, /tokenize. Bodies: docs/api.md;
 * source: SGLang's entrypoints/http_server.py. */
#include "base/buf.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "serve/assets.h"
#include "serve/internal.h"
#include "serve/render.h"
#include "text/tokenizer.h"

#include <string.h>

static void reply_fault(struct http_request *request, int rc,
                        const struct why *why)
{
    struct fault fault = fault_of(rc, why_text(why, rc));
    fault_reply(request, API_OPENAI, &fault);
}

/* Answers with the body and drops it. */
static void reply_own(struct http_request *request, json_t *body)
{
    http_reply_json(request, 200, body);
    json_decref(body);
}

static void reply_buf(struct http_request *request, const char *type,
                      struct buf *body)
{
    http_reply(request, 200, type, NULL, body->data, body->len);
    buf_fini(body);
}

static uint32_t page_tokens(const struct serve *serve,
                            const struct engine_stats *stats)
{
    uint32_t pages = stats->pages_total;
    return pages ? serve->opt.max_total_tokens / pages : 0;
}

static uint32_t used_tokens(const struct serve *serve,
                            const struct engine_stats *stats)
{
    uint32_t idle = stats->pages_free + stats->pages_cached;
    if (idle > stats->pages_total) return 0;
    return (stats->pages_total - idle) * page_tokens(serve, stats);
}

/* --- models --- */

static json_t *model_card(const struct serve *serve)
{
    return json_pack("{s:s,s:s,s:I,s:s,s:s,s:n,s:I}", "id",
                     serve->opt.served_model_name, "object", "model", "created",
                     (json_int_t)serve->started_unix, "owned_by", "sglang",
                     "root", serve->opt.served_model_name, "parent",
                     "max_model_len", (json_int_t)serve->opt.context);
}

void models_handle(void *arg, struct http_request *request)
{
    reply_own(request, json_pack("{s:s,s:[o]}", "object", "list", "data",
                                 model_card(arg)));
}

void model_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    const char *name = http_request_path(request) + strlen("/v1/models/");
    if (strcmp(name, serve->opt.served_model_name) == 0) {
        reply_own(request, model_card(serve));
        return;
    }
    json_t *error = json_pack(
        "{s:{s:s,s:s,s:s,s:s}}", "error", "message",
        "The model does not exist on this server: see /v1/models.", "type",
        "invalid_request_error", "param", "model", "code", "model_not_found");
    http_reply_json(request, 404, error);
    json_decref(error);
}

void model_info_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    reply_own(request, json_pack("{s:s,s:s,s:b,s:n,s:s,s:b,s:b}", "model_path",
                                 serve->opt.model_path, "tokenizer_path",
                                 serve->opt.tokenizer_path, "is_generation", 1,
                                 "preferred_sampling_params", "weight_version",
                                 "default", "has_image_understanding", 0,
                                 "has_audio_understanding", 0));
}

void weight_version_handle(void *arg, struct http_request *request)
{
    (void)arg;
    reply_own(request, json_pack("{s:s}", "weight_version", "default"));
}

void ping_handle(void *arg, struct http_request *request)
{
    (void)arg;
    http_reply(request, 200, NULL, NULL, "", 0);
}

/* --- what the server is and does --- */

static json_t *internal_state(const struct serve *serve,
                              const struct engine_stats *stats)
{
    json_t *state = json_copy(serve->info);
    json_object_set_new(state, "last_gen_throughput",
                        json_real(stats->output_rate));
    json_object_set_new(
        state, "memory_usage",
        json_pack("{s:f,s:f,s:I,s:f}", "weight",
                  (double)serve->opt.weight_bytes / (1 << 30), "kvcache",
                  (double)serve->opt.kv_bytes / (1 << 30), "token_capacity",
                  (json_int_t)serve->opt.max_total_tokens, "graph", 0.0));
    json_object_set_new(state, "avg_spec_accept_length", json_null());
    return state;
}

static json_t *pd_state(const struct serve *serve)
{
    struct pd_stats stats;
    pd_node_stats(serve->opt.node, &stats);
    return json_pack("{s:i,s:i,s:i,s:i,s:I,s:I,s:s}", "rooms", (int)stats.rooms,
                     "bootstrapping", (int)stats.bootstrapping, "transferring",
                     (int)stats.transferring, "quarantined_pages",
                     (int)stats.quarantined, "kv_bytes",
                     (json_int_t)stats.kv_bytes, "kv_us",
                     (json_int_t)stats.kv_us, "transport", stats.transport);
}

void server_info_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    struct engine_stats stats;
    engine_stats_get(serve->opt.engine, &stats);
    json_t *info = json_copy(serve->info);
    uint32_t room = serve->opt.context < serve->opt.max_total_tokens
                        ? serve->opt.context
                        : serve->opt.max_total_tokens;
    json_object_set_new(info, "status",
                        json_string(serve->ready ? "ready" : "starting"));
    json_object_set_new(info, "max_total_num_tokens",
                        json_integer(serve->opt.max_total_tokens));
    json_object_set_new(info, "max_req_input_len",
                        json_integer(room > 6 ? room - 6 : 0));
    json_object_set_new(info, "internal_states",
                        json_pack("[o]", internal_state(serve, &stats)));
    json_object_set_new(info, "version", json_string(serve->opt.version));
    if (serve->env.mode != PD_NULL)
        json_object_set_new(info, "disaggregation", pd_state(serve));
    reply_own(request, info);
}

void load_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    struct engine_stats stats;
    engine_stats_get(serve->opt.engine, &stats);
    uint32_t waiting = stats.queued + stats.reserving + stats.retracted;
    uint32_t working = stats.running + stats.reserved + stats.held;
    reply_own(request,
              json_pack("[{s:i,s:I,s:I,s:I}]", "dp_rank", 0, "num_reqs",
                        (json_int_t)working + waiting, "num_waiting_reqs",
                        (json_int_t)waiting, "num_tokens",
                        (json_int_t)used_tokens(serve, &stats)));
}

void metrics_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    if (!serve->opt.enable_metrics) {
        http_reply_error(request, 404,
                         "Not Found: start the server with --enable-metrics");
        return;
    }
    struct engine_stats engine;
    struct pd_stats node;
    engine_stats_get(serve->opt.engine, &engine);
    pd_node_stats(serve->opt.node, &node);
    struct buf text;
    buf_init(&text, (size_t)16 << 20);
    metrics_write(serve->metrics, &engine, &node, page_tokens(serve, &engine),
                  &text);
    reply_buf(request, "text/plain; version=0.0.4; charset=utf-8", &text);
}

/* --- acting on requests --- */

struct flush_waiter {
    struct flush_waiter *next;
    struct serve *serve;
    struct http_request *request; /* NULL: the client left */
};

static void flush_left(void *arg, struct http_request *request, int rc)
{
    (void)rc;
    struct flush_waiter *w = arg;
    w->request = NULL; /* flushed() still comes */
    http_drop(request);
}

static void flush_end(struct flush_waiter *w)
{
    struct flush_waiter **at = &w->serve->flushes;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    mem_free(w);
}

static void flushed(void *arg, int status)
{
    struct flush_waiter *w = arg;
    struct http_request *request = w->request;
    flush_end(w);
    if (!request) return;
    if (status)
        http_reply_text(request, 400,
                        "Cache not flushed: requests are running or "
                        "waiting.\n");
    else
        http_reply_text(request, 200, "Cache flushed.\n");
}

void flush_cache_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    struct flush_waiter *w = mem_must(1, sizeof *w);
    *w = (struct flush_waiter){serve->flushes, serve, request};
    serve->flushes = w;
    http_on_close(request, flush_left, w);
    pd_node_flush(serve->opt.node, flushed, w);
}

void flush_waiters_destroy(struct serve *serve)
{
    while (serve->flushes)
        flush_end(serve->flushes);
}

static int read_object(struct http_request *request, json_t **out,
                       struct why *why)
{
    size_t n;
    const char *body = http_request_body(request, &n);
    int rc = json_parse(out, body, n, why);
    if (rc || json_is_object(*out)) return rc;
    json_decref(*out);
    *out = NULL;
    return err_set(why, ERR_FORMAT, "The request body must be an object.");
}

void abort_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    json_t *body;
    struct why why = {0};
    const char *rid = "";
    bool all = false;
    int rc = read_object(request, &body, &why);
    if (!rc) rc = json_get_string(body, "rid", &rid, &why);
    if (!rc) rc = json_get_bool(body, "abort_all", &all, &why);
    if (rc) {
        reply_fault(request, rc, &why);
    } else {
        http_reply(request, 200, NULL, NULL, "", 0);
        /* An empty rid is no rid, not the start of all of them. */
        if (all || *rid) call_abort_rid(serve, all ? "" : rid);
    }
    json_decref(body);
}

/* --- text and tokens --- */

/* Appends "[1,2]" and sets *count. */
static int add_tokens(const struct serve *serve, const json_t *text,
                      unsigned flags, struct buf *to, size_t *count,
                      struct why *why)
{
    if (!json_is_string(text))
        return err_set(why, ERR_FORMAT,
                       "prompt must be a string or a list of strings.");
    struct token_list list = {0};
    int rc = tokenizer_encode(assets_tokenizer(serve->opt.assets),
                              json_string_value(text), json_string_length(text),
                              flags, &list);
    buf_putc(to, '[');
    for (size_t i = 0; i < list.count; i++)
        buf_printf(to, i ? ",%d" : "%d", list.ids[i]);
    buf_putc(to, ']');
    *count = list.count;
    token_list_fini(&list);
    return rc;
}

/* {"tokens":[..],"count":N,"max_model_len":M}; lists of each for a list. */
static int tokenize(const struct serve *serve, const json_t *body,
                    struct buf *to, struct why *why)
{
    const json_t *prompt = json_object_get(body, "prompt");
    bool special = true, many = json_is_array(prompt);
    int rc = json_get_bool(body, "add_special_tokens", &special, why);
    unsigned flags = special ? TOKENIZER_ADD_SPECIAL : 0;
    struct buf counts;
    buf_init(&counts, (size_t)64 << 20);
    buf_puts(to, many ? "{\"tokens\":[" : "{\"tokens\":");
    for (size_t i = 0; !rc && i < (many ? json_array_size(prompt) : 1); i++) {
        size_t count = 0;
        if (i) buf_putc(to, ',');
        rc = add_tokens(serve, many ? json_array_get(prompt, i) : prompt, flags,
                        to, &count, why);
        render_next(&counts);
        buf_printf(&counts, "%zu", count);
    }
    buf_puts(to, many ? "],\"count\":[" : ",\"count\":");
    render_items(to, &counts, 0);
    buf_printf(to, "%s,\"max_model_len\":%u}", many ? "]" : "",
               serve->opt.context);
    if (!rc && (to->failed || counts.failed))
        rc = err_set(why, ERR_NOMEM, "The answer is too large.");
    buf_fini(&counts);
    return rc;
}

static int add_text(const struct serve *serve, const json_t *ids, bool skip,
                    struct buf *to, struct why *why)
{
    struct prompt read = {0};
    int rc = ask_take_ids(&serve->env, &read, ids, why);
    buf_putc(to, '"');
    if (!rc)
        render_ids_text(to, assets_tokenizer(serve->opt.assets), read.tokens,
                        read.token_count, skip);
    buf_putc(to, '"');
    mem_free(read.tokens);
    return rc;
}

static int detokenize(const struct serve *serve, const json_t *body,
                      struct buf *to, struct why *why)
{
    const json_t *ids = json_object_get(body, "tokens");
    if (!json_is_array(ids))
        return err_set(why, ERR_FORMAT,
                       "tokens must be a list of token ids, or of lists.");
    bool skip = true, many = json_is_array(json_array_get(ids, 0));
    int rc = json_get_bool(body, "skip_special_tokens", &skip, why);
    buf_puts(to, many ? "{\"text\":[" : "{\"text\":");
    for (size_t i = 0; !rc && i < (many ? json_array_size(ids) : 1); i++) {
        if (i) buf_putc(to, ',');
        const json_t *v = many ? json_array_get(ids, i) : ids;
        if (!json_is_array(v))
            return err_set(why, ERR_FORMAT, "tokens mixes ids and lists.");
        rc = add_text(serve, v, skip, to, why);
    }
    buf_puts(to, many ? "]}" : "}");
    if (!rc && to->failed)
        rc = err_set(why, ERR_NOMEM, "The answer is too large.");
    return rc;
}

static void convert(const struct serve *serve, struct http_request *request,
                    int (*work)(const struct serve *, const json_t *,
                                struct buf *, struct why *))
{
    json_t *body;
    struct why why = {0};
    struct buf to;
    buf_init(&to, (size_t)1 << 30);
    int rc = read_object(request, &body, &why);
    if (!rc) rc = work(serve, body, &to, &why);
    json_decref(body);
    if (!rc) {
        reply_buf(request, "application/json", &to);
        return;
    }
    buf_fini(&to);
    reply_fault(request, rc, &why);
}

void tokenize_handle(void *serve, struct http_request *request)
{
    convert(serve, request, tokenize);
}

void detokenize_handle(void *serve, struct http_request *request)
{
    convert(serve, request, detokenize);
}
