#include "http/server.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/dead_host.h"
#include "http/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <unistd.h>

/* What evhttp 2.1.12 leaves to us, and where it is done:
 *   - Nagle is on: TCP_NODELAY on the listening socket, which accepted ones
 *     inherit (listen_on).
 *   - It stops reading while a request is worked on, so it misses the client
 *     leaving; reading with its read callback in place would end the process
 *     on pipelined bytes. hand_over reads on without a callback.
 *   - The read timeout would cut quiet streams: off while we hold a request.
 *   - No count of connections, no list of live requests: struct conn, made by
 *     the bufferevent hook, and server->live.
 *   - Its own error pages are HTML: rewrite_page.
 *   - Unknown methods get an HTML 501: all are let through to route().
 *
 * A connection's death is only noted inside libevent (conn_closed); holders
 * hear of it in reap, from a timer, when no libevent frame is below us. */

enum { PIPELINED_BYTES = 64 << 10, LISTEN_QUEUE = 4096 };

struct conn {
    struct http_server *server;
    struct bufferevent *bev;
    struct evhttp_connection *evcon; /* NULL until adopted */
    struct http_request *request;    /* being worked on or written, or NULL */
    bool rewriting;
    struct conn *next, *prev;
};

struct http_server {
    struct loop *loop;
    struct evhttp *http;
    struct evconnlistener *listener; /* NULL: no longer accepting */
    struct evhttp_bound_socket *bound;
    struct http_limits limits;
    const struct http_route *routes;
    size_t route_count;
    void *arg;
    char *api_key;
    bool cors;
    int port;
    struct timeval idle, write;
    struct conn *conns;
    size_t conn_count;
    struct map by_evcon; /* evcon -> conn */
    struct event *adopt; /* gives new connections their evcon */
    struct loop_timer *reaper;
    struct http_request *closed; /* lost their connection, not yet told */
    struct evbuffer *piece;      /* scratch of http_stream_send */
    size_t live, held;           /* held: request structs that exist */
    bool closing;                /* http_server_close was called */
    bool draining;
    void (*drained)(void *arg); /* NULL: nobody waits (any more) */
    void *drained_arg;
    struct loop_timer *drain_limit;
};

enum request_state { HELD, STREAMING, WRITTEN };

struct http_request {
    struct http_server *server;
    struct conn *conn;         /* NULL: the client is gone */
    struct evhttp_request *ev; /* ours to free once conn is NULL */
    enum request_state state;
    int gone_rc; /* why conn is NULL */
    bool in_closed;
    struct http_request *next_closed;
    char *path;
    struct evkeyvalq query;
    bool query_parsed;
    void (*on_close)(void *arg, struct http_request *request, int rc);
    void *on_close_arg;
    void *data;
};

/* ------------------------------------------------------------------------ */

static void server_free(struct http_server *s)
{
    map_fini(&s->by_evcon);
    mem_free(s->api_key);
    mem_free(s);
}

static void check_drained(struct http_server *s)
{
    if (!s->drained || s->live) return;
    void (*done)(void *) = s->drained;
    s->drained = NULL;
    loop_timer_unset(s->drain_limit);
    done(s->drained_arg);
}

static void closed_remove(struct http_request *r)
{
    struct http_request **at = &r->server->closed;
    while (*at != r)
        at = &(*at)->next_closed;
    *at = r->next_closed;
    r->in_closed = false;
}

/* Ends the struct; its evhttp_request only where libevent gave it up. */
static void request_free(struct http_request *r)
{
    struct http_server *s = r->server;
    if (r->in_closed) closed_remove(r);
    if (r->query_parsed) evhttp_clear_headers(&r->query);
    if (!r->conn) evhttp_request_free(r->ev);
    mem_free(r->path);
    mem_free(r);
    s->held--;
    s->live--;
    if (s->closing) {
        if (!s->held) server_free(s);
    } else if (s->drained && !s->live) {
        loop_timer_set(s->reaper, 0, 0); /* the holder is above us */
    }
}

/* Tells holders whose client is gone. Each request told leaves the list first,
 * so that the holder may answer any of them from inside. */
