/* engine/engine.h - continuous batching over a model and its KV pages.
 *
 * The engine has one thread. Each turn it drains its inbox, lets the
 * scheduler choose the rows of the next step (all running sequences, plus
 * prompt chunks up to chunk_tokens), runs the model, samples, and puts events
 * into the owner's inbox. It knows nothing of the network: disaggregation
 * drives it from above by submit (role), release, admit and abort.
 *
 * Life of a request, by role:
 *   WHOLE    queued -> prefill chunks -> running -> DONE
 *   PREFILL  queued -> prefill chunks (CHUNK...) -> held -> release -> DONE
 *   DECODE   queued -> RESERVED -> admit -> running -> DONE
 * When pages run out the sequences with the fewest output tokens are
 * retracted: their pages go back, and they prefill again later (exactly,
 * since the KV of a token does not depend on chunking), before anything new
 * is started (rules: engine/schedule.h).
 *
 * A step has at most chunk_tokens + max_running rows and logit_rows logits:
 * the model is opened with at least that.
 *
 * No event is ever lost. An owner who does not take them, or does not free
 * them, stops the engine's steps once about a thousand are out; aborts and
 * the rest of the verbs still work.
 *
 * All calls but create and destroy may come from any one other thread; none
 * of them blocks. */
#ifndef BATON_ENGINE_ENGINE_H
#define BATON_ENGINE_ENGINE_H

#include "base/inbox.h"
#include "engine/request.h"
#include "model/model.h"

struct engine;
struct tokenizer; /* text/tokenizer.h */

/* What computes a step: model_forward's contract over arg. Tests put a toy
 * here, a group of ranks may one day. */
struct engine_runner {
    void *arg;
    int (*forward)(void *arg, const struct batch *batch, struct kv_pool *pool,
                   const float **logits, struct why *why);
    /* model_pack's: called between steps and while there are none, until it
     * returns false. NULL: nothing was put off. */
    bool (*pack)(void *arg, bool behind_step);
    const struct model_config *config;
};

struct engine_options {
    struct model *model;                /* borrowed, as are the next three */
    const struct engine_runner *runner; /* NULL: model */
    struct kv_pool *pool;
    const struct tokenizer *tokenizer; /* NULL: no text; stops are refused */
    uint32_t max_running;              /* sequences in a step */
    uint32_t max_queued;               /* 0: no limit */
    uint32_t chunk_tokens;             /* prompt tokens in a step */
    uint32_t logit_rows; /* logits in a step, >= max_running; 0: that many.
                          * More lets prompts that want input logprobs run
                          * in larger chunks. */
    uint32_t context;    /* prompt + output, at most */
    /* --num-reserved-decode-tokens: room kept for each sequence to grow into
     * when another is let in; 0: 512. */
    uint32_t reserved_decode_tokens;
    bool prefix_cache; /* radix tree on */
};

int engine_create(struct engine **out, const struct engine_options *options,
                  struct why *why);
/* Ends the thread; requests still alive get no further event, and events not
 * given back are gone. NULL is fine. */
void engine_destroy(struct engine *engine);

/* The events, in order per request; the caller takes them (inbox_fd for its
 * loop) and gives each back with engine_event_free. */
struct inbox *engine_events(struct engine *engine);
void engine_event_free(struct engine *engine, struct engine_event *event);

/* id: the caller's, not 0, unique among the living (and those whose pages an
 * abort holds). spec is copied. Refused at once: ERR_INVALID (too long, bad
 * sampling, a token that the model does not have; texts are SGLang's),
 * ERR_AGAIN (queue full), ERR_NOMEM. Otherwise exactly one DONE will come.
 * max_new_tokens is cut to what context and pool allow, as in SGLang. */
int engine_submit(struct engine *engine, uint64_t id,
                  const struct request_spec *spec, struct why *why);

/* What engine_submit would say of spec by itself, without a request: 0 or
 * ERR_INVALID. */
int engine_check(const struct engine *engine, const struct request_spec *spec,
                 struct why *why);

/* ROLE_PREFILL, after its last CHUNK: the pages may be reused; DONE follows
 * (finish length). After an abort with hold_pages: the same, without DONE. */
void engine_release(struct engine *engine, uint64_t id);

/* ROLE_DECODE, after RESERVED: the prompt's KV is in the pages and this is
 * its first output token. first->has_logprob tells whether logprob is set;
 * cached_tokens is the peer's prefix hit. */
void engine_admit(struct engine *engine, uint64_t id,
                  const struct engine_event *first);

/* Ends a request in any state: DONE with FINISH_ABORT, status and message
 * (copied). hold_pages: a peer may still write into (or read from) its pages;
 * they stay out of use until engine_release(id). Unknown ids are ignored. */
void engine_abort(struct engine *engine, uint64_t id, int status,
                  const char *message, bool hold_pages);

/* Forgets the prefix cache when no request is alive; EVENT_FLUSHED (id) tells:
 * status 0, or ERR_AGAIN when one was. */
void engine_flush(struct engine *engine, uint64_t id);

/* A snapshot, any thread. */
struct engine_stats {
    uint32_t running;     /* computing: prompts and decoding             */
    uint32_t queued;      /* not begun                                   */
    uint32_t reserving;   /* ROLE_DECODE without pages yet               */
    uint32_t reserved;    /* ROLE_DECODE with pages, not admitted        */
    uint32_t held;        /* ROLE_PREFILL done, not released             */
    uint32_t retracted;   /* waiting to be computed again                */
    uint32_t quarantined; /* aborted with hold_pages                     */
    uint32_t pages_total, pages_free, pages_cached; /* without page 0    */
    uint64_t prompt_tokens, cached_tokens, output_tokens, requests, aborted;
    uint64_t kept_tokens; /* ROLE_DECODE: of prompts, here before the peer's */
    uint64_t retractions, steps;
    uint64_t step_us; /* in steps since start, made of: the model,       */
    uint64_t model_us;
    uint64_t sample_us; /* sampling and logprobs,                          */
    uint64_t host_us;   /* all else: schedule, batch, text, events         */
    double output_rate; /* tokens/s over about the last second             */
};
void engine_stats_get(struct engine *engine, struct engine_stats *out);
const struct engine_options *engine_get_options(const struct engine *engine);

#endif
