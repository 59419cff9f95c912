#include "engine/engine.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "engine/event.h"
#include "engine/gate.h"
#include "engine/live.h"
#include "engine/picks.h"
#include "engine/schedule.h"
#include "text/tokenizer.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Steps stop while so many events are out with the owner; the inbox has room
 * for what one more step adds. */
#define EVENTS_OUT 1024

static const char not_numbers[] = "NaN happened: the model's logits are not "
                                  "finite.";

enum { ENDS_MAX = 8 + 2 }; /* model_config.eos, tokenizer's eos and eot */

enum command_kind {
    COMMAND_SUBMIT,
    COMMAND_RELEASE,
    COMMAND_ADMIT,
    COMMAND_ABORT,
    COMMAND_FLUSH
};

struct command {
    struct link link; /* first */
    enum command_kind kind;
    uint64_t id;
    struct live *live;   /* SUBMIT */
    struct event *first; /* ADMIT: holds copies, of no pool */
    bool hold_pages;     /* ABORT */
    int status;
    char *message;
};

/* One step's batch: arrays sized once, for the largest. */
struct arrays {
    int32_t *ids;
    uint32_t *positions, *logit_rows;
    struct op_seq *seqs;
    uint32_t *first_logit; /* [seqs] index of a sequence's first logits */
    struct pick **picks;   /* [seqs] its next token; NULL: not complete */
    struct batch batch;
};

struct engine {
    struct engine_options options;
    struct engine_runner runner;
    struct live_limits limits;
    int32_t ends[ENDS_MAX];
    uint32_t end_count;

    struct gate *gate;
    pthread_t thread;
    bool started;
    atomic_uint waiting; /* submitted, not begun */

    /* The engine thread's. */
    struct events *events;
    struct schedule *schedule;
    struct picks *picks;
    struct map lives;
    struct arrays arrays;
    uint64_t now_us;
    uint64_t step_ns, model_ns, sample_ns; /* since start */
    uint64_t rate_from_us, rate_tokens;    /* output_tokens at rate_from_us */

    struct engine_stats stats; /* the engine thread's, published in shown */
    pthread_mutex_t shown_lock;
    struct engine_stats shown;
    uint64_t shown_us;
};

/* Ends of a request */

static void send(struct engine *e, struct event *event)
{
    event->pub.event_us = e->now_us;
    events_send(e->events, event);
}

static void not_waiting(struct engine *e, struct live *live)
{
    if (live->waiting) atomic_fetch_sub(&e->waiting, 1);
    live->waiting = false;
}

static void send_done(struct engine *e, struct live *live,
                      const struct finish *finish)
{
    not_waiting(e, live);
    struct event *event = events_new(e->events, EVENT_DONE, live);
    event_set_finish(event, finish);
    event_take_score(event, live);
    e->stats.aborted += finish->kind == FINISH_ABORT;
    send(e, event);
}

static void forget(struct engine *e, struct live *live)
{
    schedule_end(e->schedule, &live->seq);
    map_remove(&e->lives, live->id);
    live_destroy(live);
}

static void end(struct engine *e, struct live *live,
                const struct finish *finish)
{
    send_done(e, live, finish);
    forget(e, live);
}

static void fail(struct engine *e, struct live *live, int status,
                 const char *message)
{
    end(e, live,
        &(struct finish){
            .kind = FINISH_ABORT, .status = status, .message = message});
}

/* Tokens */

/* Sends an output token (event holds its logprob); ends the request if it was
 * its last. */
static void take_token(struct engine *e, struct live *live, int32_t token,
                       struct event *event)
{
    struct finish finish =
        live_take(live, token, e->ends, e->end_count, &event->text);
    event->pub.token = token;
    event->pub.output_tokens = live_output(live);
    event_set_text(event);
    event_take_score(event, live);
    e->stats.output_tokens++;
    send(e, event);
    if (finish.kind != FINISH_NONE) end(e, live, &finish);
}

static void logprobs(struct engine *e, const struct live *live,
                     const float *row, int32_t token, struct event *event)
{
    const struct sampling *p = &live->sampling;
    struct logprob_ask ask = {
        .temperature = sampling_is_greedy(p) ? 1 : p->temperature,
        .token = token,
        .top_count = live->top_logprobs,
        .ids = live->logprob_ids,
        .id_count = live->logprob_id_count,
    };
    struct logprob_room room =
        event_logprob_room(event, ask.top_count, ask.id_count);
    sample_logprobs(picks_sampler(e->picks), row, &ask, &room,
                    &event->pub.logprob);
    event->pub.has_logprob = true;
}