static void reap(void *arg)
{
    struct http_server *s = arg;
    for (struct http_request *r; (r = s->closed);) {
        closed_remove(r);
        if (r->state == WRITTEN) {
            request_free(r);
        } else if (r->on_close) {
            void (*fn)(void *, struct http_request *, int) = r->on_close;
            r->on_close = NULL;
            fn(r->on_close_arg, r, r->gone_rc);
        }
    }
    if (!s->closing) check_drained(s);
}

/* Called by libevent right before a connection's memory goes. */
static void conn_closed(struct evhttp_connection *evcon, void *arg)
{
    struct conn *c = arg;
    struct http_server *s = c->server;
    struct http_request *r = c->request;
    if (r) {
        r->conn = NULL;
        if (!r->gone_rc) r->gone_rc = s->closing ? ERR_CANCELED : ERR_PEER;
        r->in_closed = true;
        r->next_closed = s->closed;
        s->closed = r;
        if (!s->closing) loop_timer_set(s->reaper, 0, 0);
    }
    map_remove(&s->by_evcon, (uintptr_t)evcon);
    if (c->next) c->next->prev = c->prev;
    *(c->prev ? &c->prev->next : &s->conns) = c->next;
    if (s->conn_count-- == s->limits.connections && s->listener)
        evconnlistener_enable(s->listener);
    mem_free(c);
}

/* evhttp answers malformed requests itself, in HTML. The page arrives in the
 * output buffer of a connection that has no request of ours; it is replaced
 * there before the loop writes it. */
static void rewrite_page(struct evbuffer *out,
                         const struct evbuffer_cb_info *info, void *arg)
{
    struct conn *c = arg;
    static const char tail[] = "</HTML>\n";
    size_t n = evbuffer_get_length(out);
    if (c->request || c->rewriting || !info->n_added || n < 64) return;
    const char *page = (const char *)evbuffer_pullup(out, -1);
    if (!page || memcmp(page + n - strlen(tail), tail, strlen(tail)) != 0)
        return;
    int status = atoi(page + strlen("HTTP/1.1 "));
    char message[160], body[400];
    if (status == 413)
        snprintf(message, sizeof message, "request body is over %zu bytes",
                 c->server->limits.body_bytes);
    else
        snprintf(message, sizeof message,
                 "malformed HTTP request, or headers over %zu bytes",
                 c->server->limits.header_bytes);
    int len = snprintf(body, sizeof body,
                       "{\"error\":{\"message\":\"%s\"},\"detail\":\"%s\"}",
                       message, message);
    c->rewriting = true;
    evbuffer_unfreeze(out, 1); /* bufferevents freeze their front */
    evbuffer_drain(out, n);
    evbuffer_freeze(out, 1);
    evbuffer_add_printf(out,
                        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                        "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
                        status, http_status_text(status), len, body);
    c->rewriting = false;
}

/* The only hook that sees every connection; evhttp attaches its own object
 * right after it, which adopt picks up before any byte can be read. */
static struct bufferevent *conn_new(struct event_base *base, void *arg)
{
    struct http_server *s = arg;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);
    if (!bev) return NULL;
    bufferevent_incref(bev); /* until adopted */
    struct conn *c = mem_must(1, sizeof *c);
    c->server = s;
    c->bev = bev;
    c->next = s->conns;
    if (c->next) c->next->prev = c;
    s->conns = c;
    if (++s->conn_count == s->limits.connections)
        evconnlistener_disable(s->listener);
    event_active(s->adopt, 0, 0);
    return bev;
}

static void adopt(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *s = arg;
    for (struct conn *c = s->conns, *next; c && !c->evcon; c = next) {
        next = c->next;
        void *evcon = NULL;
        bufferevent_getcb(c->bev, NULL, NULL, NULL, &evcon);
        if (evcon) {
            c->evcon = evcon;
            map_put(&s->by_evcon, (uintptr_t)evcon, c);
            evhttp_connection_set_closecb(evcon, conn_closed, c);
            evbuffer_add_cb(bufferevent_get_output(c->bev), rewrite_page, c);
        }
        struct bufferevent *bev = c->bev;
        if (!evcon) conn_closed(NULL, c); /* evhttp failed to set it up */
        bufferevent_decref(bev);
    }
}

