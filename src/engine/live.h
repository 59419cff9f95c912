/* engine/live.h - a request while it is alive in the engine: its own copy of
 * the spec, its sequence, and what its output became so far.
 *
 * Made on the caller's thread by engine_submit, which takes all memory the
 * request will ever want; then the engine's alone. */
#ifndef BATON_ENGINE_LIVE_H
#define BATON_ENGINE_LIVE_H

#include "base/buf.h"
#include "engine/sample.h"
#include "engine/schedule.h"
#include "text/detok.h"
#include "text/stop.h"

/* Text of one event, at most. */
#define EVENT_TEXT_MAX ((size_t)16 << 20)

/* Logprobs of the prompt's tokens, from one position on. */
struct score {
    uint32_t from, count; /* entry i is about token from + i */
    struct token_logprob *list;
    float *top_values; /* [count, top] */
    int32_t *top_ids;
    float *id_values; /* [count, id_count] */
};
void score_destroy(struct score *score);

struct live {
    struct seq seq; /* first: a seq is its live */
    uint64_t id;
    uint32_t max_new; /* after clipping */
    bool waiting;     /* counts in max_queued */
    bool ended;       /* DONE was sent, its pages are quarantined */
    bool text;        /* there is a tokenizer and someone to read */

    struct sampling sampling; /* its arrays are owned */
    bool want_logprobs;
    uint32_t top_logprobs, logprob_id_count;
    int32_t *logprob_ids;
    struct score *score; /* NULL: none asked, or given away */

    struct detok detok;
    struct matcher *matcher; /* text/grammar.h; NULL: any output */
    struct stop *stop;       /* NULL: no stop strings */
    char *stop_texts;        /* one after the other, each closed by a 0 */
    struct stop_state stop_state;
    struct buf held;        /* text not shown yet */
    struct buf resumed;     /* text of the output it came with, until told; */
    uint32_t *resumed_ends; /* where each token's ends in it                */

    uint64_t queued_us, started_us;
    uint32_t cached_tokens; /* as the client is told */
};

/* What the engine knows that a request is measured against. */
struct live_limits {
    const struct tokenizer *tokenizer;
    uint32_t vocab, context;
    uint32_t page_tokens;
    uint64_t pool_tokens; /* that all pages together hold */
    const int32_t *ends;  /* the model's and tokenizer's end tokens */
    uint32_t end_count;
};

/* ERR_INVALID with SGLang's words (ERR_NOMEM while looking at stop strings);
 * live_create does it too. */
int live_check(const struct request_spec *spec,
               const struct live_limits *limits, struct why *why);
/* ERR_INVALID with SGLang's words, ERR_NOMEM. */
int live_create(struct live **out, uint64_t id, const struct request_spec *spec,
                const struct live_limits *limits, struct why *why);
void live_destroy(struct live *live);

static inline struct live *live_of(struct seq *seq)
{
    return (struct live *)seq;
}
static inline uint32_t live_output(const struct live *live)
{
    return live->seq.known_tokens - live->seq.prompt_tokens;
}

/* Prompt tokens of a spec. */
static inline uint32_t live_prompt(const struct request_spec *spec)
{
    return spec->token_count - spec->output_count;
}

/* Appends an output token and the text that became certain by it; says
 * whether it is the last one. */
struct finish live_take(struct live *live, int32_t token,
                        const struct live_limits *limits, struct buf *text);

/* The logprobs of the prompt token behind prompt row `row`. */
void live_score(struct live *live, struct sampler *sampler, const float *logits,
                uint32_t row);

#endif
