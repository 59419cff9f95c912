/* xfer/core.h - the engine's inside; only src/xfer/ includes it.
 *
 * One lock, x->lock, guards everything that is shared: peers, links, batches,
 * memory, completions, numbers. A socket (struct conn) belongs to one io
 * thread, which alone reads, writes and frees it; others ask with
 * conn_attend. Bytes are moved without the lock.
 *
 *   peer      a name; outlives its connections; refs from the caller
 *   link      one life of a connection to a peer: conns, regions, queues;
 *             dies as a whole at the first failure
 *   inlink    the target's end of a link
 *   batch     what was submitted; cut into streams, one per way
 *   chunk     a part of a stream that somebody works on now */
#ifndef BATON_XFER_CORE_H
#define BATON_XFER_CORE_H

#include "xfer/transport.h"
#include "xfer/wire.h"
#include "xfer/xfer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct conn;
struct batch;
struct fabric;
struct tls_setup;
struct fabric_end;
struct fabric_mem;

/* Around what io threads do to registered memory for peers. It is ordered by
 * messages between applications, which the thread sanitizer cannot see. */
#ifdef __SANITIZE_THREAD__
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define FOREIGN_BEGIN() \
    (AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0))
#define FOREIGN_END() \
    (AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0))
#else
#define FOREIGN_BEGIN() ((void)0)
#define FOREIGN_END()   ((void)0)
#endif

/* Whether to poll for a while before sleeping: yes, when the last waits were so
 * short that polling would have met their end. An idle thread never polls. */
struct spin {
    unsigned shorts; /* short waits in a row, up to 2 */
};
enum { SPIN_NS = 50000 };
static inline uint64_t spin_ns(const struct spin *s)
{
    return s->shorts == 2 ? SPIN_NS : 0;
}
static inline void spin_learn(struct spin *s, uint64_t waited_ns)
{
    if (waited_ns > SPIN_NS)
        s->shorts = 0;
    else if (s->shorts < 2)
        s->shorts++;
}
static inline void cpu_relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb" ::: "memory");
#endif
}

enum {
    HANDSHAKE_MS = 1800, /* as the life signs of 600 ms below */
    HEARTBEATS = 3,      /* missed ones until death */
    CANCEL_MS = 10000,   /* a canceled batch waits so long for a next answer */
    HALF_OPEN_MAX = 64,
    CONNS_MAX = 4096,
    REGIONS_MAX = 65536,
    LANES_MAX = 16,
    WORKERS_MAX = 16,
    HOST_MAX = 256,
    XFER_VIA_HOST = XFER_VIA_MEMFD | XFER_VIA_CMA | XFER_VIA_UNIX,
};

/* Bytes from the first of rows to behind the last. */
static inline uint64_t rows_span(uint64_t bytes, uint32_t rows, uint64_t pitch)
{
    return rows > 1 ? pitch * (rows - 1) + bytes : bytes;
}
static inline uint64_t op_remote_span(const struct xfer_op *op)
{
    return rows_span(op->bytes, op->rows, op->remote_pitch);
}

/* ---- memory (mem.c) ---- */

/* A remote range that a copying way reaches: a region of the peer, or, in the
 * same process, a registration of ours. */
struct xfer_place {
    struct xfer_mem *self; /* way self */
    struct xfer_link *link;
    uint64_t id, base, bytes, key;
    unsigned access;
    char *map;           /* the region in our address space, or NULL */
    uint64_t fabric_key; /* by which the fabric reaches it, or 0 */
    unsigned users;
    bool dropped; /* the peer wants it unmapped */
};

struct xfer_mem {
    struct xfer_place place; /* for way self */
    struct xfer *x;
    char *base;
    size_t bytes;
    uint64_t id, key;
    unsigned access;
    int fd; /* memfd of xfer_alloc, else -1 */
    struct fabric_mem *fabric;
    bool closing;
    unsigned users;     /* batches that use it locally, transfers now on it */
    unsigned announced; /* peers that may map it or copy to it            */
    uint64_t seen_by;   /* serial of the last batch that counted it       */
};

/* All under the lock. The registration that holds [addr, addr + span). */
struct xfer_mem *mem_at(struct xfer *x, uint64_t addr, uint64_t span);
/* What a peer may touch: *out, or ERR_RANGE, ERR_STALE. key 0: any. */
int mem_check(struct xfer *x, uint64_t addr, uint64_t span, unsigned access,
              uint64_t key, struct xfer_mem **out);
