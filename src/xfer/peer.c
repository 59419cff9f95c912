/* Peers, the links to them, and what happens by the clock. All on io 0 but
 * for the front door and link_fail.
 *
 *     peer:  CONNECTING -> UP -> DOWN -> (dialled again) ...
 *     link:  CONTROL dialled -> its handshake -> DIRECT tried -> up -> dead
 *
 * A link dies as a whole; the peer then gets another one: at once after a
 * loss or when something is submitted, else after 100 ms doubling to 1 s. One
 * known by a pass that is over is not dialled again but by a submit. */
#include "xfer/conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/fabric.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 1000,
    UP_MS = 2000,   /* from the handshake to a link that is up */
    ZOMBIE_MS = 10, /* how often a stopped copier is looked at */
    RESOLVE_MS = 5, /* how often a name look-up is looked at */
};

/* ---- name look-up, in a thread that may outlive us ---- */

struct resolve {
    pthread_mutex_t lock;
    int refs; /* thread, peer */
    bool done;
    char host[HOST_MAX];
    uint16_t port;
    int rc;
    struct addr addr;
    struct why why;
};

static void resolve_drop(struct resolve *r)
{
    pthread_mutex_lock(&r->lock);
    int left = --r->refs;
    pthread_mutex_unlock(&r->lock);
    if (left) return;
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
}

static void *resolve_main(void *arg)
{
    struct resolve *r = arg;
    struct addr addr = {0};
    struct why why = {0};
    int rc = addr_resolve(r->host, r->port, &addr, &why);
    pthread_mutex_lock(&r->lock);
    r->rc = rc;
    r->addr = addr;
    r->why = why;
    r->done = true;
    pthread_mutex_unlock(&r->lock);
    resolve_drop(r);
    return NULL;
}

static struct resolve *resolve_start(const struct xfer_peer *peer)
{
    struct resolve *r = mem_must(1, sizeof *r);
    pthread_t thread;
    pthread_mutex_init(&r->lock, NULL);
    r->refs = 2;
    r->port = peer->port;
    memcpy(r->host, peer->host, sizeof r->host);
    int e = thread_start(&thread, resolve_main, r);
    if (e) {
        r->rc = err_sys(&r->why, ERR_IO, e, "cannot start a thread");
        r->done = true;
        r->refs = 1;
    } else {
        pthread_detach(thread);
    }
    return r;
}

/* ---- links ---- */

static struct xfer_link *link_create(struct xfer_peer *peer)
{
    struct xfer *x = peer->x;
    struct xfer_link *link = mem_must(1, sizeof *link);
    link->x = x;
    link->peer = peer;
    link->refs = 1;
    link->id = random_u64();
    link->direct_fd = link->pidfd = link->pid = link->ask_fd = -1;
    TAILQ_INIT(&link->copy_queue);
    TAILQ_INIT(&link->frame_queue);
    TAILQ_INIT(&link->fabric_queue);
    TAILQ_INIT(&link->notes);
    TAILQ_INIT(&link->notes_sent);
    TAILQ_INSERT_TAIL(&x->links, link, next);
    peer->links++;
    peer->link = link;
    return link;
}

void link_drop(struct xfer_link *link)
{
    if (--link->refs) return;
    link_direct_close(link);
    if (link->ask_fd >= 0) close(link->ask_fd);
    TAILQ_REMOVE(&link->x->links, link, next);
    link->peer->links--;
    xfer_chores(link->x);
    pthread_cond_broadcast(&link->x->quiet_cond);
    mem_free(link);
}

static void peer_down(struct xfer_peer *peer, int rc, const char *text)
{
    peer->state = XFER_DOWN;
    err_set(&peer->why, rc, "%s", text);
    batches_fail_unrouted(peer, rc, text);
    pthread_cond_broadcast(&peer->x->done_cond);
    xfer_chores(peer->x);
}

static void peer_wait_to_dial(struct xfer_peer *peer)
{
    if (!peer->backoff_ms) peer->backoff_ms = BACKOFF_MIN_MS;
    peer->dial_ms = clock_ms() + peer->backoff_ms;
    peer->backoff_ms *= 2;
    if (peer->backoff_ms > BACKOFF_MAX_MS) peer->backoff_ms = BACKOFF_MAX_MS;
}

