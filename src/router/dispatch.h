/* router/dispatch.h - one generation request over a pair of workers.
 *
 * The request goes to a prefill and a decode worker at the same time, with
 * the same body and a fresh room; decode's answer is the client's. What each
 * party's end means for the others:
 *
 *   prefill answers an error    decode is canceled; the client gets prefill's
 *                               status and body
 *   decode answers an error     prefill is canceled; the client gets decode's
 *                               status and body. After a 5xx prefill first has
 *                               verdict_ms to name the cause
 *   one refuses, breaks off,    the other is canceled; another pair with a new
 *   or answers 502 or 503       room is tried after a wait, else 502 or 503
 *   one hangs (worker.h)        as if it refused
 *   one does not end in time    504
 *   decode breaks off while     another pair goes on with the stream where the
 *   its stream is relayed       client is (watch.h); where that cannot be, the
 *                               client gets an error event and [DONE]
 *   the client leaves           both are canceled
 *   decode is done, prefill     prefill has linger_ms to finish, so that its
 *   is not                      connection can be kept
 *
 * From the beginning another pair is only tried while no byte of an answer
 * went to the client. A stream is answered 200 as soon as decode sent its
 * headers and either its first byte or prefill's good end came: until then
 * every failure still reaches the client as a status. Once decode streams, it
 * has the KV cache, and what becomes of prefill no longer matters to the
 * client.
 *
 * All in the loop's thread. */
#ifndef BATON_ROUTER_DISPATCH_H
#define BATON_ROUTER_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>

struct http_client;
struct http_request;
struct loop;
struct pool;
struct router_options;
struct session;
struct stats;
struct worker;

struct dispatch {
    struct loop *loop;
    struct http_client *client;
    struct pool *prefill, *decode;
    const struct router_options *options;
    struct stats *stats;
    struct session *sessions; /* all that exist */
};

/* Takes the request over. native: the body may be a batch, and logprobs are
 * merged, as on /generate. */
void dispatch_start(struct dispatch *dispatch, struct http_request *request,
                    bool native);
/* Ends the legs at a worker that does not answer any more, as if it refused. */
void dispatch_hung(struct dispatch *dispatch, struct worker *worker);
/* Cancels what is in flight; requests not answered by then are hung up on. */
void dispatch_close(struct dispatch *dispatch);

#endif
