#include "router/dispatch.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "http/resume.h"
#include "http/server.h"
#include "http/sse.h"
#include "router/body.h"
#include "router/headers.h"
#include "router/options.h"
#include "router/prefix.h"
#include "router/stats.h"
#include "router/watch.h"
#include "router/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { HEADERS_MAX = 48, PREFILL_BODY_MAX = 1 << 20, EVENT_MAX = 64 << 20 };

/* One of the two upstream requests. call is NULL before and after it. */
struct leg {
    struct session *session;
    struct worker *worker; /* of the last attempt; NULL: none was begun */
    struct worker *avoid;  /* it, where it failed */
    struct http_call *call;
    int status;         /* 0: no headers yet */
    bool good;          /* ended, whole, with a 2xx */
    struct buf headers; /* that pass down: "name\0value\0"... */
    struct buf body;    /* what is not relayed at once */
};

/* What the session's timer is set for. */
enum waiting { NOTHING, RETRY, VERDICT, LINGER };

struct session {
    struct dispatch *d;
    struct http_request *request; /* NULL: answered */
    struct body body;             /* spans of the request */
    struct prefix prefix;         /* empty where no policy asks for it */
    bool stream, merge;
    struct buf sent; /* the body with bootstrap fields; both legs borrow it */
    struct leg prefill, decode;
    int attempt;
    enum waiting waiting;
    struct loop_timer *timer;
    uint64_t start_us;
    bool begun;     /* the client was answered 200 */
    bool streaming; /* this attempt's decode has the KV cache and answers */
    bool relayed;
    size_t line_tail; /* newlines at the end of what was relayed, to 2 */
    bool watched;     /* another pair may go on with it */
    struct watch watch;
    char created[24], rid[64]; /* for it, http/resume.h; rid "": the body's */
    struct sse_parser events;  /* decode's, when merging */
    struct sse_parser prefill_events;
    struct part { /* prefill's events, when merging */
        struct part *next;
        int64_t index;
        size_t n;
        char *text;
    } * parts;
    struct session *next, *prev;
};

/* --- a leg ---------------------------------------------------------------- */

static void leg_reset(struct leg *leg)
{
    leg->status = 0;
    leg->good = false;
    buf_reset(&leg->headers);
    buf_reset(&leg->body);
}

static void leg_over(struct leg *leg)
{
    leg->call = NULL;
    worker_ended(leg->worker);
}

static void leg_cancel(struct leg *leg)
{
    if (!leg->call) return;
    http_call_cancel(leg->call);
    leg_over(leg);
}

/* The passed-down headers as a list; content type apart. */
static const char *leg_headers(const struct leg *leg,
                               struct http_header list[HEADERS_MAX])
{
    const char *type = NULL;
    size_t n = 0;
    for (size_t at = 0; at < leg->headers.len;) {
        struct http_header h = {.name = leg->headers.data + at};
        at += strlen(h.name) + 1;
        h.value = leg->headers.data + at;
        at += strlen(h.value) + 1;
        if (strcasecmp(h.name, "content-type") == 0)
            type = h.value;
        else if (n + 1 < HEADERS_MAX)
            list[n++] = h;
    }
    list[n] = (struct http_header){NULL, NULL};
    return type;
}

static void note_headers(struct leg *leg, const struct http_call *call)
{
    struct http_header h;
    for (size_t at = 0; http_call_header_next(call, &at, &h);) {
        if (strcasecmp(h.name, "content-type") != 0 &&
            !headers_pass_down(h.name))
            continue;
        buf_add(&leg->headers, h.name, strlen(h.name) + 1);
        buf_add(&leg->headers, h.value, strlen(h.value) + 1);
    }
    if (leg->headers.failed) buf_reset(&leg->headers);
}

static bool is_good(int status)
{
    return status >= 200 && status < 300;
}

static const char *role_of(const struct leg *leg)
{
    return leg == &leg->session->prefill ? "prefill" : "decode";
}

/* --- the session's end ---------------------------------------------------- */

