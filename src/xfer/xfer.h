/* xfer/xfer.h - one-sided transfers between the memories of processes.
 *
 * An engine (struct xfer) owns a TCP address, its name "host:port". It
 * registers memory that others may write or read, and it writes or reads the
 * registered memory of peers, which it knows by name:
 *
 *     xfer_open -> xfer_alloc / xfer_register         (the target's part: all)
 *     xfer_peer_open -> xfer_submit -> xfer_poll      (the initiator's part)
 *
 * Remote memory is addressed by the target's own virtual addresses, told to
 * the initiator by whatever control plane there is. The target checks every
 * range against its registrations; its application takes no part and no step.
 * A batch has one completion, which means: the bytes lie in the target's
 * memory (WRITE) or in ours (READ). It may carry a note, which the target's
 * application gets after the bytes.
 *
 * The way is chosen per remote region: same process: memcpy; same host and
 * user: copy into a mapping of the target's memfd (memory of xfer_alloc), else
 * process_vm_writev, else a unix socket; otherwise RDMA or UCX where both
 * sides have it switched on, else TCP lanes. docs/wire.md has the frames,
 * xfer/transport.h the contract between the ways.
 *
 * Threads: every function may be called from any thread; the library runs its
 * own (lanes for sockets and life signs, workers for copies), which sleep when
 * idle. No function but those that say "waits" blocks. Not usable in a child
 * after fork(). Errors: 0 or a negative ERR_ code of base/err.h. */
#ifndef BATON_XFER_XFER_H
#define BATON_XFER_XFER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct xfer;
struct xfer_mem;
struct xfer_peer;

/* Ways, as a mask. */
enum {
    XFER_VIA_SELF = 1,  /* same process: memcpy                         */
    XFER_VIA_MEMFD = 2, /* same host: copy into the target's mapping    */
    XFER_VIA_CMA = 4,   /* same host: process_vm_writev / _readv        */
    XFER_VIA_UNIX = 8,  /* same host: frames over a unix socket         */
    XFER_VIA_TCP = 16,  /* frames over TCP                              */
    XFER_VIA_ALL = 31,
    XFER_VIA_RDMA = 32, /* another host: libibverbs, where asked for; rdma.c */
    XFER_VIA_UCX = 64,  /* another host: libucp, where asked for; ucx.c      */
};

/* Zero everywhere means the default. Strings are copied. */
struct xfer_options {
    const char *host;      /* address to bind, numeric or a name; 127.0.0.1.
                            * A wildcard needs advertise                    */
    const char *advertise; /* host in our name; default: host               */
    uint16_t port;         /* 0: any free one                               */
    const char *token;     /* shared secret; both sides need the same       */
    /* TLS 1.3 on TCP: PEM files of our certificate, its key, and the CA that
     * signs ours and our peers'. All three or none, on both sides alike. Needs
     * libssl at run time. */
    const char *tls_cert, *tls_key, *tls_ca;
    bool insecure;           /* without a token, accept other machines too    */
    unsigned via;            /* XFER_VIA_ mask that peers and we use; ALL. RDMA
                            * or UCX (not both) needs both sides; else they use
                            * the rest                                      */
    const char *rdma_device; /* "name", "name:port" or "name:port:gid index";
                              * the first with an active port             */
    unsigned lanes;          /* TCP connections a peer, and threads for them;
                            * 1..16, default cores / 2, 2 to 4              */
    unsigned workers;      /* threads that copy; 1..16, default min(2, cores) */
    unsigned heartbeat_ms; /* between pings, 600; three missed: peer is dead */
    unsigned connect_ms;   /* for a TCP connect, 3000; the handshake has 1 s */
    unsigned batches_max;  /* unfinished at a time, 65536; more: ERR_AGAIN  */
    unsigned notes_max;    /* from peers, not yet polled, 1024              */
};

/* 128 random bits that name one life of one engine. */
struct xfer_epoch {
    uint8_t bytes[16];
};

