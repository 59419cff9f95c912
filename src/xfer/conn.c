#include "xfer/conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/fabric.h"
#include "xfer/tls.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- making and ending ---- */

void conn_lost(struct conn *c)
{
    const char *who = c->link ? c->link->peer->name : "at a socket of ours";
    if (c->tls && *tls_text(c->tls))
        conn_fail(c, ERR_AUTH, "peer %s: %s", who, tls_text(c->tls));
    else
        conn_fail(c, ERR_PEER, "connection lost: %s", strerror(errno));
}

static void conn_free(struct conn *c)
{
    tls_destroy(c->tls);
    for (struct txn *t; (t = TAILQ_FIRST(&c->tx));) {
        TAILQ_REMOVE(&c->tx, t, next);
        if (t->heap) mem_free(t);
    }
    while (c->fd_count)
        close(c->fds[--c->fd_count]);
    if (c->fence_fd >= 0) close(c->fence_fd);
    mem_free(c->pieces);
    mem_free(c->hs);
    mem_free(c->rx);
    mem_free(c);
}

/* Takes fd. NULL: the engine is closing. */
static struct conn *conn_create(struct xfer *x, int fd, bool local)
{
    struct conn *c = mem_must(1, sizeof *c);
    c->x = x;
    c->io = &x->ios[0];
    c->fd = fd;
    c->local = local;
    c->fence_fd = -1;
    c->flight_end = &c->flight;
    c->rx = mem_must(RX_BYTES, 1);
    c->hs = mem_must(1, sizeof *c->hs);
    TAILQ_INIT(&c->tx);
    TAILQ_INIT(&c->announces);
    pthread_mutex_lock(&x->lock);
    bool stopping = x->stopping; /* and nobody would end it any more */
    if (!stopping) {
        TAILQ_INSERT_TAIL(&x->conns, c, next);
        x->conn_count++;
        xfer_chores(x); /* its deadline */
    }
    pthread_mutex_unlock(&x->lock);
    if (!stopping) return c;
    close(fd);
    conn_free(c);
    return NULL;
}

struct conn *conn_dial(struct xfer_link *link, enum wire_kind kind,
                       unsigned lane, const struct addr *addr, struct why *why)
{
    struct xfer *x = link->x;
    bool local = addr->ss.ss_family == AF_UNIX;
    int fd = socket(addr->ss.ss_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        err_sys(why, ERR_IO, errno, "socket");
        return NULL;
    }
    const struct sockaddr *to = (const struct sockaddr *)&addr->ss;
    if (connect(fd, to, addr->bytes) && errno != EINPROGRESS) {
        err_sys(why, ERR_PEER, errno, "peer %s: connect%s", link->peer->name,
                local ? " on this host" : "");
        close(fd);
        return NULL;
    }
    struct conn *c = conn_create(x, fd, local);
    if (!c) {
        err_set(why, ERR_CANCELED, "engine is closing");
        return NULL;
    }
    if (!local && x->tls) c->tls = tls_create(x->tls, fd, false);
    c->kind = kind;
    c->lane = lane;
    c->hs->stage = CONNECTING;
    c->hs->deadline_ms = clock_ms() + x->opt.connect_ms;
    pthread_mutex_lock(&x->lock);
    c->link = link;
    link->refs++;
    if (link->dead) conn_attend(c, ATTEND_KILL);
    pthread_mutex_unlock(&x->lock);
    c->events = EPOLLOUT;
    io_watch(c);
    return c;
}

void conn_peer_addr(const struct conn *c, struct addr *out)
{
    out->bytes = sizeof out->ss;
    memset(&out->ss, 0, sizeof out->ss);
    getpeername(c->fd, (struct sockaddr *)&out->ss, &out->bytes);
}

void conn_accept(struct xfer *x, int fd, bool local)
{
    struct conn *c = conn_create(x, fd, local), *old;
    if (!c) return;
    c->inbound = true;
    if (!local && x->tls) c->tls = tls_create(x->tls, fd, true);
    c->hs->stage = HELLO_WAITED;
    c->hs->deadline_ms = clock_ms() + HANDSHAKE_MS;
    c->events = EPOLLIN | EPOLLRDHUP;
    io_watch(c);
    pthread_mutex_lock(&x->lock);
    x->stats.accepted++;
    bool full = ++x->half_open > HALF_OPEN_MAX || x->conn_count > CONNS_MAX;
    TAILQ_FOREACH(old, &x->conns, next)
    if (old->inbound && !old->open && !old->dead) break;
    pthread_mutex_unlock(&x->lock);
    /* The oldest stranger makes room, so that silent ones block nobody. */
    if (full && old) conn_fail(old, ERR_AGAIN, "too many connections");
}

