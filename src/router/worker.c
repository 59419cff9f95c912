#include "router/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "router/prefix.h"

#include <stdio.h>
#include <string.h>

struct worker *worker_take(struct worker *w)
{
    w->refs++;
    return w;
}

void worker_drop(struct worker *w)
{
    if (!w || --w->refs) return;
    prefix_table_destroy(w->sent);
    mem_free(w->url);
    mem_free(w->bootstrap_host);
    mem_free(w);
}

/* Out of its pool. */
static void leave(struct worker *w)
{
    struct pool *pool = w->pool;
    size_t i = 0;
    while (pool->workers[i] != w)
        i++;
    for (pool->count--; i < pool->count; i++)
        pool->workers[i] = pool->workers[i + 1];
    http_call_cancel(w->probe);
    http_call_cancel(w->ask);
    w->probe = w->ask = NULL;
    worker_drop(w);
}

static void set_down(struct worker *w, const char *text)
{
    if (!w->healthy) return;
    w->healthy = w->seen = false;
    w->passed = 0;
    if (w->sent) prefix_table_clear(w->sent); /* it may come back empty */
    log_warn("router", "%s %s is unhealthy: %s", w->pool->options.role, w->url,
             text);
    loop_timer_set(w->pool->probe_timer, w->pool->options.probe_ms,
                   w->pool->options.probe_ms);
}

void worker_refused(struct worker *w, const char *text)
{
    w->failures++;
    set_down(w, text);
}

void worker_failed(struct worker *w)
{
    unsigned limit = w->pool->options.trip_failures;
    w->failures++;
    if (limit && ++w->failed >= limit) set_down(w, "too many failed requests");
}

void worker_answered(struct worker *w)
{
    w->failed = 0;
    w->seen = true;
}

void worker_heard(struct worker *w)
{
    w->heard_us = clock_us();
    w->unheard = 0;
}

void worker_began(struct worker *w)
{
    const struct pool_options *o = &w->pool->options;
    w->requests++;
    if (!w->in_flight++) worker_heard(w); /* its time runs from here */
    if (!w->pool->in_flight++ && o->silent_ms)
        loop_timer_set(w->pool->silence_timer, o->silent_ms, o->silent_ms);
}

void worker_ended(struct worker *w)
{
    if (!--w->pool->in_flight) loop_timer_unset(w->pool->silence_timer);
    if (!--w->in_flight && w->removed) leave(w);
}

static void asked(void *arg, struct http_call *call,
                  const struct http_result *result)
{
    (void)call;
    struct worker *w = arg;
    const struct pool_options *o = &w->pool->options;
    w->ask = NULL;
    if (result->rc == 0) {
        worker_heard(w);
        return;
    }
    if (!w->in_flight || ++w->unheard < o->down_failures) return;
    set_down(w, result->text);
    o->on_hung(o->arg, w);
}

/* GET of a path of the worker; *call is NULL before and after it. */
static void get(struct worker *w, const char *path, struct http_call **call,
                void (*done)(void *, struct http_call *,
                             const struct http_result *))
{
    if (*call) return;
    char url[2048];
    snprintf(url, sizeof url, "%s%s", w->url, path);
    struct http_call_options o = {
        .url = url,
        .headers = w->pool->options.headers,
        .connect_ms = w->pool->options.timeout_ms,
        .total_ms = w->pool->options.timeout_ms,
        .on_done = done,
        .arg = w,
    };
    http_call(w->pool->client, &o, call);
}

static void ask_silent(void *arg)
{
    struct pool *pool = arg;
    uint64_t now = clock_us();
    for (size_t i = 0; i < pool->count; i++) {
        struct worker *w = pool->workers[i];
        if (w->in_flight && now - w->heard_us >= pool->options.silent_ms * 1000)
            get(w, "/v1/models", &w->ask, asked);
    }
}

