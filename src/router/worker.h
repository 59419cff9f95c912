/* router/worker.h - the workers behind a router: who is there, who is healthy,
 * who takes the next request. Owned by the loop's thread.
 *
 * A worker is taken to be healthy until it refuses a connection, fails
 * trip_failures requests in a row, or fails down_failures health checks; then
 * nothing is sent to it until up_successes probes of its health route in a row
 * are answered with 200. It is ready once it was seen to answer: requests may
 * be tried before, but nobody is told that the router can serve.
 *
 * A worker that has requests and says nothing for silent_ms is asked whether it
 * still runs, by a path that costs it nothing. Whatever it answers is a sign of
 * life; no answer down_failures times in a row makes it hung: unhealthy, and
 * on_hung ends what waits for it. A computing worker is quiet, a stopped one
 * still accepts connections: only asking tells them apart. */
#ifndef BATON_ROUTER_WORKER_H
#define BATON_ROUTER_WORKER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct http_client;
struct http_call;
struct http_header;
struct pool;
struct prefix; /* router/prefix.h */
struct prefix_table;

struct worker {
    struct pool *pool;
    unsigned refs;        /* the pool's, and of those who still name it */
    bool removed;         /* takes no more requests; leaves with its last one */
    char *url;            /* without a last '/' */
    char *bootstrap_host; /* of url; IPv6 in brackets */
    int bootstrap_port;   /* -1: unknown, sent as null */
    bool healthy;
    bool seen; /* answered a probe or a request well since it was down */
    unsigned in_flight;
    unsigned failed; /* requests, or health checks, in a row */
    unsigned passed; /* probes in a row */
    uint64_t requests, failures;
    struct http_call *probe;
    uint64_t heard_us;         /* its last sign of life, while requests wait */
    unsigned unheard;          /* questions in a row without an answer */
    struct http_call *ask;     /* the question under way */
    struct prefix_table *sent; /* POLICY_CACHE_AWARE; else NULL */
};

/* POLICY_CACHE_AWARE, by sglang_router's rule: the worker that knows most of
 * the prompt's beginning, where that is more than cache_threshold of it; else
 * the one with the fewest requests. While loads are uneven (most - least >
 * balance_abs, and most > balance_rel * least) always the latter. */
enum policy {
    POLICY_RANDOM,
    POLICY_ROUND_ROBIN,
    POLICY_POWER_OF_TWO,
    POLICY_CACHE_AWARE
};

struct pool_options {
    const char *role; /* "prefill", "decode": borrowed, for logs */
    enum policy policy;
    double cache_threshold, balance_rel; /* POLICY_CACHE_AWARE */
    unsigned balance_abs;
    size_t table_bytes;                /* of prompt text known of a worker */
    const char *health_path;           /* borrowed */
    const struct http_header *headers; /* of probes; borrowed */
    uint64_t check_ms;                 /* of healthy workers; 0: never */
    uint64_t probe_ms;                 /* of those not ready   */
    uint64_t timeout_ms;
    unsigned down_failures, up_successes, trip_failures; /* 0: never trips */
    uint64_t silent_ms;                                  /* 0: never asks */
    void (*on_hung)(void *arg, struct worker *worker);
    void *arg;
};

struct pool {
    struct pool_options options;
    struct http_client *client;
    struct worker **workers; /* [count] those that leave among them */
    size_t count;
    size_t next;   /* round robin */
    uint64_t seed; /* of the random picks */
    struct loop_timer *check_timer, *probe_timer;
    struct loop_timer *silence_timer; /* runs while requests are in flight */
    size_t in_flight;
};

void pool_init(struct pool *pool, struct loop *loop, struct http_client *client,
               const struct pool_options *options);
void pool_fini(struct pool *pool); /* before its client is closed */

/* healthy: it is tried at once, else when a probe was answered. ERR_INVALID:
 * url is no http:// or https:// URL with a host. ERR_EXISTS: it is there. */
int pool_add(struct pool *pool, const char *url, int bootstrap_port,
             bool healthy, struct why *why);
/* The worker of that URL, with or without a last '/'; NULL: none. */
struct worker *pool_find(const struct pool *pool, const char *url);
/* Nothing new goes to it; what is in flight may end, and then it leaves. */
void pool_remove(struct worker *worker);

/* A worker that was removed lives on while somebody names it. */
struct worker *worker_take(struct worker *worker);
void worker_drop(struct worker *worker); /* NULL is fine */

/* Whether pool_pick looks at a request's prefix: else it may be empty. */
bool pool_wants_prefix(const struct pool *pool);
/* One healthy worker by the policy, rather not avoid (may be NULL); NULL: all
 * are unhealthy. prefix: the request's, for POLICY_CACHE_AWARE, whose worker
 * knows it from then on. */
struct worker *pool_pick(struct pool *pool, const struct worker *avoid,
                         const struct prefix *prefix);
size_t pool_size(const struct pool *pool); /* without those that leave */
size_t pool_healthy(const struct pool *pool);
size_t pool_ready(const struct pool *pool); /* healthy, and seen to answer */

/* A request goes to it; it is over. */
void worker_began(struct worker *worker);
void worker_ended(struct worker *worker);
/* Bytes came from it. */
void worker_heard(struct worker *worker);
/* What became of a request: reports of the one who sent it. */
void worker_answered(struct worker *worker);
void worker_failed(struct worker *worker);
/* It refused: unhealthy at once. */
void worker_refused(struct worker *worker, const char *text);

#endif