void conn_bury(struct conn *c)
{
    if (c->dead) return;
    c->dead = true;
    if (c->fence && c->inbound) direct_revoke(c);
    TAILQ_INSERT_TAIL(&c->io->graves, c, burying);
}

void conn_fail(struct conn *c, int rc, const char *fmt, ...)
{
    char text[200];
    if (c->dead) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    conn_bury(c);
    pthread_mutex_lock(&c->x->lock);
    if (!c->open && c->inbound) c->x->stats.rejected++;
    if (c->in) inlink_fail(c->x, c->in);
    if (c->link && c->kind == WIRE_DIRECT && !c->link->up && !c->link->dead) {
        c->link->direct = NULL;
        snprintf(c->link->direct_text, sizeof c->link->direct_text, "%.150s",
                 text);
        link_go_on(c->link);
    } else if (c->link) {
        link_fail(c->link, rc, text);
    }
    pthread_mutex_unlock(&c->x->lock);
}

bool conn_destroy(struct conn *c)
{
    struct xfer *x = c->x;
    if (c->want_flush) {
        TAILQ_REMOVE(&c->io->flush, c, flushing);
        c->want_flush = false;
    }
    if (!c->ended && !direct_quiet(c)) {
        c->zombie = true; /* peers_housekeep looks again */
        c->events = EPOLLRDHUP;
        io_watch(c);
        pthread_mutex_lock(&x->lock);
        xfer_chores(x);
        pthread_mutex_unlock(&x->lock);
        return false;
    }
    io_unwatch(c);
    pthread_mutex_lock(&x->lock);
    if (c->in_attention) TAILQ_REMOVE(&c->io->attention, c, attending);
    TAILQ_REMOVE(&x->conns, c, next);
    x->conn_count--;
    if (c->inbound && !c->open) x->half_open--;
    frames_give_back(c, c->link && c->link->peer->why.text[0]
                            ? c->link->peer->why.text
                            : "connection closed");
    direct_end(c);
    if (c->in) inlink_drop(x, c->in);
    int fd = c->fd;
    if (c->link) {
        if (c->kind == WIRE_DIRECT && c->open && c->link->direct_fd < 0) {
            /* Its end tells the target that our copies are over. */
            c->link->direct_fd = fd;
            fd = -1;
        }
        link_drop(c->link);
    }
    xfer_chores(x);
    pthread_cond_broadcast(&x->quiet_cond);
    pthread_mutex_unlock(&x->lock);
    if (fd >= 0) close(fd);
    conn_free(c);
    return true;
}

void conn_attend(struct conn *c, unsigned attention)
{
    c->attention |= attention;
    if (c->in_attention) return;
    c->in_attention = true;
    TAILQ_INSERT_TAIL(&c->io->attention, c, attending);
    io_wake(c->io);
}

bool conn_is_lane(const struct conn *c)
{
    return c->kind == WIRE_DATA_LANE && !c->inbound && !c->ask;
}

void conn_attended(struct conn *c, unsigned attention)
{
    if (attention & ATTEND_KILL) conn_bury(c);
    if (c->dead) return;
    if (attention & ATTEND_ADOPT) io_watch(c);
    if (attention & (ATTEND_ADOPT | ATTEND_RESUME)) conn_resume(c);
    if (attention & ATTEND_PUMP && c->open) {
        if (conn_is_lane(c)) frames_pump(c);
        if (c->kind == WIRE_DIRECT) direct_attended(c);
        if (c->kind == WIRE_CONTROL && !c->inbound) {
            notes_pump(c);
            link_places_reap(c);
        }
    }
}

void conn_move(struct conn *c)
{
    struct xfer *x = c->x;
    io_unwatch(c);
    pthread_mutex_lock(&x->lock);
    unsigned attention = c->attention | ATTEND_ADOPT | ATTEND_PUMP;
    if (c->in_attention) TAILQ_REMOVE(&c->io->attention, c, attending);
    c->in_attention = c->moving = false;
    c->io = &x->ios[c->lane % x->io_count];
    conn_attend(c, attention);
    pthread_mutex_unlock(&x->lock);
}

/* ---- receiving ---- */

static int control_in(struct conn *c, const struct wire_header *h,
                      const uint8_t *body, struct why *why)
{
    struct xfer *x = c->x;
    uint64_t now = clock_ms();
    if (h->type == WIRE_PING && c->inbound) {
        pthread_mutex_lock(&x->lock);
        c->in->heard_ms = now;
        pthread_mutex_unlock(&x->lock);
        conn_send(c, &(struct wire_header){.type = WIRE_PONG, .aux = h->aux},
                  NULL, 0, -1, false);
        return 0;
    }
    if (h->type == WIRE_PONG && !c->inbound) {
        pthread_mutex_lock(&x->lock);
        c->link->heard_ms = now;
        c->link->pinged_ns = h->aux;
        c->link->rtt_ns = clock_ns() - h->aux;
        c->link->probing = false;
        pthread_cond_broadcast(&x->done_cond);
        pthread_mutex_unlock(&x->lock);
        return 0;
    }
    if (h->type == WIRE_NOTE && c->inbound) {
        note_in(c, h, body);
        return 0;
    }
    if (h->type == WIRE_DONE && !c->inbound) return note_done_in(c, h, why);
    return fabric_in(c, h, body, why);
}