static void session_free(struct session *s)
{
    if (s->next) s->next->prev = s->prev;
    *(s->prev ? &s->prev->next : &s->d->sessions) = s->next;
    leg_cancel(&s->prefill);
    leg_cancel(&s->decode);
    loop_timer_destroy(s->timer);
    for (struct part *p; (p = s->parts);) {
        s->parts = p->next;
        mem_free(p->text);
        mem_free(p);
    }
    watch_fini(&s->watch);
    sse_fini(&s->events);
    sse_fini(&s->prefill_events);
    buf_fini(&s->sent);
    prefix_fini(&s->prefix);
    worker_drop(s->prefill.worker);
    worker_drop(s->decode.worker);
    buf_fini(&s->prefill.headers);
    buf_fini(&s->prefill.body);
    buf_fini(&s->decode.headers);
    buf_fini(&s->decode.body);
    mem_free(s);
}

/* The client has its answer. A prefill that still writes its own may finish:
 * hanging up would cost its connection. */
static void answered(struct session *s, int status)
{
    struct stats *stats = s->d->stats;
    stats->running--;
    stats->answers[status / 100 > 5 ? 5 : status / 100]++;
    stats_observe(&stats->duration, clock_us() - s->start_us);
    s->request = NULL;
    leg_cancel(&s->decode);
    if (!s->prefill.call || !is_good(status) || !s->d->options->linger_ms) {
        session_free(s);
        return;
    }
    s->waiting = LINGER;
    loop_timer_set(s->timer, (uint64_t)s->d->options->linger_ms, 0);
}

static void cancel_legs(struct session *s)
{
    leg_cancel(&s->prefill);
    leg_cancel(&s->decode);
    loop_timer_unset(s->timer);
    s->waiting = NOTHING;
}

/* Ends with an error of our own: a status while there can be one. */
static void fail(struct session *s, int status, enum stats_error kind,
                 const char *text)
{
    s->d->stats->errors[kind]++;
    cancel_legs(s);
    if (!s->begun) {
        http_reply_error(s->request, status, "%s", text);
        answered(s, status);
        return;
    }
    struct buf b;
    buf_init(&b, 1 << 16);
    /* Behind a cut event, its lines must be ended first. */
    if (s->relayed) buf_puts(&b, &"\n\n"[s->line_tail]);
    buf_puts(&b, "data: {\"error\": {\"message\": \"");
    buf_json(&b, text, strlen(text));
    buf_printf(&b, "\", \"type\": \"%s\", \"code\": %d}}\n\ndata: [DONE]\n\n",
               http_status_text(status), status);
    http_stream_send(s->request, b.data, b.len);
    http_stream_end(s->request);
    buf_fini(&b);
    answered(s, status);
}

/* Passes a worker's own error on; within a stream as far as an event can. */
static void pass_error(struct session *s, struct leg *leg)
{
    bool prefill = leg == &s->prefill;
    enum stats_error kind = prefill ? STATS_PREFILL : STATS_DECODE;
    int status = leg->status;
    if (s->begun) {
        char text[640];
        snprintf(text, sizeof text,
                 "%s server %s does not go on with the stream: %.400s",
                 role_of(leg), leg->worker->url,
                 leg->body.data ? leg->body.data : "");
        fail(s, status, kind, text);
        return;
    }
    struct http_header list[HEADERS_MAX];
    const char *type = leg_headers(leg, list);
    s->d->stats->errors[kind]++;
    cancel_legs(s);
    http_reply(s->request, status, type ? type : "application/json", list,
               leg->body.data ? leg->body.data : "", leg->body.len);
    answered(s, status);
}

static void client_left(void *arg, struct http_request *request, int rc)
{
    struct session *s = arg;
    s->d->stats
        ->errors[rc == ERR_RANGE ? STATS_CLIENT_SLOW : STATS_CLIENT_LEFT]++;
    cancel_legs(s);
    http_drop(request);
    answered(s, 499);
}

/* --- trying again --------------------------------------------------------- */

static void start_attempt(struct session *s);

/* Another pair, when that is allowed; false: give up. */
static bool try_again(struct session *s)
{
    const struct router_options *o = s->d->options;
    if ((s->begun && !s->watched) || o->disable_retries ||
        s->attempt >= (int)o->retry_max_retries)
        return false;
    double wait = (double)o->retry_initial_backoff_ms;
    for (int i = 1; i < s->attempt; i++)
        wait *= o->retry_backoff_multiplier;
    if (wait > (double)o->retry_max_backoff_ms)
        wait = (double)o->retry_max_backoff_ms;
    /* A client in the middle of a sentence does not wait for the first. */
    if (s->begun && s->attempt == 1) wait = 0;
    uint64_t seed = random_u64();
    wait *= 1 + o->retry_jitter_factor * (2 * rng_unit(&seed) - 1);
    s->d->stats->retries++;
    s->d->stats->resumed += s->begun;
    cancel_legs(s);
    s->waiting = RETRY;
    loop_timer_set(s->timer, (uint64_t)wait, 0);
    return true;
}