/* ------------------------------------------------------------------------ */

static const struct {
    enum evhttp_cmd_type ev;
    enum http_method method;
    const char *name;
} methods[] = {
    {EVHTTP_REQ_GET, HTTP_GET, "GET"},
    {EVHTTP_REQ_HEAD, HTTP_HEAD, "HEAD"},
    {EVHTTP_REQ_POST, HTTP_POST, "POST"},
    {EVHTTP_REQ_PUT, HTTP_PUT, "PUT"},
    {EVHTTP_REQ_DELETE, HTTP_DELETE, "DELETE"},
    {EVHTTP_REQ_OPTIONS, HTTP_OPTIONS, "OPTIONS"},
    {EVHTTP_REQ_PATCH, HTTP_PATCH, "PATCH"},
};
enum { METHOD_COUNT = sizeof methods / sizeof *methods };

static int method_index(const struct http_request *r)
{
    enum evhttp_cmd_type ev = evhttp_request_get_command(r->ev);
    for (int i = 0; i < METHOD_COUNT; i++)
        if (methods[i].ev == ev) return i;
    return -1;
}

enum http_method http_request_method(const struct http_request *r)
{
    int i = method_index(r);
    return i < 0 ? 0 : methods[i].method;
}

const char *http_request_method_name(const struct http_request *r)
{
    int i = method_index(r);
    return i < 0 ? "?" : methods[i].name;
}

const char *http_request_path(const struct http_request *r)
{
    return r->path;
}

const char *http_request_query(struct http_request *r, const char *name)
{
    if (!r->query_parsed) {
        const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r->ev);
        const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
        TAILQ_INIT(&r->query);
        /* On a malformed string it leaves the list empty. */
        if (query) evhttp_parse_query_str(query, &r->query);
        r->query_parsed = true;
    }
    return evhttp_find_header(&r->query, name);
}

const char *http_request_header(const struct http_request *r, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(r->ev), name);
}

bool http_request_header_next(const struct http_request *r, void **at,
                              struct http_header *header)
{
    struct evkeyval *kv = *at;
    kv = kv ? kv->next.tqe_next
            : evhttp_request_get_input_headers(r->ev)->tqh_first;
    *at = kv;
    if (!kv) return false;
    *header = (struct http_header){kv->key, kv->value};
    return true;
}

const char *http_request_body(const struct http_request *r, size_t *n)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(r->ev);
    *n = evbuffer_get_length(in);
    const char *bytes = (const char *)evbuffer_pullup(in, -1);
    return bytes ? bytes : "";
}

const char *http_request_peer(const struct http_request *r)
{
    char *address = NULL;
    uint16_t port;
    if (r->conn) evhttp_connection_get_peer(r->conn->evcon, &address, &port);
    return address ? address : "";
}

void http_request_set_data(struct http_request *r, void *data)
{
    r->data = data;
}

void *http_request_data(const struct http_request *r)
{
    return r->data;
}

void http_on_close(struct http_request *r,
                   void (*fn)(void *arg, struct http_request *request, int rc),
                   void *arg)
{
    r->on_close = fn;
    r->on_close_arg = arg;
}

bool http_request_gone(const struct http_request *r)
{
    return !r->conn;
}

bool http_authorized(const struct http_request *r, const char *key)
{
    if (!key || !*key || http_request_method(r) == HTTP_OPTIONS) return true;
    if (strncmp(r->path, "/health", 7) == 0 ||
        strncmp(r->path, "/metrics", 8) == 0)
        return true;
    const char *given = http_request_header(r, "Authorization");
    if (!given || strncasecmp(given, "Bearer ", 7) != 0) return false;
    given += 7;
    size_t n = strlen(key), given_n = strlen(given);
    unsigned char differ = n != given_n;
    for (size_t i = 0; i < given_n; i++)
        differ |= (unsigned char)(given[i] ^ key[n ? i % n : 0]);
    return !differ;
}

/* ------------------------------------------------------------------------ */