/* The one that a batch holds at addr; it may be closing. */
struct xfer_mem *mem_held_at(struct xfer *x, uint64_t addr);
void mem_user_drop(struct xfer_mem *mem);
void mem_free_all(struct xfer *x);

/* ---- batches (batch.c) ---- */

TAILQ_HEAD(stream_list, stream);
TAILQ_HEAD(batch_list, batch);

/* The operations of a batch that go one way, and how far they are taken. */
struct stream {
    TAILQ_ENTRY(stream) next;
    struct batch *batch;
    const struct xfer_way *way;
    struct xfer_op *ops;
    size_t count, at;         /* operations; the next one */
    uint32_t row;             /* within it */
    uint64_t offset;          /* within the row */
    struct stream_list *list; /* where it waits, or NULL */
};

/* Where the note of a batch is. */
enum note_state {
    NOTE_NONE,  /* there is none, or none any more      */
    NOTE_LATER, /* bytes first                          */
    NOTE_READY, /* in link->notes: to be sent           */
    NOTE_SENT,  /* in link->notes_sent: its answer comes */
};

struct batch {
    TAILQ_ENTRY(batch) of_peer;
    TAILQ_ENTRY(batch) done;
    TAILQ_ENTRY(batch) noting;
    struct xfer_peer *peer;
    struct xfer_link *link; /* where it was routed; NULL: not yet */
    uint64_t serial, tag, bytes, bytes_done;
    int rc;
    char text[200];
    bool sync, finished, has_epoch; /* sync: xfer_transfer waits for it */
    uint64_t hurry_ms; /* canceled (or to be) then, or its last answer since;
                        * 0: it has all the time */
    struct xfer_epoch epoch;
    unsigned chunks; /* taken, not given back */
    struct stream streams[XFER_WAYS];
    struct xfer_mem **locals;
    size_t local_count, local_cap;
    size_t count;
    struct xfer_op *ops, *sorted; /* sorted: by way, when more than one */
    enum note_state note;
    uint8_t *note_data;
    size_t note_bytes;
};

/* Where a walk over the local bytes of pieces is. */
struct cursor {
    const struct xfer_piece *pieces;
    size_t count, at;
    uint64_t offset; /* within the rows of pieces[at], laid end to end */
};

/* Something to send: head, then the payload that the cursor walks. */
struct txn {
    TAILQ_ENTRY(txn) next;
    uint8_t *head;
    size_t head_bytes, head_sent;
    struct cursor payload;
    uint64_t payload_left;
    int fd;    /* goes with the first byte, borrowed; -1: none */
    bool heap; /* mem_free after sending */
    /* A target's answer to READ: memory checked before each send, then DONE. */
    bool reply;
    int status;
    uint64_t id, key;
};

struct xfer_chunk {
    struct xfer_chunk *next;
    struct txn txn;
    struct batch *batch;
    struct xfer_link *link;
    const struct xfer_way *way;
    struct xfer_place *place;
    enum xfer_kind kind;
    uint64_t id, bytes, key;
    size_t count;
    struct xfer_piece pieces[XFER_CHUNK_PIECES];
    uint8_t head[WIRE_HEADER + XFER_CHUNK_PIECES * WIRE_DESC];
};

/* All under the lock. The stream waits no more. */
void stream_unqueue(struct stream *s);
/* Finishes b when nothing of it is left to do. */
void batch_settle(struct batch *b);
/* Nothing more of b is begun; it ends with rc once its chunks are back. */
void batch_fail(struct batch *b, int rc, const char *text);
/* chunk.c */
struct xfer_chunk *xfer_chunk_take(struct xfer_link *link,
                                   struct stream_list *queue,
                                   uint64_t bytes_max);
void xfer_chunk_done(struct xfer_chunk *chunk, int rc, const char *text);
/* Routes what waited for the link; ends what waited in vain. */
void batches_route(struct xfer_peer *peer);
void batches_fail_unrouted(struct xfer_peer *peer, int rc, const char *text);
void batches_fail_link(struct xfer_link *link, int rc, const char *text);
size_t batches_cancel(struct xfer_peer *peer, const uint64_t *tag);
/* Whether one that is canceled got no answer for CANCEL_MS; else when the next
 * may have got none, 0: never. */
bool batches_stuck(const struct xfer_link *link, uint64_t now, uint64_t *next);

/* ---- notes (note.c); all under the lock ---- */

TAILQ_HEAD(note_list, note);
struct note { /* came in, waits for the application */
    TAILQ_ENTRY(note) next;
    char from[WIRE_NAME_MAX + 1];
    struct xfer_epoch epoch;
    size_t bytes;
    uint8_t data[];
};

