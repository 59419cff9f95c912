#include "router/router.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "http/server.h"
#include "router/dispatch.h"
#include "router/headers.h"
#include "router/fan.h"
#include "router/members.h"
#include "router/options.h"
#include "router/skim.h"
#include "router/stats.h"
#include "router/worker.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { HEADERS_MAX = 48, ADMIN_MS = 30 * 1000, GENERATE_MS = 60 * 1000 };

struct router {
    const struct router_options *options;
    struct http_server *server;
    struct http_client *client;
    struct pool prefill, decode;
    struct dispatch dispatch;
    struct members members;
    struct stats stats;
    char bearer[1024];              /* "Bearer key", or "" */
    struct http_header key_list[2]; /* it as a list, maybe empty */
};

/* ------------------------------------------------------------------------ */

static void serve_native(void *arg, struct http_request *r)
{
    struct router *router = arg;
    dispatch_start(&router->dispatch, r, true);
}

static void serve_openai(void *arg, struct http_request *r)
{
    struct router *router = arg;
    dispatch_start(&router->dispatch, r, false);
}

static void serve_alive(void *arg, struct http_request *r)
{
    (void)arg;
    http_reply(r, 200, NULL, NULL, "", 0);
}

static void serve_readiness(void *arg, struct http_request *r)
{
    struct router *router = arg;
    size_t p = pool_healthy(&router->prefill);
    size_t d = pool_healthy(&router->decode);
    bool ready = pool_ready(&router->prefill) && pool_ready(&router->decode);
    char text[200];
    int n = snprintf(text, sizeof text,
                     "{\"status\": \"%s\", \"healthy_workers\": %zu, "
                     "\"total_workers\": %zu, \"healthy_prefill\": %zu, "
                     "\"healthy_decode\": %zu}",
                     ready ? "ready" : "not_ready", p + d,
                     pool_size(&router->prefill) + pool_size(&router->decode),
                     p, d);
    http_reply(r, ready ? 200 : 503, "application/json", NULL, text, (size_t)n);
}

static void serve_metrics(void *arg, struct http_request *r)
{
    struct router *router = arg;
    struct buf b;
    buf_init(&b, 16 << 20);
    stats_write(&router->stats, &router->prefill, &router->decode, &b);
    http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, b.data,
               b.len);
    buf_fini(&b);
}

/* --- asking workers ------------------------------------------------------- */

static void add_string(struct buf *b, const char *text, size_t n)
{
    buf_putc(b, '"');
    buf_json(b, text, n);
    buf_putc(b, '"');
}

/* {"workers": [{"url", "role", "status", "body"}...]} with the given status. */
static void reply_list(struct http_request *r, int status,
                       const struct fan_answer *answers, size_t count)
{
    struct buf b;
    buf_init(&b, SIZE_MAX / 2);
    buf_puts(&b, "{\"workers\": [");
    for (size_t i = 0; i < count; i++) {
        const struct fan_answer *a = &answers[i];
        buf_printf(&b, "%s{\"url\": ", i ? ", " : "");
        add_string(&b, a->worker->url, strlen(a->worker->url));
        buf_printf(&b, ", \"role\": \"%s\", \"status\": %d, \"body\": ",
                   a->prefill ? "prefill" : "decode", a->status);
        add_string(&b, a->body, a->n);
        buf_putc(&b, '}');
    }
    buf_puts(&b, "]}");
    http_reply(r, status, "application/json", NULL, b.data, b.len);
    buf_fini(&b);
}

/* The worst of all; no answer counts as 502. */
static int worst_status(const struct fan_answer *answers, size_t count)
{
    int worst = 200;
    for (size_t i = 0; i < count; i++) {
        int status = answers[i].status ? answers[i].status : 502;
        if ((status < 200 || status > 299) && status > worst) worst = status;
    }
    return worst;
}

static void finish_all(struct http_request *r, const struct fan_answer *answers,
                       size_t count)
{
    reply_list(r, worst_status(answers, count), answers, count);
}

/* A cluster generates when one worker of each kind does. */
static void finish_health(struct http_request *r,
                          const struct fan_answer *answers, size_t count)
{
    bool prefill = false, decode = false;
    for (size_t i = 0; i < count; i++)
        if (answers[i].status == 200)
            *(answers[i].prefill ? &prefill : &decode) = true;
    reply_list(r, prefill && decode ? 200 : 503, answers, count);
}

