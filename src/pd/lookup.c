#include "pd/lookup.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "pd/bootstrap.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
    PREFILLS_MAX = 256,
    TRIES = 3,         /* at a server that does not answer */
    CONNECT_MS = 2000, /* SGLang's heartbeat: 2 s and 3 s */
    TOTAL_MS = 3000,
    ANSWER_MAX = 64 << 10, /* bytes of a body */
    IDLE_MS = 600000,      /* a prefill without rooms is forgotten */
    INSTANCE_MAX = 128,
};

/* What the call in flight asks for. */
enum question { ASK_SIZES_W4, ASK_SIZES_W2, ASK_RANK, ASK_HEALTH };

struct prefill {
    struct pd_prefill public; /* first: taken apart by cast */
    struct prefill *next;
    struct pd_lookup *lookup;
    uint32_t holds;
    struct loop_timer *timer; /* retry while asking, heartbeat when known */
    struct http_call *call;
    enum question question;
    struct buf body;
    char instance[INSTANCE_MAX]; /* of the present life; "": not told */
    uint32_t tries, failures;
    uint64_t used_ms;
    bool asking;
};

struct pd_lookup {
    struct pd_lookup_options options;
    struct http_client *client;
    struct prefill *prefills;
    uint32_t count;
};

/* ---- the end of an asking ----------------------------------------------- */

static void stop(struct prefill *p)
{
    http_call_cancel(p->call);
    p->call = NULL;
    p->asking = false;
    loop_timer_unset(p->timer);
}

static void forget(struct prefill *p)
{
    stop(p);
    p->public.known = false;
    p->public.registered = false;
    p->public.has_layout = false;
    p->instance[0] = 0;
    p->failures = 0;
}

static void fail(struct prefill *p, const char *text)
{
    char reason[PD_TEXT_MAX + 1];
    snprintf(reason, sizeof reason, "%s", text); /* it may be p's body */
    forget(p);
    p->lookup->options.on_failed(p->lookup->options.arg, &p->public, reason);
}

void pd_prefill_lost(struct pd_prefill *prefill, const char *detail)
{
    struct prefill *p = (struct prefill *)prefill;
    char text[PD_TEXT_MAX];
    snprintf(text, sizeof text,
             "Losing connection with prefill instance (bootstrap_addr: "
             "%s:%u)%s%s",
             prefill->bootstrap.host, prefill->bootstrap.port,
             *detail ? ": " : "", detail);
    forget(p);
    p->lookup->options.on_lost(p->lookup->options.arg, prefill, text);
}

/* ---- does it fit? ------------------------------------------------------- */

static void name_of(const struct prefill *p, char out[PD_HOST_MAX + 32])
{
    snprintf(out, PD_HOST_MAX + 32, "prefill %s:%u", p->public.bootstrap.host,
             p->public.bootstrap.port);
}

static int check_parallel(const char *name, const struct pd_sizes *sizes,
                          struct why *why)
{
    const struct {
        const char *what;
        uint32_t size;
    } axes[] = {{"attn_tp_size", sizes->tp},
                {"attn_cp_size", sizes->cp},
                {"dp_size", sizes->dp},
                {"pp_size", sizes->pp}};
    for (int i = 0; i < 4; i++)
        if (axes[i].size != 1)
            return err_set(why, ERR_UNSUPPORTED,
                           "%s does not fit: its %s is %u, this decode needs 1",
                           name, axes[i].what, axes[i].size);
    return 0;
}

/* A Baton peer said all in its header; a stock one is judged by what its
 * answer tells. */
static int check_fit(const struct prefill *p, const struct pd_sizes *sizes,
                     struct why *why)
{
    const struct pd_lookup_options *o = &p->lookup->options;
    char name[PD_HOST_MAX + 32];
    name_of(p, name);
    int rc = check_parallel(name, sizes, why);
    if (rc) return rc;
    if (p->public.has_layout)
        return pd_layout_check(o->layout, &p->public.layout, name, why);
    uint32_t page = o->layout->shape.page_tokens;
    if (sizes->page_size && sizes->page_size != page)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: its page size is %u, ours is %u", name,
                       sizes->page_size, page);
    if (sizes->kv_cache_dtype[0] &&
        strcmp(sizes->kv_cache_dtype, o->kv_cache_dtype) != 0)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: its kv_cache_dtype is %s, ours is %s",
                       name, sizes->kv_cache_dtype, o->kv_cache_dtype);
    return 0;
}

/* ---- asking ------------------------------------------------------------- */

static void ask(struct prefill *p, enum question question);

/* Not there yet, or no answer: once more after a while. */
static void retry(struct prefill *p)
{
    loop_timer_set(p->timer, p->lookup->options.retry_ms, 0);
}

static void unreachable(struct prefill *p, const char *text)
{
    char reason[PD_TEXT_MAX];
    if (++p->tries < TRIES) {
        retry(p);
        return;
    }
    snprintf(reason, sizeof reason,
             "Could not fetch prefill parallel info from bootstrap_addr: "
             "%s:%u: %s",
             p->public.bootstrap.host, p->public.bootstrap.port, text);
    fail(p, reason);
}

