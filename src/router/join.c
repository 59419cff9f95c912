#include "router/join.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY_MS = 2000, CALL_MS = 5000, LEAVE_MS = 1000 };

struct join {
    struct http_client *client;
    struct http_call *call;
    struct loop_timer *timer;
    uint32_t every_ms;
    char *router, *url, *list, *body; /* list: .../workers */
    char bearer[1024];
    struct http_header headers[3];
    int told; /* the status logged last: 0 none, -1 no answer */
    bool leaving;
    void (*done)(void *arg);
    void *arg;
};

/* Logs what is new. 409: the router knew us. */
static void tell(struct join *j, int status, const char *text)
{
    bool known = status == 202 || status == 409;
    if (known) status = 202;
    if (status == j->told) return;
    j->told = status;
    if (known)
        log_info("join", "router %s: it knows %s", j->router, j->url);
    else if (status < 0)
        log_warn("join", "router %s: %s; trying on", j->router, text);
    else
        log_error("join", "router %s: HTTP %d to %s; trying on", j->router,
                  status, j->list);
}

static void send(struct join *j, const char *method, const char *url,
                 uint64_t limit_ms);

static void answered(void *arg, struct http_call *call,
                     const struct http_result *result)
{
    struct join *j = arg;
    (void)call;
    j->call = NULL;
    if (j->leaving) {
        j->done(j->arg);
        return;
    }
    tell(j, result->rc ? -1 : result->status, result->text);
    loop_timer_set(j->timer, j->every_ms, 0);
}

static void send(struct join *j, const char *method, const char *url,
                 uint64_t limit_ms)
{
    bool post = strcmp(method, "POST") == 0;
    const struct http_call_options o = {
        .method = method,
        .url = url,
        .headers = j->headers,
        .body = post ? j->body : NULL,
        .body_bytes = post ? strlen(j->body) : 0,
        .total_ms = limit_ms,
        .on_done = answered,
        .arg = j,
    };
    if (http_call(j->client, &o, &j->call) == 0) return;
    if (j->leaving)
        j->done(j->arg);
    else
        loop_timer_set(j->timer, j->every_ms, 0);
}

static void say_here(void *arg)
{
    struct join *j = arg;
    send(j, "POST", j->list, CALL_MS);
}

static char *body_of(const struct join_options *o)
{
    json_t *body = json_pack("{s:s, s:s}", "url", o->url, "worker_type",
                             o->prefill ? "prefill" : "decode");
    if (o->prefill)
        json_object_set_new(body, "bootstrap_port",
                            json_integer(o->bootstrap_port));
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

int join_open(struct join **out, const struct join_options *o, struct why *why)
{
    struct join *j = mem_must(1, sizeof *j);
    size_t n = strlen(o->router);
    while (n && o->router[n - 1] == '/')
        n--;
    j->router = mem_dup_n(o->router, n);
    j->url = mem_dup(o->url);
    j->body = body_of(o);
    j->every_ms = o->every_ms ? o->every_ms : EVERY_MS;
    struct buf list;
    buf_init(&list, n + 16);
    buf_printf(&list, "%s/workers", j->router);
    j->list = mem_dup(list.data);
    buf_fini(&list);
    size_t count = 0;
    j->headers[count++] =
        (struct http_header){"Content-Type", "application/json"};
    if (o->api_key && o->api_key[0]) {
        snprintf(j->bearer, sizeof j->bearer, "Bearer %s", o->api_key);
        j->headers[count] = (struct http_header){"Authorization", j->bearer};
    }
    j->timer = loop_timer_create(o->loop, say_here, j);
    int rc = http_client_open(&j->client, o->loop, why);
    if (rc) {
        join_close(j);
        return rc;
    }
    say_here(j);
    *out = j;
    return 0;
}

void join_leave(struct join *j, void (*done)(void *arg), void *arg)
{
    struct buf one;
    j->leaving = true;
    j->done = done;
    j->arg = arg;
    loop_timer_unset(j->timer);
    http_call_cancel(j->call);
    buf_init(&one, 4096);
    buf_printf(&one, "%s/%s", j->list, j->url);
    send(j, "DELETE", one.data, LEAVE_MS);
    buf_fini(&one);
}

void join_close(struct join *j)
{
    if (!j) return;
    http_call_cancel(j->call);
    http_client_close(j->client);
    loop_timer_destroy(j->timer);
    mem_free(j->router);
    mem_free(j->url);
    mem_free(j->list);
    free(j->body);
    mem_free(j);
}
