#include "http/server_core.h"

#include "base/mem.h"
#include "http/dead_host.h"
#include "http/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LISTEN_QUEUE = 4096 };

/* ---- requests and connections that end ---- */

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

void http_request_free(struct http_request *r)
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
            http_request_free(r);
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

/* ---- life ---- */

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
    evhttp_set_gencb(s->http, http_hand_over, s);
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