/* One worker's answer as it is. */
static void finish_proxy(struct http_request *r,
                         const struct fan_answer *answers, size_t count)
{
    if (!count)
        http_reply_error(r, 503, "No available servers");
    else if (!answers[0].status)
        http_reply_error(r, 503, "prefill server %s: %s",
                         answers[0].worker->url, answers[0].body);
    else
        http_reply(r, answers[0].status,
                   answers[0].type ? answers[0].type : "application/json", NULL,
                   answers[0].body, answers[0].n);
}

/* A non-200 of the worker is mini_lb's 502, with status and body in detail. */
static void finish_model_info(struct http_request *r,
                              const struct fan_answer *answers, size_t count)
{
    if (count && answers[0].status && answers[0].status != 200)
        http_reply_error(
            r, 502, "Failed to get model info from %s, status %d: %s",
            answers[0].worker->url, answers[0].status, answers[0].body);
    else
        finish_proxy(r, answers, count);
}

/* Appends the answers of one kind as a list of JSON values. */
static void add_infos(struct buf *b, const struct fan_answer *answers,
                      size_t count, bool prefill)
{
    const char *comma = "";
    for (size_t i = 0; i < count; i++) {
        struct skim value;
        if (answers[i].prefill != prefill) continue;
        buf_puts(b, comma);
        comma = ", ";
        if (answers[i].status == 200 &&
            skim_check(&value, answers[i].body, answers[i].n, NULL) == 0) {
            buf_add(b, value.at, value.n);
            continue;
        }
        buf_printf(b, "{\"status\": %d, \"error\": ", answers[i].status);
        add_string(b, answers[i].body, answers[i].n);
        buf_putc(b, '}');
    }
}

static void finish_server_info(struct http_request *r,
                               const struct fan_answer *answers, size_t count)
{
    struct buf b;
    size_t states = 0;
    buf_init(&b, SIZE_MAX / 2);
    buf_puts(&b, "{\"internal_states\": [");
    for (size_t i = 0; i < count; i++) {
        struct skim info, one;
        if (answers[i].prefill || answers[i].status != 200 ||
            skim_check(&info, answers[i].body, answers[i].n, NULL))
            continue;
        struct skim list = skim_member(info, "internal_states");
        for (size_t at = 0; skim_element_next(list, &at, &one); states++) {
            if (states) buf_puts(&b, ", ");
            buf_add(&b, one.at, one.n);
        }
    }
    if (!states)
        buf_puts(&b, "{\"last_gen_throughput\": 0.0, "
                     "\"avg_spec_accept_length\": null}");
    buf_puts(&b, "], \"prefill\": [");
    add_infos(&b, answers, count, true);
    buf_puts(&b, "], \"decode\": [");
    add_infos(&b, answers, count, false);
    buf_puts(&b, "]}");
    http_reply(r, 200, "application/json", NULL, b.data, b.len);
    buf_fini(&b);
}

/* Asks all workers, or one healthy prefill worker. A client without a key is
 * only here when it needs none (/health_generate): workers get the router's. */
static void ask(struct router *router, struct http_request *r, bool all,
                uint64_t timeout_ms,
                void (*finish)(struct http_request *r,
                               const struct fan_answer *answers, size_t count))
{
    struct http_header headers[HEADERS_MAX];
    headers_up(r, headers, HEADERS_MAX - 1);
    if (!http_request_header(r, "Authorization") && router->bearer[0]) {
        size_t n = 0;
        while (headers[n].name)
            n++;
        headers[n] = router->key_list[0];
        headers[n + 1] = (struct http_header){NULL, NULL};
    }
    struct fan_options o = {
        .client = router->client,
        .method = http_request_method(r) == HTTP_POST ? "POST" : "GET",
        .path = http_request_path(r),
        .headers = headers,
        .with_body = http_request_method(r) == HTTP_POST,
        .timeout_ms = timeout_ms,
        .finish = finish,
    };
    if (all) {
        fan_start(r, &o, router->prefill.workers, router->prefill.count,
                  router->decode.workers, router->decode.count);
        return;
    }
    struct worker *first = NULL;
    for (size_t i = 0; i < router->prefill.count && !first; i++)
        if (router->prefill.workers[i]->healthy)
            first = router->prefill.workers[i];
    fan_start(r, &o, &first, first ? 1 : 0, NULL, 0);
}

static void serve_all(void *arg, struct http_request *r)
{
    ask(arg, r, true, ADMIN_MS, finish_all);
}

static void serve_health_generate(void *arg, struct http_request *r)
{
    ask(arg, r, true, GENERATE_MS, finish_health);
}