void peer_dial_now(struct xfer_peer *peer)
{
    peer->state = XFER_CONNECTING;
    peer->dial_ms = 0;
    xfer_chores(peer->x);
}

void link_fail(struct xfer_link *link, int rc, const char *text)
{
    struct xfer *x = link->x;
    struct xfer_peer *peer = link->peer;
    struct conn *c;
    if (link->dead) return;
    link->dead = true;
    if (rc != ERR_AUTH && rc != ERR_STALE && rc != ERR_CANCELED) rc = ERR_PEER;
    if (link->in_copy_list) {
        TAILQ_REMOVE(&x->copy_links, link, copying);
        link->in_copy_list = false;
    }
    TAILQ_FOREACH(c, &x->conns, next)
    if (c->link == link) conn_attend(c, ATTEND_KILL);
    if (link->ask_fd >= 0) shutdown(link->ask_fd, SHUT_RDWR);
    fabric_end_later(link->end);
    link->direct = NULL;
    peer->link = NULL;
    if (link->up) {
        x->stats.links_lost++;
        peer->dial_ms = 0;
    } else if (peer->pass && rc == ERR_STALE) {
        peer->dial_ms = UINT64_MAX;
    } else {
        peer_wait_to_dial(peer);
    }
    peer_down(peer, rc, text);
    batches_fail_link(link, rc, text);
    link_drop(link);
}

void link_up(struct xfer_link *link)
{
    struct xfer *x = link->x;
    struct xfer_peer *peer = link->peer;
    if (link->dead) return;
    link->up = true;
    if (link->direct && x->opt.via & XFER_VIA_UNIX)
        link->frames = &xfer_way_unix;
    else if (!link->self && x->opt.via & XFER_VIA_TCP)
        link->frames = &xfer_way_tcp;
    peer->state = XFER_UP;
    peer->why = (struct why){0};
    peer->backoff_ms = 0;
    x->stats.links_up++;
    batches_route(peer);
    pthread_cond_broadcast(&x->done_cond);
    xfer_chores(x);
}

void link_go_on(struct xfer_link *link)
{
    if (link->x->fabric && !link->offered) {
        link->offered = link->offer_due = true;
        xfer_chores(link->x);
    } else {
        link_up(link);
    }
}

void inlink_fail(struct xfer *x, struct inlink *in)
{
    struct conn *c;
    in->down = true;
    fabric_end_later(in->end);
    TAILQ_FOREACH(c, &x->conns, next)
    if (c->in == in) conn_attend(c, ATTEND_KILL);
}

void inlink_drop(struct xfer *x, struct inlink *in)
{
    if (--in->conns) return;
    TAILQ_REMOVE(&x->inlinks, in, next);
    mem_free(in);
}

/* ---- dialling ---- */

static int peer_addr(struct xfer_peer *peer, struct addr *addr, struct why *why)
{
    if (!addr_numeric(peer->host, peer->port, addr)) return 0;
    if (!peer->resolve) peer->resolve = resolve_start(peer);
    struct resolve *r = peer->resolve;
    pthread_mutex_lock(&r->lock);
    int rc = r->done ? r->rc : ERR_AGAIN;
    if (rc) err_set(why, rc, "%s", r->why.text);
    *addr = r->addr;
    pthread_mutex_unlock(&r->lock);
    if (rc == ERR_AGAIN) return rc;
    peer->resolve = NULL;
    resolve_drop(r);
    return rc;
}

static bool is_self(const struct xfer_peer *peer)
{
    return peer->x->opt.via & XFER_VIA_SELF &&
           !strcmp(peer->name, peer->x->name);
}