/* A leg's worker could not be reached, broke off or did not end. */
static void leg_broke(struct session *s, struct leg *leg,
                      const struct http_result *result)
{
    bool prefill = leg == &s->prefill;
    char text[640];
    snprintf(text, sizeof text, "%s server %s: %s", role_of(leg),
             leg->worker->url, result->text);
    leg->avoid = leg->worker;
    if (!result->connected)
        worker_refused(leg->worker, result->text);
    else
        worker_failed(leg->worker);
    /* Decode streams: it has what it needs of prefill. */
    if (prefill && s->streaming) return;
    if (result->rc == ERR_TIMEOUT && result->connected) {
        fail(s, 504, STATS_TIMEOUT, text);
    } else if (!try_again(s)) {
        fail(s, 502,
             s->begun            ? STATS_STREAM
             : result->connected ? STATS_BROKEN
                                 : STATS_REFUSED,
             text);
    }
}

/* A leg's worker answered an error status. */
static void leg_erred(struct session *s, struct leg *leg)
{
    if (leg->status >= 500)
        worker_failed(leg->worker);
    else
        worker_answered(leg->worker);
    bool again = leg->status == 502 || leg->status == 503;
    leg->avoid = leg->worker;
    if (again && try_again(s)) return;
    if (leg == &s->decode && leg->status >= 500 && s->prefill.call && !again &&
        s->d->options->verdict_ms) {
        s->waiting = VERDICT;
        loop_timer_set(s->timer, (uint64_t)s->d->options->verdict_ms, 0);
        return;
    }
    pass_error(s, leg);
}

/* --- relaying ------------------------------------------------------------ */

static void begin(struct session *s)
{
    s->streaming = true;
    if (s->begun) return;
    struct http_header list[HEADERS_MAX];
    const char *type = leg_headers(&s->decode, list);
    s->begun = true;
    http_stream_begin(s->request, s->decode.status, type, list);
}

static void relay(void *arg, const char *bytes, size_t n)
{
    struct session *s = arg;
    if (!n) return;
    if (!s->relayed)
        stats_observe(&s->d->stats->first_byte, clock_us() - s->start_us);
    s->relayed = true;
    begin(s);
    size_t tail = 0;
    while (tail < 2 && tail < n && bytes[n - 1 - tail] == '\n')
        tail++;
    s->line_tail = tail;
    http_stream_send(s->request, bytes, n); /* on_close tells of failures */
}

/* The prompt's part for an event: of the same index, else the first. */
static const struct part *part_of(const struct session *s, int64_t index)
{
    for (const struct part *p = s->parts; p; p = p->next)
        if (p->index == index || !p->next) return p;
    return NULL;
}

static void relay_merged(void *arg, const char *data, size_t n)
{
    struct session *s = arg;
    struct skim event;
    const struct part *part = NULL;
    if (skim_check(&event, data, n, NULL) == 0)
        part = part_of(s, skim_int(skim_member(event, "index"), 0));
    struct buf merged, out;
    buf_init(&merged, EVENT_MAX);
    buf_init(&out, 2 * (size_t)EVENT_MAX);
    if (part)
        body_merge(part->text, part->n, data, n, &merged);
    else
        buf_add(&merged, data, n);
    sse_add(&out, merged.data ? merged.data : "", merged.len);
    relay(s, out.data, out.len);
    buf_fini(&merged);
    buf_fini(&out);
}

static void keep_part(void *arg, const char *data, size_t n)
{
    struct session *s = arg;
    struct skim event;
    if (skim_check(&event, data, n, NULL) || skim_kind(event) != '{') return;
    int64_t index = skim_int(skim_member(event, "index"), 0);
    for (struct part *p = s->parts; p; p = p->next)
        if (p->index == index) return; /* the first has the prompt's */
    struct part *part = mem_must(1, sizeof *part);
    *part = (struct part){s->parts, index, n, mem_dup_n(data, n)};
    s->parts = part;
}

