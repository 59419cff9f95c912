/* router/stats.h - what the router counts, and GET /metrics of it.
 * Owned by the loop's thread. Names follow SGLang's router where it has
 * them. */
#ifndef BATON_ROUTER_STATS_H
#define BATON_ROUTER_STATS_H

#include <stddef.h>
#include <stdint.h>

struct buf;
struct pool;

/* enum name, label of sgl_router_pd_errors_total */
#define STATS_ERRORS(X)                 \
    X(STATS_BAD_REQUEST, "bad_request") \
    X(STATS_OVERLOADED, "overloaded")   \
    X(STATS_NO_WORKER, "no_worker")     \
    X(STATS_REFUSED, "refused")         \
    X(STATS_BROKEN, "broken")           \
    X(STATS_TIMEOUT, "timeout")         \
    X(STATS_PREFILL, "prefill_status")  \
    X(STATS_DECODE, "decode_status")    \
    X(STATS_STREAM, "stream_broken")    \
    X(STATS_CLIENT_LEFT, "client_left") \
    X(STATS_CLIENT_SLOW, "client_too_slow")

enum stats_error {
#define X(name, label) name,
    STATS_ERRORS(X)
#undef X
        STATS_ERROR_COUNT
};

enum { STATS_BUCKETS = 20 };

struct histogram {
    uint64_t counts[STATS_BUCKETS + 1];
    double sum;
    uint64_t total;
};

struct stats {
    uint64_t requests, retries;
    uint64_t resumed;    /* streams that another pair was asked to go on with */
    uint64_t answers[6]; /* by status / 100 */
    uint64_t errors[STATS_ERROR_COUNT];
    size_t running;
    struct histogram first_byte, duration; /* seconds */
};

void stats_observe(struct histogram *histogram, uint64_t us);
/* Prometheus text format 0.0.4. */
void stats_write(const struct stats *stats, const struct pool *prefill,
                 const struct pool *decode, struct buf *out);

#endif
