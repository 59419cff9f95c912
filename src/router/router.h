/* router/router.h - the front of a prefill/decode cluster: one address that
 * looks like one server. Drop-in for SGLang's mini_lb, with the statuses,
 * headers and cancellations that it loses (router/dispatch.h).
 *
 *     POST /generate /v1/chat/completions /v1/completions   over a pair
 *     GET  /health /liveness      200: the router runs
 *     GET  /readiness             200: a prefill and a decode worker are fine
 *     GET  /health_generate       200: one of each really generates
 *     POST /flush_cache /abort_request                      to every worker
 *     GET  /get_server_info /server_info                    of every worker
 *     GET  /get_model_info /model_info /v1/models*          of a prefill worker
 *     GET  /metrics               the router's own, Prometheus text
 *     GET POST DELETE /workers*   who is there (router/members.h)
 *
 * Everything belongs to the loop's thread. */
#ifndef BATON_ROUTER_ROUTER_H
#define BATON_ROUTER_ROUTER_H

#include "base/err.h"

#include <stdint.h>

struct loop;
struct router;
struct router_options;

/* Listens and serves; options are borrowed until destroy. ERR_INVALID: a
 * worker's URL or the host; ERR_IO: the port is taken. */
int router_create(struct router **out, struct loop *loop,
                  const struct router_options *options, struct why *why);
int router_port(const struct router *router);
/* Takes no more requests and calls done(arg) once, when none is live any more
 * or after limit_ms; then destroy. */
void router_drain(struct router *router, uint64_t limit_ms,
                  void (*done)(void *arg), void *arg);
void router_destroy(struct router *router); /* NULL is fine */

/* The program `baton launch_router`: argv[1..] are its options. Serves until
 * SIGINT or SIGTERM (the second one ends at once). Returns the exit status. */
int router_run(int argc, char **argv);

#endif