/* The bytes of b are in place: on with its note, which may end b. */
void note_post(struct batch *b);
void note_forget(struct batch *b); /* it is not to be sent, or not answered */
void notes_free(struct xfer *x);

/* ---- copying (copy.c) ---- */

int workers_start(struct xfer *x, struct why *why);
void workers_stop(struct xfer *x);
void worker_run_one(struct xfer *x, struct xfer_chunk *chunk);

/* ---- callers that speak for themselves (ask.c) ---- */

/* Under the lock: b, if it is small and waited for and the connection free. */
struct xfer_chunk *ask_take(struct xfer_link *link, const struct batch *b);
/* Without the lock, by whom ask_take gave the chunk. ERR_PEER: the link is
 * lost. */
int ask_run(struct xfer_chunk *chunk, struct why *why);

/* ---- links and peers (peer.c) ---- */

struct fence { /* one page shared with the peer, docs/wire.md */
    atomic_uint revoked, busy;
};

struct xfer_link {
    TAILQ_ENTRY(xfer_link) next;
    TAILQ_ENTRY(xfer_link) copying; /* in x->copy_links while queue waits */
    struct xfer *x;
    struct xfer_peer *peer;
    unsigned refs; /* peer, conns, chunks */
    bool self, up, dead, in_copy_list, lanes_wanted, lanes_opening;
    bool direct_tried;
    uint64_t id;
    struct xfer_epoch epoch;
    const struct xfer_way *frames; /* xfer_way_tcp or xfer_way_unix */
    struct stream_list copy_queue, frame_queue, fabric_queue;
    struct fabric_end *end; /* fabric.c */
    bool offered, offer_due, fabric_up;
    struct batch_list notes, notes_sent;
    unsigned notes_in_flight;
    struct conn *control, *direct, *lanes[LANES_MAX];
    unsigned lane_count; /* open ones, lanes[0 .. lane_count) */
    uint64_t heard_ms, ping_ms, up_by_ms;
    uint64_t stuck_ms;          /* look then at what hurries; 0: nothing does */
    uint64_t pinged_ns, rtt_ns; /* of the last answered ping: sent at, took */
    bool probing, probe_wanted; /* somebody waits for a pong; ping now */
    struct xfer_place **places; /* sorted by base */
    size_t place_count, place_cap;
    int direct_fd, pidfd, pid; /* of the target's process, or -1 */
    int ask_fd;                /* for callers, or -1 */
    bool ask_busy;
    struct spin ask_spin; /* of who has ask_busy */
    bool cma;
    struct fence *fence;
    char direct_text[160]; /* why there is no same-host way */
};
TAILQ_HEAD(link_list, xfer_link);

struct xfer_peer {
    TAILQ_ENTRY(xfer_peer) next;
    struct xfer *x;
    char name[WIRE_NAME_MAX + 1], host[HOST_MAX];
    uint64_t pass; /* by which we know it, or 0 */
    uint16_t port;
    unsigned refs, links; /* the caller's; link objects alive */
    enum xfer_state state;
    struct why why;
    struct xfer_link *link;
    struct batch_list batches; /* unfinished */
    uint64_t dial_ms, backoff_ms;
    struct resolve *resolve; /* running name look-up */
};
TAILQ_HEAD(peer_list, xfer_peer);

/* The target's end of a link. */
struct inlink {
    TAILQ_ENTRY(inlink) next;
    struct xfer_epoch epoch;
    uint64_t id, pass, heard_ms;
    uint32_t heartbeat_ms;
    char name[WIRE_NAME_MAX + 1];
    unsigned conns; /* and one for the end */
    bool down;
    struct fabric_end *end; /* fabric.c */
};
TAILQ_HEAD(inlink_list, inlink);

/* Under the lock. */
void link_fail(struct xfer_link *link, int rc, const char *text);
void link_drop(struct xfer_link *link);
void link_up(struct xfer_link *link);
void peer_dial_now(struct xfer_peer *peer); /* it is down */
/* There is no same-host way: on with the fabric, or what is left. */
void link_go_on(struct xfer_link *link);
void inlink_fail(struct xfer *x, struct inlink *in);
void inlink_drop(struct xfer *x, struct inlink *in); /* one of its conns */
/* pass.c: whether a HELLO may want that; *pass: 0 when it names none. */
bool want_is_known(const struct xfer *x, const struct xfer_epoch *want,
                   uint64_t *pass);