/* Under the lock, which it gives up for a while. False: look again soon. */
static bool peer_dial(struct xfer_peer *peer)
{
    struct xfer *x = peer->x;
    struct why why = {0};
    struct addr addr;
    if (is_self(peer)) {
        struct xfer_link *link = link_create(peer);
        link->self = true;
        link->epoch = x->epoch;
        link_up(link);
        return true;
    }
    int rc = peer_addr(peer, &addr, &why);
    if (rc == ERR_AGAIN) return false;
    if (rc) {
        peer_wait_to_dial(peer);
        peer_down(peer, ERR_PEER, why.text);
        return true;
    }
    struct xfer_link *link = link_create(peer);
    link->refs++;
    pthread_mutex_unlock(&x->lock);
    struct conn *c = conn_dial(link, WIRE_CONTROL, 0, &addr, &why);
    pthread_mutex_lock(&x->lock);
    link->control = c;
    if (!c) link_fail(link, ERR_PEER, why.text);
    link_drop(link);
    return true;
}

/* After the handshake: is it this process, this host, or another one? */
static void link_direct_try(struct xfer_link *link)
{
    struct xfer *x = link->x;
    struct why why = {0};
    struct addr addr;
    link->direct_tried = true;
    if (x->opt.via & XFER_VIA_SELF && !link->peer->pass &&
        !memcmp(&link->epoch, &x->epoch, sizeof x->epoch)) {
        link->self = true;
        link_up(link);
        return;
    }
    if (!(x->opt.via & XFER_VIA_HOST)) {
        snprintf(link->direct_text, sizeof link->direct_text,
                 "same-host ways are switched off");
        link_go_on(link);
        return;
    }
    addr_unix(&link->epoch, &addr);
    link->refs++;
    pthread_mutex_unlock(&x->lock);
    struct conn *c = conn_dial(link, WIRE_DIRECT, 0, &addr, &why);
    pthread_mutex_lock(&x->lock);
    if (!link->dead) link->direct = c;
    if (!c) {
        snprintf(link->direct_text, sizeof link->direct_text, "another host");
        link_go_on(link);
    }
    link_drop(link);
}

/* Under the lock, which it gives up for a while. */
static void link_offer(struct xfer_link *link)
{
    struct xfer *x = link->x;
    link->offer_due = false;
    link->refs++;
    pthread_mutex_unlock(&x->lock);
    fabric_offer(link->control);
    pthread_mutex_lock(&x->lock);
    link_drop(link);
}

static void link_lanes_open(struct xfer_link *link)
{
    struct xfer *x = link->x;
    struct why why = {0};
    struct addr addr;
    bool local = link->frames == &xfer_way_unix;
    link->lanes_opening = true;
    link->refs++;
    if (local) addr_unix(&link->epoch, &addr);
    pthread_mutex_unlock(&x->lock);
    struct conn *c = link->control;
    if (!local) conn_peer_addr(c, &addr);
    unsigned n = 0;
    for (; n <= x->opt.lanes; n++) {
        c = conn_dial(link, WIRE_DATA_LANE, n, &addr, &why);
        if (!c) break;
        c->ask = n == x->opt.lanes;
    }
    pthread_mutex_lock(&x->lock);
    if (n <= x->opt.lanes) link_fail(link, ERR_PEER, why.text);
    link_drop(link);
}

/* ---- by the clock ---- */

static void earlier(uint64_t *next, uint64_t at)
{
    if (at < *next) *next = at;
}

/* A thread of ours that was not run for long must not blame the peer. */
static uint64_t forgive(uint64_t heard, uint64_t now, uint64_t beat, bool slept)
{
    uint64_t grace = (HEARTBEATS - 1) * beat;
    return slept && now - heard > grace ? now - grace : heard;
}

