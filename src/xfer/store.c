/* The config store's server: one thread, one epoll, a map of keys, a list of
 * those who wait. Nothing here blocks on one client: each has a buffer with a
 * maximum, strangers have a second to say hello and are few. */
#include "xfer/store.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "xfer/core.h"
#include "xfer/hmac.h"
#include "xfer/store_keys.h"
#include "xfer/store_link.h"
#include "xfer/tls.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 1024,
    STRANGERS_MAX = 64,
    HELLO_MS = 1000,
    WAITS_MAX = 1024, /* GETs that wait, a client */
    READ_STEP = 64 << 10,
    OUT_MAX = 4 * STORE_BODY_MAX, /* answers that a client does not read */
    ACCEPT_PAUSE_MS = 100,
    DEPARTED_MAX = 1024, /* that a late LEFT still hears of */
};

struct client {
    TAILQ_ENTRY(client) next;
    struct store_link link;
    bool known, dead;
    uint64_t hello_by_ms, heard_ms;
    uint8_t nonce[STORE_NONCE];
    struct buf in, out;
    size_t sent;
    uint32_t events;
    unsigned waits, announced;
};

struct waiting {
    TAILQ_ENTRY(waiting) next;
    struct client *client;
    bool left; /* for a departure of a key that begins with key */
    uint64_t id, hash, deadline_ms;
    size_t key_bytes;
    char key[];
};

/* A key whose announcer went. */
struct departure {
    char *key;
    size_t key_bytes;
};

struct xfer_store {
    int listener, epoll, wake;
    char *token;
    struct tls_setup *tls; /* or NULL */
    char url[HOST_MAX + 40];
    pthread_t thread;
    bool running;
    uint64_t accept_ms;
    struct store_keys keys;
    TAILQ_HEAD(, client) clients;
    TAILQ_HEAD(, waiting) waits;
    size_t client_count, stranger_count;
    struct departure departed[DEPARTED_MAX]; /* number n at n % DEPARTED_MAX */
    int64_t departures;
};

/* ---- clients ---- */

static void client_kill(struct client *c)
{
    c->dead = true;
}

static void client_flush(struct xfer_store *s, struct client *c)
{
    ssize_t n;
    do { /* nothing, for TLS, is what it took before */
        n = store_link_send(&c->link, c->out.data + c->sent,
                            c->out.len - c->sent, NULL);
        if (n < 0) client_kill(c);
        if (n > 0) c->sent += (size_t)n;
    } while (n > 0 && c->sent < c->out.len);
    if (c->sent == c->out.len) {
        buf_reset(&c->out);
        c->sent = 0;
    } else if (c->sent > OUT_MAX / 2) {
        buf_drop_front(&c->out, c->sent);
        c->sent = 0;
    }
    uint32_t want = EPOLLIN;
    if (store_link_wants_out(&c->link, c->out.len > 0)) want |= EPOLLOUT;
    if (want == c->events || c->dead) return;
    c->events = want;
    struct epoll_event ev = {.events = want, .data.ptr = c};
    epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->link.fd, &ev);
}

static void answer(struct client *c, uint64_t id, int rc, int64_t number,
                   const char *value, size_t n)
{
    store_answer_encode(
        &c->out, id,
        &(struct store_answer){
            .rc = rc, .number = number, .value = value, .value_bytes = n});
    if (c->out.failed) client_kill(c); /* it does not read */
}

static void waiting_end(struct xfer_store *s, struct waiting *w)
{
    TAILQ_REMOVE(&s->waits, w, next);
    w->client->waits--;
    mem_free(w);
}

static void wake_waiting(struct xfer_store *s, const struct store_key *e)
{
    uint64_t hash = store_key_hash(&s->keys, e->key, e->key_bytes);
    struct waiting *w, *after;
    for (w = TAILQ_FIRST(&s->waits); w; w = after) {
        after = TAILQ_NEXT(w, next);
        if (w->left || w->hash != hash || w->key_bytes != e->key_bytes ||
            memcmp(w->key, e->key, e->key_bytes))
            continue;
        struct client *c = w->client;
        answer(c, w->id, 0, 0, e->value, e->value_bytes);
        waiting_end(s, w);
        client_flush(s, c);
    }
}

/* ---- departures ---- */