static void probed(void *arg, struct http_call *call,
                   const struct http_result *result)
{
    (void)call;
    struct worker *w = arg;
    const struct pool_options *o = &w->pool->options;
    w->probe = NULL;
    if (result->rc == 0 && result->status == 200) {
        w->failed = 0;
        bool news = !w->seen;
        w->seen = true;
        if (!w->healthy && ++w->passed < o->up_successes) return;
        news |= !w->healthy;
        w->healthy = true;
        if (news) log_info("router", "%s %s is healthy", o->role, w->url);
        return;
    }
    w->passed = 0;
    if (w->healthy && w->seen && ++w->failed >= o->down_failures)
        set_down(w, result->rc ? result->text : "health check failed");
}

static void probe(struct worker *w)
{
    get(w, w->pool->options.health_path, &w->probe, probed);
}

static bool is_ready(const struct worker *w)
{
    return w->healthy && w->seen;
}

static void probe_unready(void *arg)
{
    struct pool *pool = arg;
    if (pool_ready(pool) == pool_size(pool))
        loop_timer_unset(pool->probe_timer);
    for (size_t i = 0; i < pool->count; i++)
        if (!is_ready(pool->workers[i]) && !pool->workers[i]->removed)
            probe(pool->workers[i]);
}

static void check_healthy(void *arg)
{
    struct pool *pool = arg;
    for (size_t i = 0; i < pool->count; i++)
        if (pool->workers[i]->healthy) probe(pool->workers[i]);
}

void pool_init(struct pool *pool, struct loop *loop, struct http_client *client,
               const struct pool_options *options)
{
    *pool = (struct pool){
        .options = *options, .client = client, .seed = random_u64()};
    pool->check_timer = loop_timer_create(loop, check_healthy, pool);
    pool->probe_timer = loop_timer_create(loop, probe_unready, pool);
    pool->silence_timer = loop_timer_create(loop, ask_silent, pool);
    loop_timer_set(pool->probe_timer, 1, options->probe_ms);
    if (options->check_ms)
        loop_timer_set(pool->check_timer, options->check_ms, options->check_ms);
}

void pool_remove(struct worker *w)
{
    http_call_cancel(w->probe);
    w->probe = NULL;
    w->removed = true;
    w->healthy = false;
    if (!w->in_flight) leave(w);
}

void pool_fini(struct pool *pool)
{
    while (pool->count)
        leave(pool->workers[pool->count - 1]);
    mem_free(pool->workers);
    loop_timer_destroy(pool->check_timer);
    loop_timer_destroy(pool->probe_timer);
    loop_timer_destroy(pool->silence_timer);
    *pool = (struct pool){.count = 0};
}

/* The host of http[s]://[user@]host[:port][/...], brackets kept. */
static char *host_of(const char *url)
{
    const char *from = strstr(url, "://");
    if (!from ||
        (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        return NULL;
    from += 3;
    size_t n = strcspn(from, "/?#");
    const char *at = memchr(from, '@', n);
    if (at) {
        n -= (size_t)(at + 1 - from);
        from = at + 1;
    }
    if (*from == '[') {
        const char *close = memchr(from, ']', n);
        n = close ? (size_t)(close + 1 - from) : 0;
    } else {
        const char *colon = memchr(from, ':', n);
        if (colon) n = (size_t)(colon - from);
    }
    return n ? mem_dup_n(from, n) : NULL;
}

/* Of a URL without its last '/'s. */
static size_t trimmed(const char *url)
{
    size_t n = strlen(url);
    while (n && url[n - 1] == '/')
        n--;
    return n;
}

struct worker *pool_find(const struct pool *pool, const char *url)
{
    size_t n = trimmed(url);
    for (size_t i = 0; i < pool->count; i++) {
        struct worker *w = pool->workers[i];
        if (!w->removed && strlen(w->url) == n && memcmp(w->url, url, n) == 0)
            return w;
    }
    return NULL;
}

int pool_add(struct pool *pool, const char *url, int bootstrap_port,
             bool healthy, struct why *why)
{
    if (pool_find(pool, url))
        return err_set(why, ERR_EXISTS, "%s server %s is there already",
                       pool->options.role, url);
    char *host = host_of(url);
    if (!host)
        return err_set(why, ERR_INVALID,
                       "--%s %s: not of the form http://host:port",
                       pool->options.role, url);
    struct worker *w = mem_must(1, sizeof *w);
    w->pool = pool;
    w->refs = 1;
    w->url = mem_dup_n(url, trimmed(url));
    w->bootstrap_host = host;
    w->bootstrap_port = bootstrap_port;
    w->healthy = healthy;
    if (pool->options.policy == POLICY_CACHE_AWARE)
        w->sent = prefix_table_create(pool->options.table_bytes);
    pool->workers =
        mem_remust(pool->workers, (pool->count + 1) * sizeof *pool->workers);
    pool->workers[pool->count++] = w;
    loop_timer_set(pool->probe_timer, 1, pool->options.probe_ms);
    return 0;
}

size_t pool_size(const struct pool *pool)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->count; i++)
        count += !pool->workers[i]->removed;
    return count;
}