static void link_turn(struct xfer_link *link, uint64_t now, bool slept,
                      uint64_t *next)
{
    struct xfer *x = link->x;
    uint64_t beat = x->opt.heartbeat_ms;
    if (link->self || !link->control || !link->control->open) return;
    if (!link->heard_ms) {
        link->heard_ms = link->ping_ms = now;
        link->up_by_ms = now + UP_MS;
    }
    if (!link->direct_tried) link_direct_try(link);
    if (link->offer_due && !link->dead) link_offer(link);
    if (link->dead || link->self) return;
    if (link->lanes_wanted && !link->lanes_opening) link_lanes_open(link);
    if (link->dead) return;
    link->heard_ms = forgive(link->heard_ms, now, beat, slept);
    if (now - link->heard_ms >= HEARTBEATS * beat) {
        char text[120];
        snprintf(text, sizeof text, "peer %.80s is hung: silent for %llu ms",
                 link->peer->name, (unsigned long long)(now - link->heard_ms));
        x->stats.peers_hung++;
        link_fail(link, ERR_PEER, text);
        return;
    }
    if (link->stuck_ms && slept) link->stuck_ms = now + CANCEL_MS;
    if (link->stuck_ms && now >= link->stuck_ms &&
        batches_stuck(link, now, &link->stuck_ms)) {
        link_fail(link, ERR_PEER, "peer answers no canceled transfer");
        return;
    }
    if (link->stuck_ms) earlier(next, link->stuck_ms);
    if (!link->up && now >= link->up_by_ms && !fabric_late(link)) {
        link_fail(link, ERR_PEER, "peer did not tell its memory in time");
        return;
    }
    if (now >= link->ping_ms || link->probe_wanted) {
        link->ping_ms = now + beat;
        link->probe_wanted = false;
        conn_send(link->control,
                  &(struct wire_header){.type = WIRE_PING, .aux = clock_ns()},
                  NULL, 0, -1, false);
    }
    earlier(next, link->ping_ms);
    earlier(next, link->heard_ms + HEARTBEATS * beat);
    if (!link->up) earlier(next, link->up_by_ms);
}

static void peer_free(struct xfer_peer *peer)
{
    TAILQ_REMOVE(&peer->x->peers, peer, next);
    if (peer->resolve) resolve_drop(peer->resolve);
    mem_free(peer);
}

static void peer_turn(struct xfer_peer *peer, uint64_t now, bool slept,
                      uint64_t *next)
{
    if (!peer->refs) {
        if (!TAILQ_EMPTY(&peer->batches)) return; /* they end soon */
        if (peer->link) link_fail(peer->link, ERR_CANCELED, "closed");
        if (!peer->links) peer_free(peer);
        return;
    }
    if (!peer->link && !peer->x->stopping) {
        if (now >= peer->dial_ms && !peer_dial(peer))
            earlier(next, now + RESOLVE_MS);
        if (!peer->link && !peer->resolve) earlier(next, peer->dial_ms);
    }
    if (peer->link) link_turn(peer->link, now, slept, next);
}

static void inlinks_turn(struct xfer *x, uint64_t now, bool slept,
                         uint64_t *next)
{
    struct inlink *in;
    TAILQ_FOREACH(in, &x->inlinks, next)
    {
        if (in->down) continue;
        in->heard_ms = forgive(in->heard_ms, now, in->heartbeat_ms, slept);
        uint64_t end = in->heard_ms + HEARTBEATS * (uint64_t)in->heartbeat_ms;
        if (now >= end)
            inlink_fail(x, in);
        else
            earlier(next, end);
    }
}

/* Handshakes that take too long, stopped copiers, registrations to tell. */
static void conns_turn(struct xfer *x, uint64_t now, uint64_t *next)
{
    struct conn *c;
    pthread_mutex_lock(&x->lock);
    struct conn **mine = mem_must(x->conn_count + 1, sizeof(struct conn *));
    size_t count = 0;
    TAILQ_FOREACH(c, &x->conns, next)
    if (c->io == &x->ios[0]) mine[count++] = c;
    bool told = x->mems_changed;
    x->mems_changed = false;
    pthread_mutex_unlock(&x->lock);
    for (size_t i = 0; i < count; i++) {
        c = mine[i];
        if (c->zombie) {
            if (direct_quiet(c)) {
                c->zombie = false;
                TAILQ_INSERT_TAIL(&c->io->graves, c, burying);
            } else {
                earlier(next, now + ZOMBIE_MS);
            }
        } else if (!c->dead && c->hs && now >= c->hs->deadline_ms) {
            bool dialled = c->hs->stage == CONNECTING;
            conn_fail(c, ERR_PEER, "peer %s: no %s in time",
                      c->link ? c->link->peer->name : "unknown",
                      dialled ? "connection" : "handshake");
        } else if (!c->dead && c->hs) {
            earlier(next, c->hs->deadline_ms);
        } else if (!c->dead && told && c->inbound) {
            if (c->kind == WIRE_DIRECT) direct_attended(c);
            if (c->kind == WIRE_CONTROL) fabric_attended(c);
        }
    }
    mem_free(mine);
}