const char *http_status_text(int status)
{
    switch (status) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return status < 400 ? "OK" : "Error";
    }
}

/* libevent wrote the answer's last byte. Its request goes with it. */
static void request_written(struct evhttp_request *ev, void *arg)
{
    (void)ev;
    struct http_request *r = arg;
    struct conn *c = r->conn;
    struct http_server *s = r->server;
    c->request = NULL;
    bufferevent_setwatermark(c->bev, EV_READ, 0, 0);
    bufferevent_set_timeouts(c->bev, &s->idle, &s->write);
    request_free(r);
}

static void add_header(struct http_request *r, const char *name,
                       const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(r->ev), name, value);
}

static void add_headers(struct http_request *r, const char *type,
                        const struct http_header *headers)
{
    if (type) add_header(r, "Content-Type", type);
    for (; headers && headers->name; headers++)
        add_header(r, headers->name, headers->value);
    if (r->server->cors && http_request_header(r, "Origin")) {
        add_header(r, "Access-Control-Allow-Origin", "*");
        add_header(r, "Access-Control-Allow-Credentials", "true");
    }
    if (r->server->draining) add_header(r, "Connection", "close");
}

void http_reply(struct http_request *r, int status, const char *type,
                const struct http_header *headers, const void *body, size_t n)
{
    if (!r->conn) {
        request_free(r);
        return;
    }
    r->state = WRITTEN;
    r->on_close = NULL;
    evhttp_request_set_on_complete_cb(r->ev, request_written, r);
    add_headers(r, type, headers);
    bool bodiless = status == 204 || status == 304;
    if (!bodiless) {
        char length[24];
        snprintf(length, sizeof length, "%zu", n);
        add_header(r, "Content-Length", length);
        if (http_request_method(r) != HTTP_HEAD)
            evbuffer_add(evhttp_request_get_output_buffer(r->ev), body, n);
    }
    evhttp_send_reply(r->ev, status, http_status_text(status), NULL);
}

void http_reply_text(struct http_request *r, int status, const char *text)
{
    http_reply(r, status, "text/plain; charset=utf-8", NULL, text,
               strlen(text));
}

void http_reply_json(struct http_request *r, int status, const json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) {
        http_reply_error(r, 500, "the answer is no valid JSON");
        return;
    }
    http_reply(r, status, "application/json", NULL, text, strlen(text));
    free(text);
}

void http_reply_error(struct http_request *r, int status, const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_puts(&b, "{\"error\":{\"message\":\"");
    buf_json(&b, message, strlen(message));
    buf_puts(&b, "\"},\"detail\":\"");
    buf_json(&b, message, strlen(message));
    buf_puts(&b, "\"}");
    http_reply(r, status, "application/json", NULL, b.data, b.len);
    buf_fini(&b);
}

void http_stream_begin(struct http_request *r, int status, const char *type,
                       const struct http_header *headers)
{
    r->state = STREAMING;
    if (!r->conn) return;
    /* Only the close ends an unchunked stream: no keep-alive for HTTP/1.0. */
    if (r->ev->major == 1 && r->ev->minor == 0) {
        struct evkeyvalq *in = evhttp_request_get_input_headers(r->ev);
        evhttp_remove_header(in, "Connection");
        evhttp_add_header(in, "Connection", "close");
    }
    if (!type) {
        type = "text/event-stream; charset=utf-8";
        add_header(r, "Cache-Control", "no-cache");
    }
    add_headers(r, type, headers);
    evhttp_send_reply_start(r->ev, status, http_status_text(status));
}

/* In a callback of the bufferevent its events outlive the descriptor that
 * evhttp closes; without them a new descriptor may have the same number. */
static void hang_up(struct conn *c)
{
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    evhttp_connection_free(c->evcon);
}

size_t http_stream_pending(const struct http_request *r)
{
    return r->conn ? evbuffer_get_length(bufferevent_get_output(r->conn->bev))
                   : 0;
}

