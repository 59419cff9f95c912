/* engine/schedule.h - which sequences run in the next step, with how many
 * rows, and who holds which pages meanwhile. Pure: no I/O, no clock, no
 * model; it decides from its lists and the pool alone.
 *
 *     QUEUED --start--> PREFILL --last chunk--> RUNNING --end-->
 *        ^                 |  \---role PREFILL--> HELD --end-->
 *        +----retract------+----------------------/ (of RUNNING)
 *     RESERVING --reserve--> RESERVED --admit--> READY --slot--> RUNNING
 *     any --quarantine--> QUARANTINED --end-->
 *
 * A step: every RUNNING sequence computes its last token; what is left of
 * chunk_tokens goes to prompts, first come first served, a cut falling on a
 * page boundary where it can.
 *
 * Pages are taken for a whole prompt at once or not at all, after evicting
 * from the prefix cache; then one by one as a sequence grows.
 *
 * A sequence is let in (start, reserve) while there is a slot and
 *     its pages + its growth + growth of all others <= free + evictable
 * growth being the pages for `reserved` more tokens, or fewer where the
 * sequence ends sooner. This is SGLang's rule for decode servers
 * (--num-reserved-decode-tokens) for both sides, without its estimate of how
 * long answers get. A sequence alone with the pool is let in regardless:
 * engine_submit refused what can never fit.
 *
 * When a growing sequence finds no page, sequences with the fewest output
 * tokens (then the longest prompt, then the youngest) are retracted until it
 * does. What they computed goes to the prefix cache, they go to the front of
 * the queue, and nothing new is let in before them: the sequence furthest
 * ahead always moves, so each one ends. Pages that a peer knows of (roles
 * PREFILL, and DECODE before admit) are never retracted.
 *
 * One thread, the engine's. */
#ifndef BATON_ENGINE_SCHEDULE_H
#define BATON_ENGINE_SCHEDULE_H

#include "engine/request.h"
#include "kv/radix.h"

#define SEQ_STATES(X)                                    \
    X(QUEUED, "waits to start")                          \
    X(PREFILL, "computes its prompt")                    \
    X(RUNNING, "computes a token a step")                \
    X(HELD, "prefilled, a peer fetches its pages")       \
    X(RESERVING, "waits for pages for a peer's KV")      \
    X(RESERVED, "has pages, waits for a peer's KV")      \
    X(READY, "has KV and first token, waits for a slot") \
    X(QUARANTINED, "ended, a peer may still touch its pages")

enum seq_state {
#define X(name, text) SEQ_##name,
    SEQ_STATES(X)
#undef X
        SEQ_STATE_COUNT
};

#define NO_SCORE UINT32_MAX

/* A sequence; the caller's memory, borrowed from add to end. Counts:
 * done_tokens <= known_tokens <= limit_tokens, prompt_tokens <= known. */
struct seq {
    /* The owner's: filled before add, known_tokens and tokens grow later. */
    enum request_role role;
    bool own_prefix; /* DECODE: its peer need not send what the cache has */
    uint64_t cache_key;
    int32_t *tokens;        /* [limit_tokens] prompt, then output */
    kv_page *pages;         /* room for limit_tokens */
    uint32_t prompt_tokens; /* >= 1 */
    uint32_t known_tokens;  /* prompt and output so far */
    uint32_t limit_tokens;  /* prompt and output, at most */
    uint32_t score_from;    /* prompt rows from here to the last but one want
                             * logits; the owner moves it on. NO_SCORE: none */

    /* The scheduler's, for reading. */
    enum seq_state state;
    uint32_t done_tokens; /* have KV in pages */
    uint32_t page_count;
    uint32_t cached_tokens; /* prefix found when it first started */
    uint32_t retractions;
    kv_lock lock;
    uint64_t order; /* of arrival */
    struct seq *prev, *next;
};

struct schedule_options {
    struct kv_pool *pool; /* borrowed */
    bool prefix_cache;
    uint32_t max_running;  /* PREFILL and RUNNING together */
    uint32_t chunk_tokens; /* >= 1 */
    uint32_t logit_rows;   /* >= max_running */
    uint32_t reserved;     /* tokens of growth */
};

struct schedule;
int schedule_create(struct schedule **out,
                    const struct schedule_options *options, struct why *why);
void schedule_destroy(struct schedule *s); /* sequences have ended */

/* QUEUED, or RESERVING for ROLE_DECODE. */
void schedule_add(struct schedule *s, struct seq *seq);

/* The next ROLE_DECODE sequence, in order of arrival, that pages were found
 * for (now RESERVED), or NULL. Its first done_tokens tokens have their KV
 * already: none without own_prefix, never all. */
struct seq *schedule_reserve(struct schedule *s);
/* Its prompt's KV is there; the owner appends its first token, or ends it. */
void schedule_admit(struct schedule *s, struct seq *seq);

/* Rows of the next step: seq computes tokens done .. done + rows - 1. It has
 * pages for them. RUNNING ones first; a sequence stands here at most once.
 * stuck: nothing can run, nothing holds pages, and yet this one found none
 * (the pool could not grow): the owner ends it. schedule_reserve comes first,
 * until it gives NULL. Good until the next call. */
struct plan {
    struct plan_row {
        struct seq *seq;
        uint32_t rows;
    } * rows;
    uint32_t count;  /* <= max_running */
    uint32_t tokens; /* sum of rows <= chunk_tokens + max_running */
    struct seq *stuck;
};
const struct plan *schedule_plan(struct schedule *s);

/* The rows of a plan were computed. With its last prompt token a sequence
 * goes to the prefix cache and on to RUNNING or HELD; the caller then
 * appends the token that was sampled, or ends it. */
void schedule_advance(struct schedule *s, struct seq *seq, uint32_t rows);

/* Out of all lists. Its pages go back, whole computed ones by way of the
 * prefix cache. */
void schedule_end(struct schedule *s, struct seq *seq);
/* Out of the way, but its pages stay taken until schedule_end. */
void schedule_quarantine(struct schedule *s, struct seq *seq);

/* Empties the prefix cache; false when a sequence is alive. */
bool schedule_flush(struct schedule *s);

struct schedule_counts {
    uint32_t state[SEQ_STATE_COUNT];
    uint32_t retracted; /* of the QUEUED */
    uint32_t pages_free, pages_cached;
    uint64_t retractions; /* ever */
};
void schedule_count(const struct schedule *s, struct schedule_counts *out);

/* Asserts that pages add up: each reference is a sequence's or the cache's.
 * O(pages); when nothing holds pages O(1). */
void schedule_check(const struct schedule *s);

#endif