static void refused(struct prefill *p, int status)
{
    char text[PD_TEXT_MAX];
    int n = (int)(p->body.len < 200 ? p->body.len : 200);
    snprintf(text, sizeof text, "HTTP %d %.*s", status, n,
             p->body.data ? p->body.data : "");
    unreachable(p, text);
}

static void on_sizes(struct prefill *p, const json_t *body)
{
    struct pd_sizes sizes;
    struct why why = {0};
    p->public.generation = p->question == ASK_SIZES_W4 ? PD_W4 : PD_W2;
    int rc = pd_sizes_decode(body, p->public.generation, &sizes, &why);
    if (!rc && !sizes.registered) {
        retry(p);
        return;
    }
    if (!rc) rc = check_fit(p, &sizes, &why);
    if (rc)
        fail(p, why.text);
    else
        ask(p, ASK_RANK);
}

static void on_rank(struct prefill *p, const json_t *body)
{
    struct why why = {0};
    if (pd_address_decode(body, &p->public.rank, &why)) {
        fail(p, why.text);
        return;
    }
    p->asking = false;
    p->public.known = true;
    p->failures = 0;
    loop_timer_set(p->timer, p->lookup->options.heartbeat_interval_ms, 0);
    p->lookup->options.on_known(p->lookup->options.arg, &p->public);
}

static void on_answer(struct prefill *p, int status)
{
    if (status == 503) { /* its ranks come */
        retry(p);
        return;
    }
    bool older = status == 400 || status == 404;
    if (p->question == ASK_SIZES_W4 && older) {
        ask(p, ASK_SIZES_W2);
        return;
    }
    if (status != 200 || p->body.failed) {
        refused(p, status);
        return;
    }
    json_t *body;
    struct why why = {0};
    if (json_parse(&body, p->body.data, p->body.len, &why)) {
        fail(p, why.text);
        return;
    }
    if (p->question == ASK_RANK)
        on_rank(p, body);
    else
        on_sizes(p, body);
    json_decref(body);
}

/* ---- heartbeat ---------------------------------------------------------- */

static void on_beat(struct prefill *p, const struct http_result *result)
{
    const struct pd_lookup_options *o = &p->lookup->options;
    p->failures = result->rc || result->status != 200 ? p->failures + 1 : 0;
    if (p->failures >= o->heartbeat_max_failure)
        pd_prefill_lost(&p->public, result->rc ? result->text : "");
    else
        loop_timer_set(p->timer, o->heartbeat_interval_ms, 0);
}

static void prefill_free(struct prefill *p);

static void on_timer(void *arg)
{
    struct prefill *p = arg;
    if (p->asking)
        ask(p, ASK_SIZES_W4);
    else if (!p->holds && clock_ms() - p->used_ms > IDLE_MS)
        prefill_free(p);
    else
        ask(p, ASK_HEALTH);
}

/* ---- calls -------------------------------------------------------------- */

/* False: the answer is of another life than the one we know. */
static bool same_instance(struct prefill *p, const struct http_call *call)
{
    const char *id = http_call_header(call, PD_HEADER_INSTANCE);
    if (!id || strlen(id) >= INSTANCE_MAX) return true;
    if (p->instance[0]) return !strcmp(p->instance, id);
    strcpy(p->instance, id);
    return true;
}

static void on_data(void *arg, struct http_call *call, const void *bytes,
                    size_t n)
{
    struct prefill *p = arg;
    (void)call;
    buf_add(&p->body, bytes, n);
}

static void on_done(void *arg, struct http_call *call,
                    const struct http_result *result)
{
    struct prefill *p = arg;
    p->call = NULL;
    bool replaced = !result->rc && !same_instance(p, call);
    if (p->question == ASK_HEALTH) {
        if (replaced)
            pd_prefill_lost(&p->public, "it was replaced by another instance");
        else
            on_beat(p, result);
        return;
    }
    if (result->rc) {
        unreachable(p, result->text);
        return;
    }
    if (replaced) { /* in the midst of asking: begin again */
        p->instance[0] = 0;
        retry(p);
        return;
    }
    const char *layout = http_call_header(call, PD_HEADER_LAYOUT);
    struct why why = {0};
    p->public.has_layout = layout != NULL;
    if (layout &&
        pd_layout_decode(layout, strlen(layout), &p->public.layout, &why))
        fail(p, why.text);
    else
        on_answer(p, result->status);
}