/* Decode's answer is complete and nothing is missing for it. */
static void finish(struct session *s)
{
    if (s->stream) {
        relay(s, s->watch.held.data, s->watch.held.len);
        begin(s); /* an empty stream */
        http_stream_end(s->request);
        answered(s, 200);
        return;
    }
    struct http_header list[HEADERS_MAX];
    const char *type = leg_headers(&s->decode, list);
    const struct buf *body = &s->decode.body;
    struct buf merged;
    buf_init(&merged, SIZE_MAX / 2);
    if (s->merge) {
        body_merge(s->prefill.body.data ? s->prefill.body.data : "",
                   s->prefill.body.len, body->data ? body->data : "", body->len,
                   &merged);
        body = &merged;
    }
    http_reply(s->request, s->decode.status, type ? type : "application/json",
               list, body->data ? body->data : "", body->len);
    buf_fini(&merged);
    answered(s, s->decode.status);
}

/* Looks at what both legs have and does what is due. */
static void advance(struct session *s)
{
    if (!s->request) { /* lingering prefill is done */
        session_free(s);
        return;
    }
    if (s->stream && is_good(s->decode.status) && s->prefill.good) {
        if (s->merge && s->decode.body.len) {
            int rc = sse_feed(&s->events, s->decode.body.data,
                              s->decode.body.len, relay_merged, s);
            buf_reset(&s->decode.body);
            if (rc) {
                fail(s, 502, STATS_STREAM, "decode server: an event too long");
                return;
            }
        }
        begin(s);
    }
    if (s->decode.good && (!s->merge || s->prefill.good)) finish(s);
}

/* --- what the legs report ------------------------------------------------ */

/* Does decode mark what it sends? False: it would begin from the beginning
 * what the client has in part, and the session is over. */
static bool note_watch(struct session *s, const struct http_call *call)
{
    const char *rid = http_call_header(call, RESUME_HEADER);
    if (!is_good(s->decode.status)) return true;
    s->watch.on = s->watched && rid;
    if (s->watch.on && !s->body.rid && !*s->rid && strlen(rid) < sizeof s->rid)
        strcpy(s->rid, rid);
    if (s->watch.on || !s->begun) {
        s->watched = s->watch.on;
        return true;
    }
    fail(s, 502, STATS_STREAM,
         "the decode server that was to go on with the stream cannot");
    return false;
}

static void leg_headers_came(void *arg, struct http_call *call, int status)
{
    struct leg *leg = arg;
    leg->status = status;
    worker_heard(leg->worker);
    note_headers(leg, call);
    /* A failing prefill's message is still to come; decode waits in vain. */
    if (leg == &leg->session->prefill && !is_good(status) &&
        !leg->session->streaming)
        leg_cancel(&leg->session->decode);
    if (leg == &leg->session->decode && note_watch(leg->session, call))
        advance(leg->session);
}

static void decode_data(void *arg, struct http_call *call, const void *bytes,
                        size_t n)
{
    (void)call;
    struct leg *leg = arg;
    struct session *s = leg->session;
    worker_heard(leg->worker);
    if (s->stream && !s->merge && is_good(leg->status)) {
        if (!s->watch.on)
            relay(s, bytes, n);
        else if (watch_feed(&s->watch, bytes, n, relay, s))
            fail(s, 502, STATS_STREAM,
                 "decode server: an event too long, or not as agreed");
        return;
    }
    buf_add(&leg->body, bytes, n);
    if (leg->body.failed) {
        worker_failed(leg->worker);
        fail(s, 502, STATS_BROKEN, "decode server: an answer too long");
    } else if (s->merge) {
        advance(s);
    }
}

static void prefill_data(void *arg, struct http_call *call, const void *bytes,
                         size_t n)
{
    (void)call;
    struct leg *leg = arg;
    worker_heard(leg->worker);
    if (leg->session->request) buf_add(&leg->body, bytes, n);
}

static void decode_done(void *arg, struct http_call *call,
                        const struct http_result *result)
{
    (void)call;
    struct leg *leg = arg;
    struct session *s = leg->session;
    leg_over(leg);
    char text[256];
    struct http_result lost = {.rc = ERR_PEER, .connected = true, .text = text};
    if (result->rc) {
        leg_broke(s, leg, result);
    } else if (!is_good(leg->status)) {
        leg_erred(s, leg);
    } else if (s->watch.on && watch_lost(&s->watch, text, sizeof text)) {
        leg_broke(s, leg, &lost);
    } else {
        worker_answered(leg->worker);
        leg->good = true;
        advance(s);
    }
}

