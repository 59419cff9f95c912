/* HELLO, WELCOME, PROOF, READY: who is there, may they, and for which link.
 * docs/wire.md, Handshake. All on io 0. */
#include "xfer/conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/hmac.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Larger socket buffers where the system lets us; setting them smaller than
 * what the kernel would grow to by itself would be a loss. */
static void buffers_set(int fd)
{
    int bytes = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
}

static void proof(struct conn *c, char role, uint8_t out[WIRE_MAC])
{
    struct handshake *hs = c->hs;
    struct hmac_piece pieces[] = {{&role, 1},
                                  {hs->hello, hs->hello_bytes},
                                  {hs->welcome, sizeof hs->welcome}};
    hmac_sha256(c->x->token, c->x->token_bytes, pieces, 3, out);
}

static void hello_send(struct conn *c)
{
    struct xfer *x = c->x;
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .kind = (uint8_t)c->kind,
                               .lane = (uint8_t)c->lane,
                               .heartbeat_ms = x->opt.heartbeat_ms,
                               .epoch = x->epoch,
                               .link = c->link->id};
    if (c->kind == WIRE_CONTROL)
        wire_want_set_pass(&hello.want, c->link->peer->pass);
    else
        hello.want = c->link->epoch;
    random_bytes(hello.nonce, sizeof hello.nonce);
    memcpy(hello.name, x->name, sizeof hello.name);
    c->hs->hello_bytes = wire_hello_encode(&hello, c->hs->hello);
    c->hs->stage = HELLO_SENT;
    c->hs->deadline_ms = clock_ms() + HANDSHAKE_MS;
    conn_send(
        c,
        &(struct wire_header){.type = WIRE_HELLO, .bytes = c->hs->hello_bytes},
        c->hs->hello, c->hs->hello_bytes, -1, false);
}

/* The socket's other end is on this machine; over unix, of this user. */
static bool from_here(struct conn *c)
{
    if (c->local) {
        struct ucred who = {0};
        socklen_t n = sizeof who;
        return !getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &n) &&
               who.uid == geteuid();
    }
    struct sockaddr_storage far = {0}, near = {0};
    socklen_t far_n = sizeof far, near_n = sizeof near;
    if (getpeername(c->fd, (struct sockaddr *)&far, &far_n) ||
        getsockname(c->fd, (struct sockaddr *)&near, &near_n) ||
        far.ss_family != near.ss_family)
        return false;
    if (far.ss_family == AF_INET) {
        const struct sockaddr_in *f = (const void *)&far, *m = (void *)&near;
        return f->sin_addr.s_addr == m->sin_addr.s_addr ||
               ntohl(f->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *f = (const void *)&far, *m = (void *)&near;
    return IN6_IS_ADDR_LOOPBACK(&f->sin6_addr) ||
           !memcmp(&f->sin6_addr, &m->sin6_addr, sizeof f->sin6_addr);
}

/* A connection within this machine meets no network: a congestion control that
 * paces (bbr) would only cost timers. reno is everywhere and for everybody. */
static void unpaced(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* Life signs go over CONTROL; a data flow that something on the way forgot or
 * drops is found by the kernel, within about four seconds. */
static void lane_watch(const struct conn *c)
{
    int on = 1, idle_s = 2, every_s = 1;
    uint32_t beat = c->inbound ? c->hs->peer.heartbeat_ms
                               : (uint32_t)c->x->opt.heartbeat_ms;
    unsigned limit_ms = HEARTBEATS * beat > 2000 ? HEARTBEATS * beat : 2000;
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
    setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms,
               sizeof limit_ms);
}

static void socket_tune(struct conn *c)
{
    int one = 1;
    if (c->kind == WIRE_DATA_LANE) buffers_set(c->fd);
    if (c->local) return;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->kind == WIRE_DATA_LANE) lane_watch(c);
    if (from_here(c)) unpaced(c->fd);
}

void handshake_begin(struct conn *c)
{
    int e = 0;
    socklen_t n = sizeof e;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &n);
    if (e) {
        conn_fail(c, ERR_PEER, "peer %s: connect: %s", c->link->peer->name,
                  strerror(e));
        return;
    }
    socket_tune(c);
    hello_send(c);
    conn_watch(c);
}