static void ask(struct prefill *p, enum question question)
{
    static const char *const w4 =
        "?prefill_dp_rank=%d&prefill_cp_rank=%d&target_tp_rank=%d&"
        "target_pp_rank=%d";
    static const char *const w2 =
        "?engine_rank=%d&target_dp_group=%d&target_pp_rank=%d";
    const struct pd_address *to = &p->public.bootstrap;
    bool v6 = strchr(to->host, ':'), health = question == ASK_HEALTH;
    char url[PD_HOST_MAX + 160], query[128] = "";
    /* Sizes: all -1. The rank of a decode of TP 1 at a prefill of TP 1: 0. */
    int n = question == ASK_RANK ? 0 : -1;
    bool new_form = question == ASK_SIZES_W4 ||
                    (question == ASK_RANK && p->public.generation == PD_W4);
    if (new_form)
        snprintf(query, sizeof query, w4, n, n, n, n);
    else if (!health)
        snprintf(query, sizeof query, w2, n, n, n);
    snprintf(url, sizeof url, "http://%s%s%s:%u%s%s", v6 ? "[" : "", to->host,
             v6 ? "]" : "", to->port, health ? "/health" : "/route", query);
    p->question = question;
    buf_reset(&p->body);
    const struct http_call_options call = {.url = url,
                                           .connect_ms = CONNECT_MS,
                                           .total_ms = TOTAL_MS,
                                           .on_data = on_data,
                                           .on_done = on_done,
                                           .arg = p};
    if (http_call(p->lookup->client, &call, &p->call)) retry(p);
}

/* ---- life --------------------------------------------------------------- */

static void prefill_free(struct prefill *p)
{
    struct prefill **at = &p->lookup->prefills;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->lookup->count--;
    p->lookup->options.on_freed(p->lookup->options.arg, &p->public);
    http_call_cancel(p->call);
    loop_timer_destroy(p->timer);
    buf_fini(&p->body);
    mem_free(p);
}

int pd_lookup_open(struct pd_lookup **out,
                   const struct pd_lookup_options *options, struct why *why)
{
    *out = NULL;
    struct pd_lookup *lookup = mem_must(1, sizeof *lookup);
    lookup->options = *options;
    int rc = http_client_open(&lookup->client, options->loop, why);
    if (rc) {
        pd_lookup_close(lookup);
        return rc;
    }
    *out = lookup;
    return 0;
}

void pd_lookup_close(struct pd_lookup *lookup)
{
    if (!lookup) return;
    while (lookup->prefills)
        prefill_free(lookup->prefills);
    http_client_close(lookup->client);
    mem_free(lookup);
}

/* Makes room for one more: false when all are held. */
static bool evict(struct pd_lookup *lookup)
{
    if (lookup->count < PREFILLS_MAX) return true;
    struct prefill *oldest = NULL;
    for (struct prefill *p = lookup->prefills; p; p = p->next)
        if (!p->holds && (!oldest || p->used_ms < oldest->used_ms)) oldest = p;
    if (!oldest) return false;
    prefill_free(oldest);
    return true;
}

static struct prefill *find(struct pd_lookup *lookup, const char *host,
                            size_t n, uint16_t port)
{
    struct prefill *p = lookup->prefills;
    for (; p; p = p->next) {
        const struct pd_address *at = &p->public.bootstrap;
        if (at->port == port && strlen(at->host) == n &&
            !memcmp(at->host, host, n))
            break;
    }
    return p;
}

static struct prefill *create(struct pd_lookup *lookup, const char *host,
                              size_t n, uint16_t port)
{
    struct prefill *p = mem_must(1, sizeof *p);
    p->lookup = lookup;
    memcpy(p->public.bootstrap.host, host, n);
    p->public.bootstrap.port = port;
    p->timer = loop_timer_create(lookup->options.loop, on_timer, p);
    buf_init(&p->body, ANSWER_MAX);
    p->next = lookup->prefills;
    lookup->prefills = p;
    lookup->count++;
    return p;
}

int pd_prefill_take(struct pd_lookup *lookup, const char *host, uint16_t port,
                    struct pd_prefill **out, struct why *why)
{
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    if (!port || !pd_host_valid(host, n))
        return err_set(why, ERR_INVALID,
                       "bootstrap_host, bootstrap_port: not an address");
    struct prefill *p = find(lookup, host, n, port);
    if (!p && !evict(lookup))
        return err_set(why, ERR_AGAIN, "%d prefill instances are in use",
                       PREFILLS_MAX);
    if (!p) p = create(lookup, host, n, port);
    p->holds++;
    p->used_ms = clock_ms();
    if (!p->public.known && !p->asking) {
        p->asking = true;
        p->tries = 0;
        ask(p, ASK_SIZES_W4);
    }
    *out = &p->public;
    return 0;
}

void pd_prefill_drop(struct pd_prefill *prefill)
{
    struct prefill *p = (struct prefill *)prefill;
    if (!p) return;
    assert(p->holds > 0);
    p->holds--;
    p->used_ms = clock_ms();
    if (p->holds || p->public.known) return;
    stop(p); /* nobody waits for the answer */
}

struct pd_prefill *pd_lookup_find_rank(struct pd_lookup *lookup,
                                       const struct pd_address *rank)
{
    for (struct prefill *p = lookup->prefills; p; p = p->next)
        if (p->public.known && pd_address_same(&p->public.rank, rank))
            return &p->public;
    return NULL;
}
