#include "router/members.h"
#include "base/log.h"
#include "http/server.h"
#include "json/json.h"
#include "router/options.h"
#include "router/worker.h"

#include <string.h>

static json_t *describe(const struct worker *w, bool prefill)
{
    bool has_port = prefill && w->bootstrap_port >= 0;
    json_t *port = has_port ? json_integer(w->bootstrap_port) : json_null();
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:b, s:b, s:i, s:I, s:I}", "id", w->url, "url",
        w->url, "worker_type", prefill ? "prefill" : "decode", "bootstrap_port",
        port, "is_healthy", w->healthy && w->seen, "removed", w->removed,
        "load", (int)w->in_flight, "requests", (json_int_t)w->requests,
        "failures", (json_int_t)w->failures);
}

static void reply(struct http_request *r, int status, json_t *body)
{
    http_reply_json(r, status, body);
    json_decref(body);
}

static void add_all(json_t *list, const struct pool *pool, bool prefill)
{
    for (size_t i = 0; i < pool->count; i++)
        json_array_append_new(list, describe(pool->workers[i], prefill));
}

void members_list(const struct members *m, struct http_request *r)
{
    json_t *list = json_array();
    add_all(list, m->prefill, true);
    add_all(list, m->decode, false);
    int prefill = (int)pool_size(m->prefill),
        decode = (int)pool_size(m->decode);
    reply(r, 200,
          json_pack("{s:o, s:i, s:{s:i, s:i, s:i}}", "workers", list, "total",
                    prefill + decode, "stats", "prefill_count", prefill,
                    "decode_count", decode, "regular_count", 0));
}

/* Whether it may change who is there; else it was answered. */
static bool may_change(const struct members *m, struct http_request *r)
{
    if (!m->guarded)
        http_reply_error(r, 403,
                         "workers are added and removed only where the router "
                         "has --api-key");
    return m->guarded;
}

struct wanted {
    const char *url;
    bool prefill;
    int64_t port;
};

static int read_wanted(struct wanted *out, const json_t *body, struct why *why)
{
    const char *type = NULL;
    *out = (struct wanted){.port = -1};
    int rc = json_get_string(body, "url", &out->url, why);
    if (!rc) rc = json_get_string(body, "worker_type", &type, why);
    if (!rc) rc = json_get_int(body, "bootstrap_port", &out->port, why);
    if (rc) return rc;
    if (!out->url) return err_set(why, ERR_INVALID, "url is missing");
    out->prefill = type && strcmp(type, "prefill") == 0;
    if (!out->prefill && (!type || strcmp(type, "decode") != 0))
        return err_set(why, ERR_INVALID,
                       "worker_type must be \"prefill\" or \"decode\"");
    if (out->port < -1 || out->port > 65535)
        return err_set(why, ERR_INVALID, "bootstrap_port is no port");
    return 0;
}

void members_add(const struct members *m, struct http_request *r)
{
    size_t n;
    const char *text = http_request_body(r, &n);
    struct wanted wanted;
    struct why why = {0};
    json_t *body = NULL;
    if (!may_change(m, r)) return;
    int rc = json_parse(&body, text, n, &why);
    if (!rc) rc = read_wanted(&wanted, body, &why);
    struct pool *pool = rc ? NULL : wanted.prefill ? m->prefill : m->decode;
    if (!rc && pool_size(pool) >= ROUTER_WORKERS_MAX)
        rc = err_set(&why, ERR_RANGE, "more than %d workers of a kind",
                     ROUTER_WORKERS_MAX);
    if (!rc) rc = pool_add(pool, wanted.url, (int)wanted.port, false, &why);
    if (rc) {
        http_reply_error(r, rc == ERR_EXISTS ? 409 : 400, "%s",
                         why_text(&why, rc));
    } else {
        log_info("router", "%s %s was added", pool->options.role, wanted.url);
        reply(r, 202,
              json_pack("{s:s, s:s, s:s, s:s+, s:s}", "status", "accepted",
                        "worker_id", wanted.url, "url", wanted.url, "location",
                        "/workers/", wanted.url, "message",
                        "requests go to it once it answers"));
    }
    json_decref(body);
}

void members_one(const struct members *m, struct http_request *r)
{
    const char *url = http_request_path(r) + strlen("/workers/");
    bool remove = http_request_method(r) == HTTP_DELETE;
    if (remove && !may_change(m, r)) return;
    struct worker *w = pool_find(m->prefill, url);
    bool prefill = w != NULL;
    if (!w) w = pool_find(m->decode, url);
    if (!w) {
        http_reply_error(r, 404, "Worker %s not found", url);
        return;
    }
    if (!remove) {
        reply(r, 200, describe(w, prefill));
        return;
    }
    log_info("router", "%s %s was removed, %u requests in flight",
             w->pool->options.role, w->url, w->in_flight);
    reply(r, 202,
          json_pack("{s:s, s:s, s:s}", "status", "accepted", "worker_id",
                    w->url, "message", "it gets no more requests"));
    pool_remove(w);
}
