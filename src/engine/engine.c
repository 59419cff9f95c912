/* The owner's side of the engine. Its thread: engine/turn.c. */
#include "engine/core.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#include <assert.h>

static void share_model(void *arg, void (*fn)(void *, size_t, int),
                        void *fn_arg, size_t count)
{
    model_share(arg, fn, fn_arg, count);
}

static int run_model(void *arg, const struct batch *batch, struct kv_pool *pool,
                     const float **logits, struct why *why)
{
    return model_forward(arg, batch, pool, logits, why);
}

static bool pack_model(void *arg, bool behind_step)
{
    return model_pack(arg, behind_step);
}

static void add_end(struct engine *e, int32_t id)
{
    for (uint32_t i = 0; i < e->limits.end_count; i++)
        if (e->ends[i] == id) return;
    if (id >= 0 && e->limits.end_count < ENDS_MAX)
        e->ends[e->limits.end_count++] = id;
}

static void find_ends(struct engine *e)
{
    const struct model_config *config = e->runner.config;
    for (uint32_t i = 0; i < config->eos_count; i++)
        add_end(e, config->eos[i]);
    if (!e->options.tokenizer) return;
    add_end(e, tokenizer_eos(e->options.tokenizer));
    add_end(e, tokenizer_eot(e->options.tokenizer));
}

static int make_arrays(struct engine *e, struct why *why)
{
    struct arrays *a = &e->arrays;
    const struct engine_options *o = &e->options;
    size_t rows = (size_t)o->chunk_tokens + o->max_running;
    a->ids = mem_try(rows, sizeof *a->ids, 0);
    a->positions = mem_try(rows, sizeof *a->positions, 0);
    a->logit_rows = mem_try(o->logit_rows, sizeof *a->logit_rows, 0);
    a->seqs = mem_try(o->max_running, sizeof *a->seqs, 0);
    a->first_logit = mem_try(o->max_running, sizeof *a->first_logit, 0);
    a->picks = mem_try(o->max_running, sizeof *a->picks, 0);
    if (!a->ids || !a->positions || !a->logit_rows || !a->seqs ||
        !a->first_logit || !a->picks)
        return err_set(why, ERR_NOMEM, "engine: batch of %zu rows", rows);
    a->batch = (struct batch){
        .ids = a->ids,
        .positions = a->positions,
        .seqs = a->seqs,
        .logit_rows = a->logit_rows,
    };
    return 0;
}

static int build(struct engine *e, struct why *why)
{
    const struct engine_options *o = &e->options;
    size_t capacity = EVENTS_OUT + 4 * (size_t)o->max_running;
    int rc = events_create(&e->events, capacity, why);
    const struct picks_options po = {
        .vocab = e->limits.vocab,
        .rows = o->max_running,
        .workers = o->runner ? 1 : model_workers(o->model),
        .share = {o->runner ? NULL : share_model, o->model},
    };
    if (!rc) rc = picks_create(&e->picks, &po, why);
    if (!rc) rc = make_arrays(e, why);
    if (rc) return rc;
    struct schedule_options so = {
        .pool = o->pool,
        .prefix_cache = o->prefix_cache,
        .max_running = o->max_running,
        .chunk_tokens = o->chunk_tokens,
        .logit_rows = o->logit_rows,
        .reserved = o->reserved_decode_tokens,
    };
    return schedule_create(&e->schedule, &so, why);
}

static int check_options(const struct engine_options *o, struct why *why)
{
    if (!o->max_running || !o->chunk_tokens || !o->context)
        return err_set(why, ERR_INVALID,
                       "engine: max_running, chunk_tokens and context must "
                       "be at least 1");
    if (o->logit_rows && o->logit_rows < o->max_running)
        return err_set(why, ERR_INVALID,
                       "engine: %u logit rows for %u running sequences",
                       o->logit_rows, o->max_running);
    return 0;
}