uint64_t peers_housekeep(struct xfer *x, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    bool slept = now - x->kept_ms > x->opt.heartbeat_ms * 2;
    x->kept_ms = now;
    conns_turn(x, now, &next);
    if (x->accept_ms && now >= x->accept_ms) io_accept_again(x);
    if (x->accept_ms) earlier(&next, x->accept_ms);
    pthread_mutex_lock(&x->lock);
    /* Only this thread frees peers, each in its own turn. */
    size_t count = 0, i = 0;
    struct xfer_peer *peer;
    TAILQ_FOREACH(peer, &x->peers, next)
    count++;
    struct xfer_peer **all = mem_must(count + 1, sizeof(struct xfer_peer *));
    TAILQ_FOREACH(peer, &x->peers, next)
    all[i++] = peer;
    for (i = 0; i < count; i++)
        peer_turn(all[i], now, slept, &next);
    mem_free(all);
    inlinks_turn(x, now, slept, &next);
    pthread_mutex_unlock(&x->lock);
    return next;
}

void peers_free_all(struct xfer *x)
{
    while (!TAILQ_EMPTY(&x->peers))
        peer_free(TAILQ_FIRST(&x->peers));
}

/* ---- the front door ---- */

static struct xfer_peer *peer_find(struct xfer *x, const char *name)
{
    struct xfer_peer *peer;
    TAILQ_FOREACH(peer, &x->peers, next)
    if (peer->refs && !strcmp(peer->name, name)) return peer;
    return NULL;
}

int xfer_peer_open(struct xfer *x, const char *name, struct xfer_peer **out,
                   struct why *why)
{
    char host[HOST_MAX], plain[WIRE_NAME_MAX + 1], full[WIRE_NAME_MAX + 1];
    uint16_t port;
    *out = NULL;
    uint64_t pass = addr_pass_take(&name);
    int rc = addr_split(name, host, &port, why);
    if (rc) return rc;
    if (!port) return err_set(why, ERR_INVALID, "\"%s\" has port 0", name);
    addr_join(host, port, plain, sizeof plain);
    addr_pass_put(pass, plain, full, sizeof full);
    pthread_mutex_lock(&x->lock);
    struct xfer_peer *peer = peer_find(x, full);
    if (peer) {
        peer->refs++;
    } else if (x->stopping) {
        rc = err_set(why, ERR_CANCELED, "engine is closing");
    } else {
        peer = mem_must(1, sizeof *peer);
        peer->x = x;
        peer->refs = 1;
        peer->port = port;
        peer->pass = pass;
        peer->state = XFER_CONNECTING;
        memcpy(peer->host, host, sizeof host);
        memcpy(peer->name, full, sizeof full);
        TAILQ_INIT(&peer->batches);
        TAILQ_INSERT_TAIL(&x->peers, peer, next);
        xfer_chores(x);
    }
    pthread_mutex_unlock(&x->lock);
    *out = peer;
    return rc;
}

void xfer_peer_close(struct xfer_peer *peer)
{
    if (!peer) return;
    struct xfer *x = peer->x;
    pthread_mutex_lock(&x->lock);
    if (--peer->refs == 0) {
        batches_cancel(peer, NULL);
        xfer_chores(x);
    }
    pthread_mutex_unlock(&x->lock);
}

const char *xfer_peer_name(const struct xfer_peer *peer)
{
    return peer->name;
}

enum xfer_state xfer_peer_state(struct xfer_peer *peer, struct why *why)
{
    pthread_mutex_lock(&peer->x->lock);
    enum xfer_state state = peer->state;
    if (why) *why = peer->why;
    pthread_mutex_unlock(&peer->x->lock);
    return state;
}