/* Opens an engine: binds, listens and starts its threads. opt may be NULL.
 * ERR_INVALID: an option; ERR_EXISTS: the port is taken; ERR_IO otherwise. */
int xfer_open(struct xfer **out, const struct xfer_options *opt,
              struct why *why);

/* Ends all links and batches: those unfinished complete with ERR_CANCELED (or
 * what they met) and can still be polled; new ones are refused. Waits until
 * no peer and no thread of ours touches memory. Twice is fine. */
void xfer_stop(struct xfer *x);

/* xfer_stop, then frees the engine with all its peers and memory handles
 * (memory of xfer_alloc is unmapped). NULL is fine. */
void xfer_close(struct xfer *x);

enum { XFER_NAME_MAX = 280 };

/* "host:port" ("[v6]:port"), by which peers open us. Valid until close. */
const char *xfer_name(const struct xfer *x);
uint16_t xfer_port(const struct xfer *x);
struct xfer_epoch xfer_epoch(const struct xfer *x);

/* ---- memory ---------------------------------------------------------- */

/* XFER_LOCAL_ONLY: no peer may touch it; it serves our own transfers. */
enum { XFER_REMOTE_READ = 1, XFER_REMOTE_WRITE = 2, XFER_LOCAL_ONLY = 4 };

/* Maps bytes of zeroed memory that peers of this host and user can map too,
 * and registers it. Pages take room only once touched, so bytes may exceed
 * what the machine has. access: XFER_REMOTE_ mask, 0 = both.
 * ERR_INVALID (bytes 0), ERR_NOMEM (no address space), ERR_IO. */
int xfer_alloc(struct xfer *x, size_t bytes, unsigned access,
               struct xfer_mem **out, struct why *why);

/* Registers [addr, addr + bytes), which stays the caller's and must stay valid
 * until deregistered. location: where it lies, "cpu", "cpu:N", "*" or NULL;
 * other places ("cuda:0", "npu:0") are ERR_UNSUPPORTED in a build without a
 * transport for them. Overlapping another registration: ERR_EXISTS. */
int xfer_register(struct xfer *x, void *addr, size_t bytes,
                  const char *location, unsigned access, struct xfer_mem **out,
                  struct why *why);

/* Takes a registration back. At once new operations on it are refused, here
 * and by peers; then waits until no running one, of ours or of a peer, touches
 * it: microseconds, or up to the death of a hung peer. Unmaps what xfer_alloc
 * mapped; frees mem. Batches that use it locally run to their end first. */
void xfer_deregister(struct xfer_mem *mem);

/* The registration with its start exactly at addr; NULL when there is none. */
struct xfer_mem *xfer_mem_find(struct xfer *x, const void *addr);
void *xfer_mem_base(const struct xfer_mem *mem);
size_t xfer_mem_bytes(const struct xfer_mem *mem);
/* A random number, new with each registration, never 0: an initiator that
 * knows it (xfer_op.key) cannot hit a later registration by mistake. */
uint64_t xfer_mem_key(const struct xfer_mem *mem);

/* ---- peers ----------------------------------------------------------- */

enum xfer_state {
    XFER_CONNECTING, /* submits wait for the outcome            */
    XFER_UP,
    XFER_DOWN, /* tried again in the background and, at once,
                * by the next submit; nothing is black-listed  */
};

/* The peer of that name ("host:port", "[v6]:port"; our own name is fine), or
 * of a pass of that peer's, which is a peer of its own. The first open starts
 * to connect in the background, later ones add a reference to the same peer.
 * ERR_INVALID: not a name. */
int xfer_peer_open(struct xfer *x, const char *name, struct xfer_peer **out,
                   struct why *why);
/* Drops a reference; the last one cancels what is unfinished and ends the
 * link. NULL is fine. */
void xfer_peer_close(struct xfer_peer *peer);

