/* http/server.h - an HTTP/1.1 server on a loop.
 *
 * A table of routes names the handlers; adding an endpoint is adding a row.
 * Everything runs in the loop's thread and nothing blocks: a handler answers
 * at once, or keeps the request and answers later.
 *
 * Life of a struct http_request. The server hands it to the handler with its
 * body complete. From then on it is the holder's, and stays valid, until the
 * holder answers it exactly once by
 *     http_reply*                         a whole answer, or
 *     http_stream_begin .. http_stream_end   a stream of pieces, or
 *     http_drop                           no (further) answer: hangs up.
 * When the client goes away before that (also while nothing was sent yet),
 * on_close is called once, at the next turn of the loop; the request must
 * still be answered, and what is sent goes nowhere (http_drop is shortest).
 * on_close is never called after the answer. Strings and bytes that the
 * accessors give are borrowed until the answer.
 *
 * Everything has a limit (struct http_limits). Errors that the server itself
 * answers (400, 401, 404, 405, 413, 503) are JSON:
 *     {"error":{"message":"..."},"detail":"..."}
 * Source: libevent's evhttp underneath; what it leaves open is closed here
 * and tested in tests/http/server_test.c. */
#ifndef BATON_HTTP_SERVER_H
#define BATON_HTTP_SERVER_H

#include "base/err.h"
#include "json/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct http_server;
struct http_request;

enum http_method {
    HTTP_GET = 1, /* a route that takes GET takes HEAD too */
    HTTP_HEAD = 2,
    HTTP_POST = 4,
    HTTP_PUT = 8,
    HTTP_DELETE = 16,
    HTTP_OPTIONS = 32,
    HTTP_PATCH = 64,
};

struct http_route {
    unsigned methods; /* OR of enum http_method */
    const char *path; /* "/health"; "/v1/models*" takes any rest */
    void (*handler)(void *arg, struct http_request *request);
};

/* 0 anywhere: the default in brackets. */
struct http_limits {
    size_t header_bytes;  /* request line and headers [64 KiB] */
    size_t body_bytes;    /* request body, then 413 [64 MiB] */
    size_t stream_bytes;  /* unsent bytes of a stream, then hang-up [8 MiB] */
    unsigned connections; /* more wait in the listen queue [4096] */
    unsigned idle_ms;     /* a quiet connection between requests, or a
                             request that stops arriving [75 s] */
    unsigned write_ms;    /* a reader that takes nothing [60 s] */
};

struct http_server_options {
    const char *host; /* NULL: 127.0.0.1; "::1" or "[::1]" for IPv6 */
    int port;         /* 0: any free one, see http_server_port */
    const struct http_route *routes; /* borrowed until close; first match */
    size_t route_count;
    void *arg; /* for every handler */
    struct http_limits limits;
    const char *api_key; /* copied; NULL or "": no check, see http_authorized */
    bool cors;           /* allow every origin, answer preflights, as SGLang */
};

struct http_header {
    const char *name, *value; /* lists end with a NULL name */
};

/* Listens. ERR_IO (in use, not our address...), ERR_INVALID (host unknown). */
int http_server_open(struct http_server **out, struct loop *loop,
                     const struct http_server_options *options,
                     struct why *why);
int http_server_port(const struct http_server *server);
/* Could a server listen there now? The same errors, for programs that have
 * long work to do before they open theirs. */
int http_port_check(const char *host, int port, struct why *why);
/* Requests handed out and not yet answered and written. */
size_t http_server_live(const struct http_server *server);

/* Graceful stop: accepts no more, answers new requests on kept connections
 * with 503, closes connections behind their last answer, and calls done(arg)
 * once, when no request is live or after limit_ms. Then close. */
void http_server_drain(struct http_server *server, uint64_t limit_ms,
                       void (*done)(void *arg), void *arg);
/* Hangs up on all. on_close (ERR_CANCELED) of every live request is called
 * before this returns; a request that is not answered by then stays valid
 * until it is. Not from inside a handler or on_close. NULL is fine. */
void http_server_close(struct http_server *server);

/* --- asking a request --- */
enum http_method http_request_method(const struct http_request *request);
const char *http_request_method_name(const struct http_request *request);
const char *http_request_path(const struct http_request *request); /* decoded */
/* A query parameter, decoded; NULL where absent. */
const char *http_request_query(struct http_request *request, const char *name);
/* The first header of that name, any case; NULL where absent. */
const char *http_request_header(const struct http_request *request,
                                const char *name);
/* Walks all headers: start with *at = NULL; false at the end. */
bool http_request_header_next(const struct http_request *request, void **at,
                              struct http_header *header);
const char *http_request_body(const struct http_request *request, size_t *n);
/* The client's address, "" once it is gone. */
const char *http_request_peer(const struct http_request *request);

/* The holder's own pointer. */
void http_request_set_data(struct http_request *request, void *data);
void *http_request_data(const struct http_request *request);

/* fn(arg, request, rc) when the request ends without our doing: ERR_PEER the
 * client left or took nothing for limits.write_ms, ERR_RANGE it read too
 * slowly for limits.stream_bytes, ERR_CANCELED the server closes. */
void http_on_close(struct http_request *request,
                   void (*fn)(void *arg, struct http_request *request, int rc),
                   void *arg);
bool http_request_gone(const struct http_request *request); /* client left */

/* --- answering it --- */

/* The whole answer; body is copied. headers may be NULL; content type and
 * length come from the arguments (type NULL: none is sent). */
void http_reply(struct http_request *request, int status, const char *type,
                const struct http_header *headers, const void *body, size_t n);
void http_reply_text(struct http_request *request, int status,
                     const char *text);
void http_reply_json(struct http_request *request, int status,
                     const json_t *body); /* body stays the caller's */
/* The JSON error body above. */
void http_reply_error(struct http_request *request, int status, const char *fmt,
                      ...) __attribute__((format(printf, 3, 4)));

/* A stream: chunked (or, to HTTP/1.0, until close). Each send leaves at once.
 * The first piece shares a packet with the headers when it is sent before
 * the loop turns. type NULL: text/event-stream with Cache-Control: no-cache. */
void http_stream_begin(struct http_request *request, int status,
                       const char *type, const struct http_header *headers);
/* bytes are copied. ERR_PEER: nobody reads any more (on_close tells why).
 * ERR_RANGE: this piece passed limits.stream_bytes; the connection is gone. */
int http_stream_send(struct http_request *request, const void *bytes, size_t n);
/* Bytes sent here that the kernel has not taken yet: a slow reader. */
size_t http_stream_pending(const struct http_request *request);
void http_stream_end(struct http_request *request);

void http_drop(struct http_request *request);

/* Does the request carry "Authorization: Bearer key"? Compared in constant
 * time. True without a key, for OPTIONS, and for paths that begin with
 * /health or /metrics. The server checks this itself (401) when
 * options.api_key is set. Source: SGLang's add_api_key_middleware. */
bool http_authorized(const struct http_request *request, const char *key);

/* "Not Found" for 404; never NULL. */
const char *http_status_text(int status);

#endif
