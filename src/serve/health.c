#include "serve/health.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/internal.h"

#include <string.h>

/* SGLang's FAKE_BOOTSTRAP_HOST: the node plays the peer itself. */
static const char fake_host[] = "2.2.2.2";

struct waiter {
    struct waiter *next;
    struct health *health;
    struct http_request *request;
};

struct health {
    struct serve *serve;
    struct loop_timer *timeout;
    struct waiter *waiters;
    uint64_t probe; /* the node's id of the probe under way, or 0 */
    bool probing;   /* its DONE is to come */
    void (*warm)(void *arg, int rc);
    void *warm_arg;
};

/* --- those who wait for an answer --- */

static void answer_all(struct health *health, int status)
{
    loop_timer_unset(health->timeout);
    while (health->waiters) {
        struct waiter *w = health->waiters;
        health->waiters = w->next;
        http_reply(w->request, status, NULL, NULL, "", 0);
        mem_free(w);
    }
}

static void waiter_left(void *arg, struct http_request *request, int rc)
{
    (void)rc;
    struct waiter *gone = arg;
    struct waiter **at = &gone->health->waiters;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    http_drop(request);
    mem_free(gone);
}

static void wait_for_event(struct health *health, struct http_request *request)
{
    struct waiter *w = mem_must(1, sizeof *w);
    w->health = health;
    w->request = request;
    w->next = health->waiters;
    health->waiters = w;
    http_on_close(request, waiter_left, w);
}

void health_note_event(struct health *health)
{
    if (health->waiters) answer_all(health, 200);
}

static void timed_out(void *arg)
{
    struct health *health = arg;
    log_error("serve", "health check: no sign of the engine for %u ms",
              health->serve->opt.health_timeout_ms);
    answer_all(health, 503);
    if (health->probing)
        pd_node_abort(health->serve->opt.node, health->probe, 0,
                      "Health check timed out.");
}

/* --- the probe --- */

static void probe_event(void *arg, const struct engine_event *event)
{
    struct health *health = arg;
    bool failed = event->kind == EVENT_DONE &&
                  event->finish.kind == FINISH_ABORT &&
                  event->finish.status >= 500;
    if (failed) {
        log_error("serve", "health check: %s",
                  event->finish.message ? event->finish.message : "aborted");
        answer_all(health, 503);
    } else {
        health_note_event(health);
    }
    if (event->kind == EVENT_DONE) health->probing = false;
}

static int submit(struct health *health, uint32_t tokens, uint32_t new_tokens,
                  void (*on_event)(void *, const struct engine_event *),
                  struct why *why)
{
    static const int32_t ids[] = {0, 1, 2, 3};
    struct request_spec spec = {.tokens = ids,
                                .token_count = tokens,
                                .logprob_start = -1,
                                .cache_key = UINT64_MAX};
    sampling_init(&spec.sampling);
    spec.sampling.temperature = 0;
    spec.sampling.max_new_tokens = new_tokens;
    spec.sampling.ignore_eos = true;
    struct pd_meeting meeting = {0};
    if (health->serve->env.mode != PD_NULL) {
        meeting.host = fake_host;
        meeting.has_room = true;
    }
    health->probing = true;
    int rc = pd_node_submit(health->serve->opt.node, &spec, &meeting, on_event,
                            health, &health->probe, why);
    if (rc) health->probing = false;
    return rc;
}

static void probe(struct health *health, struct http_request *request)
{
    bool first = !health->waiters;
    wait_for_event(health, request);
    if (first)
        loop_timer_set(health->timeout, health->serve->opt.health_timeout_ms,
                       0);
    if (health->probing) return;
    struct why why = {0};
    int rc = submit(health, 1, 1, probe_event, &why);
    /* Full is busy: others' events will tell that it lives. */
    if (!rc || rc == ERR_AGAIN) return;
    log_error("serve", "health check: %s", why_text(&why, rc));
    answer_all(health, 503);
}

void health_generate_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    if (!serve->ready || serve->draining)
        http_reply(request, 503, NULL, NULL, "", 0);
    else
        probe(serve->health, request);
}

void health_handle(void *arg, struct http_request *request)
{
    struct serve *serve = arg;
    if (serve->ready && !serve->draining && serve->opt.plain_health)
        http_reply(request, 200, NULL, NULL, "", 0);
    else
        health_generate_handle(serve, request);
}

/* --- warm-up --- */

static void warmed(struct health *health, int rc)
{
    if (!rc) {
        serve_set_ready(health->serve);
        log_info("serve", "The server is fired up and ready to roll!");
    }
    if (health->warm) health->warm(health->warm_arg, rc);
}

static void warm_event(void *arg, const struct engine_event *event)
{
    struct health *health = arg;
    if (event->kind != EVENT_DONE) return;
    health->probing = false;
    if (event->finish.kind == FINISH_ABORT) {
        log_error("serve", "warm-up failed: %s",
                  event->finish.message ? event->finish.message : "aborted");
        warmed(health, ERR_IO);
    } else {
        warmed(health, 0);
    }
}

void serve_warm_up(struct serve *serve, void (*done)(void *arg, int rc),
                   void *arg)
{
    struct health *health = serve->health;
    health->warm = done;
    health->warm_arg = arg;
    struct why why = {0};
    uint32_t tokens = serve->env.vocab < 4 ? serve->env.vocab : 4;
    int rc = submit(health, tokens, 8, warm_event, &why);
    if (!rc) return;
    log_error("serve", "warm-up failed: %s", why_text(&why, rc));
    warmed(health, ERR_IO);
}

struct health *health_create(struct serve *serve)
{
    struct health *health = mem_must(1, sizeof *health);
    health->serve = serve;
    health->timeout = loop_timer_create(serve->opt.loop, timed_out, health);
    return health;
}

void health_destroy(struct health *health)
{
    if (!health) return;
    loop_timer_destroy(health->timeout);
    mem_free(health);
}
