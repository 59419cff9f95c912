/* xfer/conn.h - one socket: handshake, then frames in and out.
 *
 * Owned by one io thread, which calls everything here unless a comment says
 * otherwise. Handshakes and the kinds CONTROL and DIRECT stay on io 0; an open
 * DATA connection moves to the thread of its lane. Nothing is sent at once:
 * conn_send queues, the thread flushes at the end of its turn. */
#ifndef BATON_XFER_CONN_H
#define BATON_XFER_CONN_H

#include "xfer/core.h"

enum {
    RX_BYTES = 64 << 10,  /* holds any header with its body */
    RX_STEP = 16 << 10,   /* read at most so far past a header */
    TURN_BYTES = 4 << 20, /* moved per socket before others get their turn */
    ROW_SMALL = 512,      /* rows below go through a buffer, not an iovec */
    BOUNCE_BYTES = 64 << 10,
    IOV_BATCH = 128,
    FDS_MAX = 8,
    REPLIES_MAX = 16,  /* READs answered at a time, and answers that wait to */
    ANSWERS_MAX = 512, /* be sent; with more we do not read on               */
};

enum { ATTEND_KILL = 1, ATTEND_ADOPT = 2, ATTEND_PUMP = 4, ATTEND_RESUME = 8 };

TAILQ_HEAD(conn_list, conn);
TAILQ_HEAD(txn_list, txn);

struct io {
    struct xfer *x;
    unsigned index;
    int epoll, wake;
    pthread_t thread;
    struct conn_list attention; /* under the lock */
    bool signaled;              /* under the lock */
    struct conn_list flush, graves;
    struct spin spin;
    uint8_t bounce[BOUNCE_BYTES];
};

enum stage { CONNECTING, HELLO_SENT, PROOF_SENT, HELLO_WAITED, PROOF_WAITED };
struct handshake {
    enum stage stage;
    uint64_t deadline_ms;
    uint8_t hello[WIRE_HELLO_MAX], welcome[WIRE_WELCOME_BODY];
    size_t hello_bytes;
    struct wire_hello peer; /* inbound */
};

enum sink { SINK_NONE, SINK_CHUNK, SINK_WRITE, SINK_DISCARD };

struct announce { /* a registration that a same-host peer was told of */
    TAILQ_ENTRY(announce) next;
    struct xfer_mem *mem;
    bool drop_sent;
};

struct conn {
    TAILQ_ENTRY(conn) next, attending, flushing, burying;
    struct xfer *x;
    struct io *io;
    int fd;
    enum wire_kind kind;
    unsigned lane;
    bool inbound, local, open, dead, ended, zombie;
    bool want_flush, paused;
    bool ask;           /* outbound DATA for callers, ask.c */
    bool moving;        /* goes to another thread at the end of this turn */
    unsigned attention; /* under the lock */
    bool in_attention;  /* under the lock */
    bool in_epoll;
    uint32_t events; /* asked of epoll */
    struct handshake *hs;
    struct xfer_link *link; /* outbound */
    struct inlink *in;      /* inbound, once open */

    uint8_t *rx;
    size_t rx_from, rx_to;
    bool have_header;
    struct wire_header h;
    enum sink sink;
    struct cursor sink_at;
    uint64_t sink_left;
    int fds[FDS_MAX];
    unsigned fd_count;
    struct tls *tls; /* over TCP, where the engine has it; else NULL */
    struct txn_list tx;
    uint64_t tx_bytes; /* queued, unsent */
    unsigned tx_count;

    /* DATA, outbound: chunks sent or being sent, oldest first */
    struct xfer_chunk *flight, **flight_end;
    unsigned flight_count;
    uint64_t flight_bytes;
    /* DATA, inbound */
    struct xfer_piece *pieces; /* [WIRE_DESCS_MAX] of the WRITE coming in */
    size_t piece_count;
    int refused; /* why the WRITE coming in is not applied */
    uint64_t refused_addr, refused_bytes;
    unsigned replies; /* READs being answered */
    /* DIRECT, inbound */
    struct fence *fence;
    int fence_fd;
    uint64_t announced_to; /* registrations up to this id were told */
    TAILQ_HEAD(, announce) announces;
};

/* Connects to addr for link (io 0). NULL: why. */
struct conn *conn_dial(struct xfer_link *link, enum wire_kind kind,
                       unsigned lane, const struct addr *addr, struct why *why);