size_t pool_healthy(const struct pool *pool)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->count; i++)
        count += pool->workers[i]->healthy;
    return count;
}

size_t pool_ready(const struct pool *pool)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->count; i++)
        count += is_ready(pool->workers[i]);
    return count;
}

/* The n-th of those that may be taken. */
static struct worker *nth(struct pool *pool, const struct worker *avoid,
                          size_t n)
{
    for (size_t i = 0; i < pool->count; i++) {
        struct worker *w = pool->workers[i];
        if (w->healthy && w != avoid && n-- == 0) return w;
    }
    return NULL;
}

bool pool_wants_prefix(const struct pool *pool)
{
    return pool->options.policy == POLICY_CACHE_AWARE && pool->count > 1;
}

/* The one with the fewest requests; of several the one that knows least, then
 * each in turn. */
static bool lighter(const struct worker *a, const struct worker *b)
{
    if (a->in_flight != b->in_flight) return a->in_flight < b->in_flight;
    return prefix_table_count(a->sent) < prefix_table_count(b->sent);
}

static struct worker *pick_by_prefix(struct pool *pool,
                                     const struct worker *avoid,
                                     const struct prefix *prefix)
{
    const struct pool_options *o = &pool->options;
    struct worker *light = NULL, *knows = NULL;
    unsigned most = 0;
    size_t match = 0, from = pool->next++;
    for (size_t i = 0; i < pool->count; i++) {
        struct worker *w = pool->workers[(from + i) % pool->count];
        if (!w->healthy || w == avoid) continue;
        size_t n = prefix_table_match(w->sent, prefix);
        if (!light || lighter(w, light)) light = w;
        if (w->in_flight > most) most = w->in_flight;
        if (n > match) knows = w, match = n;
    }
    bool uneven = most - light->in_flight > o->balance_abs &&
                  most > o->balance_rel * light->in_flight;
    bool enough = (double)match > o->cache_threshold * (double)prefix->count;
    struct worker *w = knows && enough && !uneven ? knows : light;
    prefix_table_note(w->sent, prefix);
    return w;
}

struct worker *pool_pick(struct pool *pool, const struct worker *avoid,
                         const struct prefix *prefix)
{
    size_t count = pool_healthy(pool);
    if (avoid && avoid->healthy) {
        if (count == 1)
            avoid = NULL; /* better than none */
        else
            count--;
    }
    if (!count) return NULL;
    switch (pool->options.policy) {
    case POLICY_ROUND_ROBIN: return nth(pool, avoid, pool->next++ % count);
    case POLICY_POWER_OF_TWO: {
        size_t i = rng_next(&pool->seed) % count;
        struct worker *a = nth(pool, avoid, i);
        if (count == 1) return a;
        size_t j = rng_next(&pool->seed) % (count - 1);
        struct worker *b = nth(pool, avoid, j + (j >= i));
        return b->in_flight < a->in_flight ? b : a;
    }
    case POLICY_CACHE_AWARE: return pick_by_prefix(pool, avoid, prefix);
    case POLICY_RANDOM: break;
    }
    return nth(pool, avoid, rng_next(&pool->seed) % count);
}
