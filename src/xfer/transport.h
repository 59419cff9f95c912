/* xfer/transport.h - what one way of moving bytes to or from a peer provides.
 *
 * The engine above (batch.c) owns batches, deadlines and completions. It cuts
 * a batch into streams, one per way, by asking each way in order of preference
 * whether it can reach an operation's remote range. A way takes the work of a
 * stream in chunks, at its own pace, and gives each chunk back:
 *
 *     submit -> find (each op) -> stream waits in link->queue -> kick
 *            -> xfer_chunk_take ... bytes move ... -> xfer_chunk_done
 *
 * The rules, checked over all ways by tests/xfer/contract_test.c:
 *   1. find and kick do not block. They run under the engine's lock.
 *   2. Each chunk that was taken is given back exactly once, also when the
 *      link dies.
 *   3. Given back with 0 means: the bytes are in the memory they were meant
 *      for, ours or the peer's. Given back in any way means: we do not touch
 *      our memory any more, and neither does the peer while its link lives.
 *   4. What does not lie inside a registration of the target that allows the
 *      access is refused with ERR_RANGE, and a text that names the address.
 *   5. Chunks may be done in any order.
 *
 * There are two kinds. A copying way (self, memfd, CMA) has copy: the engine's
 * workers take chunks and call it. The others have kick: their own threads take
 * chunks, out of the link's frame_queue (TCP, unix socket) or fabric_queue
 * (RDMA, UCX; fabric.h), and give them back when the target has the bytes. */
#ifndef BATON_XFER_TRANSPORT_H
#define BATON_XFER_TRANSPORT_H

#include "xfer/xfer.h"

struct xfer_link;
struct xfer_place;
struct xfer_chunk;

/* A part of an operation: rows of bytes each, local to or from remote. */
struct xfer_piece {
    char *local;
    uint64_t remote, bytes;
    uint64_t local_pitch, remote_pitch;
    uint32_t rows;
};

enum { XFER_CHUNK_PIECES = 256, XFER_CHUNK_BYTES = 1 << 20 };

struct xfer_way {
    const char *name;
    unsigned via; /* its XFER_VIA_ bit; bit n is number n in xfer_stats */

    /* The place that holds the whole remote range of op and allows the access,
     * or NULL: this way does not reach it. A chunk stays within one place. */
    struct xfer_place *(*find)(struct xfer_link *link,
                               const struct xfer_op *op);
    /* Keeps the place usable from take to done. Under the lock; NULL: no
     * need. */
    void (*hold)(struct xfer_place *place);
    void (*drop)(struct xfer_place *place);

    /* Moves a chunk, synchronously, on any thread, without the lock. */
    int (*copy)(struct xfer_chunk *chunk, struct why *why);
    /* The same, for a framing way, by a caller that waits for it anyway (of at
     * most a MiB, ask.c). NULL: callers always wait for the way's own
     * threads. */
    int (*ask)(struct xfer_chunk *chunk, struct why *why);
    /* Streams of this way wait: see that somebody takes them. */
    void (*kick)(struct xfer_link *link);
};

extern const struct xfer_way xfer_way_self, xfer_way_memfd, xfer_way_cma,
    xfer_way_unix, xfer_way_tcp, xfer_way_rdma, xfer_way_ucx;

#endif
