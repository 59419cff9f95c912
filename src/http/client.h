/* http/client.h - HTTP/1.1 requests on a loop.
 *
 * A client keeps connections and reuses them. A call is one request: its
 * callbacks run in the loop's thread, never inside a call of this header, in
 * the order on_headers (once, of the final answer), on_data (any number, as
 * bytes arrive), on_done (exactly once, last; the call is freed behind it).
 * After http_call_cancel none of them runs any more. Each callback may make
 * and cancel calls, its own included.
 *
 * A kept connection that its server closed in the meantime costs no error: the
 * request is sent once more on a new one, while no byte of an answer came.
 *
 * No proxy of the environment is used, no redirect is followed, no Expect
 * header is sent. Built on libcurl. */
#ifndef BATON_HTTP_CLIENT_H
#define BATON_HTTP_CLIENT_H

#include "base/err.h"
#include "http/server.h" /* struct http_header */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct http_client;
struct http_call;

/* How a call ended. rc 0: an answer of any status came, whole. Otherwise
 * ERR_TIMEOUT, ERR_PEER (unreachable, or it broke off) or ERR_INVALID (no such
 * URL can be), status 0 or that of the broken answer, and text says why. */
struct http_result {
    int rc;
    int status;
    bool connected; /* a connection was made: the peer runs */
    const char *text;
};

struct http_call_options {
    const char *method; /* NULL: GET, or POST where there is a body */
    const char *url;
    const struct http_header *headers; /* NULL: none; copied */
    const void *body;                  /* borrowed until the call is over */
    size_t body_bytes;
    uint64_t connect_ms; /* 0: 10 s */
    uint64_t total_ms;   /* 0: no limit */
    void (*on_headers)(void *arg, struct http_call *call, int status);
    void (*on_data)(void *arg, struct http_call *call, const void *bytes,
                    size_t n);
    void (*on_done)(void *arg, struct http_call *call,
                    const struct http_result *result);
    void *arg;
};

/* ERR_NOMEM, ERR_UNSUPPORTED: libcurl is not there, which the first to open
 * loads. Closing cancels what is in flight; NULL is fine. */
int http_client_open(struct http_client **out, struct loop *loop,
                     struct why *why);
void http_client_close(struct http_client *client);

/* Whether a client could open. */
int http_client_check(struct why *why);

/* Starts a call. A URL that cannot be used is reported by on_done. *out (may
 * be NULL where nobody cancels) is valid until on_done or cancel. ERR_NOMEM,
 * ERR_INVALID (a line break in a header): nothing started, no callback
 * comes. */
int http_call(struct http_client *client,
              const struct http_call_options *options, struct http_call **out);
void http_call_cancel(struct http_call *call); /* NULL is fine */
/* A header of the answer, from on_headers on; borrowed; NULL: absent. */
const char *http_call_header(const struct http_call *call, const char *name);
/* Walks them: start with *at = 0; false at the end. */
bool http_call_header_next(const struct http_call *call, size_t *at,
                           struct http_header *header);

/* One blocking request for command line tools, at most max_bytes of answer.
 * body is filled (the caller inits and finishes it); the status is returned,
 * or a negative ERR_ code with why. */
struct buf;
int http_fetch(const struct http_call_options *options, size_t max_bytes,
               struct buf *body, struct why *why);

#endif
