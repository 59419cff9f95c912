/* tests/pd/pair.h - servers over the toy model, and the legs of requests.
 *
 * A side is one server: transfer engine, pool, toy, engine, node. A leg is one
 * HTTP leg: what a node was asked and what it said. The toy notices any page
 * that is not what was written there (tests/engine/toy.h). */
#ifndef BATON_TESTS_PD_PAIR_H
#define BATON_TESTS_PD_PAIR_H

#include "tests/engine/toy.h"
#include "tests/pd/rig.h"
#include "tests/port.h"

#include "base/log.h"
#include "pd/node.h"
#include "xfer/xfer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <unistd.h>

struct side {
    struct rig *rig;
    struct xfer *xfer;
    struct xfer_mem *slab;
    struct kv_pool *pool;
    struct toy *toy;
    struct engine_runner runner;
    struct engine *engine;
    struct pd_node *node;
    uint16_t port; /* bootstrap */
};

struct side_options {
    struct pd_options pd; /* mode, times, max_requests */
    uint32_t page_tokens, pages, chunk_tokens, context;
    unsigned via; /* of its transfer engine; 0: all ways */
    bool prefix_cache;
    bool (*before)(struct toy *toy);
    struct model *model; /* instead of the toy; with it: */
    enum dtype kv;
};

static inline struct side_options side_defaults(enum pd_mode mode)
{
    return (struct side_options){.pd = {.mode = mode,
                                        .fingerprint = 7,
                                        .max_requests = 128,
                                        .retry_ms = 10},
                                 .page_tokens = 4,
                                 .pages = 2000,
                                 .chunk_tokens = 16,
                                 .context = 400};
}

static inline void side_open_pool(struct side *s, const struct side_options *o)
{
    struct why why = {0};
    struct kv_shape shape = toy_shape;
    if (o->model) {
        const struct model_config *c = model_config(o->model);
        shape = (struct kv_shape){.layers = c->layers,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .type = o->kv};
    }
    shape.page_tokens = o->page_tokens;
    const struct xfer_options xo = {.lanes = 1, .workers = 1, .via = o->via};
    if (xfer_open(&s->xfer, &xo, &why)) fail_msg("%s", why.text);
    if (xfer_alloc(s->xfer, kv_shape_slab_bytes(&shape, o->pages + 1), 0,
                   &s->slab, &why))
        fail_msg("%s", why.text);
    const struct kv_pool_options po = {.shape = shape,
                                       .page_count = o->pages + 1,
                                       .slab = xfer_mem_base(s->slab)};
    if (kv_pool_create(&s->pool, &po, &why)) fail_msg("%s", why.text);
}

static inline void side_open(struct side *s, struct rig *rig,
                             const struct side_options *o)
{
    struct why why = {0};
    memset(s, 0, sizeof *s);
    s->rig = rig;
    side_open_pool(s, o);
    s->toy = toy_create(o->chunk_tokens + 64, 64);
    s->toy->before = o->before;
    s->runner = (struct engine_runner){
        .arg = s->toy, .forward = toy_forward, .config = &s->toy->config};
    const struct engine_options eo = {.model = o->model,
                                      .runner = o->model ? NULL : &s->runner,
                                      .pool = s->pool,
                                      .max_running = 64,
                                      .logit_rows = 64,
                                      .chunk_tokens = o->chunk_tokens,
                                      .context = o->context,
                                      .reserved_decode_tokens = 8,
                                      .prefix_cache = o->prefix_cache};
    if (engine_create(&s->engine, &eo, &why)) fail_msg("%s", why.text);
    struct pd_options po = o->pd;
    po.loop = rig->loop;
    po.engine = s->engine;
    po.pool = s->pool;
    po.xfer = s->xfer;
    for (int tries = 0; tries < 8 && !s->node; tries++) {
        po.bootstrap_port = s->port = free_port();
        int rc = pd_node_open(&s->node, &po, &why);
        if (rc && tries == 7) fail_msg("%s", why.text);
    }
}

/* A node that has let go of everything leaves all pages free. */
static inline void side_close(struct side *s)
{
    pd_node_close(s->node);
    xfer_stop(s->xfer);
    engine_destroy(s->engine);
    assert_false(s->toy->broken);
    assert_int_equal(kv_pool_free_count(s->pool),
                     kv_pool_page_count(s->pool) - 1);
    kv_pool_destroy(s->pool);
    xfer_close(s->xfer);
    toy_destroy(s->toy);
}

enum { LEG_TOKENS = 256 };

struct leg {
    struct pd_node *node;
    uint64_t id;
    int32_t tokens[LEG_TOKENS];
    uint32_t count;
    float logprob; /* of the first token */
    uint32_t top_count;
    int32_t top_ids[8];
    uint32_t cached, prompt;
    bool done;
    enum finish_kind finish;
    int status;
    char message[600];
};

static inline void leg_event(void *arg, const struct engine_event *e)
{
    struct leg *leg = arg;
    if (leg->done || e->id != leg->id) abort(); /* DONE is the last */
    leg->cached = e->cached_tokens;
    leg->prompt = e->prompt_tokens;
    if (e->kind == EVENT_TOKEN) {
        if (leg->count == 0 && e->has_logprob) {
            leg->logprob = e->logprob.logprob;
            leg->top_count = e->logprob.top_count;
            for (uint32_t i = 0; i < leg->top_count && i < 8; i++)
                leg->top_ids[i] = e->logprob.top_ids[i];
        }
        if (leg->count == LEG_TOKENS) abort();
        leg->tokens[leg->count++] = e->token;
        return;
    }
    if (e->kind != EVENT_DONE) abort();
    leg->done = true;
    leg->finish = e->finish.kind;
    leg->status = e->finish.status;
    snprintf(leg->message, sizeof leg->message, "%s",
             e->finish.kind == FINISH_ABORT ? e->finish.message : "");
}

