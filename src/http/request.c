#include "http/server_core.h"

#include "base/buf.h"
#include "base/mem.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http_struct.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- reading ---- */

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

void http_method_list(unsigned mask, char *out, size_t n)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < METHOD_COUNT; i++)
        if (mask & methods[i].method && at < n)
            at += (size_t)snprintf(out + at, n - at, "%s%s", at ? ", " : "",
                                   methods[i].name);
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

/* ---- answering ---- */

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
    http_request_free(r);
}

void http_add_header(struct http_request *r, const char *name,
                     const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(r->ev), name, value);
}

static void add_headers(struct http_request *r, const char *type,
                        const struct http_header *headers)
{
    if (type) http_add_header(r, "Content-Type", type);
    for (; headers && headers->name; headers++)
        http_add_header(r, headers->name, headers->value);
    if (r->server->cors && http_request_header(r, "Origin")) {
        http_add_header(r, "Access-Control-Allow-Origin", "*");
        http_add_header(r, "Access-Control-Allow-Credentials", "true");
    }
    if (r->server->draining) http_add_header(r, "Connection", "close");
}

void http_reply(struct http_request *r, int status, const char *type,
                const struct http_header *headers, const void *body, size_t n)
{
    if (!r->conn) {
        http_request_free(r);
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
        http_add_header(r, "Content-Length", length);
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
        http_add_header(r, "Cache-Control", "no-cache");
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
        http_request_free(r);
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
    http_request_free(r);
}
