/* xfer/fabric.h - ways whose bytes move by another library: RDMA, UCX.
 *
 * The control link carries what they need: addresses of both ends when it
 * comes up (OFFER, ACCEPT), then the target's registrations with their keys
 * (KEYS, REGIONS, DROP, GONE), docs/wire.md. A link that has both still waits
 * until one operation (finish, of nothing) is through; where that fails or
 * takes too long the link goes on without. Written and read is one-sided: the
 * target's application takes no part.
 *
 * An engine has at most one fabric, with one thread, which posts, reaps and
 * ends. Locks: f->lock around each call of the library; x->lock may be taken
 * under it, never the other way round. */
#ifndef BATON_XFER_FABRIC_H
#define BATON_XFER_FABRIC_H

#include "xfer/core.h"

enum {
    FABRIC_ADDR_MAX = WIRE_FABRIC_MAX,
    FABRIC_KEY_MAX = WIRE_KEY_MAX,
    FABRIC_POSTED_MAX = 128, /* operations under way, an end */
};

struct fabric_mem { /* a registration, as the library knows it */
    void *handle;
    size_t key_bytes;
    uint8_t key[FABRIC_KEY_MAX]; /* what a peer needs to reach it */
};

/* A chunk on its way, as operations or as messages. */
struct fabric_work {
    TAILQ_ENTRY(fabric_work) next;
    struct fabric_end *end;
    void *lib;                /* the end, as the library knows it */
    struct xfer_chunk *chunk; /* NULL: the first word, that proves the path */
    size_t piece;
    uint32_t row;
    unsigned left;       /* posted, not done */
    bool posted, failed; /* all of it; some of it */
    struct why refused;  /* by the target */
    struct xfer_mem *locals[XFER_CHUNK_PIECES];
};

/* One transfer of consecutive bytes. */
struct fabric_op {
    enum xfer_kind kind;
    char *local;
    uint64_t remote, bytes;
    struct fabric_mem *mem; /* that holds local */
    uint64_t key;           /* of the remote memory, from key_open */
    struct fabric_work *work;
};

/* What a library provides: one-sided operations (key_open, post, finish), or
 * messages that the target's end applies and answers (send, finish). Errors go
 * into why; all under f->lock. */
struct fabric_ops {
    const struct xfer_way *way;
    uint32_t number; /* on the wire */
    /* Fills f->lib; f->text names the device. */
    int (*open)(struct fabric *f, struct why *why);
    void (*close)(struct fabric *f);
    int (*mem_open)(struct fabric *f, struct xfer_mem *mem,
                    struct fabric_mem *out, struct why *why); /* or NULL */
    void (*mem_close)(struct fabric *f, struct fabric_mem *mem);
    /* An end and its address; connecting it to the peer's; ending it: when
     * that returns nothing of it touches our memory any more, and operations
     * that were not reported done never will be. */
    int (*end_open)(struct fabric *f, struct fabric_end *owner, bool target,
                    void **out, uint8_t *addr, size_t *n, struct why *why);
    int (*end_connect)(struct fabric *f, void *end, const uint8_t *addr,
                       size_t n, struct why *why);
    void (*end_close)(struct fabric *f, void *end);
    /* Of a number that is not 0 by which post knows the key. */
    int (*key_open)(void *end, const uint8_t *key, size_t n, uint64_t *out,
                    struct why *why);
    /* Each leads to one fabric_done(work), and not before it returns. send:
     * the work's next message, with piece and posted moved on. finish: it is
     * done once all that was posted before lies in the target's memory; also
     * the first word of a link, with messages only that. */
    int (*post)(struct fabric *f, void *end, const struct fabric_op *op,
                struct why *why);
    int (*send)(struct fabric *f, void *end, struct fabric_work *work,
                struct why *why);
    int (*finish)(struct fabric *f, void *end, struct fabric_work *work,
                  struct why *why);
    /* Reaps; true when there was something. */
    bool (*progress)(struct fabric *f);
    /* False: progress first. Else f->fd tells of the next thing. */
    bool (*arm)(struct fabric *f);
};

extern const struct fabric_ops fabric_rdma, fabric_ucx;

struct fabric {
    struct xfer *x;
    const struct fabric_ops *ops;
    void *lib;
    char text[64];
    int fd; /* readable when there is something to reap */
    pthread_mutex_t lock;
    atomic_uint wanted; /* others that wait for the lock */
    pthread_t thread;
    bool running;
    int wake; /* eventfd */
    /* under x->lock */
    TAILQ_HEAD(, fabric_end) ends;
    bool signaled, quit;
};

/* From ops->progress, end_close: an operation is over; rc 0, ERR_PEER (so is
 * the link), or how the target refused it. */
void fabric_done(struct fabric_work *work, int rc, const char *text);
/* From ops->progress: the end does not work any more. */
void fabric_broke(struct fabric_end *owner, const char *text);

/* xfer_open and xfer_close; NULL x->fabric where none was asked for. */
int fabric_open(struct xfer *x, struct why *why);
void fabric_close(struct xfer *x);
int fabric_mem_open(struct xfer *x, struct xfer_mem *mem, struct why *why);
void fabric_mem_close(struct xfer *x, struct xfer_mem *mem);

/* io 0, without the lock. Offers the peer of an outbound control connection
 * our fabric. */
void fabric_offer(struct conn *control);
/* Frames of the fabric on a control connection. */
int fabric_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why);
void fabric_attended(struct conn *c); /* inbound: registrations changed */

/* Under the lock. */
void fabric_kick(struct xfer_link *link);
struct xfer_place *fabric_find(struct xfer_link *link,
                               const struct xfer_op *op);
void fabric_end_later(struct fabric_end *end); /* NULL is fine */
/* The link should be up by now; true: it is, without the fabric. */
bool fabric_late(struct xfer_link *link);

#endif
