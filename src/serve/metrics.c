#include "serve/metrics.h"
#include "base/mem.h"
#include "serve/call.h"

#include <math.h>
#include <string.h>

/* Buckets' upper bounds; source: SGLang's metrics_collector.py. */
static const double ttft_bounds[] = {.1, .2, .4, .6, .8, 1,  2,   4,   6,
                                     8,  10, 20, 40, 60, 80, 100, 200, 400};
static const double itl_bounds[] = {
    .002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .06,
    .08,  .1,   .2,   .4,   .6,  .8,   1,   2,    4,   6,    8};
static const double e2e_bounds[] = {.1,  .2,  .4,  .6,   .8,   1,   2,  4,
                                    6,   8,   10,  20,   40,   60,  80, 100,
                                    200, 400, 600, 1200, 1800, 2400};
static const double queue_bounds[] = {
    0,   .001, .005, .01,  .05,  .1,   .2,   .5,   1,    2,
    3,   4,    5,    10,   15,   20,   30,   40,   50,   60,
    70,  80,   90,   100,  200,  300,  400,  500,  600,  700,
    800, 900,  1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000};
static const double retraction_bounds[] = {0, 1, 2, 3, 4, 5, 10, 20, 50};

#define BOUNDS_MAX 48

static const struct {
    const char *name, *help;
    const double *bounds;
    size_t count;
} histograms[HISTOGRAM_COUNT] = {
#define ROW(name, help, bounds)                            \
    {                                                      \
        name, help, bounds, sizeof bounds / sizeof *bounds \
    }
    [HISTOGRAM_TTFT] = ROW("time_to_first_token_seconds",
                           "Time to first token in seconds.", ttft_bounds),
    [HISTOGRAM_ITL] = ROW("inter_token_latency_seconds",
                          "Time between tokens in seconds.", itl_bounds),
    [HISTOGRAM_E2E] = ROW("e2e_request_latency_seconds",
                          "Time of whole requests in seconds.", e2e_bounds),
    [HISTOGRAM_QUEUE] =
        ROW("queue_time_seconds", "Time before the first step in seconds.",
            queue_bounds),
    [HISTOGRAM_RETRACTIONS] =
        ROW("num_retractions", "Retractions of a request.", retraction_bounds),
#undef ROW
};

struct histogram {
    uint64_t buckets[BOUNDS_MAX]; /* not yet cumulative */
    uint64_t count;
    double sum;
};

struct metrics {
    const char *model;
    enum pd_mode mode;
    double startup_seconds;
    uint64_t prompt_tokens, output_tokens, cached_tokens, requests, aborted;
    struct histogram histograms[HISTOGRAM_COUNT];
};

/* Everything a value may be made of. */
struct view {
    const struct metrics *m;
    const struct engine_stats *e;
    const struct pd_stats *p;
    uint32_t page_tokens;
};

enum { ANY = 7, ON_NULL = 1, ON_PREFILL = 2, ON_DECODE = 4 };

static double used_tokens(const struct view *v)
{
    uint32_t free_pages = v->e->pages_free + v->e->pages_cached;
    uint32_t used = v->e->pages_total - free_pages;
    return free_pages > v->e->pages_total ? 0 : (double)used * v->page_tokens;
}

