#include "engine/live.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/grammar.h"

#include <math.h>
#include <string.h>

/* Text held back: at most the stop strings' bytes and a token's. */
#define HELD_MAX ((size_t)1 << 20)

void score_destroy(struct score *score)
{
    if (!score) return;
    mem_free(score->list);
    mem_free(score->top_values);
    mem_free(score->top_ids);
    mem_free(score->id_values);
    mem_free(score);
}

void live_destroy(struct live *live)
{
    if (!live) return;
    mem_free(live->seq.tokens);
    mem_free(live->seq.pages);
    /* The copies, which live_create made; const is for everybody else. */
    mem_free((void *)(uintptr_t)live->sampling.stop_ids);
    mem_free((void *)(uintptr_t)live->sampling.bias_ids);
    mem_free((void *)(uintptr_t)live->sampling.bias_values);
    mem_free(live->logprob_ids);
    score_destroy(live->score);
    matcher_destroy(live->matcher);
    stop_destroy(live->stop);
    mem_free(live->stop_texts);
    buf_fini(&live->held);
    buf_fini(&live->resumed);
    mem_free(live->resumed_ends);
    mem_free(live);
}

/* Limits, sglang-compatible: first what the tokenizer side says, then the
 * scheduler's own bound, which leaves room for a few tokens of output. */
static int check_length(const struct request_spec *spec,
                        const struct live_limits *l, uint64_t longest,
                        struct why *why)
{
    uint64_t n = live_prompt(spec), more = spec->sampling.max_new_tokens;
    if (n == 0) return err_set(why, ERR_INVALID, "The input has no tokens.");
    if (n >= l->context)
        return err_set(why, ERR_INVALID,
                       "The input (%llu tokens) is longer than the model's "
                       "context length (%u tokens).",
                       (unsigned long long)n, l->context);
    if (n + more >= l->context)
        return err_set(why, ERR_INVALID,
                       "Requested token count exceeds the model's maximum "
                       "context length of %u tokens. You requested a total "
                       "of %llu tokens: %llu tokens from the input messages "
                       "and %llu tokens for the completion. Please reduce "
                       "the number of tokens in the input messages or the "
                       "completion to fit within the limit.",
                       l->context, (unsigned long long)(n + more),
                       (unsigned long long)n, (unsigned long long)more);
    uint64_t most = longest > 5 ? longest - 5 : 0;
    if (n > most)
        return err_set(why, ERR_INVALID,
                       "Input length (%llu tokens) exceeds the maximum "
                       "allowed length (%llu tokens). Use a shorter input or "
                       "enable --allow-auto-truncate.",
                       (unsigned long long)n, (unsigned long long)most);
    return 0;
}

/* NULL where there are no stop strings. */
static int make_stop(struct stop **out, const struct sampling *p,
                     struct why *why)
{
    size_t lens[STOP_MAX_STRINGS];
    *out = NULL;
    if (p->stop_count == 0) return 0;
    for (uint32_t i = 0; i < p->stop_count && i < STOP_MAX_STRINGS; i++)
        lens[i] = strlen(p->stops[i]);
    return stop_create(out, p->stops, lens, p->stop_count, why);
}

/* The most tokens that a request may have, prompt and output. */
static uint64_t longest_of(const struct live_limits *l)
{
    uint64_t longest = l->context - 1;
    return l->pool_tokens - 1 < longest ? l->pool_tokens - 1 : longest;
}

