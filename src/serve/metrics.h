/* serve/metrics.h - GET /metrics: Prometheus text, SGLang's names.
 *
 * One list in metrics.c holds every metric. What the engine and the node
 * count themselves is asked for when somebody reads; the rest is counted
 * here. Labels: model_name, engine_type (unified, prefill, decode), tp_rank,
 * pp_rank. The loop thread's. Format: Prometheus text exposition 0.0.4. */
#ifndef BATON_SERVE_METRICS_H
#define BATON_SERVE_METRICS_H

#include "base/buf.h"
#include "pd/node.h"

struct metrics;
struct output; /* serve/call.h */

enum metrics_histogram {
    HISTOGRAM_TTFT,        /* seconds to the first token            */
    HISTOGRAM_ITL,         /* seconds between tokens                */
    HISTOGRAM_E2E,         /* seconds of a whole request            */
    HISTOGRAM_QUEUE,       /* seconds until its first step          */
    HISTOGRAM_RETRACTIONS, /* times a request was retracted         */
    HISTOGRAM_COUNT
};

/* model: the served name, borrowed. */
struct metrics *metrics_create(const char *model, enum pd_mode mode);
void metrics_destroy(struct metrics *metrics); /* NULL is fine */

void metrics_observe(struct metrics *metrics, enum metrics_histogram which,
                     double value);
/* A request ended with this event. */
void metrics_request_done(struct metrics *metrics, const struct output *out,
                          const struct engine_event *event);
/* The server became ready this long after its start. */
void metrics_started(struct metrics *metrics, double seconds);

/* page_tokens: of the pool whose pages the statistics count. */
void metrics_write(const struct metrics *metrics,
                   const struct engine_stats *engine,
                   const struct pd_stats *node, uint32_t page_tokens,
                   struct buf *to);

#endif
