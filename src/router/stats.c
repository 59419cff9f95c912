#include "router/stats.h"
#include "base/buf.h"
#include "router/worker.h"

#include <inttypes.h>

/* SGLang's buckets of time to first token, with finer ones below. */
static const double bounds[STATS_BUCKETS] = {
    .001, .002, .005, .01, .02, .05, .1, .2,  .4,  .6,
    .8,   1,    2,    4,   8,   20,  60, 100, 200, 400,
};

void stats_observe(struct histogram *h, uint64_t us)
{
    double s = (double)us / 1e6;
    int i = 0;
    while (i < STATS_BUCKETS && s > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += s;
    h->total++;
}

static void head(struct buf *out, const char *name, const char *kind,
                 const char *help)
{
    buf_printf(out, "# HELP sgl_router_%s %s\n# TYPE sgl_router_%s %s\n", name,
               help, name, kind);
}

static void write_histogram(struct buf *out, const char *name, const char *help,
                            const struct histogram *h)
{
    uint64_t below = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i < STATS_BUCKETS; i++) {
        below += h->counts[i];
        buf_printf(out, "sgl_router_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
                   bounds[i], below);
    }
    buf_printf(out,
               "sgl_router_%s_bucket{le=\"+Inf\"} %" PRIu64
               "\nsgl_router_%s_sum %g\nsgl_router_%s_count %" PRIu64 "\n",
               name, h->total, name, h->sum, name, h->total);
}

enum field { HEALTH, LOAD, REQUESTS, FAILURES };

static void write_workers(struct buf *out, const char *name, enum field field,
                          const struct pool *pool)
{
    for (size_t i = 0; i < pool->count; i++) {
        const struct worker *w = pool->workers[i];
        uint64_t value = field == HEALTH     ? w->healthy
                         : field == LOAD     ? w->in_flight
                         : field == REQUESTS ? w->requests
                                             : w->failures;
        buf_printf(out,
                   "sgl_router_%s{worker=\"%s\",role=\"%s\"} %" PRIu64 "\n",
                   name, w->url, pool->options.role, value);
    }
}

void stats_write(const struct stats *s, const struct pool *prefill,
                 const struct pool *decode, struct buf *out)
{
    static const char *const labels[] = {
#define X(name, label) label,
        STATS_ERRORS(X)
#undef X
    };
    static const struct {
        enum field field;
        const char *name, *kind, *help;
    } fields[] = {
        {HEALTH, "worker_health", "gauge", "1 while requests go to it"},
        {LOAD, "worker_load", "gauge", "requests in flight at a worker"},
        {REQUESTS, "worker_requests_total", "counter", "requests sent to it"},
        {FAILURES, "worker_failures_total", "counter", "of these, failed"},
    };
    head(out, "pd_requests_total", "counter", "generation requests taken");
    buf_printf(out, "sgl_router_pd_requests_total %" PRIu64 "\n", s->requests);
    head(out, "retries_total", "counter", "further pairs tried");
    buf_printf(out, "sgl_router_retries_total %" PRIu64 "\n", s->retries);
    head(out, "streams_resumed_total", "counter",
         "streams that another pair was asked to go on with");
    buf_printf(out, "sgl_router_streams_resumed_total %" PRIu64 "\n",
               s->resumed);
    head(out, "running_requests", "gauge", "generation requests now");
    buf_printf(out, "sgl_router_running_requests %zu\n", s->running);
    head(out, "pd_responses_total", "counter", "answers by class of status");
    for (int i = 2; i < 6; i++)
        buf_printf(out,
                   "sgl_router_pd_responses_total{code=\"%dxx\"} %" PRIu64 "\n",
                   i, s->answers[i]);
    head(out, "pd_errors_total", "counter", "failures by kind");
    for (int i = 0; i < STATS_ERROR_COUNT; i++)
        buf_printf(out, "sgl_router_pd_errors_total{kind=\"%s\"} %" PRIu64 "\n",
                   labels[i], s->errors[i]);
    for (int i = 0; i < 4; i++) {
        head(out, fields[i].name, fields[i].kind, fields[i].help);
        write_workers(out, fields[i].name, fields[i].field, prefill);
        write_workers(out, fields[i].name, fields[i].field, decode);
    }
    write_histogram(out, "ttft_seconds",
                    "from the request to the first byte of its stream",
                    &s->first_byte);
    write_histogram(out, "pd_request_duration_seconds",
                    "from the request to its last byte", &s->duration);
}