static struct sample_history history_of(const struct engine *e,
                                        const struct live *live)
{
    return (struct sample_history){
        .output = live->seq.tokens + live->seq.prompt_tokens,
        .output_count = live_output(live),
        .end_ids = e->ends,
        .end_count = e->end_count,
    };
}

/* What the event of a drawn token says of its logprobs. */
static void sampled(struct engine *e, struct live *live, const float *logits,
                    int32_t token, struct event *event)
{
    if (token < 0 || !live->want_logprobs) return;
    uint64_t from = clock_ns();
    struct sample_history history = history_of(e, live);
    const float *row = sample_adjust(picks_sampler(e->picks), logits,
                                     &live->sampling, &history);
    logprobs(e, live, row, token, event);
    e->sample_ns += clock_ns() - from;
}

/* Steps */

static void fill_batch(struct arrays *a, const struct plan *plan)
{
    struct batch *b = &a->batch;
    uint32_t row = 0, logit = 0;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct seq *q = plan->rows[i].seq;
        uint32_t n = plan->rows[i].rows, done = q->done_tokens;
        a->seqs[i] = (struct op_seq){row, n, done + n, q->pages};
        a->first_logit[i] = logit;
        memcpy(a->ids + row, q->tokens + done, n * sizeof *a->ids);
        for (uint32_t j = 0; j < n; j++) {
            uint32_t at = done + j;
            a->positions[row + j] = at;
            bool scored = at >= q->score_from && at + 1 < q->prompt_tokens;
            if (scored || at + 1 == q->known_tokens)
                a->logit_rows[logit++] = row + j;
        }
        row += n;
    }
    b->tokens = row;
    b->seq_count = plan->count;
    b->logit_count = logit;
}

/* The logits behind the last row of the step's i-th sequence. */
static const float *last_logits(const struct engine *e, const struct plan *plan,
                                uint32_t i, const float *logits)
{
    uint32_t end = i + 1 < plan->count ? e->arrays.first_logit[i + 1]
                                       : e->arrays.batch.logit_count;
    return logits + (size_t)(end - 1) * e->limits.vocab;
}

static bool is_complete(const struct plan_row *row)
{
    return row->seq->done_tokens + row->rows == row->seq->known_tokens;
}

/* A request for its prompt's scores alone ends with its prompt. */
static bool wants_token(struct seq *q)
{
    return q->role == ROLE_PREFILL || live_of(q)->max_new > 0;
}

/* Draws the next token of all sequences that are complete. */
static void draw(struct engine *e, const struct plan *plan, const float *logits)
{
    uint64_t from = clock_ns();
    picks_clear(e->picks);
    for (uint32_t i = 0; i < plan->count; i++) {
        e->arrays.picks[i] = NULL;
        const struct plan_row *row = &plan->rows[i];
        if (!is_complete(row) || !wants_token(row->seq)) continue;
        const struct live *live = live_of(plan->rows[i].seq);
        struct pick *pick = picks_add(e->picks);
        *pick = (struct pick){.logits = last_logits(e, plan, i, logits),
                              .sampling = &live->sampling,
                              .history = history_of(e, live)};
        e->arrays.picks[i] = pick;
    }
    picks_draw(e->picks);
    e->sample_ns += clock_ns() - from;
}

/* A prompt's next chunk is there, perhaps its last: then pick is its token. */
static void take_chunk(struct engine *e, struct live *live,
                       const struct pick *pick)
{
    struct event *event = events_new(e->events, EVENT_CHUNK, live);
    event_set_pages(event, &live->seq);
    event->pub.tokens = live->seq.done_tokens;
    event->pub.token = pick ? pick->token : 0;
    if (event->pub.token < 0) {
        events_drop(e->events, event);
        fail(e, live, 500, not_numbers);
        return;
    }
    event->pub.last = pick != NULL;
    if (pick) {
        sampled(e, live, pick->logits, pick->token, event);
        event_take_score(event, live);
    }
    send(e, event);
    events_flush(
        e->events); /* its KV can travel while the rest of the step is told */
}

/* What the rows of one sequence gave; logits are its own, pick is NULL while
 * its prompt is not complete. */
static void take_rows(struct engine *e, const struct plan_row *row,
                      const float *logits, const struct pick *pick)
{
    struct seq *q = row->seq;
    struct live *live = live_of(q);
    uint32_t end_row = q->done_tokens + row->rows;
    bool over = is_complete(row) && !wants_token(q);
    for (; q->score_from < end_row; logits += e->limits.vocab) {
        uint64_t from = clock_ns();
        live_score(live, picks_sampler(e->picks), logits, q->score_from);
        e->sample_ns += clock_ns() - from;
    }
    schedule_advance(e->schedule, q, row->rows);
    if (q->role == ROLE_PREFILL) {
        take_chunk(e, live, pick);
    } else if (over) {
        end(e, live, &(struct finish){.kind = FINISH_LENGTH});
    } else if (pick) {
        struct event *event = events_new(e->events, EVENT_TOKEN, live);
        sampled(e, live, pick->logits, pick->token, event);
        if (pick->token >= 0) {
            take_token(e, live, pick->token, event);
            return;
        }
        events_drop(e->events, event);
        fail(e, live, 500, not_numbers);
    }
}