static void serve_server_info(void *arg, struct http_request *r)
{
    ask(arg, r, true, ADMIN_MS, finish_server_info);
}

static void serve_model_info(void *arg, struct http_request *r)
{
    ask(arg, r, false, ADMIN_MS, finish_model_info);
}

static void serve_proxy(void *arg, struct http_request *r)
{
    ask(arg, r, false, ADMIN_MS, finish_proxy);
}

static void serve_workers(void *arg, struct http_request *r)
{
    const struct members *members = &((struct router *)arg)->members;
    if (http_request_method(r) == HTTP_POST)
        members_add(members, r);
    else
        members_list(members, r);
}

static void serve_worker(void *arg, struct http_request *r)
{
    members_one(&((struct router *)arg)->members, r);
}

static const struct http_route routes[] = {
    {HTTP_POST, "/generate", serve_native},
    {HTTP_POST, "/v1/chat/completions", serve_openai},
    {HTTP_POST, "/v1/completions", serve_openai},
    {HTTP_GET, "/health", serve_alive},
    {HTTP_GET, "/liveness", serve_alive},
    {HTTP_GET, "/readiness", serve_readiness},
    {HTTP_GET, "/health_generate", serve_health_generate},
    {HTTP_GET | HTTP_POST, "/flush_cache", serve_all},
    {HTTP_POST, "/abort_request", serve_all},
    {HTTP_GET, "/get_server_info", serve_server_info},
    {HTTP_GET, "/server_info", serve_server_info},
    {HTTP_GET, "/get_model_info", serve_model_info},
    {HTTP_GET, "/model_info", serve_model_info},
    {HTTP_GET, "/v1/models*", serve_proxy},
    {HTTP_GET, "/metrics", serve_metrics},
    {HTTP_GET | HTTP_POST, "/workers", serve_workers},
    {HTTP_GET | HTTP_DELETE, "/workers/*", serve_worker},
};

/* ------------------------------------------------------------------------ */

static enum policy policy_of(const char *role, const char *word)
{
    if (strcmp(word, "round_robin") == 0) return POLICY_ROUND_ROBIN;
    if (strcmp(word, "power_of_two") == 0) return POLICY_POWER_OF_TWO;
    if (strcmp(word, "cache_aware") == 0) return POLICY_CACHE_AWARE;
    if (strcmp(word, "random") != 0)
        log_warn("router", "%s policy %s is not here yet: random is used", role,
                 word);
    return POLICY_RANDOM;
}

static void worker_hung(void *arg, struct worker *worker)
{
    struct router *router = arg;
    dispatch_hung(&router->dispatch, worker);
}

static int add_workers(struct router *router, struct loop *loop,
                       struct pool *pool, const char *role, const char *policy,
                       const struct router_worker_option *list, size_t count,
                       struct why *why)
{
    const struct router_options *o = router->options;
    struct pool_options options = {
        .role = role,
        .policy = policy_of(role, policy[0] ? policy : o->policy),
        .cache_threshold = o->cache_threshold,
        .balance_rel = o->balance_rel_threshold,
        .balance_abs = (unsigned)o->balance_abs_threshold,
        .table_bytes = (size_t)o->max_tree_size,
        .health_path = o->health_check_endpoint,
        .headers = router->key_list,
        .check_ms = (uint64_t)o->health_check_interval_secs * 1000,
        .probe_ms = (uint64_t)o->probe_ms,
        .timeout_ms = (uint64_t)o->health_check_timeout_secs * 1000,
        .down_failures = (unsigned)o->health_failure_threshold,
        .up_successes = (unsigned)o->health_success_threshold,
        .trip_failures =
            o->disable_circuit_breaker ? 0 : (unsigned)o->cb_failure_threshold,
        .silent_ms = (uint64_t)o->silent_ms,
        .on_hung = worker_hung,
        .arg = router,
    };
    pool_init(pool, loop, router->client, &options);
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = pool_add(pool, list[i].url, list[i].bootstrap_port, true, why);
    return rc;
}