int http_stream_send(struct http_request *r, const void *bytes, size_t n)
{
    struct http_server *s = r->server;
    if (!r->conn) return ERR_PEER;
    if (n + http_stream_pending(r) > s->limits.stream_bytes) {
        r->gone_rc = ERR_RANGE;
        hang_up(r->conn);
        return ERR_RANGE;
    }
    evbuffer_add(s->piece, bytes, n);
    evhttp_send_reply_chunk(r->ev, s->piece);
    evbuffer_drain(s->piece, evbuffer_get_length(s->piece)); /* of a HEAD */
    return 0;
}

void http_stream_end(struct http_request *r)
{
    if (!r->conn) {
        request_free(r);
        return;
    }
    r->state = WRITTEN;
    r->on_close = NULL;
    evhttp_request_set_on_complete_cb(r->ev, request_written, r);
    evhttp_send_reply_end(r->ev);
}

void http_drop(struct http_request *r)
{
    struct conn *c = r->conn;
    if (c) {
        c->request = NULL;
        r->conn = NULL;
        hang_up(c);
    }
    request_free(r);
}

/* ------------------------------------------------------------------------ */

/* Starlette's CORSMiddleware with every origin, method and header allowed. */
static void answer_preflight(struct http_request *r)
{
    const char *origin = http_request_header(r, "Origin");
    const char *asked =
        http_request_header(r, "Access-Control-Request-Headers");
    add_header(r, "Access-Control-Allow-Methods",
               "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    add_header(r, "Access-Control-Max-Age", "600");
    add_header(r, "Access-Control-Allow-Credentials", "true");
    add_header(r, "Access-Control-Allow-Origin", origin ? origin : "*");
    add_header(r, "Vary", "Origin");
    if (asked) add_header(r, "Access-Control-Allow-Headers", asked);
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
    char list[96] = "";
    if (allowed & HTTP_GET) allowed |= HTTP_HEAD;
    for (int i = 0; i < METHOD_COUNT; i++)
        if (allowed & methods[i].method)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
                     list[0] ? ", " : "", methods[i].name);
    add_header(r, "Allow", list);
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

/* evhttp's callback for every complete request. */
static void hand_over(struct evhttp_request *ev, void *arg)
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
        add_header(r, "Connection", "close");
        http_reply_error(r, 400, "malformed request");
    } else if (s->draining) {
        http_reply_error(r, 503, "the server is shutting down");
    } else {
        route(r);
    }
}

/* ------------------------------------------------------------------------ */