int live_check(const struct request_spec *spec, const struct live_limits *l,
               struct why *why)
{
    int rc = check_length(spec, l, longest_of(l), why);
    if (!rc) rc = sampling_check(&spec->sampling, l->vocab, why);
    if (rc) return rc;
    for (uint32_t i = 0; i < spec->token_count; i++)
        if (spec->tokens[i] < 0 || (uint32_t)spec->tokens[i] >= l->vocab)
            return err_set(why, ERR_INVALID,
                           "input_ids must be in [0, %u], got %d.",
                           l->vocab - 1, spec->tokens[i]);
    if (spec->output_count && (spec->want_logprobs || spec->logprob_start >= 0))
        return err_set(why, ERR_INVALID,
                       "A resumed request cannot have logprobs: those of its "
                       "first tokens are lost.");
    if (spec->logprob_start >= 0 &&
        (uint32_t)spec->logprob_start >= spec->token_count)
        return err_set(why, ERR_INVALID,
                       "logprob_start_len (%d) must be less than the number "
                       "of input tokens (%u).",
                       spec->logprob_start, spec->token_count);
    if (spec->top_logprobs > SAMPLE_TOP_MAX)
        return err_set(why, ERR_INVALID,
                       "top_logprobs_num must be in [0, %d], got %u.",
                       SAMPLE_TOP_MAX, spec->top_logprobs);
    for (uint32_t i = 0; i < spec->logprob_id_count; i++)
        if (spec->logprob_ids[i] < 0 ||
            (uint32_t)spec->logprob_ids[i] >= l->vocab)
            return err_set(why, ERR_INVALID,
                           "token_ids_logprob must be in [0, %u], got %d.",
                           l->vocab - 1, spec->logprob_ids[i]);
    if (spec->sampling.stop_count && !l->tokenizer)
        return err_set(why, ERR_INVALID,
                       "stop strings need a tokenizer, and this server was "
                       "started without one.");
    if (spec->grammar && !l->end_count && !spec->sampling.stop_id_count)
        return err_set(
            why, ERR_INVALID,
            "A grammar needs an end token, and this model has none.");
    struct stop *stop;
    rc = make_stop(&stop, &spec->sampling, why);
    stop_destroy(stop);
    return rc;
}

/* A copy of count elements, NULL for none; *failed when memory is gone. */
static void *copy(const void *from, size_t count, size_t size, bool *failed)
{
    if (count == 0) return NULL;
    void *to = mem_try(count, size, 0);
    if (to) memcpy(to, from, count * size);
    *failed |= !to;
    return to;
}

static void *room_for(size_t count, size_t size, bool *failed)
{
    if (count == 0) return NULL;
    void *room = mem_try(count, size, 0);
    *failed |= !room;
    return room;
}

static void make_score(struct live *live, const struct request_spec *spec,
                       bool *failed)
{
    struct score *s = room_for(1, sizeof *s, failed);
    if (!s) return;
    live->score = s;
    s->from = (uint32_t)spec->logprob_start;
    s->count = spec->token_count - s->from;
    size_t tops = (size_t)s->count * spec->top_logprobs;
    s->list = room_for(s->count, sizeof *s->list, failed);
    s->top_values = room_for(tops, sizeof *s->top_values, failed);
    s->top_ids = room_for(tops, sizeof *s->top_ids, failed);
    s->id_values = room_for((size_t)s->count * spec->logprob_id_count,
                            sizeof *s->id_values, failed);
    if (*failed) return;
    s->list[0].logprob = NAN;
    s->list[0].token = spec->tokens[s->from];
    live->seq.score_from = s->count > 1 ? s->from : NO_SCORE;
}

/* Its own copies of the texts; their sum was bounded by make_stop. */
static void copy_stops(struct live *live, const struct sampling *p)
{
    size_t total = 0;
    for (uint32_t i = 0; i < p->stop_count; i++)
        total += strlen(p->stops[i]) + 1;
    char *at = live->stop_texts = mem_must(total, 1);
    for (uint32_t i = 0; i < p->stop_count; i++)
        at = stpcpy(at, p->stops[i]) + 1;
}

/* Its ends are the model's, and the request's stop tokens. */
static struct matcher *make_matcher(const struct request_spec *spec,
                                    const struct live_limits *l)
{
    uint32_t count = spec->sampling.stop_id_count;
    int32_t *ends = mem_must(l->end_count + count + 1, sizeof *ends);
    memcpy(ends, l->ends, l->end_count * sizeof *ends);
    if (count)
        memcpy(ends + l->end_count, spec->sampling.stop_ids,
               count * sizeof *ends);
    struct matcher *m =
        matcher_create(spec->grammar, ends, l->end_count + count,
                       spec->grammar_open, spec->grammar_after);
    mem_free(ends);
    return m;
}