static bool has_prefix(const struct departure *d, const char *prefix, size_t n)
{
    return d->key && d->key_bytes >= n && memcmp(d->key, prefix, n) == 0;
}

/* Answers with the first departure after number that has the prefix. */
static bool left_answer(struct xfer_store *s, struct client *c, uint64_t id,
                        const char *prefix, size_t n, int64_t number)
{
    int64_t oldest = s->departures - DEPARTED_MAX;
    if (number < oldest) number = oldest;
    for (int64_t i = number < 0 ? 0 : number; i < s->departures; i++) {
        const struct departure *d = &s->departed[i % DEPARTED_MAX];
        if (!has_prefix(d, prefix, n)) continue;
        answer(c, id, 0, i + 1, d->key, d->key_bytes);
        return true;
    }
    return false;
}

/* Takes e's key away, and tells those who wait for departures. */
static void depart(struct xfer_store *s, struct store_key *e)
{
    struct departure *d = &s->departed[s->departures++ % DEPARTED_MAX];
    struct waiting *w, *after;
    mem_free(d->key);
    d->key = mem_dup_n(e->key, e->key_bytes);
    d->key_bytes = e->key_bytes;
    store_key_remove(&s->keys, e);
    for (w = TAILQ_FIRST(&s->waits); w; w = after) {
        after = TAILQ_NEXT(w, next);
        if (!w->left || !has_prefix(d, w->key, w->key_bytes)) continue;
        struct client *c = w->client;
        answer(c, w->id, 0, s->departures, d->key, d->key_bytes);
        waiting_end(s, w);
        client_flush(s, c);
    }
}

static void owner_gone(struct xfer_store *s, struct client *c)
{
    struct store_key *e, *after;
    for (size_t at = 0;
         c->announced && (e = map_next(&s->keys.map, &at, NULL));)
        for (; e; e = after) {
            after = e->next;
            if (e->owner != c) continue;
            c->announced--;
            depart(s, e);
            at = 0; /* the map changed */
            break;
        }
}

static void owner_set(struct store_key *e, struct client *c)
{
    if (e->owner) e->owner->announced--;
    e->owner = c;
    if (c) c->announced++;
}

static void client_destroy(struct xfer_store *s, struct client *c)
{
    struct waiting *w, *after;
    for (w = TAILQ_FIRST(&s->waits); w; w = after) {
        after = TAILQ_NEXT(w, next);
        if (w->client == c) waiting_end(s, w);
    }
    owner_gone(s, c);
    TAILQ_REMOVE(&s->clients, c, next);
    s->client_count--;
    if (!c->known) s->stranger_count--;
    store_link_close(&c->link);
    buf_fini(&c->in);
    buf_fini(&c->out);
    mem_free(c);
}

/* ---- requests ---- */

static void waiting_begin(struct xfer_store *s, struct client *c, uint64_t id,
                          const struct store_request *r, bool left,
                          uint64_t deadline_ms)
{
    if (c->waits >= WAITS_MAX) {
        answer(c, id, ERR_AGAIN, 0, NULL, 0);
        return;
    }
    struct waiting *w = mem_must(1, sizeof *w + r->key_bytes);
    w->client = c;
    w->left = left;
    w->id = id;
    w->hash = store_key_hash(&s->keys, r->key, r->key_bytes);
    w->deadline_ms = deadline_ms;
    w->key_bytes = r->key_bytes;
    memcpy(w->key, r->key, r->key_bytes);
    c->waits++;
    TAILQ_INSERT_TAIL(&s->waits, w, next);
}

static void do_get(struct xfer_store *s, struct client *c, uint64_t id,
                   const struct store_request *r)
{
    struct store_key *e = store_key_find(&s->keys, r->key, r->key_bytes);
    if (e || r->number == 0) {
        answer(c, id, e ? 0 : ERR_NOT_FOUND, 0, e ? e->value : NULL,
               e ? e->value_bytes : 0);
        return;
    }
    bool for_ever = r->number < 0 || r->number > INT32_MAX;
    waiting_begin(s, c, id, r, false,
                  for_ever ? UINT64_MAX : clock_ms() + (uint64_t)r->number);
}

