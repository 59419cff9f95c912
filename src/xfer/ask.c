/* Transfers that somebody waits for, up to a MiB: the caller speaks to the
 * target itself, over a socket of its own, and so spares the handing over to an
 * io thread and back (two wake-ups each, more than a small transfer takes, and
 * of a large one a tenth).
 *
 * The connection is one more DATA lane to the target. Its conn here stays with
 * io 0, which only watches for its end; frames go through a second descriptor
 * of the same socket, by one caller at a time. When the link fails it is shut
 * down, which ends the wait. */
#include "xfer/conn.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    ASK_BYTES = 1 << 20,
    ASK_OPS = 64,
    AHEAD_FROM = 64 << 10, /* payloads below may lie in the cache anyway */
    LINE = 64,
};

void ask_open(struct conn *c)
{
    c->paused = true;
    if (!c->link->dead && !c->tls)
        c->link->ask_fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
}

struct xfer_chunk *ask_take(struct xfer_link *link, const struct batch *b)
{
    const struct stream *s = TAILQ_FIRST(&link->frame_queue);
    if (!b->sync || !s || s->batch != b || !s->way->ask || link->dead ||
        link->ask_fd < 0 || link->ask_busy || b->bytes > ASK_BYTES ||
        b->count > ASK_OPS)
        return NULL;
    for (size_t i = 0; i < b->count; i++)
        if (b->ops[i].rows != 1) return NULL;
    struct xfer_chunk *chunk =
        xfer_chunk_take(link, &link->frame_queue, ASK_BYTES);
    link->ask_busy = chunk != NULL;
    return chunk;
}

/* After EAGAIN: tries again for a while, then sleeps until something comes. */
static void ask_wait(int fd, short events, uint64_t spin_until)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    if (clock_ns() < spin_until)
        cpu_relax();
    else
        poll(&pfd, 1, -1);
}

static int ask_lost(const struct xfer_link *link, ssize_t n, struct why *why)
{
    if (n == 0)
        return err_set(why, ERR_PEER, "peer %s closed the connection",
                       link->peer->name);
    return err_sys(why, ERR_PEER, errno, "peer %s: connection lost",
                   link->peer->name);
}

/* The kernel reads what it copies line by line; memory that no cache holds is
 * there sooner when all of it was asked for before (docs/speed.md). */
static void ask_ahead(const struct txn *t)
{
    struct iovec iov[ASK_OPS];
    if (t->payload_left < AHEAD_FROM) return;
    int n = cursor_iov(&t->payload, iov, ASK_OPS, t->payload_left, NULL);
    for (int i = 0; i < n; i++)
        for (size_t at = 0; at < iov[i].iov_len; at += LINE)
            __builtin_prefetch((const char *)iov[i].iov_base + at);
}

static int ask_send(struct xfer_link *link, struct txn *t, struct why *why)
{
    struct iovec iov[ASK_OPS + 1];
    ask_ahead(t);
    while (t->head_sent < t->head_bytes || t->payload_left) {
        size_t head = t->head_bytes - t->head_sent;
        struct msghdr m = {.msg_iov = iov};
        if (head)
            iov[m.msg_iovlen++] = (struct iovec){t->head + t->head_sent, head};
        m.msg_iovlen += (size_t)cursor_iov(&t->payload, iov + m.msg_iovlen,
                                           ASK_OPS, t->payload_left, NULL);
        ssize_t n = sendmsg(link->ask_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            ask_wait(link->ask_fd, POLLOUT, 0);
        } else if (n < 0 && errno != EINTR) {
            return ask_lost(link, n, why);
        } else if (n > 0) {
            size_t took = (size_t)n < head ? (size_t)n : head;
            t->head_sent += took;
            cursor_advance(&t->payload, (uint64_t)n - took);
            t->payload_left -= (uint64_t)n - took;
        }
    }
    return 0;
}

/* The answer: DONE, or, to a READ, DATA, its payload and DONE. data and done
 * get the headers' bytes; returns how many bytes came, all or, of a refused
 * READ, DONE alone in data. */
static int ask_recv(struct xfer_link *link, const struct xfer_chunk *chunk,
                    uint8_t data[WIRE_HEADER], uint8_t done[WIRE_HEADER],
                    struct why *why)
{
    struct iovec iov[ASK_OPS + 2] = {{data, WIRE_HEADER}};
    struct cursor into = {.pieces = chunk->pieces, .count = chunk->count};
    size_t left = WIRE_HEADER, at = 0, count = 1;
    uint64_t start = clock_ns(), spin = start + spin_ns(&link->ask_spin);
    if (chunk->kind == XFER_READ) {
        count +=
            (size_t)cursor_iov(&into, iov + 1, ASK_OPS, chunk->bytes, NULL);
        iov[count++] = (struct iovec){done, WIRE_HEADER};
        left += chunk->bytes + WIRE_HEADER;
    }
    while (left) {
        struct msghdr m = {.msg_iov = iov + at, .msg_iovlen = count - at};
        ssize_t n = recvmsg(link->ask_fd, &m, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            ask_wait(link->ask_fd, POLLIN, spin);
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return ask_lost(link, n, why);
        left -= (size_t)n;
        for (size_t took = (size_t)n; took; at += iov[at].iov_len == 0) {
            size_t part = took < iov[at].iov_len ? took : iov[at].iov_len;
            iov[at].iov_base = (char *)iov[at].iov_base + part;
            iov[at].iov_len -= part;
            took -= part;
        }
        if (at && data[0] == WIRE_DONE) break;
    }
    if (link->x->spins) spin_learn(&link->ask_spin, clock_ns() - start);
    return 0;
}

int ask_run(struct xfer_chunk *chunk, struct why *why)
{
    struct xfer_link *link = chunk->link;
    uint8_t first[WIRE_HEADER] = {0}, last[WIRE_HEADER] = {0};
    struct wire_header data, done;
    frames_encode(chunk);
    int rc = ask_send(link, &chunk->txn, why);
    if (!rc) rc = ask_recv(link, chunk, first, last, why);
    if (rc) return rc;
    bool read = chunk->kind == XFER_READ && first[0] != WIRE_DONE;
    if ((read &&
         (wire_header_decode(&data, first, why) || data.type != WIRE_DATA ||
          data.id != chunk->id || data.bytes != chunk->bytes)) ||
        wire_header_decode(&done, read ? last : first, why) ||
        done.type != WIRE_DONE || done.id != chunk->id)
        return err_set(why, ERR_PEER, "peer %s: an answer to nothing we asked",
                       link->peer->name);
    return frames_result(link, &done, why);
}