static bool among(int32_t token, const int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] == token) return true;
    return false;
}

static void show(struct live *live, size_t n, struct buf *text)
{
    buf_add(text, live->held.data, n);
    buf_drop_front(&live->held, n);
}

/* Looks for stop strings in the text behind the first `before` held bytes;
 * shows what is certain. */
static struct finish find_stop(struct live *live, size_t before,
                               struct buf *text)
{
    struct finish f = {0};
    struct buf *held = &live->held;
    if (held->len == before) return f;
    struct stop_result r = stop_feed(live->stop, &live->stop_state,
                                     held->data + before, held->len - before);
    show(live, r.emit, text);
    if (r.matched < 0) return f;
    f.kind = FINISH_STOP_TEXT;
    f.stop_text = live->stop_texts;
    for (int i = 0; i < r.matched; i++)
        f.stop_text += strlen(f.stop_text) + 1;
    return f;
}

/* Whether a token ends the output, as SGLang orders the reasons. */
static struct finish finish_of(const struct live *live, int32_t token,
                               const struct live_limits *l)
{
    const struct sampling *p = &live->sampling;
    struct finish f = {0};
    bool end = among(token, p->stop_ids, p->stop_id_count) ||
               among(token, l->ends, l->end_count);
    bool whole = live->matcher && matcher_ended(live->matcher);
    if (live_output(live) >= live->max_new) {
        f.kind = FINISH_LENGTH;
    } else if (whole || (end && !p->ignore_eos)) {
        f.kind = FINISH_STOP_TOKEN;
        f.stop_token = token;
    }
    return f;
}

struct finish live_take(struct live *live, int32_t token,
                        const struct live_limits *l, struct buf *text)
{
    const struct sampling *p = &live->sampling;
    live->seq.tokens[live->seq.known_tokens++] = token;
    /* Of our own drawing it always is; a peer may know another grammar. */
    if (live->matcher && !matcher_accept(live->matcher, token))
        return (struct finish){.kind = FINISH_ABORT,
                               .status = 500,
                               .message = "The prefill server's token is not "
                                          "what the grammar allows."};
    struct finish f = finish_of(live, token, l);
    if (!live->text) return f;

    size_t before = live->held.len;
    if (f.kind != FINISH_STOP_TOKEN || p->no_stop_trim)
        detok_feed(&live->detok, token, &live->held);
    if (live->stop && f.kind == FINISH_NONE) {
        f = find_stop(live, before, text);
        if (f.kind == FINISH_NONE) return f; /* the rest stays held */
    }
    if (f.kind != FINISH_STOP_TEXT || p->no_stop_trim) {
        if (f.kind != FINISH_NONE) detok_flush(&live->detok, &live->held);
        show(live, live->held.len, text);
    }
    if (live->held.failed || text->failed)
        f = (struct finish){.kind = FINISH_ABORT,
                            .status = 500,
                            .message = "no memory for the output text"};
    return f;
}

/* Takes the output that a request comes with, as if it had been drawn here. */
static int resume(struct live *live, const struct request_spec *spec,
                  const struct live_limits *l, struct why *why)
{
    for (uint32_t i = 0; i < spec->output_count; i++) {
        int32_t token = spec->tokens[live->seq.prompt_tokens + i];
        bool room = live->seq.known_tokens + 1 < live->seq.limit_tokens;
        struct finish f = {.kind = FINISH_LENGTH};
        if (room) f = live_take(live, token, l, &live->resumed);
        if (f.kind == FINISH_ABORT)
            return err_set(why, ERR_INVALID, "Resumed output: %s", f.message);
        if (f.kind != FINISH_NONE)
            return err_set(why, ERR_INVALID,
                           "Resumed output of %u tokens: the request ended "
                           "with token %u of them.",
                           spec->output_count, i + 1);
        live->resumed_ends[i] = (uint32_t)live->resumed.len;
    }
    return 0;
}