/* Says no, in words, and ends the connection once they are out. */
static void refuse(struct conn *c, int rc, const char *text)
{
    conn_send(c,
              &(struct wire_header){.type = WIRE_READY,
                                    .count = (uint32_t)-rc,
                                    .bytes = strlen(text)},
              text, strlen(text), -1, false);
    conn_flush(c);
    conn_fail(c, rc, "%s", text);
}

static const char *hello_refused(struct conn *c, int *rc)
{
    struct xfer *x = c->x;
    const struct wire_hello *hello = &c->hs->peer;
    uint64_t pass;
    *rc = ERR_UNSUPPORTED;
    if (c->local && !(x->opt.via & XFER_VIA_HOST))
        return "same-host ways are switched off";
    *rc = ERR_AUTH;
    if (c->local && !from_here(c)) return "process of another user";
    if (!c->local && hello->kind == WIRE_DIRECT) return "not a unix socket";
    if (!x->token_bytes && !x->opt.insecure && !from_here(c))
        return "no token is set, so only this machine may connect";
    *rc = ERR_STALE;
    pthread_mutex_lock(&x->lock);
    bool known = want_is_known(x, &hello->want, &pass);
    pthread_mutex_unlock(&x->lock);
    if (known) return NULL;
    return pass ? "pass is over, or of a former epoch"
                : "restarted: another epoch";
}

static int hello_in(struct conn *c, const uint8_t *body, size_t n,
                    struct why *why)
{
    struct handshake *hs = c->hs;
    int rc = wire_hello_decode(&hs->peer, body, n, why);
    if (rc) return rc;
    c->kind = hs->peer.kind;
    c->lane = hs->peer.lane;
    const char *no = hello_refused(c, &rc);
    if (no) {
        refuse(c, rc, no);
        return 0;
    }
    memcpy(hs->hello, body, n);
    hs->hello_bytes = n;
    struct wire_welcome welcome = {.version = WIRE_VERSION,
                                   .epoch = c->x->epoch};
    random_bytes(welcome.nonce, sizeof welcome.nonce);
    wire_welcome_encode(&welcome, hs->welcome);
    hs->stage = PROOF_WAITED;
    conn_send(
        c,
        &(struct wire_header){.type = WIRE_WELCOME, .bytes = WIRE_WELCOME_BODY},
        hs->welcome, WIRE_WELCOME_BODY, -1, false);
    return 0;
}

/* Under the lock: the inlink of this hello, made when it is the first. NULL:
 * it is over, or the pass is since hello_refused looked. */
static struct inlink *inlink_of(struct xfer *x, const struct wire_hello *hello)
{
    struct inlink *in;
    TAILQ_FOREACH(in, &x->inlinks, next)
    if (in->id == hello->link && !in->down &&
        !memcmp(&in->epoch, &hello->epoch, sizeof in->epoch))
        return in;
    uint64_t pass;
    if (hello->kind != WIRE_CONTROL || !want_is_known(x, &hello->want, &pass))
        return NULL;
    in = mem_must(1, sizeof *in);
    in->id = hello->link;
    in->pass = pass;
    in->epoch = hello->epoch;
    in->heartbeat_ms = hello->heartbeat_ms;
    in->heard_ms = clock_ms();
    memcpy(in->name, hello->name, sizeof in->name);
    TAILQ_INSERT_TAIL(&x->inlinks, in, next);
    return in;
}