static void do_left(struct xfer_store *s, struct client *c, uint64_t id,
                    const struct store_request *r)
{
    int64_t after = r->number < 0 ? s->departures : r->number;
    if (!left_answer(s, c, id, r->key, r->key_bytes, after))
        waiting_begin(s, c, id, r, true, UINT64_MAX);
}

static int do_add(struct xfer_store *s, const struct store_request *r,
                  struct store_key **changed, int64_t *now)
{
    struct store_key *e = store_key_find(&s->keys, r->key, r->key_bytes);
    char text[32];
    long long was = 0;
    if (e) {
        int used = 0;
        if (e->value_bytes == 0 || e->value_bytes >= sizeof text)
            return ERR_FORMAT;
        memcpy(text, e->value, e->value_bytes);
        text[e->value_bytes] = 0;
        if (sscanf(text, "%lld%n", &was, &used) != 1 ||
            (size_t)used != e->value_bytes)
            return ERR_FORMAT;
    }
    int64_t sum;
    if (__builtin_add_overflow((int64_t)was, r->number, &sum)) return ERR_RANGE;
    *now = sum;
    int n = snprintf(text, sizeof text, "%" PRId64, sum);
    return store_key_set(&s->keys, r, text, (size_t)n, changed);
}

static void do_cas(struct xfer_store *s, struct client *c, uint64_t id,
                   const struct store_request *r)
{
    struct store_key *e = store_key_find(&s->keys, r->key, r->key_bytes),
                     *changed = NULL;
    size_t n = e ? e->value_bytes : 0;
    bool same = n == r->value_bytes && (!n || !memcmp(e->value, r->value, n));
    /* The answer first: the swap frees what was found. */
    size_t mark = c->out.len;
    answer(c, id, 0, 0, e ? e->value : NULL, n);
    int rc =
        same ? store_key_set(&s->keys, r, r->second, r->second_bytes, &changed)
             : 0;
    if (rc) {
        c->out.len = mark;
        answer(c, id, rc, 0, NULL, 0);
    }
    if (changed) wake_waiting(s, changed);
}

static void request(struct xfer_store *s, struct client *c,
                    const struct store_header *h, const uint8_t *body)
{
    struct store_request r;
    struct store_key *changed = NULL, *e;
    int64_t number = 0;
    if (h->op == STORE_OP_BEAT) {
        answer(c, h->id, 0, 0, NULL, 0);
        return;
    }
    int rc = store_request_decode(&r, h->op, body, h->body_bytes, NULL);
    if (rc) {
        client_kill(c);
        return;
    }
    switch (h->op) {
    case STORE_OP_GET: do_get(s, c, h->id, &r); return;
    case STORE_OP_CAS: do_cas(s, c, h->id, &r); return;
    case STORE_OP_LEFT: do_left(s, c, h->id, &r); return;
    case STORE_OP_SET:
    case STORE_OP_ANNOUNCE:
        rc = store_key_set(&s->keys, &r, r.value, r.value_bytes, &changed);
        if (!rc) owner_set(changed, h->op == STORE_OP_SET ? NULL : c);
        break;
    case STORE_OP_APPEND:
        e = store_key_find(&s->keys, r.key, r.key_bytes);
        rc = store_key_write(&s->keys, &r, r.value, r.value_bytes,
                             e ? e->value_bytes : 0, &changed);
        if (!rc) number = (int64_t)changed->value_bytes;
        break;
    case STORE_OP_WRITE:
        rc = r.number < 0
                 ? ERR_RANGE
                 : store_key_write(&s->keys, &r, r.value, r.value_bytes,
                                   (size_t)r.number, &changed);
        if (!rc) number = (int64_t)changed->value_bytes;
        changed = NULL; /* a table is filled piece by piece: wakes nobody */
        break;
    case STORE_OP_ADD: rc = do_add(s, &r, &changed, &number); break;
    default: /* STORE_OP_REMOVE, the decoder knows no other */
        e = store_key_find(&s->keys, r.key, r.key_bytes);
        if (e) owner_set(e, NULL);
        if (e) store_key_remove(&s->keys, e);
        rc = e ? 0 : ERR_NOT_FOUND;
    }
    answer(c, h->id, rc, number, NULL, 0);
    if (changed) wake_waiting(s, changed);
}