int live_create(struct live **out, uint64_t id, const struct request_spec *spec,
                const struct live_limits *l, struct why *why)
{
    *out = NULL;
    uint64_t longest = longest_of(l);
    int rc = live_check(spec, l, why);
    if (rc) return rc;

    const struct sampling *p = &spec->sampling;
    struct live *live = mem_must(1, sizeof *live);
    uint32_t prompt = live_prompt(spec);
    uint32_t room = (uint32_t)longest - prompt - 1;
    live->id = id;
    live->max_new = p->max_new_tokens < room ? p->max_new_tokens : room;
    live->text = l->tokenizer && spec->role != ROLE_PREFILL;
    live->want_logprobs = spec->want_logprobs;
    live->top_logprobs = spec->top_logprobs;
    live->logprob_id_count = spec->logprob_id_count;
    live->queued_us = clock_us();
    live->sampling = *p;
    live->sampling.stops = NULL;
    if (!p->seeded) live->sampling.seed = random_u64();

    struct seq *seq = &live->seq;
    seq->role = spec->role;
    seq->own_prefix = spec->own_prefix;
    seq->cache_key = spec->cache_key;
    seq->prompt_tokens = seq->known_tokens = prompt;
    uint32_t new_tokens = live->max_new;
    if (spec->role == ROLE_PREFILL || new_tokens == 0)
        new_tokens = spec->output_count + 1;
    seq->limit_tokens = prompt + new_tokens;
    seq->score_from = NO_SCORE;

    bool failed = false;
    uint32_t pages = seq->limit_tokens / l->page_tokens + 1;
    seq->tokens = room_for(seq->limit_tokens, sizeof *seq->tokens, &failed);
    seq->pages = room_for(pages, sizeof *seq->pages, &failed);
    if (seq->tokens)
        memcpy(seq->tokens, spec->tokens, prompt * sizeof *seq->tokens);
    live->sampling.stop_ids =
        copy(p->stop_ids, p->stop_id_count, sizeof *p->stop_ids, &failed);
    live->sampling.bias_ids =
        copy(p->bias_ids, p->bias_count, sizeof *p->bias_ids, &failed);
    live->sampling.bias_values =
        copy(p->bias_values, p->bias_count, sizeof *p->bias_values, &failed);
    live->resumed_ends =
        room_for(spec->output_count, sizeof *live->resumed_ends, &failed);
    live->logprob_ids = copy(spec->logprob_ids, spec->logprob_id_count,
                             sizeof *spec->logprob_ids, &failed);
    if (spec->logprob_start >= 0 && spec->role != ROLE_DECODE)
        make_score(live, spec, &failed);
    buf_init(&live->held, HELD_MAX);
    buf_init(&live->resumed, EVENT_TEXT_MAX);
    if (live->text) {
        detok_init_within(&live->detok, l->tokenizer, p->skip_special_tokens);
        failed |= !buf_grow(&live->held, STOP_MAX_BYTES);
        buf_reset(&live->held);
    }
    if (spec->grammar && !failed) live->matcher = make_matcher(spec, l);
    rc = failed ? err_set(why, ERR_NOMEM, "request: no memory for %u tokens",
                          seq->limit_tokens)
                : make_stop(&live->stop, p, why);
    if (!rc && live->stop) copy_stops(live, p);
    if (!rc) rc = resume(live, spec, l, why);
    if (rc) {
        live_destroy(live);
        return rc;
    }
    *out = live;
    return 0;
}

void live_score(struct live *live, struct sampler *sampler, const float *logits,
                uint32_t row)
{
    struct score *s = live->score;
    uint32_t at = row + 1 - s->from;
    struct logprob_ask ask = {
        .temperature = 1,
        .token = live->seq.tokens[row + 1],
        .top_count = live->top_logprobs,
        .ids = live->logprob_ids,
        .id_count = live->logprob_id_count,
    };
    struct logprob_room room = {
        s->top_values + (size_t)at * live->top_logprobs,
        s->top_ids + (size_t)at * live->top_logprobs,
        s->id_values + (size_t)at * live->logprob_id_count,
    };
    sample_logprobs(sampler, logits, &ask, &room, &s->list[at]);
    bool last = row + 2 == live->seq.prompt_tokens;
    live->seq.score_from = last ? NO_SCORE : row + 1;
}