/* In a stream a worker may also report a failure as an event, under a 200. */
static void find_error(void *arg, const char *data, size_t n)
{
    struct leg *leg = arg;
    struct skim event, error;
    if (is_good(leg->status) && skim_check(&event, data, n, NULL) == 0 &&
        skim_kind(error = skim_member(event, "error")) == '{') {
        int64_t code = skim_int(skim_member(error, "code"), 500);
        leg->status = code >= 400 && code < 600 ? (int)code : 500;
        buf_reset(&leg->headers);
        buf_reset(&leg->body);
        buf_add(&leg->body, data, n);
    }
}

static void read_prefill_events(struct session *s)
{
    struct sse_parser p;
    struct buf stream = s->prefill.body; /* find_error may replace it */
    buf_init(&s->prefill.body, PREFILL_BODY_MAX);
    sse_init(&p, EVENT_MAX);
    sse_feed(&p, stream.data ? stream.data : "", stream.len, find_error,
             &s->prefill);
    sse_fini(&p);
    if (s->merge && is_good(s->prefill.status))
        sse_feed(&s->prefill_events, stream.data ? stream.data : "", stream.len,
                 keep_part, s);
    buf_fini(&stream);
}

static void prefill_done(void *arg, struct http_call *call,
                         const struct http_result *result)
{
    (void)call;
    struct leg *leg = arg;
    struct session *s = leg->session;
    leg_over(leg);
    if (!s->request) {
        advance(s);
        return;
    }
    if (!result->rc && s->stream && !s->streaming && is_good(leg->status))
        read_prefill_events(s);
    if (s->waiting == VERDICT &&
        (result->rc || is_good(leg->status))) { /* it knows no better */
        pass_error(s, &s->decode);
    } else if (result->rc) {
        leg_broke(s, leg, result);
    } else if (!is_good(leg->status)) {
        if (!s->streaming) leg_erred(s, leg);
    } else {
        worker_answered(leg->worker);
        leg->good = true;
        advance(s);
    }
}

void dispatch_hung(struct dispatch *d, struct worker *worker)
{
    const struct http_result hung = {.rc = ERR_TIMEOUT,
                                     .text = "is there but does not answer"};
    for (struct session *s = d->sessions, *next; s; s = next) {
        next = s->next;
        struct leg *leg = s->decode.worker == worker ? &s->decode : &s->prefill;
        if (leg->worker != worker || !leg->call) continue;
        leg_cancel(leg);
        if (!s->request)
            session_free(s); /* a prefill that lingered */
        else if (s->waiting == VERDICT)
            pass_error(s, &s->decode);
        else
            leg_broke(s, leg, &hung);
    }
}

/* --- starting ------------------------------------------------------------ */

static int leg_start(struct leg *leg, struct worker *worker, const char *path,
                     const struct http_header *headers)
{
    struct session *s = leg->session;
    bool prefill = leg == &s->prefill;
    char url[2048];
    snprintf(url, sizeof url, "%s%s", worker->url, path);
    worker_take(worker);
    worker_drop(leg->worker);
    leg->worker = worker;
    leg_reset(leg);
    struct http_call_options o = {
        .method = "POST",
        .url = url,
        .headers = headers,
        .body = s->sent.data,
        .body_bytes = s->sent.len,
        .total_ms = (uint64_t)s->d->options->request_timeout_secs * 1000,
        .on_headers = leg_headers_came,
        .on_data = prefill ? prefill_data : decode_data,
        .on_done = prefill ? prefill_done : decode_done,
        .arg = leg,
    };
    int rc = http_call(s->d->client, &o, &leg->call);
    if (rc) return rc;
    worker_began(worker);
    return 0;
}

static void headers_of(struct session *s, struct http_header *list)
{
    size_t n = 0;
    headers_up(s->request, list, HEADERS_MAX - 1);
    while (list[n].name)
        n++;
    if (!s->watched) return;
    list[n++] = (struct http_header){RESUME_HEADER, s->created};
    list[n] = (struct http_header){NULL, NULL};
}

