#include "serve/serve.h"
#include "base/clock.h"
#include "base/mem.h"
#include "model/model.h"
#include "serve/assets.h"
#include "serve/internal.h"

#include <string.h>

/* The endpoints; docs/api.md lists them. */
static const struct http_route routes[] = {
    {HTTP_POST | HTTP_PUT, "/generate", generate_handle},
    {HTTP_POST, "/v1/chat/completions", chat_handle},
    {HTTP_POST, "/v1/completions", completions_handle},
    {HTTP_GET, "/v1/models", models_handle},
    {HTTP_GET, "/v1/models/*", model_handle},
    {HTTP_GET, "/health", health_handle},
    {HTTP_GET, "/health_generate", health_generate_handle},
    {HTTP_GET, "/get_model_info", model_info_handle},
    {HTTP_GET, "/model_info", model_info_handle},
    {HTTP_GET, "/get_server_info", server_info_handle},
    {HTTP_GET, "/server_info", server_info_handle},
    {HTTP_GET, "/get_load", load_handle},
    {HTTP_GET, "/metrics", metrics_handle},
    {HTTP_GET, "/get_weight_version", weight_version_handle},
    {HTTP_GET, "/ping", ping_handle},
    {HTTP_GET | HTTP_POST, "/flush_cache", flush_cache_handle},
    {HTTP_POST, "/abort_request", abort_handle},
    {HTTP_POST, "/tokenize", tokenize_handle},
    {HTTP_POST, "/v1/tokenize", tokenize_handle},
    {HTTP_POST, "/detokenize", detokenize_handle},
    {HTTP_POST, "/v1/detokenize", detokenize_handle},
};

static void set_options(struct serve *serve, const struct serve_options *given)
{
    struct serve_options *opt = &serve->opt;
    *opt = *given;
    if (!opt->host) opt->host = "127.0.0.1";
    if (!opt->served_model_name) opt->served_model_name = opt->model_path;
    if (!opt->tokenizer_path) opt->tokenizer_path = opt->model_path;
    if (!opt->version) opt->version = BATON_VERSION;
    if (!opt->context) opt->context = opt->config->context;
    if (!opt->max_total_tokens) opt->max_total_tokens = opt->context;
    if (!opt->stream_interval) opt->stream_interval = 1;
    if (!opt->health_timeout_ms) opt->health_timeout_ms = 20000;
}

static void set_env(struct serve *serve)
{
    const struct serve_options *opt = &serve->opt;
    serve->env = (struct ask_env){
        .assets = opt->assets,
        .grammars = opt->grammars,
        .mode = pd_node_mode(opt->node),
        .vocab = opt->config->vocab,
        .context = opt->context,
        .model_defaults = opt->model_sampling,
        .reasoning = opt->reasoning,
        .toolcall = opt->toolcall,
    };
}

static int read_info(struct serve *serve, struct why *why)
{
    const char *text = serve->opt.server_info;
    if (!text) text = "{}";
    int rc = json_parse(&serve->info, text, strlen(text), why);
    if (!rc && !json_is_object(serve->info))
        rc = err_set(why, ERR_FORMAT, "server_info is no JSON object");
    return rc;
}

static int listen_on(struct serve *serve, struct why *why)
{
    const struct serve_options *opt = &serve->opt;
    struct http_server_options http = {
        .host = opt->host,
        .port = opt->port,
        .routes = routes,
        .route_count = sizeof routes / sizeof *routes,
        .arg = serve,
        .limits = {.body_bytes = opt->max_body_bytes,
                   .stream_bytes = opt->stream_bytes},
        .api_key = opt->api_key,
        .cors = true,
    };
    return http_server_open(&serve->http, opt->loop, &http, why);
}

int serve_open(struct serve **out, const struct serve_options *options,
               struct why *why)
{
    *out = NULL;
    struct serve *serve = mem_must(1, sizeof *serve);
    set_options(serve, options);
    set_env(serve);
    serve->started_unix = clock_unix();
    serve->dirty_end = &serve->dirty;
    buf_init(&serve->scratch, (size_t)2 << 30);
    serve->metrics =
        metrics_create(serve->opt.served_model_name, serve->env.mode);
    serve->health = health_create(serve);
    int rc = read_info(serve, why);
    if (!rc) rc = listen_on(serve, why);
    if (rc)
        serve_close(serve);
    else
        *out = serve;
    return rc;
}

int serve_port(const struct serve *serve)
{
    return http_server_port(serve->http);
}

void serve_set_ready(struct serve *serve)
{
    if (!serve->ready)
        metrics_started(serve->metrics, clock_unix() - serve->started_unix);
    serve->ready = true;
}

void serve_drain(struct serve *serve, uint64_t limit_ms,
                 void (*done)(void *arg), void *arg)
{
    serve->draining = true;
    http_server_drain(serve->http, limit_ms, done, arg);
}

void serve_close(struct serve *serve)
{
    if (!serve) return;
    serve->closing = true;
    if (serve->http) http_server_close(serve->http);
    call_destroy_all(serve);
    flush_waiters_destroy(serve);
    health_destroy(serve->health);
    metrics_destroy(serve->metrics);
    json_decref(serve->info);
    buf_fini(&serve->scratch);
    mem_free(serve);
}
