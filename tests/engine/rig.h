/* tests/engine/rig.h - an engine over the toy or a real model, what its events
 * said, and two of them as a pair. */
#ifndef BATON_TESTS_ENGINE_RIG_H
#define BATON_TESTS_ENGINE_RIG_H

#include "tests/engine/toy.h"

#include "base/buf.h"

#include <poll.h>

enum { RIG_REQUESTS = 256, RIG_WAIT_MS = 60000 };

/* All that was seen of one request; ids are 1 .. RIG_REQUESTS - 1. */
struct seen {
    int32_t tokens[512];
    float logprobs[512];
    uint32_t count;
    struct buf text;
    bool reserved, done, last_chunk;
    kv_page pages[512];
    uint32_t page_count;
    uint32_t kept;      /* tokens whose KV was there when RESERVED */
    uint32_t kv_tokens; /* of the last CHUNK */
    struct finish finish;
    char note[128]; /* stop text or message */
    uint32_t cached, retractions, output;
    uint32_t inputs;
    float input_logprobs[512];
};

struct rig {
    struct toy *toy; /* NULL over a model */
    struct engine_runner runner;
    struct kv_pool *pool;
    void *slab;
    struct engine *engine;
    struct seen seen[RIG_REQUESTS];
    uint32_t done; /* DONE events */
    uint32_t flushed;
    int flush_status;
};

struct rig_options {
    struct engine_options engine; /* pool, and runner without a model, are
                                   * filled in */
    enum dtype kv;                /* with a model */
    uint32_t page_tokens, pages;  /* pages: usable ones */
    bool (*may_grow)(void *arg, size_t bytes);
    void *arg;
    int packs; /* the toy's */
};

/* Defaults that most tests start from. */
static inline struct rig_options rig_defaults(void)
{
    return (struct rig_options){
        .engine = {.max_running = 8,
                   .chunk_tokens = 16,
                   .logit_rows = 24,
                   .context = 400,
                   .reserved_decode_tokens = 8,
                   .prefix_cache = true},
        .page_tokens = 4,
        .pages = 512,
    };
}

static inline void rig_init(struct rig *rig, const struct rig_options *o)
{
    memset(rig, 0, sizeof *rig);
    struct kv_shape shape = toy_shape;
    if (o->engine.model) {
        const struct model_config *c = model_config(o->engine.model);
        shape = (struct kv_shape){.layers = c->layers,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .type = o->kv};
    }
    shape.page_tokens = o->page_tokens;
    rig->slab = mem_must(kv_shape_slab_bytes(&shape, o->pages + 1), 1);
    struct kv_pool_options po = {shape, o->pages + 1, rig->slab, o->may_grow,
                                 o->arg};
    assert_int_equal(kv_pool_create(&rig->pool, &po, NULL), 0);
    struct engine_options eo = o->engine;
    eo.pool = rig->pool;
    if (!eo.model) {
        rig->toy = toy_create(eo.chunk_tokens + eo.max_running,
                              eo.logit_rows ? eo.logit_rows : eo.max_running);
        rig->toy->packs = o->packs;
        rig->runner = (struct engine_runner){.arg = rig->toy,
                                             .forward = toy_forward,
                                             .pack = toy_pack,
                                             .config = &rig->toy->config};
        eo.runner = &rig->runner;
    }
    struct why why = {0};
    if (engine_create(&rig->engine, &eo, &why)) fail_msg("%s", why.text);
    for (int i = 0; i < RIG_REQUESTS; i++)
        buf_init(&rig->seen[i].text, 1 << 16);
}

/* Nothing may be left behind: every page is free again. */
static inline void rig_fini(struct rig *rig)
{
    engine_destroy(rig->engine);
    assert_false(rig->toy && rig->toy->broken);
    assert_int_equal(kv_pool_free_count(rig->pool),
                     kv_pool_page_count(rig->pool) - 1);
    for (int i = 0; i < RIG_REQUESTS; i++)
        buf_fini(&rig->seen[i].text);
    kv_pool_destroy(rig->pool);
    if (rig->toy) toy_destroy(rig->toy);
    mem_free(rig->slab);
}

static inline void rig_forget(struct rig *rig)
{
    for (int i = 0; i < RIG_REQUESTS; i++) {
        buf_fini(&rig->seen[i].text);
        memset(&rig->seen[i], 0, sizeof rig->seen[i]);
        buf_init(&rig->seen[i].text, 1 << 16);
    }
    rig->done = 0;
}

static inline void rig_note_token(struct seen *s, const struct engine_event *e)
{
    assert_true(s->count < 512);
    s->logprobs[s->count] = e->has_logprob ? e->logprob.logprob : 0;
    s->tokens[s->count++] = e->token;
    for (uint32_t i = 0; i < e->input_logprob_count; i++)
        s->input_logprobs[i] = e->input_logprobs[i].logprob;
    if (e->input_logprob_count) s->inputs = e->input_logprob_count;
}