const char *xfer_peer_name(const struct xfer_peer *peer);
/* why (may be NULL) says what happened when the answer is XFER_DOWN. */
enum xfer_state xfer_peer_state(struct xfer_peer *peer, struct why *why);
/* Waits until the state is not XFER_CONNECTING. 0 when up; ERR_PEER, ERR_AUTH
 * ... when down; ERR_TIMEOUT. */
int xfer_peer_wait(struct xfer_peer *peer, int timeout_ms, struct why *why);
/* The epoch of its present life; false when it is not up. */
bool xfer_peer_epoch(struct xfer_peer *peer, struct xfer_epoch *out);
/* Asks the peer for a life sign and waits for it: 0, and how long it took
 * (rtt_ns may be NULL). Connects first where needed. ERR_TIMEOUT; ERR_PEER and
 * others as xfer_peer_wait. */
int xfer_peer_probe(struct xfer_peer *peer, int timeout_ms, uint64_t *rtt_ns,
                    struct why *why);
/* Writes which way is used and why, as "memfd mapping, same host" or "tcp, 2
 * lanes (...)", cut to n bytes with a closing 0. */
void xfer_peer_explain(struct xfer_peer *peer, char *buf, size_t n);

/* Target side: a pass, one more name of ours, "PASS@host:port" with 16 random
 * hex digits, for one peer or one purpose. By it they open us as by the plain
 * name, until it is expelled or we are another epoch: then ERR_STALE. */
void xfer_pass(struct xfer *x, char out[XFER_NAME_MAX + 1]);

/* Target side: ends all links that came by a pass of ours, for good, or all of
 * the engine called name, and waits until nothing of them can land in our
 * memory any more. Call it before reusing memory that a peer given up for dead
 * was told to write. A pass is over with that: what comes later is refused. An
 * engine may connect anew, so its application must have given up, too.
 * ERR_TIMEOUT: a stopped process of this host is in the middle of a copy; the
 * memory is not safe yet. 0 also when there was no link. */
int xfer_expel(struct xfer *x, const char *name, int timeout_ms);

/* ---- operations ------------------------------------------------------ */

enum xfer_kind { XFER_WRITE, XFER_READ }; /* local to remote; remote to local */

/* rows runs of bytes each; a pitch is the distance between the starts of two
 * rows, at least bytes, and is not looked at when rows is 0 or 1 (plain). The
 * local span must lie in one registration of ours, the remote span in one of
 * the peer. Spans of one batch must not overlap where they are written. */
struct xfer_op {
    enum xfer_kind kind;
    uint32_t rows;
    void *local;
    uint64_t remote; /* virtual address in the peer */
    uint64_t bytes;  /* of a row; 0: nothing to do */
    uint64_t local_pitch, remote_pitch;
    uint64_t key; /* xfer_mem_key of the remote memory, or 0: any */
};

/* What one completion stands for. */
struct xfer_batch {
    const struct xfer_op *ops; /* copied during the call */
    size_t count;
    uint64_t tag;                   /* comes back in xfer_done */
    const struct xfer_epoch *epoch; /* only this life of the peer, else
                                     * ERR_STALE; NULL: whichever lives */
    const void *note;  /* copied; NULL: none. Goes to the peer's application
                       * once all bytes are in place, and not at all when the
                       * batch fails. count may be 0: a note alone           */
    size_t note_bytes; /* 0 .. XFER_NOTE_MAX */
};

/* Submits without waiting; ops are copied, the memory they name must stay
 * until the completion. The completion of a batch that returned 0 arrives
 * exactly once, whatever happens; on an error nothing was started. Batches are
 * not ordered among each other. When a batch fails, any part of it may have
 * been written.
 * ERR_RANGE: local memory is not registered; ERR_INVALID; ERR_AGAIN: too many
 * unfinished; ERR_NOMEM; ERR_CANCELED: the engine is stopped. */
int xfer_submit(struct xfer_peer *peer, const struct xfer_op *ops, size_t n,
                uint64_t tag, struct why *why);
int xfer_submit_batch(struct xfer_peer *peer, const struct xfer_batch *batch,
                      struct why *why);

