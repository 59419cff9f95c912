/* xfer/binding_core.h - the inside of a binding; only src/xfer/ includes it. */
#ifndef BATON_XFER_BINDING_CORE_H
#define BATON_XFER_BINDING_CORE_H

#include "base/map.h"
#include "xfer/core.h"
#include "xfer/env.h"
#include "xfer/store.h"
#include "xfer/store_wire.h"

#include <stdatomic.h>

/* A peer that was named; kept connected, and closed again when it is down and
 * was not asked for in a while. */
struct known {
    struct known *next; /* of the same hash */
    struct xfer_peer *peer;
    uint64_t used_ms;
    unsigned uses; /* calls and unfinished batches */
    char name[];
};

/* A range that was registered: by us, or inside another one. */
struct region {
    uint64_t addr, bytes, serial;
    struct xfer_mem *mem;  /* or */
    struct region *within; /* ... that is kept by it */
    unsigned refs, inner;  /* times registered and ranges inside; the latter */
};

enum { POOL_STEPS = 16 }; /* 8 KiB << 0 ... 256 MiB */

struct pool_step {
    void **free;
    size_t count, cap;
};

/* A note of a peer's application to ours. */
struct word {
    TAILQ_ENTRY(word) next;
    size_t name_bytes, bytes; /* both texts with their closing 0 */
    char text[];
};

/* A question of ours to a peer. */
struct question {
    bool answered;
    uint64_t addr;
};

struct xfer_binding {
    TAILQ_ENTRY(xfer_binding) next; /* in the list of all */
    unsigned calls;                 /* ... with its lock  */
    bool closing;
    pid_t pid; /* a child after fork() has none of its threads */

    struct xfer *x;
    struct xfer_settings settings;
    atomic_uint_least64_t ids;
    pthread_mutex_t lock; /* what follows */
    struct map peers;     /* hash of the name -> struct known */
    struct map running;   /* id -> struct known               */
    struct map regions;   /* addr -> struct region            */
    struct map pooled;    /* addr -> number of its step + 1, or the memory */
    struct pool_step steps[POOL_STEPS];
    char *chunk; /* that pieces are cut from */
    size_t chunk_left;
    uint64_t region_serial;
    struct xfer_store_client *store;
    TAILQ_HEAD(, word) words;
    size_t word_count;
    struct map questions; /* id -> struct question */
    pthread_cond_t heard; /* a question was answered, a word was taken */
    pthread_t listener;
    int quit_fd; /* readable: the listener ends */
    bool deaf;   /* it is to end */
};

/* Keeps b from being freed; ERR_INVALID: it is closed. */
int binding_enter(struct xfer_binding *b, struct why *why);
void binding_leave(struct xfer_binding *b);

/* xfer_store_open with what this process has for stores. */
int binding_store_open(const char *url, struct xfer_store_client **out,
                       struct why *why);

struct known *known_take(struct xfer_binding *b, const char *name,
                         struct why *why); /* NULL: why says */
void known_drop(struct xfer_binding *b, struct known *k);

/* transfer and submit share this: n ranges and a note to a known peer. */
struct parcel {
    struct known *k;
    struct xfer_op *ops;
    uint64_t tag, total;
    struct xfer_batch batch;
    uint8_t note[XFER_NOTE_MAX];
};
int parcel_wait(struct xfer_binding *b, const struct parcel *p, int timeout_ms,
                struct why *why);

/* What a note of a peer says; pointers into it. */
enum note_kind { NOTE_WORD, NOTE_QUESTION, NOTE_ANSWER, NOTE_KINDS };
struct note_view {
    enum note_kind kind;
    const char *name, *msg; /* not closed by a 0 */
    size_t name_bytes, msg_bytes;
    uint64_t id, addr;
};
int note_decode(struct note_view *out, const uint8_t *data, size_t bytes,
                struct why *why);
/* The bytes of a note; ERR_RANGE: too long. */
int note_encode(const struct xfer_binding_note *note, uint8_t *out,
                size_t *bytes, struct why *why);
int listener_start(struct xfer_binding *b, struct why *why);
void listener_stop(struct xfer_binding *b); /* ends waiting calls too */
void listener_free(struct xfer_binding *b);

/* Under the lock: the address of the oldest region, or 0. */
uint64_t region_first(struct xfer_binding *b);
void binding_memory_free(struct xfer_binding *b); /* the engine is stopped */

#endif