static inline void rig_note(struct rig *rig, const struct engine_event *e)
{
    if (e->kind == EVENT_FLUSHED) {
        rig->flushed++;
        rig->flush_status = e->status;
        return;
    }
    assert_in_range(e->id, 1, RIG_REQUESTS - 1);
    struct seen *s = &rig->seen[e->id];
    assert_false(s->done); /* DONE is the last */
    assert_true(e->event_us >= e->queued_us);
    if (e->page_count) {
        assert_true(e->page_count <= 512);
        memcpy(s->pages, e->pages, e->page_count * sizeof *s->pages);
        s->page_count = e->page_count;
    }
    s->cached = e->cached_tokens;
    s->retractions = e->retractions;
    s->output = e->output_tokens;
    buf_add(&s->text, e->text, e->text_len);
    switch (e->kind) {
    case EVENT_RESUMED:
        assert_int_equal(e->output_tokens, s->count);
        for (uint32_t i = 1; i < s->count; i++)
            assert_true(e->text_ends[i - 1] <= e->text_ends[i]);
        assert_int_equal(e->text_ends[s->count - 1], e->text_len);
        break;
    case EVENT_RESERVED:
        assert_false(s->reserved);
        s->reserved = true;
        s->kept = e->cached_tokens;
        assert_int_equal(s->kept % kv_pool_shape(rig->pool)->page_tokens, 0);
        break;
    case EVENT_CHUNK:
        assert_false(s->last_chunk);
        assert_true(e->tokens > s->kv_tokens);
        s->kv_tokens = e->tokens;
        s->last_chunk = e->last;
        if (e->last) rig_note_token(s, e);
        break;
    case EVENT_TOKEN:
        rig_note_token(s, e);
        assert_int_equal(e->output_tokens, s->count);
        break;
    default:
        s->done = true;
        s->finish = e->finish;
        const char *note = e->finish.kind == FINISH_STOP_TEXT
                               ? e->finish.stop_text
                               : e->finish.message;
        snprintf(s->note, sizeof s->note, "%s", note ? note : "");
        if (e->input_logprob_count) {
            s->inputs = e->input_logprob_count;
            for (uint32_t i = 0; i < s->inputs; i++)
                s->input_logprobs[i] = e->input_logprobs[i].logprob;
        }
        rig->done++;
    }
}

/* The next event, the caller's to free. */
static inline struct engine_event *rig_take(struct rig *rig)
{
    struct engine_event *e =
        inbox_wait(engine_events(rig->engine), RIG_WAIT_MS);
    if (!e) e = inbox_take(engine_events(rig->engine));
    if (!e) fail_msg("no event came");
    return e;
}

/* The next event, noted; its kind stays readable until the next call. */
static inline struct engine_event rig_next(struct rig *rig)
{
    struct engine_event *e = rig_take(rig);
    rig_note(rig, e);
    struct engine_event copy = *e;
    engine_event_free(rig->engine, e);
    return copy;
}

static inline void rig_until_done(struct rig *rig, uint32_t done)
{
    while (rig->done < done)
        rig_next(rig);
}

/* Between these no step of the toy begins (one may be under way): what is
 * submitted runs together, however slow the test's thread is. */
static inline void rig_hold(struct rig *rig)
{
    pthread_mutex_lock(&rig->toy->turn);
}

static inline void rig_go(struct rig *rig)
{
    pthread_mutex_unlock(&rig->toy->turn);
}

static inline void rig_submit(struct rig *rig, uint64_t id,
                              const struct request_spec *spec)
{
    struct why why = {0};
    if (engine_submit(rig->engine, id, spec, &why)) fail_msg("%s", why.text);
}

/* Waits for the engine to have no request: a flush answers after all that
 * was said before it. */
static inline int rig_flush(struct rig *rig)
{
    uint32_t before = rig->flushed;
    engine_flush(rig->engine, 1);
    while (rig->flushed == before)
        rig_next(rig);
    return rig->flush_status;
}

/* A request with a prompt of its own. */
struct asked {
    struct request_spec spec;
    int32_t prompt[320], stop_ids[2], bias_ids[2];
    float bias[2];
};

