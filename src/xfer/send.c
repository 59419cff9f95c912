/* A socket's sending half: frames wait in c->tx, head and payload each; a flush
 * gathers many into one sendmsg, straight out of the caller's memory. */
#include "xfer/conn.h"

#include "base/mem.h"
#include "xfer/tls.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

void conn_flush_later(struct conn *c)
{
    if (c->want_flush) return;
    c->want_flush = true;
    TAILQ_INSERT_TAIL(&c->io->flush, c, flushing);
}

void conn_queue(struct conn *c, struct txn *t, bool in_front)
{
    if (in_front)
        TAILQ_INSERT_HEAD(&c->tx, t, next);
    else
        TAILQ_INSERT_TAIL(&c->tx, t, next);
    c->tx_count++;
    c->tx_bytes += t->head_bytes + t->payload_left;
    conn_flush_later(c);
}

static struct txn *txn_create(const struct wire_header *h, const void *body,
                              size_t n)
{
    struct txn *t = mem_must(1, sizeof *t + WIRE_HEADER + n);
    t->heap = true;
    t->fd = -1;
    t->head = (uint8_t *)(t + 1);
    t->head_bytes = WIRE_HEADER + n;
    wire_header_encode(h, t->head);
    if (n) memcpy(t->head + WIRE_HEADER, body, n);
    return t;
}

void conn_send(struct conn *c, const struct wire_header *h, const void *body,
               size_t n, int fd, bool in_front)
{
    struct txn *t = txn_create(h, body, n);
    t->fd = fd;
    conn_queue(c, t, in_front);
}

void conn_watch(struct conn *c)
{
    uint32_t want = EPOLLRDHUP;
    if (!c->paused) want |= EPOLLIN;
    bool out = !TAILQ_EMPTY(&c->tx);
    if (c->tls ? tls_wants_out(c->tls, out) : out) want |= EPOLLOUT;
    if (want == c->events) return;
    c->events = want;
    io_watch(c);
}

/* What goes into one sendmsg. */
struct gather {
    struct iovec iov[IOV_BATCH];
    int count;
    uint64_t bytes;
    int fd;
    bool bounced;
};

/* Adds the payload of t, false when not all of it went in. */
static bool gather_payload(struct conn *c, struct gather *g, struct txn *t)
{
    uint64_t room = TURN_BYTES - g->bytes, had = g->bytes;
    if (room > t->payload_left) room = t->payload_left;
    if (cursor_small(&t->payload)) {
        if (g->bounced || g->count == IOV_BATCH) return false;
        struct cursor at = t->payload;
        size_t n = room < BOUNCE_BYTES ? room : BOUNCE_BYTES;
        n = cursor_copy(&at, c->io->bounce, n, false);
        g->bounced = true;
        g->iov[g->count++] = (struct iovec){c->io->bounce, n};
        g->bytes += n;
    } else {
        int n = cursor_iov(&t->payload, g->iov + g->count, IOV_BATCH - g->count,
                           room, NULL);
        for (int i = 0; i < n; i++)
            g->bytes += g->iov[g->count++].iov_len;
    }
    return g->bytes - had == t->payload_left;
}

static void gather_all(struct conn *c, struct gather *g)
{
    struct txn *t;
    *g = (struct gather){.fd = -1};
    TAILQ_FOREACH(t, &c->tx, next)
    {
        bool first = t == TAILQ_FIRST(&c->tx);
        if (g->count == IOV_BATCH || g->bytes >= TURN_BYTES) return;
        if (t->fd >= 0 && !first) return; /* begins a message of its own */
        if (t->head_sent < t->head_bytes) {
            size_t n = t->head_bytes - t->head_sent;
            g->iov[g->count++] = (struct iovec){t->head + t->head_sent, n};
            g->bytes += n;
            if (t->fd >= 0) {
                if (t->head_sent == 0) g->fd = t->fd;
                return;
            }
            if (t->reply) return; /* its payload is sent under checks */
        }
        if (t->payload_left && !gather_payload(c, g, t)) return;
    }
}

