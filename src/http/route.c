#include "http/server_core.h"

#include "base/mem.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PIPELINED_BYTES = 64 << 10 };

/* Starlette's CORSMiddleware with every origin, method and header allowed. */
static void answer_preflight(struct http_request *r)
{
    const char *origin = http_request_header(r, "Origin");
    const char *asked =
        http_request_header(r, "Access-Control-Request-Headers");
    http_add_header(r, "Access-Control-Allow-Methods",
                    "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    http_add_header(r, "Access-Control-Max-Age", "600");
    http_add_header(r, "Access-Control-Allow-Credentials", "true");
    http_add_header(r, "Access-Control-Allow-Origin", origin ? origin : "*");
    http_add_header(r, "Vary", "Origin");
    if (asked) http_add_header(r, "Access-Control-Allow-Headers", asked);
    evhttp_remove_header(evhttp_request_get_input_headers(r->ev), "Origin");
    http_reply_text(r, 200, "OK");
}

static bool path_matches(const char *pattern, const char *path)
{
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*') return strncmp(pattern, path, n - 1) == 0;
    return strcmp(pattern, path) == 0;
}

static void answer_405(struct http_request *r, unsigned allowed)
{
    char list[96];
    if (allowed & HTTP_GET) allowed |= HTTP_HEAD;
    http_method_list(allowed, list, sizeof list);
    http_add_header(r, "Allow", list);
    http_reply_error(r, 405, "Method Not Allowed");
}

static void route(struct http_request *r)
{
    struct http_server *s = r->server;
    enum http_method method = http_request_method(r);
    if (s->cors && method == HTTP_OPTIONS &&
        http_request_header(r, "Access-Control-Request-Method")) {
        answer_preflight(r);
        return;
    }
    if (!http_authorized(r, s->api_key)) {
        static const char body[] = "{\"error\": \"Unauthorized\"}";
        http_reply(r, 401, "application/json", NULL, body, strlen(body));
        return;
    }
    unsigned wanted = method == HTTP_HEAD ? HTTP_HEAD | HTTP_GET : method;
    unsigned allowed = 0;
    for (size_t i = 0; i < s->route_count; i++) {
        if (!path_matches(s->routes[i].path, r->path)) continue;
        if (s->routes[i].methods & wanted) {
            s->routes[i].handler(s->arg, r);
            return;
        }
        allowed |= s->routes[i].methods;
    }
    if (allowed)
        answer_405(r, allowed);
    else
        http_reply_error(r, 404, "Not Found");
}

/* The decoded path; NULL when it is malformed or hides a NUL. */
static char *decode_path(struct evhttp_request *ev)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(ev);
    const char *raw = uri ? evhttp_uri_get_path(uri) : NULL;
    size_t n = 0;
    char *decoded = raw ? evhttp_uridecode(raw, 0, &n) : NULL;
    char *path = decoded && strlen(decoded) == n ? mem_dup(decoded) : NULL;
    free(decoded);
    return path;
}

/* One length, or chunks: Debian's libevent before deb12u1 takes both. */
static bool framing_is_sound(struct evhttp_request *ev)
{
    int bodies = 0;
    struct evkeyval *kv = evhttp_request_get_input_headers(ev)->tqh_first;
    for (; kv; kv = kv->next.tqe_next) {
        bool coded = strcasecmp(kv->key, "Transfer-Encoding") == 0;
        bodies += coded || strcasecmp(kv->key, "Content-Length") == 0;
        if (coded && strcasecmp(kv->value, "chunked") != 0) return false;
        if (!kv->key[0] || strpbrk(kv->key, " \t")) return false;
    }
    return bodies <= 1;
}

void http_hand_over(struct evhttp_request *ev, void *arg)
{
    struct http_server *s = arg;
    struct evhttp_connection *evcon = evhttp_request_get_connection(ev);
    struct conn *c = map_get(&s->by_evcon, (uintptr_t)evcon);
    struct http_request *r = mem_must(1, sizeof *r);
    r->server = s;
    r->conn = c;
    r->ev = ev;
    evhttp_request_own(ev); /* also frees it, unless it was written out */
    c->request = r;
    s->live++;
    s->held++;
    bufferevent_event_cb on_event;
    bufferevent_data_cb on_write;
    bufferevent_getcb(c->bev, NULL, &on_write, &on_event, NULL);
    bufferevent_setcb(c->bev, NULL, on_write, on_event, evcon);
    bufferevent_setwatermark(c->bev, EV_READ, 0, PIPELINED_BYTES);
    bufferevent_set_timeouts(c->bev, NULL, &s->write);
    bufferevent_enable(c->bev, EV_READ);

    r->path = decode_path(ev);
    if (!r->path) r->path = mem_dup("");
    if (!r->path[0] || !framing_is_sound(ev)) {
        http_add_header(r, "Connection", "close");
        http_reply_error(r, 400, "malformed request");
    } else if (s->draining) {
        http_reply_error(r, 503, "the server is shutting down");
    } else {
        route(r);
    }
}