/* Prompts share prefixes often; sampling uses every option now and then. */
static inline void asked_random(struct asked *a, uint32_t longest,
                                uint32_t most_new, uint64_t *seed)
{
    memset(a, 0, sizeof *a);
    uint64_t family = rng_next(seed) % 3, own = rng_next(seed);
    a->spec.token_count = 1 + (uint32_t)(rng_next(seed) % longest);
    uint32_t common = (uint32_t)(rng_next(seed) % longest);
    for (uint32_t i = 0; i < a->spec.token_count; i++)
        a->prompt[i] = (int32_t)(hash_u64(i < common ? family : own + i) % 256);
    struct sampling *p = &a->spec.sampling;
    sampling_init(p);
    p->max_new_tokens = 1 + (uint32_t)(rng_next(seed) % most_new);
    p->ignore_eos = rng_next(seed) % 2;
    p->seeded = true;
    p->seed = rng_next(seed);
    if (rng_next(seed) % 2) p->temperature = 0;
    if (rng_next(seed) % 3 == 0) p->top_k = 5;
    if (rng_next(seed) % 3 == 0) p->top_p = 0.8f;
    if (rng_next(seed) % 4 == 0) p->min_p = 0.05f;
    if (rng_next(seed) % 4 == 0) p->repetition_penalty = 1.3f;
    if (rng_next(seed) % 4 == 0) p->frequency_penalty = 0.3f;
    if (rng_next(seed) % 4 == 0) p->presence_penalty = -0.4f;
    if (rng_next(seed) % 4 == 0) p->min_new_tokens = p->max_new_tokens / 2;
    if (rng_next(seed) % 4 == 0) {
        a->stop_ids[0] = 'c';
        p->stop_ids = a->stop_ids;
        p->stop_id_count = 1;
    }
    if (rng_next(seed) % 4 == 0) {
        a->bias_ids[0] = 'z';
        a->bias[0] = 7;
        p->bias_ids = a->bias_ids;
        p->bias_values = a->bias;
        p->bias_count = 1;
    }
    a->spec.tokens = a->prompt;
    a->spec.logprob_start = -1;
    a->spec.cache_key = rng_next(seed) % 8 == 0;
}

/* What asked_check expects comes from the toy alone. */
static inline void asked_check(const struct asked *a, const struct seen *s)
{
    int32_t want[512];
    enum finish_kind finish;
    uint32_t n = toy_expect(&a->spec, want, &finish);
    assert_true(s->done);
    assert_int_equal(s->count, n);
    assert_memory_equal(s->tokens, want, n * sizeof *want);
    assert_int_equal(s->finish.kind, finish);
    if (finish == FINISH_STOP_TOKEN)
        assert_int_equal(s->finish.stop_token, want[n - 1]);
    assert_int_equal(s->output, n);
}

/* A pair: KV crosses between two engines as bytes of pages, whose sizes may
 * differ. */

/* Tokens first .. e->tokens - 1 of the chunk, into decode's reserved pages,
 * but for what decode had. */
static inline void pair_copy(struct rig *prefill, struct rig *decode,
                             const struct engine_event *e, uint32_t first)
{
    const struct seen *to = &decode->seen[e->id];
    if (first < to->kept) first = to->kept;
    const struct kv_shape *p = kv_pool_shape(prefill->pool);
    const struct kv_shape *d = kv_pool_shape(decode->pool);
    size_t bytes = kv_shape_page_bytes(p) / p->page_tokens;
    for (uint32_t b = 0; b < kv_pool_buffer_count(prefill->pool); b++) {
        const char *src = kv_pool_buffer(prefill->pool, b);
        char *dst = kv_pool_buffer(decode->pool, b);
        for (uint32_t at = first; at < e->tokens; at++) {
            size_t from =
                (size_t)e->pages[at / p->page_tokens] * p->page_tokens +
                at % p->page_tokens;
            size_t into =
                (size_t)to->pages[at / d->page_tokens] * d->page_tokens +
                at % d->page_tokens;
            memcpy(dst + into * bytes, src + from * bytes, bytes);
        }
    }
}

/* Decode reserved: prefill begins. A chunk came: its KV crosses; with the
 * last one prefill's pages are released and decode goes on. */
static inline void pair_pump(struct rig *prefill, struct rig *decode,
                             const struct asked *all)
{
    for (struct engine_event *e;
         (e = inbox_take(engine_events(decode->engine)));) {
        rig_note(decode, e);
        if (e->kind == EVENT_RESERVED) {
            struct request_spec spec = all[e->id].spec;
            assert_true(e->page_count *
                            kv_pool_shape(decode->pool)->page_tokens >=
                        spec.token_count);
            spec.role = ROLE_PREFILL;
            rig_submit(prefill, e->id, &spec);
        }
        engine_event_free(decode->engine, e);
    }
    for (struct engine_event *e;
         (e = inbox_take(engine_events(prefill->engine)));) {
        if (e->kind == EVENT_CHUNK)
            pair_copy(prefill, decode, e, prefill->seen[e->id].kv_tokens);
        rig_note(prefill, e);
        if (e->kind == EVENT_CHUNK && e->last) {
            engine_release(prefill->engine, e->id);
            engine_admit(decode->engine, e->id, e);
        }
        engine_event_free(prefill->engine, e);
    }
}

/* Until both sides are done with so many. */
static inline void pair_run(struct rig *prefill, struct rig *decode,
                            const struct asked *all, uint32_t done)
{
    struct pollfd fds[2] = {
        {.fd = inbox_fd(engine_events(prefill->engine)), .events = POLLIN},
        {.fd = inbox_fd(engine_events(decode->engine)), .events = POLLIN}};
    while (decode->done < done || prefill->done < done) {
        assert_true(poll(fds, 2, RIG_WAIT_MS) > 0);
        pair_pump(prefill, decode, all);
    }
}

#endif
