/* http/server_core.h - what the files of the server share: server.c (its life
 * and its connections), request.c (reading and answering), route.c (from a
 * request to its handler). Loop thread only, as server.h. */
#ifndef BATON_HTTP_SERVER_CORE_H
#define BATON_HTTP_SERVER_CORE_H

#include "base/map.h"
#include "http/server.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <sys/queue.h>
#include <sys/time.h>

/* What evhttp 2.1.12 leaves to us, and where it is done:
 *   - Nagle is on: TCP_NODELAY on the listening socket, which accepted ones
 *     inherit (listen_on).
 *   - It stops reading while a request is worked on, so it misses the client
 *     leaving; reading with its read callback in place would end the process
 *     on pipelined bytes. http_hand_over reads on without a callback.
 *   - The read timeout would cut quiet streams: off while we hold a request.
 *   - No count of connections, no list of live requests: struct conn, made by
 *     the bufferevent hook, and server->live.
 *   - Its own error pages are HTML: rewrite_page.
 *   - Unknown methods get an HTML 501: all are let through to route().
 *
 * A connection's death is only noted inside libevent (conn_closed); holders
 * hear of it in reap, from a timer, when no libevent frame is below us. */

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

/* Ends the struct; its evhttp_request only where libevent gave it up. */
void http_request_free(struct http_request *r);
void http_add_header(struct http_request *r, const char *name,
                     const char *value);
/* "GET, HEAD": those of the mask, cut to n bytes with a closing 0. */
void http_method_list(unsigned mask, char *out, size_t n);
/* evhttp's callback for every complete request; arg is the server. */
void http_hand_over(struct evhttp_request *ev, void *arg);

#endif