static int dispatch(struct conn *c, const struct wire_header *h,
                    const uint8_t *body, struct why *why)
{
    if (!c->open) return handshake_in(c, h, body, why);
    if (c->kind == WIRE_CONTROL) return control_in(c, h, body, why);
    if (c->kind == WIRE_DATA_LANE) return frames_in(c, h, body, why);
    return direct_in(c, h, body, why);
}

static void sink_took(struct conn *c, uint64_t n)
{
    c->sink_left -= n;
    if (c->sink_left == 0) frames_sink_end(c);
}

/* Payload that lies in the receive buffer already. */
static void sink_buffered(struct conn *c)
{
    size_t n = c->rx_to - c->rx_from;
    if (n > c->sink_left) n = c->sink_left;
    if (c->sink == SINK_CHUNK) {
        cursor_copy(&c->sink_at, c->rx + c->rx_from, n, true);
    } else if (c->sink == SINK_WRITE) {
        /* Piece by piece, each under its registration. */
        uint64_t left = cursor_piece_left(&c->sink_at);
        struct held held = {.count = 0};
        if (n > left) n = left;
        c->refused = frames_enter(c, c->sink_at.pieces + c->sink_at.at, 1,
                                  XFER_REMOTE_WRITE, c->h.aux, &held);
        FOREIGN_BEGIN();
        if (c->refused)
            c->sink = SINK_DISCARD;
        else
            cursor_copy(&c->sink_at, c->rx + c->rx_from, n, true);
        FOREIGN_END();
        frames_leave(c, &held);
    }
    c->rx_from += n;
    sink_took(c, n);
}

/* Frames out of the buffer, as far as they are complete. */
static void rx_parse(struct conn *c)
{
    struct why why = {0};
    while (!c->dead && !c->paused && c->rx_from < c->rx_to) {
        size_t have = c->rx_to - c->rx_from;
        const uint8_t *at = c->rx + c->rx_from;
        int rc = 0;
        if (c->sink) {
            sink_buffered(c);
            continue;
        }
        if (!c->open && !c->tls && at[0] >= 20 && at[0] <= 23) {
            conn_fail(c, ERR_AUTH, "peer %s speaks TLS, which is off here",
                      c->link ? c->link->peer->name : "unknown");
            return;
        }
        if (!c->have_header) {
            if (have < WIRE_HEADER) return;
            rc = wire_header_decode(&c->h, at, &why);
            if (!rc && c->open && c->h.type <= WIRE_READY)
                rc = err_set(&why, ERR_FORMAT, "a second handshake");
            c->have_header = !rc;
        }
        size_t body = rc ? 0 : wire_body_bytes(&c->h);
        if (!rc && have < WIRE_HEADER + body) return;
        if (!rc) {
            c->have_header = false;
            c->rx_from += WIRE_HEADER + body;
            rc = dispatch(c, &c->h, at + WIRE_HEADER, &why);
            conn_pause_if_full(c);
        }
        if (rc) conn_fail(c, rc, "%s", why_text(&why, rc));
    }
}