static double total_tokens(const struct view *v)
{
    return (double)v->e->pages_total * v->page_tokens;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* The one list: type, where it exists, name, help, value. Prefix sglang: where
 * the name is SGLang's, baton: where it is ours. */
#define METRIC_LIST(X)                                                        \
    X(gauge, ANY, "sglang:num_running_reqs", "Requests running.",             \
      v->e->running)                                                          \
    X(gauge, ANY, "sglang:num_queue_reqs", "Requests waiting.",               \
      v->e->queued + v->e->retracted)                                         \
    X(gauge, ANY, "sglang:num_used_tokens", "KV tokens in use.",              \
      used_tokens(v))                                                         \
    X(gauge, ANY, "sglang:token_usage", "KV tokens in use, of all.",          \
      ratio(used_tokens(v), total_tokens(v)))                                 \
    X(gauge, ANY, "sglang:max_total_num_tokens", "KV tokens of the pool.",    \
      total_tokens(v))                                                        \
    X(gauge, ANY, "sglang:gen_throughput", "Output tokens per second.",       \
      v->e->output_rate)                                                      \
    X(gauge, ANY, "sglang:cache_hit_rate", "Prompt tokens from the cache.",   \
      ratio((double)v->e->cached_tokens, (double)v->e->prompt_tokens))        \
    X(gauge, ANY, "sglang:num_retracted_reqs", "Requests retracted now.",     \
      v->e->retracted)                                                        \
    X(gauge, ANY, "sglang:engine_startup_time", "Seconds until ready.",       \
      v->m->startup_seconds)                                                  \
    X(counter, ANY, "sglang:prompt_tokens_total", "Prompt tokens processed.", \
      v->m->prompt_tokens)                                                    \
    X(counter, ANY, "sglang:generation_tokens_total", "Tokens generated.",    \
      v->m->output_tokens)                                                    \
    X(counter, ANY, "sglang:cached_tokens_total", "Prompt tokens cached.",    \
      v->m->cached_tokens)                                                    \
    X(counter, ANY, "sglang:num_requests_total", "Requests processed.",       \
      v->m->requests)                                                         \
    X(counter, ANY, "sglang:num_aborted_requests_total", "Requests aborted.", \
      v->m->aborted)                                                          \
    X(gauge, ON_PREFILL, "sglang:num_prefill_prealloc_queue_reqs",            \
      "Requests waiting for their decode server.", v->p->bootstrapping)       \
    X(gauge, ON_PREFILL, "sglang:num_prefill_bootstrap_queue_reqs",           \
      "Requests waiting for their decode server.", v->p->bootstrapping)       \
    X(gauge, ON_PREFILL, "sglang:num_prefill_inflight_queue_reqs",            \
      "Requests whose KV is on its way.", v->p->transferring)                 \
    X(gauge, ON_DECODE, "sglang:num_decode_prealloc_queue_reqs",              \
      "Requests waiting for pages or their prefill server.",                  \
      v->p->bootstrapping)                                                    \
    X(gauge, ON_DECODE, "sglang:num_decode_transfer_queue_reqs",              \
      "Requests whose KV is on its way.", v->p->transferring)                 \
    X(gauge, ON_PREFILL | ON_DECODE, "sglang:kv_transfer_speed_gb_s",         \
      "KV moved per second of transfer.",                                     \
      ratio((double)v->p->kv_bytes * 1e-3, (double)v->p->kv_us))              \
    X(counter, ON_PREFILL | ON_DECODE,                                        \
      "sglang:num_bootstrap_failed_reqs_total",                               \
      "Requests that found no peer.", v->p->failed_bootstrap)                 \
    X(counter, ON_PREFILL | ON_DECODE,                                        \
      "sglang:num_transfer_failed_reqs_total",                                \
      "Requests whose transfer failed.", v->p->failed_transfer)               \
    X(counter, ON_PREFILL | ON_DECODE, "baton:kv_transfer_bytes_total",       \
      "KV bytes moved.", v->p->kv_bytes)                                      \
    X(counter, ON_DECODE, "baton:kept_prompt_tokens_total",                   \
      "Prompt tokens whose KV was here and was not sent.", v->e->kept_tokens) \
    X(gauge, ON_PREFILL | ON_DECODE, "baton:kv_quarantined_pages",            \
      "KV pages that a peer may still write to.", v->p->quarantined)          \
    X(counter, ANY, "baton:steps_total", "Steps of the engine.", v->e->steps) \
    X(counter, ANY, "baton:step_seconds_total", "Time in steps.",             \
      (double)v->e->step_us * 1e-6)                                           \
    X(counter, ANY, "baton:host_seconds_total",                               \
      "Time in steps that is not the model's.", (double)v->e->host_us * 1e-6)

static const struct {
    const char *type, *name, *help;
    unsigned where;
} rows[] = {
#define X(type, where, name, help, value) {#type, name, help, where},
    METRIC_LIST(X)
#undef X
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static void values(const struct view *v, double out[ROW_COUNT])
{
    size_t i = 0;
#define X(type, where, name, help, value) out[i++] = (double)(value);
    METRIC_LIST(X)
#undef X
}

struct metrics *metrics_create(const char *model, enum pd_mode mode)
{
    struct metrics *m = mem_must(1, sizeof *m);
    m->model = model;
    m->mode = mode;
    return m;
}

void metrics_destroy(struct metrics *metrics)
{
    mem_free(metrics);
}

void metrics_observe(struct metrics *metrics, enum metrics_histogram which,
                     double value)
{
    /* A prefill server's "first token" is its only one. */
    if (which == HISTOGRAM_TTFT && metrics->mode == PD_PREFILL) return;
    struct histogram *h = &metrics->histograms[which];
    size_t i = 0;
    while (i < histograms[which].count && value > histograms[which].bounds[i])
        i++;
    h->buckets[i]++;
    h->count++;
    h->sum += value;
}

void metrics_request_done(struct metrics *metrics, const struct output *out,
                          const struct engine_event *event)
{
    metrics->requests++;
    if (out->finish.kind == FINISH_ABORT) metrics->aborted++;
    metrics->prompt_tokens += out->prompt_tokens;
    metrics->output_tokens += out->output_tokens;
    metrics->cached_tokens += out->cached_tokens;
    metrics_observe(metrics, HISTOGRAM_E2E, output_seconds(out));
    metrics_observe(metrics, HISTOGRAM_RETRACTIONS, out->retractions);
    if (event->started_us >= event->queued_us && event->queued_us)
        metrics_observe(metrics, HISTOGRAM_QUEUE,
                        (double)(event->started_us - event->queued_us) * 1e-6);
}

void metrics_started(struct metrics *metrics, double seconds)
{
    metrics->startup_seconds = seconds;
}

/* Label values escape backslash, quote and newline, as JSON does. */
static void labels(const struct metrics *m, struct buf *to)
{
    static const char *const types[] = {"unified", "prefill", "decode"};
    buf_puts(to, "model_name=\"");
    buf_json(to, m->model, strlen(m->model));
    buf_printf(to, "\",engine_type=\"%s\",tp_rank=\"0\",pp_rank=\"0\"",
               types[m->mode]);
}

static void number(struct buf *to, double value)
{
    if (value == floor(value) && fabs(value) < 1e15)
        buf_printf(to, "%.1f\n", value);
    else
        buf_printf(to, "%.9g\n", value);
}

static void head(struct buf *to, const char *prefix, const char *name,
                 const char *help, const char *type)
{
    buf_printf(to, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help,
               prefix, name, type);
}

static void write_histogram(const struct metrics *m, size_t which,
                            const char *label_text, struct buf *to)
{
    const struct histogram *h = &m->histograms[which];
    const char *name = histograms[which].name;
    head(to, "sglang:", name, histograms[which].help, "histogram");
    uint64_t sum = 0;
    for (size_t i = 0; i < histograms[which].count; i++) {
        double bound = histograms[which].bounds[i];
        sum += h->buckets[i];
        buf_printf(to, "sglang:%s_bucket{le=\"", name);
        buf_printf(to, bound == floor(bound) ? "%.1f" : "%g", bound);
        buf_printf(to, "\",%s} %llu.0\n", label_text, (unsigned long long)sum);
    }
    buf_printf(to, "sglang:%s_bucket{le=\"+Inf\",%s} %llu.0\n", name,
               label_text, (unsigned long long)h->count);
    buf_printf(to, "sglang:%s_count{%s} %llu.0\n", name, label_text,
               (unsigned long long)h->count);
    buf_printf(to, "sglang:%s_sum{%s} ", name, label_text);
    number(to, h->sum);
}

void metrics_write(const struct metrics *metrics,
                   const struct engine_stats *engine,
                   const struct pd_stats *node, uint32_t page_tokens,
                   struct buf *to)
{
    struct view view = {metrics, engine, node, page_tokens};
    double now[ROW_COUNT];
    values(&view, now);
    struct buf label_text;
    buf_init(&label_text, (size_t)1 << 20);
    labels(metrics, &label_text);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (!(rows[i].where & (1u << metrics->mode))) continue;
        head(to, "", rows[i].name, rows[i].help, rows[i].type);
        buf_printf(to, "%s{%s} ", rows[i].name, label_text.data);
        number(to, now[i]);
    }
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++)
        write_histogram(metrics, i, label_text.data, to);
    buf_fini(&label_text);
}