int xfer_peer_wait(struct xfer_peer *peer, int timeout_ms, struct why *why)
{
    struct xfer *x = peer->x;
    uint64_t deadline = deadline_after(timeout_ms);
    int rc = 0;
    pthread_mutex_lock(&x->lock);
    while (peer->state == XFER_CONNECTING && !rc)
        if (!cond_until(&x->done_cond, &x->lock, deadline))
            rc = err_set(why, ERR_TIMEOUT, "peer %s: not connected in %d ms",
                         peer->name, timeout_ms);
    if (!rc && peer->state == XFER_DOWN) {
        rc = peer->why.code;
        if (why) *why = peer->why;
    }
    pthread_mutex_unlock(&x->lock);
    return rc;
}

/* Under the lock: whether a ping sent at since or later was answered. */
static int probe_look(struct xfer_peer *peer, uint64_t since, uint64_t *rtt_ns)
{
    struct xfer_link *link = peer->link;
    if (peer->state == XFER_DOWN) return peer->why.code;
    if (peer->state != XFER_UP) return ERR_AGAIN;
    if (!link->self && link->pinged_ns < since) {
        if (!link->probing) {
            link->probing = link->probe_wanted = true;
            xfer_chores(peer->x);
        }
        return ERR_AGAIN;
    }
    if (rtt_ns) *rtt_ns = link->self ? 0 : link->rtt_ns;
    return 0;
}

int xfer_peer_probe(struct xfer_peer *peer, int timeout_ms, uint64_t *rtt_ns,
                    struct why *why)
{
    struct xfer *x = peer->x;
    uint64_t deadline = deadline_after(timeout_ms), since = clock_ns();
    int rc;
    pthread_mutex_lock(&x->lock);
    if (peer->state == XFER_DOWN && !x->stopping) peer_dial_now(peer);
    while ((rc = probe_look(peer, since, rtt_ns)) == ERR_AGAIN)
        if (!cond_until(&x->done_cond, &x->lock, deadline)) {
            rc = err_set(why, ERR_TIMEOUT, "peer %s: no life sign in %d ms",
                         peer->name, timeout_ms);
            break;
        }
    if (peer->state == XFER_DOWN && rc == peer->why.code && why)
        *why = peer->why;
    pthread_mutex_unlock(&x->lock);
    return rc;
}

bool xfer_peer_epoch(struct xfer_peer *peer, struct xfer_epoch *out)
{
    pthread_mutex_lock(&peer->x->lock);
    bool up = peer->link && peer->link->up;
    if (up) *out = peer->link->epoch;
    pthread_mutex_unlock(&peer->x->lock);
    return up;
}

static void explain_up(const struct xfer_link *link, char *buf, size_t n)
{
    unsigned lanes = link->x->opt.lanes, mapped = 0, told = 0;
    const char *rest = link->frames ? link->frames->name : "nothing";
    for (size_t i = 0; i < link->place_count; i++) {
        mapped += link->places[i]->map != NULL;
        told += link->places[i]->map == NULL;
    }
    if (link->self)
        snprintf(buf, n, "self, same process");
    else if (mapped)
        snprintf(buf, n, "memfd mapping, same host (%u regions; %u others %s)",
                 mapped, told, link->cma ? "by cma" : rest);
    else if (link->cma)
        snprintf(buf, n, "cma, same host (%u regions)", told);
    else if (link->fabric_up)
        snprintf(buf, n, "%s, %s (%u regions)", link->x->fabric->ops->way->name,
                 link->x->fabric->text, told);
    else if (link->direct)
        snprintf(buf, n, "unix, %u lanes, same host (cma not permitted)",
                 lanes);
    else
        snprintf(buf, n, "tcp, %u lanes%s (%s)", lanes,
                 link->x->tls ? ", TLS 1.3" : "", link->direct_text);
}

void xfer_peer_explain(struct xfer_peer *peer, char *buf, size_t n)
{
    pthread_mutex_lock(&peer->x->lock);
    if (peer->link && peer->link->up)
        explain_up(peer->link, buf, n);
    else if (peer->state == XFER_DOWN)
        snprintf(buf, n, "down: %s", peer->why.text);
    else
        snprintf(buf, n, "connecting to %s", peer->name);
    pthread_mutex_unlock(&peer->x->lock);
}