static ssize_t gather_send(struct conn *c, struct gather *g)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = g->iov, .msg_iovlen = (size_t)g->count};
    if (c->tls) return tls_send(c->tls, g->iov, g->count);
    if (g->fd >= 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &g->fd, sizeof(int));
    }
    return sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void conn_pause_if_full(struct conn *c)
{
    if (c->inbound && (c->replies >= REPLIES_MAX || c->tx_count >= ANSWERS_MAX))
        c->paused = true;
}

static void txn_end(struct conn *c, struct txn *t)
{
    TAILQ_REMOVE(&c->tx, t, next);
    c->tx_count--;
    if (t->reply) frames_reply_sent(c, t);
    if (t->heap) mem_free(t);
    if (!c->paused || c->moving || c->replies >= REPLIES_MAX ||
        c->tx_count > ANSWERS_MAX / 2)
        return;
    /* Reading goes on, though not from inside this send. */
    pthread_mutex_lock(&c->x->lock);
    conn_attend(c, ATTEND_RESUME);
    pthread_mutex_unlock(&c->x->lock);
}

static void tx_consume(struct conn *c, uint64_t n)
{
    struct txn *t;
    c->tx_bytes -= n;
    while ((t = TAILQ_FIRST(&c->tx))) {
        uint64_t head = t->head_bytes - t->head_sent;
        uint64_t take = n < head ? n : head;
        t->head_sent += take;
        n -= take;
        take = n < t->payload_left ? n : t->payload_left;
        cursor_advance(&t->payload, take);
        t->payload_left -= take;
        n -= take;
        if (t->head_sent < t->head_bytes || t->payload_left) return;
        txn_end(c, t);
    }
}

/* The payload of a READ's answer: registrations are held while the kernel
 * copies; when they are gone, zeros go out and DONE tells. */
static ssize_t reply_send(struct conn *c, struct txn *t)
{
    struct gather g = {.fd = -1};
    struct held held = {.count = 0};
    size_t pieces;
    g.count = cursor_iov(&t->payload, g.iov, IOV_BATCH, TURN_BYTES, &pieces);
    if (!t->status)
        t->status = frames_enter(c, t->payload.pieces + t->payload.at, pieces,
                                 XFER_REMOTE_READ, t->key, &held);
    if (t->status) {
        memset(c->io->bounce, 0, BOUNCE_BYTES);
        uint64_t n = t->payload_left;
        g.iov[0] =
            (struct iovec){c->io->bounce, n < BOUNCE_BYTES ? n : BOUNCE_BYTES};
        g.count = 1;
    } else if (cursor_small(&t->payload)) {
        struct cursor at = t->payload;
        at.count = at.at + pieces; /* those that are held */
        FOREIGN_BEGIN();
        size_t copied = cursor_copy(&at, c->io->bounce, BOUNCE_BYTES, false);
        FOREIGN_END();
        g.iov[0] = (struct iovec){c->io->bounce, copied};
        g.count = 1;
    }
    FOREIGN_BEGIN();
    ssize_t n = gather_send(c, &g);
    FOREIGN_END();
    frames_leave(c, &held);
    return n;
}

void conn_flush(struct conn *c)
{
    uint64_t budget = TURN_BYTES;
    struct txn *t;
    if (c->tls && TAILQ_EMPTY(&c->tx)) tls_send(c->tls, NULL, 0);
    while (!c->dead && (t = TAILQ_FIRST(&c->tx)) && budget) {
        ssize_t n;
        if (t->reply && t->head_sent == t->head_bytes) {
            n = reply_send(c, t);
        } else {
            struct gather g;
            gather_all(c, &g);
            n = gather_send(c, &g);
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            conn_lost(c);
            return;
        }
        tx_consume(c, (uint64_t)n);
        budget -= (uint64_t)n < budget ? (uint64_t)n : budget;
    }
    if (!c->dead) conn_watch(c);
}