static void take_fds(struct conn *c, struct msghdr *m)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm; cm = CMSG_NXTHDR(m, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            if (c->fd_count < FDS_MAX)
                c->fds[c->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t conn_recv(struct conn *c, struct msghdr *m, int flags)
{
    if (c->tls) return tls_recv(c->tls, m->msg_iov, (int)m->msg_iovlen);
    return recvmsg(c->fd, m, MSG_DONTWAIT | flags);
}

/* Fills the buffer: header and body, not much more of a payload. */
static ssize_t rx_fill(struct conn *c, bool *drained)
{
    if (c->rx_from == c->rx_to) c->rx_from = c->rx_to = 0;
    if (c->rx_from) {
        memmove(c->rx, c->rx + c->rx_from, c->rx_to - c->rx_from);
        c->rx_to -= c->rx_from;
        c->rx_from = 0;
    }
    size_t room = RX_BYTES - c->rx_to;
    if (!c->sink && !c->have_header && room > RX_STEP) room = RX_STEP;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {c->rx + c->rx_to, room};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (c->local && c->kind == WIRE_DIRECT) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
    }
    ssize_t n = conn_recv(c, &m, MSG_CMSG_CLOEXEC);
    if (n > 0) {
        c->rx_to += (size_t)n;
        *drained = !c->tls && (size_t)n < room;
        if (m.msg_control) take_fds(c, &m);
    }
    return n;
}

/* Payload straight to where it goes; the buffer takes what follows. */
static ssize_t sink_fill(struct conn *c, bool *drained)
{
    struct iovec iov[IOV_BATCH + 1];
    struct held held = {.count = 0};
    size_t pieces;
    int count = 0;
    if (c->sink != SINK_DISCARD)
        count = cursor_iov(&c->sink_at, iov, IOV_BATCH, c->sink_left, &pieces);
    if (c->sink == SINK_WRITE) {
        c->refused = frames_enter(c, c->sink_at.pieces + c->sink_at.at, pieces,
                                  XFER_REMOTE_WRITE, c->h.aux, &held);
        if (c->refused) c->sink = SINK_DISCARD;
    }
    uint64_t all = 0;
    if (c->sink == SINK_DISCARD) {
        size_t n = c->sink_left < BOUNCE_BYTES ? c->sink_left : BOUNCE_BYTES;
        iov[0] = (struct iovec){c->io->bounce, n};
        count = 1;
    }
    for (int i = 0; i < count; i++)
        all += iov[i].iov_len;
    c->rx_from = c->rx_to = 0;
    uint64_t room = all;
    if (all == c->sink_left) {
        iov[count++] = (struct iovec){c->rx, RX_STEP / 4};
        room += RX_STEP / 4;
    }
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    if (c->inbound) FOREIGN_BEGIN();
    ssize_t n = conn_recv(c, &m, 0);
    if (c->inbound) FOREIGN_END();
    frames_leave(c, &held);
    if (n <= 0) return n;
    *drained = !c->tls && (uint64_t)n < room;
    uint64_t took = (uint64_t)n < all ? (uint64_t)n : all;
    c->rx_to = (size_t)((uint64_t)n - took);
    if (c->sink != SINK_DISCARD) cursor_advance(&c->sink_at, took);
    sink_took(c, took);
    return n;
}

static void ended(struct conn *c)
{
    c->ended = true;
    if (c->link)
        conn_fail(c, ERR_PEER, "peer %s closed the connection",
                  c->link->peer->name);
    else
        conn_fail(c, ERR_PEER, "peer closed the connection");
}

/* What the socket gave may lie in the TLS layer, of which no event tells; and
 * with the end of its handshake what waits can be sent. */
static void tls_read_on(struct conn *c, uint64_t budget)
{
    if (!TAILQ_EMPTY(&c->tx)) conn_flush_later(c);
    if (budget || c->paused) return;
    pthread_mutex_lock(&c->x->lock);
    conn_attend(c, ATTEND_RESUME);
    pthread_mutex_unlock(&c->x->lock);
}

static void conn_read(struct conn *c)
{
    uint64_t budget = TURN_BYTES;
    bool drained = false; /* a short read: more will be an event */
    while (!c->dead && !c->paused && budget && !drained) {
        bool straight = c->sink && c->rx_from == c->rx_to &&
                        (c->sink == SINK_DISCARD || !cursor_small(&c->sink_at));
        ssize_t n = straight ? sink_fill(c, &drained) : rx_fill(c, &drained);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n == 0) {
            ended(c);
            return;
        }
        if (n < 0) {
            c->ended = true;
            conn_lost(c);
            return;
        }
        budget -= (uint64_t)n < budget ? (uint64_t)n : budget;
        rx_parse(c);
    }
    if (!c->dead && c->tls) tls_read_on(c, budget);
    if (!c->dead && !c->want_flush) conn_watch(c); /* else after flushing */
}

void conn_resume(struct conn *c)
{
    c->paused = false;
    rx_parse(c);
    if (!c->dead && c->tls && !c->paused) conn_read(c);
    if (!c->dead && !c->want_flush) conn_watch(c);
}

void conn_event(struct conn *c, uint32_t events)
{
    uint32_t over = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    if (c->zombie && events & over) {
        c->zombie = false;
        c->ended = true;
        TAILQ_INSERT_TAIL(&c->io->graves, c, burying);
    }
    if (c->dead) return;
    if (c->hs && c->hs->stage == CONNECTING) {
        handshake_begin(c);
        return;
    }
    /* An initiator that is gone has given up what is still unread. */
    if ((c->inbound || c->ask) && c->open && events & over) {
        ended(c);
        return;
    }
    if (events & EPOLLOUT) conn_flush(c);
    if (events & (EPOLLIN | over)) conn_read(c);
    if (!c->dead && c->open && !c->moving && conn_is_lane(c)) frames_pump(c);
}