int engine_create(struct engine **out, const struct engine_options *options,
                  struct why *why)
{
    *out = NULL;
    int rc = check_options(options, why);
    if (rc) return rc;
    struct engine *e = mem_must(1, sizeof *e);
    e->options = *options;
    if (!e->options.logit_rows) e->options.logit_rows = options->max_running;
    if (!e->options.reserved_decode_tokens)
        e->options.reserved_decode_tokens = 512;
    e->runner =
        options->runner
            ? *options->runner
            : (struct engine_runner){.arg = options->model,
                                     .forward = run_model,
                                     .pack = pack_model,
                                     .config = model_config(options->model)};
    uint32_t page_tokens = kv_pool_shape(options->pool)->page_tokens;
    uint32_t pages = kv_pool_page_count(options->pool) - 1;
    e->limits = (struct live_limits){
        .tokenizer = options->tokenizer,
        .vocab = e->runner.config->vocab,
        .context = options->context,
        .page_tokens = page_tokens,
        .pool_tokens = (uint64_t)pages * page_tokens,
        .ends = e->ends,
    };
    find_ends(e);
    e->gate = gate_create();
    e->stats.pages_total = e->stats.pages_free = pages;
    e->shown = e->stats;
    pthread_mutex_init(&e->shown_lock, NULL);
    rc = build(e, why);
    if (!rc) {
        rc = pthread_create(&e->thread, NULL, turn_run, e);
        if (rc) rc = err_sys(why, ERR_NOMEM, rc, "engine: no thread");
        e->started = !rc;
    }
    if (rc) {
        engine_destroy(e);
        return rc;
    }
    *out = e;
    return 0;
}

void engine_destroy(struct engine *e)
{
    if (!e) return;
    if (e->started) {
        gate_quit(e->gate);
        pthread_join(e->thread, NULL);
    }
    size_t at = 0;
    uint64_t id;
    for (struct live *live; (live = map_next(&e->lives, &at, &id));) {
        schedule_end(e->schedule, &live->seq);
        live_destroy(live);
    }
    map_fini(&e->lives);
    schedule_destroy(e->schedule);
    events_destroy(e->events);
    picks_destroy(e->picks);
    mem_free(e->arrays.ids);
    mem_free(e->arrays.positions);
    mem_free(e->arrays.logit_rows);
    mem_free(e->arrays.seqs);
    mem_free(e->arrays.first_logit);
    mem_free(e->arrays.picks);
    gate_destroy(e->gate);
    pthread_mutex_destroy(&e->shown_lock);
    mem_free(e);
}

struct inbox *engine_events(struct engine *e)
{
    return events_inbox(e->events);
}

void engine_event_free(struct engine *e, struct engine_event *event)
{
    gate_return(e->gate, &((struct event *)event)->link);
}

static void post(struct engine *e, const struct command *command)
{
    struct command *c = mem_must(1, sizeof *c);
    *c = *command;
    gate_post(e->gate, &c->link);
}

int engine_submit(struct engine *e, uint64_t id,
                  const struct request_spec *spec, struct why *why)
{
    assert(id != 0);
    if (e->options.max_queued &&
        atomic_load(&e->waiting) >= e->options.max_queued)
        return err_set(why, ERR_AGAIN, "The request queue is full.");
    struct live *live;
    int rc = live_create(&live, id, spec, &e->limits, why);
    if (rc) return rc;
    live->waiting = true;
    atomic_fetch_add(&e->waiting, 1);
    post(e, &(struct command){.kind = COMMAND_SUBMIT, .id = id, .live = live});
    return 0;
}

int engine_check(const struct engine *e, const struct request_spec *spec,
                 struct why *why)
{
    return live_check(spec, &e->limits, why);
}

void engine_release(struct engine *e, uint64_t id)
{
    post(e, &(struct command){.kind = COMMAND_RELEASE, .id = id});
}

void engine_admit(struct engine *e, uint64_t id,
                  const struct engine_event *first)
{
    struct event *copy = event_create();
    copy->pub.token = first->token;
    copy->pub.cached_tokens = first->cached_tokens;
    if (first->has_logprob) event_copy_logprob(copy, &first->logprob);
    post(e, &(struct command){.kind = COMMAND_ADMIT, .id = id, .first = copy});
}

void engine_abort(struct engine *e, uint64_t id, int status,
                  const char *message, bool hold_pages)
{
    post(e, &(struct command){.kind = COMMAND_ABORT,
                              .id = id,
                              .hold_pages = hold_pages,
                              .status = status,
                              .message = mem_dup(message ? message : "")});
}

void engine_flush(struct engine *e, uint64_t id)
{
    post(e, &(struct command){.kind = COMMAND_FLUSH, .id = id});
}

void engine_stats_get(struct engine *e, struct engine_stats *out)
{
    uint64_t now = clock_us();
    pthread_mutex_lock(&e->shown_lock);
    *out = e->shown;
    if (now > e->shown_us + 2000000) out->output_rate = 0; /* it sleeps */
    pthread_mutex_unlock(&e->shown_lock);
}

const struct engine_options *engine_get_options(const struct engine *e)
{
    return &e->options;
}