void conn_peer_addr(const struct conn *c, struct addr *out);
void conn_accept(struct xfer *x, int fd, bool local);
void conn_event(struct conn *c, uint32_t events);
void conn_attended(struct conn *c, unsigned attention);
/* Any thread, under the lock: the owner will look at it. */
void conn_attend(struct conn *c, unsigned attention);

/* Queues a frame; fd (or -1) travels along, borrowed until it is sent. */
void conn_send(struct conn *c, const struct wire_header *h, const void *body,
               size_t n, int fd, bool in_front);
void conn_queue(struct conn *c, struct txn *t, bool in_front);
void conn_flush(struct conn *c);
/* Reads no more until the peer has taken some of its answers. */
void conn_pause_if_full(struct conn *c);
/* The connection is over, and so is its link. */
void conn_fail(struct conn *c, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void conn_lost(struct conn *c); /* a call on the socket failed: errno */
void conn_bury(struct conn *c); /* destroyed at the end of the turn */
/* False: kept as a zombie, because the peer may be copying. */
bool conn_destroy(struct conn *c);
void conn_resume(struct conn *c); /* reads again after paused */

bool conn_is_lane(const struct conn *c); /* takes chunks of its link's queue */
void conn_move(struct conn *c); /* at the end of the turn, when moving */
void conn_flush_later(struct conn *c);
void conn_watch(struct conn *c); /* asks epoll for what it needs now */

/* handshake.c: the socket is connected; a frame while it is not open. */
void handshake_begin(struct conn *c);
int handshake_in(struct conn *c, const struct wire_header *h,
                 const uint8_t *body, struct why *why);

/* Cursor: iovecs or copies of what comes next, and going on. */
int cursor_iov(const struct cursor *at, struct iovec *iov, int max,
               uint64_t bytes_max, size_t *pieces /* they touch; or NULL */);
bool cursor_small(const struct cursor *at); /* next rows are tiny */
uint64_t cursor_piece_left(const struct cursor *at);
size_t cursor_copy(struct cursor *at, uint8_t *buffer, size_t n, bool out);
void cursor_advance(struct cursor *at, uint64_t n);

/* frames.c: WRITE, READ, DATA, DONE */
void frames_pump(struct conn *c);
int frames_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why);
void frames_sink_end(struct conn *c);
void frames_reply_sent(struct conn *c, struct txn *t);
void frames_encode(struct xfer_chunk *chunk); /* its head and txn */
/* What the target says in DONE: 0 or an error with a text. */
int frames_result(const struct xfer_link *link, const struct wire_header *done,
                  struct why *why);
void frames_give_back(struct conn *c, const char *text); /* under the lock */
/* Holds the registrations under pieces, count of them (at most IOV_BATCH);
 * frames_leave lets go. 0, ERR_RANGE or ERR_STALE (then nothing is held). */
struct held {
    struct xfer_mem *mems[IOV_BATCH];
    size_t count;
};
int frames_enter(struct conn *c, const struct xfer_piece *pieces, size_t count,
                 unsigned access, uint64_t key, struct held *held);
void frames_leave(struct conn *c, struct held *held);

/* ask.c; under the lock: the connection of callers is open */
void ask_open(struct conn *c);

/* note.c: NOTE and its DONE, on CONTROL */
void notes_pump(struct conn *c);
void note_in(struct conn *c, const struct wire_header *h, const uint8_t *body);
int note_done_in(struct conn *c, const struct wire_header *h, struct why *why);

/* direct.c: FENCE, REGION, REGIONS, DROP, GONE */
int direct_opened(struct conn *c, struct why *why);
int direct_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why);
void direct_attended(struct conn *c); /* registrations changed */
/* Initiator: a region is dropped; says so once nobody uses it any more. */
void link_place_dropped(struct conn *c, uint64_t id);
void link_places_reap(struct conn *c);
void direct_revoke(struct conn *c);
bool direct_quiet(const struct conn *c);
void direct_end(struct conn *c); /* under the lock */

/* io.c */
void io_watch(struct conn *c); /* puts it into its thread's epoll */
void io_unwatch(struct conn *c);
void io_wake(struct io *io);          /* under the lock */
void io_accept_again(struct xfer *x); /* io 0 */

#endif