static void hello(struct xfer_store *s, struct client *c,
                  const struct store_header *h, const uint8_t *body)
{
    uint8_t nonce[STORE_NONCE], mac[STORE_MAC], mine[STORE_MAC];
    if (store_hello_decode(h, body, nonce, mac, NULL)) {
        client_kill(c);
        return;
    }
    store_proof(s->token, 'I', c->nonce, nonce, mine);
    if (!hmac_equal(mac, mine)) {
        answer(c, h->id, ERR_AUTH, 0, NULL, 0);
        client_flush(s, c);
        client_kill(c);
        return;
    }
    c->known = true;
    s->stranger_count--;
    store_proof(s->token, 'T', c->nonce, nonce, mine);
    answer(c, h->id, 0, 0, (const char *)mine, sizeof mine);
}

/* Serves what is complete in the client's buffer. */
static void client_parse(struct xfer_store *s, struct client *c)
{
    size_t at = 0;
    while (!c->dead && c->in.len - at >= STORE_HEADER) {
        const uint8_t *frame = (const uint8_t *)c->in.data + at;
        struct store_header h;
        if (store_header_decode(&h, frame, NULL) ||
            (!c->known && h.body_bytes > STORE_HELLO)) {
            client_kill(c);
            break;
        }
        if (c->in.len - at - STORE_HEADER < h.body_bytes) break;
        if (!c->known)
            hello(s, c, &h, frame + STORE_HEADER);
        else if (h.op >= STORE_OP_SET)
            request(s, c, &h, frame + STORE_HEADER);
        else
            client_kill(c);
        at += STORE_HEADER + h.body_bytes;
    }
    buf_drop_front(&c->in, at);
    if (c->in.len == 0 && c->in.cap > READ_STEP * 4) {
        size_t max = c->in.max;
        buf_fini(&c->in); /* a large value came and went */
        buf_init(&c->in, max);
    }
}

static void client_read(struct xfer_store *s, struct client *c)
{
    size_t room = c->in.max - c->in.len;
    if (room > READ_STEP) room = READ_STEP;
    char *at = buf_grow(&c->in, room);
    ssize_t n = at ? store_link_recv(&c->link, at, room, NULL) : ERR_NOMEM;
    if (n < 0) {
        client_kill(c);
        return;
    }
    if (n > 0) {
        c->in.len += (size_t)n;
        c->heard_ms = clock_ms();
        client_parse(s, c);
    }
    client_flush(s, c); /* also where a handshake of TLS is through */
}

static void client_accept(struct xfer_store *s, int fd)
{
    int one = 1;
    struct client *c = mem_must(1, sizeof *c), *old;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    store_link_open(&c->link, fd, s->tls, true);
    c->heard_ms = clock_ms();
    c->hello_by_ms = c->heard_ms + HELLO_MS;
    c->events = EPOLLIN;
    buf_init(&c->in, STORE_HEADER + STORE_BODY_MAX);
    buf_init(&c->out, OUT_MAX);
    random_bytes(c->nonce, sizeof c->nonce);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev);
    TAILQ_INSERT_TAIL(&s->clients, c, next);
    s->client_count++;
    if (++s->stranger_count > STRANGERS_MAX || s->client_count > CLIENTS_MAX) {
        TAILQ_FOREACH(old, &s->clients, next)
        if (!old->known && !old->dead) break;
        if (old) client_kill(old);
    }
    store_greeting_encode(&c->out, c->nonce);
    client_flush(s, c);
}

static void accept_watch(struct xfer_store *s, bool on)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(s->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->listener, &ev);
    s->accept_ms = on ? 0 : clock_ms() + ACCEPT_PAUSE_MS;
}

static void accept_all(struct xfer_store *s)
{
    for (int i = 0; i < 16; i++) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            client_accept(s, fd);
        } else {
            if (errno == EMFILE || errno == ENFILE) accept_watch(s, false);
            return;
        }
    }
}

/* What is late: strangers, waits, and what TLS holds of a client that was not
 * read yet. Returns ms until the next, -1: none. */