static void begin(struct engine *e, struct live *live)
{
    if (!live->waiting) return;
    not_waiting(e, live);
    live->started_us = e->now_us;
    live->cached_tokens = live->seq.cached_tokens;
    e->stats.prompt_tokens += live->seq.prompt_tokens;
    if (live->seq.role == ROLE_DECODE)
        e->stats.kept_tokens += live->seq.cached_tokens;
    else
        e->stats.cached_tokens += live->seq.cached_tokens;
}

static void reserve(struct engine *e)
{
    for (struct seq *q; (q = schedule_reserve(e->schedule));) {
        begin(e, live_of(q));
        struct event *event = events_new(e->events, EVENT_RESERVED, live_of(q));
        event_set_pages(event, q);
        send(e, event);
    }
    events_flush(e->events);
}

static void compute(struct engine *e, const struct plan *plan)
{
    struct why why = {0};
    const float *logits = NULL;
    for (uint32_t i = 0; i < plan->count; i++)
        begin(e, live_of(plan->rows[i].seq));
    fill_batch(&e->arrays, plan);
    uint64_t from = clock_ns();
    int rc = e->runner.forward(e->runner.arg, &e->arrays.batch, e->options.pool,
                               &logits, &why);
    uint64_t to = clock_ns();
    e->model_ns += to - from;
    e->now_us = to / 1000;
    if (!rc) draw(e, plan, logits);
    for (uint32_t i = 0; i < plan->count; i++) {
        if (rc) {
            fail(e, live_of(plan->rows[i].seq), 500, why_text(&why, rc));
            continue;
        }
        size_t at = (size_t)e->arrays.first_logit[i] * e->limits.vocab;
        take_rows(e, &plan->rows[i], logits + at, e->arrays.picks[i]);
    }
}

/* Whether anything was done: if not, nothing can be before a command. */
static bool step(struct engine *e)
{
    uint64_t from = clock_ns();
    e->now_us = from / 1000;
    reserve(e);
    const struct plan *plan = schedule_plan(e->schedule);
    if (plan->stuck) {
        fail(e, live_of(plan->stuck), 503,
             "There is no memory for the KV cache of this request.");
        return true;
    }
    if (plan->count == 0) {
        if (e->lives.count == 0) schedule_check(e->schedule);
        return false;
    }
    compute(e, plan);
    e->stats.steps++;
    e->step_ns += clock_ns() - from;
    return true;
}

/* Commands */

static void admit(struct engine *e, struct live *live,
                  const struct event *first)
{
    if (live->seq.state != SEQ_RESERVED) return;
    if (first->pub.token < 0 || (uint32_t)first->pub.token >= e->limits.vocab) {
        fail(e, live, 500, "The prefill server sent a token out of range.");
        return;
    }
    live->cached_tokens = first->pub.cached_tokens;
    e->stats.cached_tokens += live->cached_tokens;
    schedule_admit(e->schedule, &live->seq);
    if (live->max_new == 0) {
        end(e, live, &(struct finish){.kind = FINISH_LENGTH});
        return;
    }
    struct event *event = events_new(e->events, EVENT_TOKEN, live);
    if (first->pub.has_logprob) event_copy_logprob(event, &first->pub.logprob);
    take_token(e, live, first->pub.token, event);
}

static void release(struct engine *e, struct live *live)
{
    if (live->seq.state == SEQ_HELD)
        end(e, live, &(struct finish){.kind = FINISH_LENGTH});
    else if (live->ended)
        forget(e, live);
}

static void abort_live(struct engine *e, struct live *live,
                       const struct command *c)
{
    if (live->ended) return;
    if (!c->hold_pages || live->seq.page_count == 0) {
        fail(e, live, c->status, c->message);
        return;
    }
    send_done(e, live,
              &(struct finish){.kind = FINISH_ABORT,
                               .status = c->status,
                               .message = c->message});
    schedule_quarantine(e->schedule, &live->seq);
    live->ended = true;
}

static void flush(struct engine *e, uint64_t id)
{
    struct event *event = events_new(e->events, EVENT_FLUSHED, NULL);
    event->pub.id = id;
    event->pub.status = schedule_flush(e->schedule) ? 0 : ERR_AGAIN;
    send(e, event);
}

