/* engine/core.h - what the owner's side (engine.c) and the engine's thread
 * (turn.c) share. Internal to src/engine. */
#ifndef BATON_ENGINE_CORE_H
#define BATON_ENGINE_CORE_H

#include "engine/engine.h"

#include "base/map.h"
#include "engine/event.h"
#include "engine/gate.h"
#include "engine/live.h"
#include "engine/picks.h"
#include "engine/schedule.h"

#include <pthread.h>
#include <stdatomic.h>

/* Steps stop while so many events are out with the owner; the inbox has room
 * for what one more step adds. */
#define EVENTS_OUT 1024

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
    int32_t ends[ENDS_MAX]; /* limits.end_count */

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
    bool packs; /* runner.pack has something left */
    uint64_t now_us;
    uint64_t step_ns, model_ns, sample_ns; /* since start */
    uint64_t rate_from_us, rate_tokens;    /* output_tokens at rate_from_us */

    struct engine_stats stats; /* the engine thread's, published in shown */
    pthread_mutex_t shown_lock;
    struct engine_stats shown;
    uint64_t shown_us;
};

/* The thread: turns until gate_quit. arg: the engine. */
void *turn_run(void *arg);

#endif