static inline int leg_try(struct leg *leg, struct side *side,
                          const struct request_spec *spec, uint16_t port,
                          uint64_t room, struct why *why)
{
    memset(leg, 0, sizeof *leg);
    leg->node = side->node;
    const struct pd_meeting meeting = {
        .host = "127.0.0.1", .port = port, .has_room = true, .room = room};
    return pd_node_submit(side->node, spec, &meeting, leg_event, leg, &leg->id,
                          why);
}

static inline void leg_start(struct leg *leg, struct side *side,
                             const struct request_spec *spec, uint16_t port,
                             uint64_t room)
{
    struct why why = {0};
    if (leg_try(leg, side, spec, port, room, &why)) fail_msg("%s", why.text);
}

static inline void leg_aborted(const struct leg *leg, int status,
                               const char *text)
{
    assert_true(leg->done);
    assert_int_equal(leg->finish, FINISH_ABORT);
    if (leg->status != status || !strstr(leg->message, text))
        fail_msg("HTTP %d \"%s\", wanted %d \"%s\"", leg->status, leg->message,
                 status, text);
}

/* A request, and what the model must answer. */
struct ask {
    int32_t prompt[512];
    struct request_spec spec;
    int32_t want[LEG_TOKENS];
    uint32_t want_count;
    enum finish_kind want_finish;
};

static inline void ask_init(struct ask *ask, uint32_t tokens,
                            uint32_t new_tokens, uint64_t seed)
{
    memset(ask, 0, sizeof *ask);
    for (uint32_t i = 0; i < tokens; i++)
        ask->prompt[i] = (int32_t)(rng_next(&seed) % 256);
    ask->spec = (struct request_spec){
        .tokens = ask->prompt, .token_count = tokens, .logprob_start = -1};
    sampling_init(&ask->spec.sampling);
    ask->spec.sampling.max_new_tokens = new_tokens;
    ask->spec.sampling.seeded = true;
    ask->spec.sampling.seed = seed;
    if (seed % 2) ask->spec.sampling.temperature = 0;
    ask->want_count = toy_expect(&ask->spec, ask->want, &ask->want_finish);
}

static inline void ask_answered(const struct ask *ask, const struct leg *leg)
{
    assert_true(leg->done);
    if (leg->finish == FINISH_ABORT) fail_msg("%s", leg->message);
    assert_int_equal(leg->finish, ask->want_finish);
    assert_int_equal(leg->count, ask->want_count);
    assert_memory_equal(leg->tokens, ask->want, leg->count * sizeof(int32_t));
    assert_int_equal(leg->prompt, ask->spec.token_count);
}

static inline struct pd_stats side_stats(const struct side *side)
{
    struct pd_stats stats;
    pd_node_stats(side->node, &stats);
    return stats;
}

static inline uint32_t side_rooms(const struct side *side)
{
    return side_stats(side).rooms;
}

static inline struct engine_stats side_engine(const struct side *side)
{
    struct engine_stats stats;
    engine_stats_get(side->engine, &stats);
    return stats;
}

/* A step that waits until it is let go, or its test has failed long ago:
 * computing stands still, the loop and the wires go on. */
struct brake {
    sem_t reached, go;
    bool on;
};
static struct brake brake;

static inline bool brake_before(struct toy *toy)
{
    (void)toy;
    if (!__atomic_load_n(&brake.on, __ATOMIC_ACQUIRE)) return true;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2 * RIG_WAIT_MS / 1000;
    sem_post(&brake.reached);
    while (sem_timedwait(&brake.go, &until) && errno == EINTR) {
    }
    return true;
}

static inline void brake_pull(void)
{
    sem_init(&brake.reached, 0, 0);
    sem_init(&brake.go, 0, 0);
    __atomic_store_n(&brake.on, true, __ATOMIC_RELEASE);
}

static inline void brake_release(void)
{
    __atomic_store_n(&brake.on, false, __ATOMIC_RELEASE);
    sem_post(&brake.go);
}

/* ---- a prefill and a decode in one process ---- */

struct pair {
    struct rig rig;
    struct side p, d;
};

/* What the next pair is opened with; pair_begin sets the defaults, a prefill
 * that heeds the brake among them. */
static struct side_options prefill_options, decode_options;

static inline void pair_begin(void)
{
    prefill_options = side_defaults(PD_PREFILL);
    decode_options = side_defaults(PD_DECODE);
    prefill_options.before = brake_before;
}

static inline void pair_open(struct pair *pair)
{
    log_init(LOG_ERROR, "test");
    rig_init(&pair->rig);
    side_open(&pair->p, &pair->rig, &prefill_options);
    side_open(&pair->d, &pair->rig, &decode_options);
}

/* Both sides have forgotten every room. */
static inline void quiet(struct pair *pair)
{
    UNTIL(&pair->rig, side_rooms(&pair->p) == 0 && side_rooms(&pair->d) == 0);
}

static inline void pair_close(struct pair *pair)
{
    side_close(&pair->d);
    side_close(&pair->p);
    rig_fini(&pair->rig);
}

static inline void both(struct pair *pair, const struct ask *ask, struct leg *p,
                        struct leg *d, uint64_t room)
{
    leg_start(p, &pair->p, &ask->spec, pair->p.port, room);
    leg_start(d, &pair->d, &ask->spec, pair->p.port, room);
}

#endif
