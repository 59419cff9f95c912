/* The engine's thread: commands, steps, and what they end. */
#include "engine/core.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

static const char not_numbers[] = "NaN happened: the model's logits are not "
                                  "finite.";

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
    struct finish finish = live_take(live, token, &e->limits, &event->text);
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
        .end_ids = e->limits.ends,
        .end_count = e->limits.end_count,
        .matcher = live->matcher,
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

/* A prefix found in the cache may reach into the output of a resumed one. */
static uint32_t of_prompt(const struct live *live, uint32_t cached)
{
    uint32_t prompt = live->seq.prompt_tokens;
    return cached < prompt ? cached : prompt;
}

static void begin(struct engine *e, struct live *live)
{
    if (!live->waiting) return;
    not_waiting(e, live);
    live->started_us = e->now_us;
    live->cached_tokens = of_prompt(live, live->seq.cached_tokens);
    e->stats.prompt_tokens += live->seq.prompt_tokens;
    if (live->seq.role == ROLE_DECODE)
        e->stats.kept_tokens += live->cached_tokens;
    else
        e->stats.cached_tokens += live->cached_tokens;
}

static void reserve(struct engine *e)
{
    for (struct seq *q; (q = schedule_reserve(e->schedule));) {
        begin(e, live_of(q));
        struct event *event = events_new(e->events, EVENT_RESERVED, live_of(q));
        event_set_pages(event, q);
        event->pub.cached_tokens = q->cached_tokens; /* of output, too */
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
    live->cached_tokens = of_prompt(live, first->pub.cached_tokens);
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

/* The text of the output that a request came with. */
static void tell_resumed(struct engine *e, struct live *live)
{
    struct event *event = events_new(e->events, EVENT_RESUMED, live);
    buf_add(&event->text, live->resumed.data, live->resumed.len);
    event_set_text(event);
    event->pub.text_ends = event->ends = live->resumed_ends;
    live->resumed_ends = NULL;
    buf_fini(&live->resumed);
    send(e, event);
}

static void submit(struct engine *e, struct live *live)
{
    struct live *former = map_put(&e->lives, live->id, live);
    assert(!former);
    e->stats.requests++;
    schedule_add(e->schedule, &live->seq);
    if (live_output(live) && live->seq.role != ROLE_PREFILL)
        tell_resumed(e, live);
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

void *turn_run(void *arg)
{
    struct engine *e = arg;
    struct chain commands = {0}, returned = {0};
    enum gate_wait wait = GATE_POLL;
    e->packs = e->runner.pack != NULL;
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
        if (e->packs)
            e->packs = e->runner.pack(e->runner.arg, wait == GATE_POLL);
        if (e->packs) wait = GATE_POLL;
    }
    /* What came with the end is nobody's any more. */
    for (struct link *link; (link = chain_take(&commands));)
        command_destroy((struct command *)link);
    events_recycle(e->events, &returned);
    return NULL;
}