/* rc: 0, or
 * ERR_RANGE     the peer has no such memory; text names the address
 * ERR_STALE     key or epoch is of a former life
 * ERR_PEER      peer is gone, hung or refuses connections. Our memory is not
 *               touched any more; what became of the peer's is unknown
 * ERR_AUTH      token or certificate does not fit, here or there
 * ERR_CANCELED  canceled; neither side touches the memory any more
 * ERR_AGAIN     the bytes are in place, but the peer's application has too
 *               many notes to read: this one was not taken                  */
struct xfer_done {
    uint64_t tag;
    int rc;
    uint64_t bytes; /* known to have been moved; all of them when rc is 0 */
    char text[200]; /* for a human; empty when rc is 0 */
};

/* Takes up to cap completions; returns how many: a test that never waits. */
size_t xfer_poll(struct xfer *x, struct xfer_done *done, size_t cap);
/* A descriptor that is readable while completions wait, for event loops;
 * do not read it. Valid until xfer_close. */
int xfer_fd(const struct xfer *x);
/* Waits for the completion of tag and takes it, leaving others for xfer_poll;
 * nobody else may poll it away. ERR_TIMEOUT after timeout_ms (-1: never). */
int xfer_wait(struct xfer *x, uint64_t tag, int timeout_ms,
              struct xfer_done *done);

/* Submits and waits; no completion reaches xfer_poll. After timeout_ms (-1:
 * never) cancels, waits for the end and returns ERR_TIMEOUT. */
int xfer_transfer(struct xfer_peer *peer, const struct xfer_op *ops, size_t n,
                  int timeout_ms, struct why *why);

/* Asks that the unfinished batches of tag, or all of a peer, end early. Each
 * completes with ERR_CANCELED once neither side can touch its memory any more
 * (with ERR_PEER when the peer died before that was sure), or with its own
 * result when nothing was left to stop. A peer that lives but for 10 s answers
 * none of what such a batch has under way loses its link; what else it had
 * under way fails with it. Returns how many were asked. */
size_t xfer_cancel(struct xfer *x, uint64_t tag);
size_t xfer_cancel_peer(struct xfer_peer *peer);

/* ---- notes: what a batch tells the target's application ---------------- */

enum { XFER_NOTE_MAX = 4096 };

struct xfer_note {
    char from[XFER_NAME_MAX + 1]; /* name of the engine that sent it */
    struct xfer_epoch epoch;      /* and its life                    */
    size_t bytes;
    uint8_t data[XFER_NOTE_MAX];
};

/* Target side: takes the oldest note that came; false: there is none. The
 * bytes of its batch are in our memory. Notes of one peer's batches come in
 * the order in which the batches were over. */
bool xfer_note_poll(struct xfer *x, struct xfer_note *out);
/* Readable while notes wait; do not read it. Valid until xfer_close. */
int xfer_note_fd(const struct xfer *x);

/* ---- numbers --------------------------------------------------------- */

enum { XFER_WAYS = 7 }; /* self memfd cma unix tcp rdma ucx, in this order */

/* Counters since open, taken at one moment. */
struct xfer_stats {
    uint64_t batches, batches_failed;   /* completed; of these rc != 0        */
    uint64_t ops;                       /* submitted                          */
    uint64_t bytes_written, bytes_read; /* by our batches, moved            */
    struct {
        uint64_t chunks, bytes, errors;
    } way[XFER_WAYS]; /* what our batches used; see xfer_way_name */
    uint64_t target_bytes_in, target_bytes_out; /* by frames; mappings and
                                                 * CMA take no step here */
    uint64_t target_refused;                    /* frames with a bad range */
    uint64_t notes_in, notes_refused; /* taken; the queue was full          */
    uint64_t accepted, rejected; /* connections in; failed handshakes       */
    uint64_t links_up, links_lost, peers_hung;
    size_t peers, mems, batches_open;
};
void xfer_stats_get(struct xfer *x, struct xfer_stats *out);
const char *xfer_way_name(size_t way); /* "self" ... "ucx" */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