/* The handshake is over: the connection serves its kind from now on. */
static void opened(struct conn *c, struct why *why)
{
    struct xfer *x = c->x;
    mem_free(c->hs);
    c->hs = NULL;
    pthread_mutex_lock(&x->lock);
    c->open = true;
    if (c->inbound) x->half_open--;
    c->moving =
        c->kind == WIRE_DATA_LANE && !c->ask && c->lane % x->io_count != 0;
    c->paused = c->moving;
    if (c->link && !c->link->dead) {
        if (c->kind == WIRE_CONTROL)
            xfer_chores(x); /* peers_housekeep tries the same host */
        else if (c->ask)
            ask_open(c);
        else if (c->kind == WIRE_DATA_LANE)
            c->link->lanes[c->link->lane_count++] = c;
    }
    pthread_mutex_unlock(&x->lock);
    if (c->kind == WIRE_DIRECT && c->inbound && direct_opened(c, why)) {
        conn_fail(c, ERR_IO, "%s", why->text);
        return;
    }
    if (c->moving)
        conn_flush_later(c); /* the end of the turn sees to it */
    else if (conn_is_lane(c))
        frames_pump(c);
}

static int proof_in(struct conn *c, const uint8_t *body, struct why *why)
{
    struct xfer *x = c->x;
    uint8_t mac[WIRE_MAC];
    proof(c, 'I', mac);
    if (!hmac_equal(mac, body)) {
        refuse(c, ERR_AUTH, "token does not match");
        return 0;
    }
    socket_tune(c);
    pthread_mutex_lock(&x->lock);
    c->in = x->stopping ? NULL : inlink_of(x, &c->hs->peer);
    if (c->in) c->in->conns++;
    if (c->in && c->kind == WIRE_CONTROL) xfer_chores(x); /* its timer */
    pthread_mutex_unlock(&x->lock);
    if (!c->in) {
        refuse(c, ERR_PEER, "link is over");
        return 0;
    }
    proof(c, 'T', mac);
    conn_send(c, &(struct wire_header){.type = WIRE_READY, .bytes = WIRE_MAC},
              mac, WIRE_MAC, -1, false);
    opened(c, why);
    return 0;
}

static int welcome_in(struct conn *c, const uint8_t *body, size_t n,
                      struct why *why)
{
    struct wire_welcome welcome;
    int rc = wire_welcome_decode(&welcome, body, n, why);
    if (rc) return rc;
    memcpy(c->hs->welcome, body, n);
    pthread_mutex_lock(&c->x->lock);
    if (c->kind == WIRE_CONTROL) c->link->epoch = welcome.epoch;
    bool same = !memcmp(&c->link->epoch, &welcome.epoch, sizeof welcome.epoch);
    pthread_mutex_unlock(&c->x->lock);
    if (!same) return err_set(why, ERR_STALE, "peer has restarted");
    uint8_t mac[WIRE_MAC];
    proof(c, 'I', mac);
    c->hs->stage = PROOF_SENT;
    conn_send(c, &(struct wire_header){.type = WIRE_PROOF, .bytes = WIRE_MAC},
              mac, WIRE_MAC, -1, false);
    return 0;
}

static int ready_in(struct conn *c, const struct wire_header *h,
                    const uint8_t *body, struct why *why)
{
    if (h->count) {
        int rc = h->count < ERR_COUNT_ ? -(int)h->count : ERR_PEER;
        return err_set(why, rc, "peer %s refused: %.*s", c->link->peer->name,
                       (int)h->bytes, (const char *)body);
    }
    if (c->hs->stage != PROOF_SENT)
        return err_set(why, ERR_FORMAT, "ready too early");
    uint8_t mac[WIRE_MAC];
    proof(c, 'T', mac);
    if (!hmac_equal(mac, body))
        return err_set(why, ERR_AUTH, "peer %s has another token",
                       c->link->peer->name);
    opened(c, why);
    return 0;
}

int handshake_in(struct conn *c, const struct wire_header *h,
                 const uint8_t *body, struct why *why)
{
    enum stage stage = c->hs->stage;
    if (h->type == WIRE_HELLO && stage == HELLO_WAITED)
        return hello_in(c, body, h->bytes, why);
    if (h->type == WIRE_PROOF && stage == PROOF_WAITED)
        return proof_in(c, body, why);
    if (h->type == WIRE_WELCOME && stage == HELLO_SENT)
        return welcome_in(c, body, h->bytes, why);
    if (h->type == WIRE_READY && (stage == HELLO_SENT || stage == PROOF_SENT))
        return ready_in(c, h, body, why);
    return err_set(why, ERR_FORMAT, "frame of type %u in the handshake",
                   h->type);
}