static int try_listen(const struct addrinfo *at)
{
    int fd =
        socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    dead_host_ask(fd);
    if (bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, LISTEN_QUEUE)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* A listening socket, or a negative ERR_ code. */
static int listen_at(const char *host, int port, struct why *why)
{
    char name[256], service[8];
    snprintf(name, sizeof name, "%s", host ? host : "127.0.0.1");
    size_t n = strlen(name);
    if (n > 1 && name[0] == '[' && name[n - 1] == ']') {
        memmove(name, name + 1, n - 2);
        name[n - 2] = 0;
    }
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(name, service, &hints, &found);
    if (rc)
        return err_set(why, ERR_INVALID, "listen on %s: %s", name,
                       gai_strerror(rc));
    int fd = -1;
    for (struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = try_listen(at);
    int error = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return err_sys(why, ERR_IO, error, "listen on %s port %d", name, port);
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    getsockname(fd, (struct sockaddr *)&bound, &len);
    return ntohs(bound.ss_family == AF_INET6
                     ? ((struct sockaddr_in6 *)&bound)->sin6_port
                     : ((struct sockaddr_in *)&bound)->sin_port);
}

int http_port_check(const char *host, int port, struct why *why)
{
    int fd = listen_at(host, port, why);
    if (fd < 0) return fd;
    close(fd);
    return 0;
}

static int listen_on(struct http_server *s, const char *host, int port,
                     struct why *why)
{
    int fd = listen_at(host, port, why);
    if (fd < 0) return fd;
    s->port = port_of(fd);
    s->listener = evconnlistener_new(
        loop_base(s->loop), NULL, NULL,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!s->listener) {
        close(fd);
        return err_set(why, ERR_NOMEM, "listener");
    }
    s->bound = evhttp_bind_listener(s->http, s->listener);
    if (!s->bound) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
        return err_set(why, ERR_NOMEM, "listener");
    }
    return 0;
}

static struct timeval milliseconds(unsigned ms)
{
    return (struct timeval){.tv_sec = ms / 1000,
                            .tv_usec = (suseconds_t)(ms % 1000) * 1000};
}

static void set_limits(struct http_server *s, const struct http_limits *given)
{
    struct http_limits *l = &s->limits;
    *l = *given;
    if (!l->header_bytes) l->header_bytes = 64 << 10;
    if (!l->body_bytes) l->body_bytes = 64 << 20;
    if (!l->stream_bytes) l->stream_bytes = 8 << 20;
    if (!l->connections) l->connections = 4096;
    if (!l->idle_ms) l->idle_ms = 75 * 1000;
    if (!l->write_ms) l->write_ms = 60 * 1000;
    s->idle = milliseconds(l->idle_ms);
    s->write = milliseconds(l->write_ms);
    evhttp_set_max_headers_size(s->http, (ev_ssize_t)l->header_bytes);
    evhttp_set_max_body_size(s->http, (ev_ssize_t)l->body_bytes);
    evhttp_set_timeout_tv(s->http, &s->idle);
}

int http_server_open(struct http_server **out, struct loop *loop,
                     const struct http_server_options *options, struct why *why)
{
    *out = NULL;
    struct http_server *s = mem_must(1, sizeof *s);
    s->loop = loop;
    s->routes = options->routes;
    s->route_count = options->route_count;
    s->arg = options->arg;
    s->cors = options->cors;
    if (options->api_key) s->api_key = mem_dup(options->api_key);
    s->http = evhttp_new(loop_base(loop));
    s->piece = evbuffer_new();
    s->adopt = event_new(loop_base(loop), -1, 0, adopt, s);
    s->reaper = loop_timer_create(loop, reap, s);
    int rc = s->http && s->piece && s->adopt
                 ? 0
                 : err_set(why, ERR_NOMEM, "HTTP server");
    if (!rc) rc = listen_on(s, options->host, options->port, why);
    if (rc) {
        http_server_close(s);
        return rc;
    }
    set_limits(s, &options->limits);
    /* A client that sends a body over the limit reads the 413 only if its
     * bytes were taken, not reset: they are drained. */
    evhttp_set_flags(s->http, EVHTTP_SERVER_LINGERING_CLOSE);
    evhttp_set_allowed_methods(s->http, 0xffff); /* route() refuses */
    evhttp_set_default_content_type(s->http, NULL);
    evhttp_set_bevcb(s->http, conn_new, s);
    evhttp_set_gencb(s->http, hand_over, s);
    *out = s;
    return 0;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

size_t http_server_live(const struct http_server *s)
{
    return s->live;
}

static void drain_limit_passed(void *arg)
{
    struct http_server *s = arg;
    void (*done)(void *) = s->drained;
    s->drained = NULL;
    if (done) done(s->drained_arg);
}

static void stop_listening(struct http_server *s)
{
    if (!s->listener) return;
    s->listener = NULL;
    evhttp_del_accept_socket(s->http, s->bound);
}

void http_server_drain(struct http_server *s, uint64_t limit_ms,
                       void (*done)(void *arg), void *arg)
{
    stop_listening(s);
    s->draining = true;
    s->drained = done;
    s->drained_arg = arg;
    s->drain_limit = loop_timer_create(s->loop, drain_limit_passed, s);
    loop_timer_set(s->drain_limit, limit_ms, 0);
    loop_timer_set(s->reaper, 0, 0); /* perhaps nothing is live */
}

void http_server_close(struct http_server *s)
{
    if (!s) return;
    s->closing = true;
    s->held++; /* keeps s through the calls below */
    if (s->http) {
        stop_listening(s);
        evhttp_free(s->http);
    }
    reap(s);
    loop_timer_destroy(s->reaper);
    loop_timer_destroy(s->drain_limit);
    if (s->adopt) event_free(s->adopt);
    if (s->piece) evbuffer_free(s->piece);
    if (!--s->held) server_free(s);
}