static void start_attempt(struct session *s)
{
    struct dispatch *d = s->d;
    struct worker *p = pool_pick(d->prefill, s->prefill.avoid, &s->prefix);
    struct worker *c = pool_pick(d->decode, s->decode.avoid, &s->prefix);
    s->attempt++;
    s->prefill.avoid = s->decode.avoid = NULL;
    if (!p || !c) {
        const char *role = p ? "decode" : "prefill";
        size_t count = pool_size(p ? d->decode : d->prefill);
        char text[160];
        snprintf(text, sizeof text,
                 count ? "No available servers: all %zu %s servers are "
                         "unhealthy"
                       : "No available servers: %zu %s servers are known",
                 count, role);
        fail(s, 503, STATS_NO_WORKER, text);
        return;
    }
    buf_reset(&s->sent);
    watch_restart(&s->watch);
    s->streaming = false;
    struct http_header headers[HEADERS_MAX];
    headers_of(s, headers);
    const struct body_resume resume = {s->rid, &s->watch.ids};
    const char *path = http_request_path(s->request);
    if (body_build(&s->body, p->bootstrap_host, p->bootstrap_port,
                   s->watch.ids.len ? &resume : NULL, &s->sent) ||
        leg_start(&s->prefill, p, path, headers) ||
        leg_start(&s->decode, c, path, headers))
        fail(s, 500, STATS_BROKEN, "out of memory");
}

static void timer_fired(void *arg)
{
    struct session *s = arg;
    enum waiting waiting = s->waiting;
    s->waiting = NOTHING;
    switch (waiting) {
    case RETRY: start_attempt(s); break;
    case VERDICT: pass_error(s, &s->decode); break;
    case LINGER: session_free(s); break;
    case NOTHING: break;
    }
}

static void refuse(struct dispatch *d, struct http_request *request, int status,
                   enum stats_error kind, const char *text)
{
    d->stats->errors[kind]++;
    d->stats->answers[status / 100]++;
    http_reply_error(request, status, "%s", text);
}

void dispatch_start(struct dispatch *d, struct http_request *request,
                    bool native)
{
    int64_t limit = d->options->max_concurrent_requests;
    size_t n;
    const char *text = http_request_body(request, &n);
    struct body body;
    struct why why = {0};
    d->stats->requests++;
    if (limit >= 0 && d->stats->running >= (size_t)limit) {
        refuse(d, request, 429, STATS_OVERLOADED,
               "too many requests at once; try again");
        return;
    }
    if (body_parse(&body, text, n, native, &why)) {
        refuse(d, request, 400, STATS_BAD_REQUEST, why.text);
        return;
    }
    struct session *s = mem_must(1, sizeof *s);
    s->d = d;
    s->request = request;
    s->body = body;
    if (pool_wants_prefix(d->prefill) || pool_wants_prefix(d->decode))
        prefix_init(&s->prefix, body.prompt.at, body.prompt.n);
    s->stream = body.stream;
    s->merge = native && body.logprobs;
    s->watched = s->stream && !body.batch && !body.logprobs &&
                 !d->options->disable_retries;
    snprintf(s->created, sizeof s->created, "%" PRIu64, (uint64_t)clock_unix());
    s->start_us = clock_us();
    s->timer = loop_timer_create(d->loop, timer_fired, s);
    s->prefill.session = s->decode.session = s;
    size_t answer_max = (size_t)d->options->max_payload_size;
    buf_init(&s->sent, 2 * (size_t)d->options->max_payload_size);
    watch_init(&s->watch, EVENT_MAX);
    buf_init(&s->prefill.headers, 64 << 10);
    buf_init(&s->prefill.body, s->merge ? answer_max : PREFILL_BODY_MAX);
    buf_init(&s->decode.headers, 64 << 10);
    buf_init(&s->decode.body, answer_max);
    sse_init(&s->events, EVENT_MAX);
    sse_init(&s->prefill_events, EVENT_MAX);
    s->next = d->sessions;
    if (s->next) s->next->prev = s;
    d->sessions = s;
    d->stats->running++;
    http_on_close(request, client_left, s);
    start_attempt(s);
}

void dispatch_close(struct dispatch *d)
{
    for (struct session *s; (s = d->sessions);) {
        if (s->request) http_drop(s->request);
        session_free(s);
    }
}