static int timers(struct xfer_store *s)
{
    uint64_t now = clock_ms(), next = UINT64_MAX;
    struct client *c, *c_after;
    struct waiting *w, *w_after;
    if (s->accept_ms && now >= s->accept_ms) accept_watch(s, true);
    if (s->accept_ms) next = s->accept_ms;
    for (w = TAILQ_FIRST(&s->waits); w; w = w_after) {
        w_after = TAILQ_NEXT(w, next);
        if (now < w->deadline_ms) {
            if (w->deadline_ms < next) next = w->deadline_ms;
            continue;
        }
        c = w->client;
        answer(c, w->id, ERR_TIMEOUT, 0, NULL, 0);
        waiting_end(s, w);
        client_flush(s, c);
    }
    for (c = TAILQ_FIRST(&s->clients); c; c = c_after) {
        c_after = TAILQ_NEXT(c, next);
        if (c->link.unread && !c->dead) client_read(s, c);
        if (c->link.unread) next = now;
        uint64_t by =
            c->known ? c->heard_ms + STORE_SILENCE_MS : c->hello_by_ms;
        if (now >= by) client_kill(c);
        if (!c->dead && by < next) next = by;
        if (c->dead) client_destroy(s, c);
    }
    if (next == UINT64_MAX) return -1;
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void *store_main(void *arg)
{
    struct xfer_store *s = arg;
    struct epoll_event events[64];
    bool quit = false;
    pthread_setname_np(pthread_self(), "store");
    while (!quit) {
        int n = epoll_wait(s->epoll, events, 64, timers(s));
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (events[i].data.ptr == s) {
                accept_all(s);
            } else if (events[i].data.ptr == &s->wake) {
                quit = true;
            } else if (!c->dead) {
                if (events[i].events & EPOLLOUT) client_flush(s, c);
                if (events[i].events & ~(uint32_t)EPOLLOUT) client_read(s, c);
            }
        }
    }
    return NULL;
}

/* ---- front door ---- */

static int store_open(struct xfer_store *s, const char *host, uint16_t port,
                      struct why *why)
{
    char text[HOST_MAX + 32];
    struct addr addr;
    addr_join(host, port, text, sizeof text);
    int rc = addr_resolve(host, port, &addr, why);
    if (rc) return rc;
    s->listener = addr_listen(&addr, text, why);
    if (s->listener < 0) return s->listener;
    addr_join(host, addr_port_of(s->listener), text, sizeof text);
    snprintf(s->url, sizeof s->url, "tcp://%s", text);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &s->wake};
    if (s->epoll < 0 || s->wake < 0 ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &ev))
        return err_sys(why, ERR_IO, errno, "config store: epoll");
    accept_watch(s, true);
    int e = thread_start(&s->thread, store_main, s);
    if (e) return err_sys(why, ERR_IO, e, "config store: thread");
    s->running = true;
    return 0;
}

int xfer_store_serve(const char *url, const struct xfer_store_auth *auth,
                     struct xfer_store **out, struct why *why)
{
    char host[HOST_MAX];
    uint16_t port;
    struct tls_setup *tls;
    *out = NULL;
    int rc = store_url_split(url, host, &port, why);
    if (!rc) rc = store_link_setup(&tls, auth, why);
    if (rc) return rc;
    struct xfer_store *s = mem_must(1, sizeof *s);
    s->listener = s->epoll = s->wake = -1;
    s->token = mem_dup(auth && auth->token ? auth->token : "");
    s->tls = tls;
    store_keys_init(&s->keys);
    TAILQ_INIT(&s->clients);
    TAILQ_INIT(&s->waits);
    rc = store_open(s, host, port, why);
    if (rc)
        xfer_store_stop(s);
    else
        *out = s;
    return rc;
}

const char *xfer_store_url(const struct xfer_store *store)
{
    return store->url;
}

void xfer_store_stop(struct xfer_store *s)
{
    if (!s) return;
    if (s->running) {
        uint64_t one = 1;
        while (write(s->wake, &one, sizeof one) < 0 && errno == EINTR) {
        }
        pthread_join(s->thread, NULL);
    }
    while (!TAILQ_EMPTY(&s->clients))
        client_destroy(s, TAILQ_FIRST(&s->clients));
    store_keys_fini(&s->keys);
    for (int i = 0; i < DEPARTED_MAX; i++)
        mem_free(s->departed[i].key);
    if (s->listener >= 0) close(s->listener);
    if (s->epoll >= 0) close(s->epoll);
    if (s->wake >= 0) close(s->wake);
    tls_setup_destroy(s->tls);
    mem_free(s->token);
    mem_free(s);
}