int router_create(struct router **out, struct loop *loop,
                  const struct router_options *o, struct why *why)
{
    *out = NULL;
    struct router *router = mem_must(1, sizeof *router);
    router->options = o;
    if (o->api_key && o->api_key[0]) {
        snprintf(router->bearer, sizeof router->bearer, "Bearer %s",
                 o->api_key);
        router->key_list[0] =
            (struct http_header){"Authorization", router->bearer};
    }
    int rc = http_client_open(&router->client, loop, why);
    if (!rc)
        rc = add_workers(router, loop, &router->prefill, "prefill",
                         o->prefill_policy, o->prefill, o->prefill_count, why);
    if (!rc)
        rc = add_workers(router, loop, &router->decode, "decode",
                         o->decode_policy, o->decode, o->decode_count, why);
    router->dispatch = (struct dispatch){
        .loop = loop,
        .client = router->client,
        .prefill = &router->prefill,
        .decode = &router->decode,
        .options = o,
        .stats = &router->stats,
    };
    router->members = (struct members){.prefill = &router->prefill,
                                       .decode = &router->decode,
                                       .guarded = router->bearer[0]};
    struct http_server_options options = {
        .host = o->host,
        .port = (int)o->port,
        .routes = routes,
        .route_count = sizeof routes / sizeof *routes,
        .arg = router,
        .limits = {.body_bytes = (size_t)o->max_payload_size},
        .api_key = o->api_key,
        .cors = true,
    };
    if (!rc) rc = http_server_open(&router->server, loop, &options, why);
    if (rc) {
        router_destroy(router);
        return rc;
    }
    *out = router;
    return 0;
}

int router_port(const struct router *router)
{
    return http_server_port(router->server);
}

void router_drain(struct router *router, uint64_t limit_ms,
                  void (*done)(void *arg), void *arg)
{
    http_server_drain(router->server, limit_ms, done, arg);
}

void router_destroy(struct router *router)
{
    if (!router) return;
    http_server_close(router->server); /* cancels what clients wait for */
    dispatch_close(&router->dispatch);
    pool_fini(&router->prefill);
    pool_fini(&router->decode);
    http_client_close(router->client);
    mem_free(router);
}

/* --- the program --------------------------------------------------------- */

struct run {
    struct loop *loop;
    struct router *router;
    const struct router_options *options;
    bool stopping;
};

static void stop(void *arg)
{
    struct run *run = arg;
    loop_stop(run->loop);
}

static void take_signal(void *arg, int number)
{
    struct run *run = arg;
    if (run->stopping) {
        loop_stop(run->loop);
        return;
    }
    run->stopping = true;
    log_info("router", "%s: stopping", strsignal(number));
    router_drain(run->router,
                 (uint64_t)run->options->shutdown_grace_period_secs * 1000,
                 stop, run);
}

static void note_ignored(void *arg, const struct opt *option)
{
    (void)arg;
    log_info("router", "option --%s has no effect: %s", option->name,
             option->help);
}

static void log_config(const struct router_options *o, int port)
{
    for (size_t i = 0; i < o->prefill_count; i++) {
        if (o->prefill[i].bootstrap_port < 0)
            log_info("router", "prefill %s, bootstrap port its own",
                     o->prefill[i].url);
        else
            log_info("router", "prefill %s, bootstrap port %d",
                     o->prefill[i].url, o->prefill[i].bootstrap_port);
    }
    for (size_t i = 0; i < o->decode_count; i++)
        log_info("router", "decode %s", o->decode[i].url);
    log_info("router",
             "listening on %s port %d: policy %s, timeout %" PRId64
             " s, pairs tried %" PRId64,
             o->host, port, o->policy, o->request_timeout_secs,
             o->disable_retries ? 1 : o->retry_max_retries);
}

static int serve(const struct router_options *options, struct why *why)
{
    static const int signals[] = {SIGINT, SIGTERM};
    struct run run = {.options = options};
    int rc = loop_create(&run.loop, why);
    if (!rc) rc = loop_signals(run.loop, signals, 2, take_signal, &run, why);
    if (!rc) rc = router_create(&run.router, run.loop, options, why);
    if (!rc) {
        log_config(options, router_port(run.router));
        loop_run(run.loop);
    }
    router_destroy(run.router);
    loop_destroy(run.loop);
    return rc;
}

int router_run(int argc, char **argv)
{
    struct router_options *options = mem_must(1, sizeof *options);
    struct why why = {0};
    enum log_level level = LOG_INFO;
    log_init(level, "router");
    int rc =
        router_options_parse(options, argc, argv, note_ignored, NULL, &why);
    bool usage = rc < 0;
    if (!rc) {
        log_level_parse(options->log_level, &level);
        log_init(level, "router");
        rc = serve(options, &why);
    }
    mem_free(options);
    if (rc >= 0) return 0;
    if (usage)
        fprintf(stderr, "baton launch_router: %s\n", why_text(&why, rc));
    else
        log_error("router", "%s", why_text(&why, rc));
    return usage ? 2 : 1;
}