static void submit(struct engine *e, struct live *live)
{
    struct live *former = map_put(&e->lives, live->id, live);
    assert(!former);
    e->stats.requests++;
    schedule_add(e->schedule, &live->seq);
}

static void command_destroy(struct command *c)
{
    live_destroy(c->live);
    event_destroy(c->first);
    mem_free(c->message);
    mem_free(c);
}

static void obey(struct engine *e, struct command *c)
{
    struct live *live = map_get(&e->lives, c->id);
    switch (c->kind) {
    case COMMAND_SUBMIT:
        submit(e, c->live);
        c->live = NULL;
        break;
    case COMMAND_RELEASE:
        if (live) release(e, live);
        break;
    case COMMAND_ADMIT:
        if (live) admit(e, live, c->first);
        break;
    case COMMAND_ABORT:
        if (live) abort_live(e, live, c);
        break;
    case COMMAND_FLUSH: flush(e, c->id); break;
    }
    command_destroy(c);
}

/* The thread */

static void show_stats(struct engine *e)
{
    struct engine_stats *s = &e->stats;
    struct schedule_counts n;
    schedule_count(e->schedule, &n);
    s->running =
        n.state[SEQ_PREFILL] + n.state[SEQ_RUNNING] + n.state[SEQ_READY];
    s->queued = n.state[SEQ_QUEUED] - n.retracted;
    s->reserving = n.state[SEQ_RESERVING];
    s->reserved = n.state[SEQ_RESERVED];
    s->held = n.state[SEQ_HELD];
    s->retracted = n.retracted;
    s->quarantined = n.state[SEQ_QUARANTINED];
    s->pages_free = n.pages_free;
    s->pages_cached = n.pages_cached;
    s->retractions = n.retractions;
    s->step_us = e->step_ns / 1000;
    s->model_us = e->model_ns / 1000;
    s->sample_us = e->sample_ns / 1000;
    s->host_us = (e->step_ns - e->model_ns - e->sample_ns) / 1000;
    uint64_t window = e->now_us - e->rate_from_us;
    if (window >= 1000000) {
        uint64_t tokens = s->output_tokens - e->rate_tokens;
        s->output_rate = (double)tokens * 1e6 / (double)window;
        e->rate_from_us = e->now_us;
        e->rate_tokens = s->output_tokens;
    }
    pthread_mutex_lock(&e->shown_lock);
    e->shown = *s;
    e->shown_us = e->now_us;
    pthread_mutex_unlock(&e->shown_lock);
}

static void *run(void *arg)
{
    struct engine *e = arg;
    struct chain commands = {0}, returned = {0};
    enum gate_wait wait = GATE_POLL;
    while (gate_take(e->gate, wait, &commands, &returned)) {
        e->now_us = clock_us();
        events_recycle(e->events, &returned);
        for (struct link *link; (link = chain_take(&commands));)
            obey(e, (struct command *)link);
        events_flush(e->events);
        bool full = events_out(e->events) >= EVENTS_OUT;
        wait = GATE_POLL;
        if (full)
            wait = GATE_EVENTS;
        else if (!step(e))
            wait = GATE_COMMANDS;
        show_stats(e); /* before the owner can look */
        events_flush(e->events);
        if (wait == GATE_COMMANDS && events_delayed(e->events))
            wait = GATE_EVENTS;
    }
    /* What came with the end is nobody's any more. */
    for (struct link *link; (link = chain_take(&commands));)
        command_destroy((struct command *)link);
    events_recycle(e->events, &returned);
    return NULL;
}

/* Outside */

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

static void add_end(struct engine *e, int32_t id)
{
    for (uint32_t i = 0; i < e->end_count; i++)
        if (e->ends[i] == id) return;
    if (id >= 0 && e->end_count < ENDS_MAX) e->ends[e->end_count++] = id;
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
        .share = o->runner ? NULL : share_model,
        .arg = o->model,
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
                                     .config = model_config(options->model)};
    uint32_t page_tokens = kv_pool_shape(options->pool)->page_tokens;
    uint32_t pages = kv_pool_page_count(options->pool) - 1;
    e->limits = (struct live_limits){
        .tokenizer = options->tokenizer,
        .vocab = e->runner.config->vocab,
        .context = options->context,
        .page_tokens = page_tokens,
        .pool_tokens = (uint64_t)pages * page_tokens,
    };
    find_ends(e);
    e->gate = gate_create();
    e->stats.pages_total = e->stats.pages_free = pages;
    e->shown = e->stats;
    pthread_mutex_init(&e->shown_lock, NULL);
    rc = build(e, why);
    if (!rc) {
        rc = pthread_create(&e->thread, NULL, run, e);
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