/* On io 0, without the lock: dials, timers, what is over. Returns when it
 * wants to be called next (clock_ms), UINT64_MAX: never. */
uint64_t peers_housekeep(struct xfer *x, uint64_t now);
void peers_free_all(struct xfer *x);

/* "host:port" into its parts; ERR_INVALID. */
int addr_split(const char *name, char host[HOST_MAX], uint16_t *port,
               struct why *why);
void addr_join(const char *host, uint16_t port, char *out, size_t n);
/* Takes "PASS@" off the front of a name; 0: there is none. */
uint64_t addr_pass_take(const char **name);
/* The name with pass (0: none) in front of it. */
void addr_pass_put(uint64_t pass, const char *name, char *out, size_t n);
struct addr {
    struct sockaddr_storage ss;
    socklen_t bytes;
};
int addr_numeric(const char *host, uint16_t port, struct addr *out);
int addr_resolve(const char *host, uint16_t port, struct addr *out,
                 struct why *why); /* may wait for a name server */
void addr_unix(const struct xfer_epoch *epoch, struct addr *out);
/* A listening socket, or ERR_EXISTS (taken) or ERR_IO; what: its name. */
int addr_listen(const struct addr *addr, const char *what, struct why *why);
uint16_t addr_port_of(int fd); /* that it is bound to */

/* ---- same host (direct.c) ---- */

/* Around each touch of a same-host peer's memory, docs/wire.md. */
int link_fence_enter(struct xfer_link *link, struct why *why);
void link_fence_leave(struct xfer_link *link);
/* Under the lock: the peer's (or, of our own link, our) memory that holds the
 * remote range of op and allows it. */
struct xfer_place *link_place(struct xfer_link *link, const struct xfer_op *op);
void link_place_hold(struct xfer_place *place);
void link_place_drop(struct xfer_place *place);
void link_direct_close(struct xfer_link *link); /* nobody uses it any more */
int link_place_add(struct xfer_link *link, struct xfer_place *place);

/* ---- engine (xfer.c) ---- */

struct io;

struct xfer {
    struct xfer_options opt;
    char *token;
    size_t token_bytes;
    char host[HOST_MAX], name[WIRE_NAME_MAX + 1];
    uint16_t port;
    struct xfer_epoch epoch;
    int listen_fd, unix_fd, done_fd, note_fd;
    uint64_t probe; /* a secret number that peers read to test CMA */

    pthread_mutex_t lock;
    pthread_cond_t done_cond;  /* a batch finished, a peer's state changed */
    pthread_cond_t quiet_cond; /* memory or links became quiet */
    pthread_cond_t work_cond;  /* for workers */
    bool stopping, stopped, io_quit, workers_quit, done_signaled;
    bool note_signaled;
    bool spins;                  /* there is a core for who makes us wait */
    bool chores;                 /* peers_housekeep has something to do */
    bool mems_changed;           /* ... among it: tell same-host peers */
    uint64_t kept_ms, accept_ms; /* io 0 only: last turn, listen again */

    struct io *ios;
    unsigned io_count, io_running;
    pthread_t workers[WORKERS_MAX];
    unsigned worker_count;
    struct link_list links, copy_links;
    struct peer_list peers;
    struct inlink_list inlinks;
    uint64_t *passes; /* ours that are not over */
    size_t pass_count, pass_cap;
    TAILQ_HEAD(, conn) conns;
    unsigned conn_count, half_open;
    struct xfer_mem **mems; /* sorted by base */
    size_t mem_count, mem_cap;
    uint64_t mem_ids, batch_serials, chunk_ids;
    struct batch_list done;
    size_t batch_count;    /* unfinished */
    struct fabric *fabric; /* or NULL */
    struct tls_setup *tls; /* or NULL */
    struct note_list notes;
    size_t note_count;
    struct xfer_chunk *free_chunks;
    struct xfer_stats stats;
};

void xfer_chores(struct xfer *x);        /* wakes io 0; under the lock */
uint64_t deadline_after(int timeout_ms); /* clock_ms, UINT64_MAX for -1 */
void cond_init(pthread_cond_t *cond);    /* on clock_ms's clock */
/* Waits on cond at most until the deadline; false: it passed. */
bool cond_until(pthread_cond_t *cond, pthread_mutex_t *lock,
                uint64_t deadline_ms);

/* ---- io threads (io.c) and sockets (conn.c) ---- */

/* pthread_create with all signals blocked; an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg);
int io_start(struct xfer *x, struct why *why);
void io_stop(struct xfer *x);

#endif
