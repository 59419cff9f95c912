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
 * since the KV of a token does not depend on chunking).
 *
 * All calls but create and destroy may come from any one other thread. */
#ifndef BATON_ENGINE_ENGINE_H
#define BATON_ENGINE_ENGINE_H

#include "base/inbox.h"
#include "engine/request.h"
#include "model/model.h"

struct engine;
struct tokenizer; /* text/tokenizer.h */

struct engine_options {
    struct model *model; /* borrowed, as are the next two          */
    struct kv_pool *pool;
    const struct tokenizer *tokenizer; /* NULL: no text, no stop strings   */
    uint32_t max_running;  /* sequences in a step                    */
    uint32_t max_queued;   /* 0: no limit                            */
    uint32_t chunk_tokens; /* prompt tokens in a step                */
    uint32_t context;      /* prompt + output, at most               */
    uint32_t reserved_decode_tokens; /* --num-reserved-decode-tokens       */
    bool prefix_cache; /* radix tree on                          */
};

int engine_create(struct engine **out, const struct engine_options *options,
                  struct why *why);
/* Ends the thread; requests still alive get no further event. */
void engine_destroy(struct engine *engine);

/* The events, in order per request; the caller takes them (inbox_fd for its
 * loop) and gives each back with engine_event_free. */
struct inbox *engine_events(struct engine *engine);
void engine_event_free(struct engine *engine, struct engine_event *event);

/* id: the caller's, unique among the living, not 0. spec is copied. Refused
 * at once: ERR_INVALID (too long, as SGLang says it), ERR_AGAIN (queue full).
 * Otherwise exactly one DONE will come. */
int engine_submit(struct engine *engine, uint64_t id,
                  const struct request_spec *spec, struct why *why);

/* ROLE_PREFILL, after its last CHUNK: the pages may be reused; DONE follows
 * (finish length). */
void engine_release(struct engine *engine, uint64_t id);

/* ROLE_DECODE, after RESERVED: the prompt's KV is in the pages and this is
 * its first output token. first->has_logprob tells whether logprob is set;
 * cached_tokens is the peer's prefix hit. */
void engine_admit(struct engine *engine, uint64_t id,
                  const struct engine_event *first);

/* Ends a request in any state: DONE with FINISH_ABORT, status and message
 * (copied). hold_pages: a peer may still write into its pages; they stay out
 * of use until engine_release(id). Unknown ids are ignored. */
void engine_abort(struct engine *engine, uint64_t id, int status,
                  const char *message, bool hold_pages);

/* Forgets the prefix cache when nothing runs; EVENT_FLUSHED (id) tells. */
void engine_flush(struct engine *engine, uint64_t id);

/* A snapshot, any thread. */
struct engine_stats {
    uint32_t running, queued, reserving, held, retracted;
    uint32_t pages_total, pages_free, pages_cached;
    uint64_t prompt_tokens, cached_tokens, output_tokens, requests, aborted;
    uint64_t retractions, steps, step_us, host_us; /* host: not the model  */
    double output_rate; /* tokens/s over about the last second             */
};
void engine_stats_get(struct engine *engine, struct engine_stats *out);
const struct engine_options *engine_get_options(const struct engine *engine);

#endif
