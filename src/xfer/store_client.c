/* The config store's client: a thread that keeps a connection and reads
 * answers; callers queue a request and wait for its answer. What can be asked
 * again after a lost connection (GET, watches) is; the rest fails. */
#include "xfer/store.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/core.h"
#include "xfer/hmac.h"
#include "xfer/store_link.h"
#include "xfer/store_wire.h"
#include "xfer/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    GREETING_MS = 1000,
    RETRY_MIN_MS = 20,
    RETRY_MAX_MS = 500,
    OUT_MAX = 4 * STORE_BODY_MAX,
    READ_STEP = 64 << 10,
};

struct call {
    TAILQ_ENTRY(call) next;
    enum store_op op;
    uint64_t id;
    struct buf frame; /* as sent, to send it again */
    bool done;
    int rc;
    int64_t number;
    char *value; /* detached by the caller */
    size_t value_bytes;
    xfer_store_on_value *on_value; /* a watch; owned by the client */
    bool standing; /* announcement, departures: asked again on a new link */
    void *arg;
};
TAILQ_HEAD(calls, call);

struct xfer_store_client {
    char *url, *token, host[HOST_MAX];
    uint16_t port;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int wake;
    struct tls_setup *tls;  /* or NULL */
    struct store_link link; /* the thread's, as is heard_ms */
    uint64_t heard_ms;
    bool running, up, quit;
    struct why why; /* of the last attempt to connect */
    uint64_t ids;
    struct calls calls;
    struct buf out; /* under the lock */
    struct buf in;  /* the thread's */
};

static int fail(struct xfer_store_client *c, struct why *why, int rc,
                const char *text)
{
    return err_set(why, rc, "config store %s: %s", c->url, text);
}

/* ---- the thread: connecting ---- */

/* Sleeps until fd is ready, or the deadline, or somebody wants us to quit. */
static bool wait_fd(struct xfer_store_client *c, int fd, short events,
                    uint64_t deadline)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = events},
                              {.fd = c->wake, .events = POLLIN}};
        uint64_t now = clock_ms();
        if (now >= deadline) return false;
        int n = poll(p, 2, (int)(deadline - now));
        if (n > 0 && p[1].revents) {
            uint64_t drained;
            ssize_t got = read(c->wake, &drained, sizeof drained);
            (void)got;
            pthread_mutex_lock(&c->lock);
            bool quit = c->quit;
            pthread_mutex_unlock(&c->lock);
            if (quit) return false;
        }
        if (n > 0 && fd >= 0 && p[0].revents) return true;
    }
}

static short link_events(const struct xfer_store_client *c, bool more)
{
    return (short)(POLLIN |
                   (store_link_wants_out(&c->link, more) ? POLLOUT : 0));
}

static int read_frame(struct xfer_store_client *c, uint64_t deadline,
                      struct store_header *h, uint8_t *frame, size_t cap,
                      struct why *why)
{
    size_t have = 0, need = STORE_HEADER;
    while (have < need) {
        ssize_t n = store_link_recv(&c->link, frame + have, need - have, why);
        bool late =
            n == 0 && !wait_fd(c, c->link.fd, link_events(c, false), deadline);
        if (!c->tls && !have && (late || n == ERR_PEER))
            return err_set(why, ERR_PEER,
                           "no greeting; the store may want TLS");
        if (late) return err_set(why, ERR_TIMEOUT, "no answer in time");
        if (n < 0) return (int)n;
        have += (size_t)n;
        if (have != STORE_HEADER || need != STORE_HEADER) continue;
        int rc = store_header_decode(h, frame, why);
        if (rc) return rc;
        need += h->body_bytes;
        if (need > cap) return err_set(why, ERR_FORMAT, "not a config store");
    }
    return 0;
}

static int greet(struct xfer_store_client *c, struct why *why)
{
    uint64_t deadline = clock_ms() + GREETING_MS;
    uint8_t frame[256], theirs[STORE_NONCE], mine[STORE_NONCE], mac[STORE_MAC];
    uint8_t *body = frame + STORE_HEADER;
    struct store_header h;
    struct store_answer a;
    int rc = read_frame(c, deadline, &h, frame, sizeof frame, why);
    if (!rc) rc = store_greeting_decode(&h, body, theirs, why);
    if (rc) return rc;
    random_bytes(mine, sizeof mine);
    store_proof(c->token, 'I', theirs, mine, mac);
    struct buf out;
    buf_init(&out, 1024);
    store_hello_encode(&out, 0, mine, mac);
    ssize_t n = store_link_send(&c->link, out.data, out.len, why);
    bool sent = n == (ssize_t)out.len;
    buf_fini(&out);
    if (n < 0) return (int)n;
    if (!sent) return err_set(why, ERR_PEER, "connection lost");
    rc = read_frame(c, deadline, &h, frame, sizeof frame, why);
    if (!rc) rc = store_answer_decode(&a, body, h.body_bytes, why);
    if (rc) return rc;
    store_proof(c->token, 'T', theirs, mine, mac);
    if (a.rc || a.value_bytes != sizeof mac ||
        !hmac_equal(mac, (const uint8_t *)a.value))
        return err_set(why, ERR_AUTH, "token does not match");
    return 0;
}

static int dial(struct xfer_store_client *c, struct why *why)
{
    struct addr addr;
    int one = 1, e = 0;
    socklen_t e_bytes = sizeof e;
    int rc = addr_resolve(c->host, c->port, &addr, why);
    if (rc) return rc;
    int fd = socket(addr.ss.ss_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_sys(why, ERR_IO, errno, "socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    store_link_open(&c->link, fd, c->tls, false);
    if (connect(fd, (struct sockaddr *)&addr.ss, addr.bytes) &&
        errno != EINPROGRESS)
        e = errno;
    else if (!wait_fd(c, fd, POLLOUT, clock_ms() + GREETING_MS))
        e = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &e_bytes);
    char text[100];
    rc = e ? err_set(why, ERR_PEER, "%s", strerror_r(e, text, sizeof text))
           : greet(c, why);
    if (rc) store_link_close(&c->link);
    return rc;
}

/* ---- the thread: answers ---- */

/* Sets the number in the frame of a LEFT: departures after that one. */
static void left_ask(struct call *call, int64_t number)
{
    wire_put((uint8_t *)call->frame.data + STORE_HEADER, (uint64_t)number, 8);
}

static void call_free(struct call *call)
{
    mem_free(call->value);
    buf_fini(&call->frame);
    mem_free(call);
}

/* Under the lock: an answer to what is asked for ever. */
static void standing_answer(struct xfer_store_client *c, struct call *call,
                            const struct store_answer *a)
{
    if (call->op == STORE_OP_ANNOUNCE || a->rc) return; /* next time, perhaps */
    left_ask(call, a->number);
    buf_add(&c->out, call->frame.data, call->frame.len);
    pthread_mutex_unlock(&c->lock);
    call->on_value(call->arg, 0, a->value, a->value_bytes);
    pthread_mutex_lock(&c->lock);
}

/* Under the lock. A watch's end is told by the thread, without the lock. */
static void call_end(struct xfer_store_client *c, struct call *call, int rc,
                     const struct store_answer *a)
{
    TAILQ_REMOVE(&c->calls, call, next);
    call->rc = rc;
    if (a && !rc) {
        call->number = a->number;
        call->value = mem_dup_n(a->value, a->value_bytes);
        call->value_bytes = a->value_bytes;
    }
    call->done = true;
    if (call->on_value) {
        pthread_mutex_unlock(&c->lock);
        call->on_value(call->arg, rc, call->value, call->value_bytes);
        call_free(call);
        pthread_mutex_lock(&c->lock);
    }
    pthread_cond_broadcast(&c->changed);
}

static int answers_parse(struct xfer_store_client *c, struct why *why)
{
    size_t at = 0;
    int rc = 0;
    while (c->in.len - at >= STORE_HEADER) {
        const uint8_t *frame = (const uint8_t *)c->in.data + at;
        struct store_header h;
        struct store_answer a;
        struct call *call;
        rc = store_header_decode(&h, frame, why);
        if (rc || c->in.len - at - STORE_HEADER < h.body_bytes) break;
        rc = store_answer_decode(&a, frame + STORE_HEADER, h.body_bytes, why);
        if (rc) break;
        pthread_mutex_lock(&c->lock);
        TAILQ_FOREACH(call, &c->calls, next)
        if (call->id == h.id) break;
        if (call && call->standing)
            standing_answer(c, call, &a);
        else if (call)
            call_end(c, call, a.rc, &a);
        pthread_mutex_unlock(&c->lock);
        at += STORE_HEADER + h.body_bytes;
    }
    buf_drop_front(&c->in, at);
    return rc;
}

static int answers_read(struct xfer_store_client *c, struct why *why)
{
    size_t room = c->in.max - c->in.len;
    if (room > READ_STEP) room = READ_STEP;
    char *at = buf_grow(&c->in, room);
    if (!at) return err_set(why, ERR_NOMEM, "out of memory");
    ssize_t n = store_link_recv(&c->link, at, room, why);
    if (n <= 0) return (int)n;
    c->in.len += (size_t)n;
    c->heard_ms = clock_ms();
    return answers_parse(c, why);
}

static int requests_send(struct xfer_store_client *c, struct why *why)
{
    size_t sent = 0;
    ssize_t n;
    pthread_mutex_lock(&c->lock);
    do { /* nothing, for TLS, is what it took before */
        n = store_link_send(&c->link, c->out.data + sent, c->out.len - sent,
                            why);
        if (n > 0) sent += (size_t)n;
    } while (n > 0 && sent < c->out.len);
    buf_drop_front(&c->out, sent);
    pthread_mutex_unlock(&c->lock);
    return n < 0 ? (int)n : 0;
}

/* A life sign when it is time; ERR_PEER when the store gave none. Returns ms
 * until the next through *wait. */
static int beat(struct xfer_store_client *c, uint64_t *next, int *wait,
                struct why *why)
{
    uint64_t now = clock_ms();
    if (now >= c->heard_ms + STORE_SILENCE_MS)
        return err_set(why, ERR_PEER, "no life sign in %d ms",
                       STORE_SILENCE_MS);
    if (now >= *next) {
        pthread_mutex_lock(&c->lock);
        store_beat_encode(&c->out, 0);
        pthread_mutex_unlock(&c->lock);
        *next = now + STORE_BEAT_MS;
    }
    *wait = (int)(*next - now);
    return 0;
}

/* Serves one connection until it ends. */
static void connected(struct xfer_store_client *c, struct why *why)
{
    int rc = 0, wait = 0;
    uint64_t next_beat = clock_ms() + STORE_BEAT_MS;
    c->heard_ms = clock_ms();
    while (!rc) {
        rc = beat(c, &next_beat, &wait, why);
        pthread_mutex_lock(&c->lock);
        bool quit = c->quit, more = c->out.len > 0;
        pthread_mutex_unlock(&c->lock);
        if (quit || rc) return;
        struct pollfd p[2] = {
            {.fd = c->link.fd, .events = link_events(c, more)},
            {.fd = c->wake, .events = POLLIN}};
        if (poll(p, 2, c->link.unread ? 0 : wait) < 0) continue;
        if (p[1].revents) {
            uint64_t drained;
            ssize_t n = read(c->wake, &drained, sizeof drained);
            (void)n;
        }
        rc = requests_send(c, why);
        if (!rc && (c->link.unread || p[0].revents & ~POLLOUT))
            rc = answers_read(c, why);
    }
}

static bool may_repeat(const struct call *call)
{
    return call->op == STORE_OP_GET || call->standing;
}

/* Under the lock: the connection is there; ask again what is unanswered. */
static void went_up(struct xfer_store_client *c)
{
    struct call *call;
    c->up = true;
    buf_reset(&c->out);
    TAILQ_FOREACH(call, &c->calls, next)
    {
        /* Another life of the store counts departures anew. */
        if (call->op == STORE_OP_LEFT) left_ask(call, -1);
        buf_add(&c->out, call->frame.data, call->frame.len);
    }
    pthread_cond_broadcast(&c->changed);
}

static void went_down(struct xfer_store_client *c, const struct why *why)
{
    struct call *call, *after;
    c->up = false;
    c->why = *why;
    for (call = TAILQ_FIRST(&c->calls); call; call = after) {
        after = TAILQ_NEXT(call, next);
        if (!may_repeat(call)) call_end(c, call, ERR_PEER, NULL);
    }
    pthread_cond_broadcast(&c->changed);
}

static void *client_main(void *arg)
{
    struct xfer_store_client *c = arg;
    uint64_t pause = RETRY_MIN_MS;
    bool quit = false;
    pthread_setname_np(pthread_self(), "store-client");
    while (!quit) {
        struct why why = {0};
        int rc = dial(c, &why);
        if (!rc) {
            pause = RETRY_MIN_MS;
            buf_reset(&c->in);
            pthread_mutex_lock(&c->lock);
            went_up(c);
            pthread_mutex_unlock(&c->lock);
            connected(c, &why);
            store_link_close(&c->link);
        }
        pthread_mutex_lock(&c->lock);
        went_down(c, &why);
        quit = c->quit;
        pthread_mutex_unlock(&c->lock);
        if (!quit && rc) {
            wait_fd(c, -1, 0, clock_ms() + pause);
            pause = pause * 2 < RETRY_MAX_MS ? pause * 2 : RETRY_MAX_MS;
        }
        pthread_mutex_lock(&c->lock);
        quit = c->quit;
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

/* ---- calls ---- */

static void thread_wake(struct xfer_store_client *c)
{
    uint64_t one = 1;
    ssize_t n = write(c->wake, &one, sizeof one);
    (void)n; /* EAGAIN: it is readable */
}

/* Under the lock. */
static void call_send(struct xfer_store_client *c, struct call *call)
{
    TAILQ_INSERT_TAIL(&c->calls, call, next);
    if (!c->up) return; /* went_up sends it */
    buf_add(&c->out, call->frame.data, call->frame.len);
    thread_wake(c);
}

static int call_begin(struct xfer_store_client *c, struct call *call,
                      enum store_op op, const char *key,
                      struct store_request *r, struct why *why)
{
    r->key = key;
    r->key_bytes = strlen(key);
    if (r->key_bytes < 1 || r->key_bytes > STORE_KEY_MAX)
        return fail(c, why, ERR_RANGE, "key is empty or too long");
    if (r->value_bytes > STORE_VALUE_MAX || r->second_bytes > STORE_VALUE_MAX ||
        r->value_bytes + r->second_bytes > STORE_VALUE_MAX)
        return fail(c, why, ERR_RANGE, "value is too long");
    call->op = op;
    buf_init(&call->frame, STORE_HEADER + STORE_BODY_MAX);
    pthread_mutex_lock(&c->lock);
    call->id = ++c->ids;
    pthread_mutex_unlock(&c->lock);
    store_request_encode(&call->frame, op, call->id, r);
    if (!call->frame.failed) return 0;
    buf_fini(&call->frame);
    return fail(c, why, ERR_NOMEM, "out of memory");
}

/* Sends and waits. What may be sent twice is queued even without a server. */
static int call_run(struct xfer_store_client *c, struct call *call,
                    uint64_t deadline, struct why *why)
{
    bool on_time = true;
    pthread_mutex_lock(&c->lock);
    while (!c->up && on_time && !may_repeat(call))
        on_time = cond_until(&c->changed, &c->lock, deadline);
    bool sent = c->up || may_repeat(call);
    if (sent && c->up && c->out.len + call->frame.len > OUT_MAX) {
        pthread_mutex_unlock(&c->lock);
        buf_fini(&call->frame);
        return fail(c, why, ERR_AGAIN, "too many requests are unanswered");
    }
    if (sent) call_send(c, call);
    while (sent && !call->done && on_time)
        on_time = cond_until(&c->changed, &c->lock, deadline);
    if (!call->done) {
        if (sent) TAILQ_REMOVE(&c->calls, call, next);
        call->rc = c->up ? ERR_TIMEOUT : ERR_PEER;
    }
    int rc = call->rc;
    struct why down = c->why;
    pthread_mutex_unlock(&c->lock);
    buf_fini(&call->frame);
    if (rc == ERR_PEER) return fail(c, why, rc, why_text(&down, rc));
    return rc ? fail(c, why, rc, err_text(rc)) : 0;
}

static int call_all(struct xfer_store_client *c, struct call *call,
                    enum store_op op, const char *key, struct store_request r,
                    int timeout_ms, struct why *why)
{
    uint64_t deadline = deadline_after(timeout_ms);
    int rc = call_begin(c, call, op, key, &r, why);
    return rc ? rc : call_run(c, call, deadline, why);
}

int xfer_store_set(struct xfer_store_client *client, const char *key,
                   const void *value, size_t n, int timeout_ms, struct why *why)
{
    struct call call = {0};
    struct store_request r = {.value = value, .value_bytes = n};
    int rc = call_all(client, &call, STORE_OP_SET, key, r, timeout_ms, why);
    mem_free(call.value);
    return rc;
}

static void take_value(struct call *call, int rc, char **value, size_t *n)
{
    *value = rc ? NULL : call->value;
    if (n) *n = rc ? 0 : call->value_bytes;
    if (rc) mem_free(call->value);
}

int xfer_store_get(struct xfer_store_client *client, const char *key, int wait,
                   int timeout_ms, char **value, size_t *n, struct why *why)
{
    struct call call = {0};
    struct store_request r = {.number = wait ? timeout_ms : 0};
    int rc = call_all(client, &call, STORE_OP_GET, key, r, timeout_ms, why);
    take_value(&call, rc, value, n);
    return rc;
}

int xfer_store_add(struct xfer_store_client *client, const char *key,
                   int64_t delta, int timeout_ms, int64_t *now, struct why *why)
{
    struct call call = {0};
    struct store_request r = {.number = delta};
    int rc = call_all(client, &call, STORE_OP_ADD, key, r, timeout_ms, why);
    if (!rc && now) *now = call.number;
    mem_free(call.value);
    return rc;
}

int xfer_store_remove(struct xfer_store_client *client, const char *key,
                      int timeout_ms, struct why *why)
{
    struct call call = {0};
    struct store_request r = {0};
    int rc = call_all(client, &call, STORE_OP_REMOVE, key, r, timeout_ms, why);
    mem_free(call.value);
    return rc;
}

int xfer_store_append(struct xfer_store_client *client, const char *key,
                      const void *value, size_t n, int timeout_ms,
                      uint64_t *now, struct why *why)
{
    struct call call = {0};
    struct store_request r = {.value = value, .value_bytes = n};
    int rc = call_all(client, &call, STORE_OP_APPEND, key, r, timeout_ms, why);
    if (!rc && now) *now = (uint64_t)call.number;
    mem_free(call.value);
    return rc;
}

int xfer_store_cas(struct xfer_store_client *client, const char *key,
                   struct xfer_store_bytes expected,
                   struct xfer_store_bytes value, int timeout_ms, char **found,
                   size_t *n, struct why *why)
{
    struct call call = {0};
    struct store_request r = {.value = expected.bytes,
                              .value_bytes = expected.n,
                              .second = value.bytes,
                              .second_bytes = value.n};
    int rc = call_all(client, &call, STORE_OP_CAS, key, r, timeout_ms, why);
    take_value(&call, rc, found, n);
    return rc;
}

int xfer_store_write(struct xfer_store_client *client, const char *key,
                     uint64_t offset, const void *value, size_t n,
                     int timeout_ms, uint64_t *now, struct why *why)
{
    struct call call = {0};
    struct store_request r = {
        .number = (int64_t)offset, .value = value, .value_bytes = n};
    if (offset > STORE_VALUE_MAX)
        return fail(client, why, ERR_RANGE, "value is too long");
    int rc = call_all(client, &call, STORE_OP_WRITE, key, r, timeout_ms, why);
    if (!rc && now) *now = (uint64_t)call.number;
    mem_free(call.value);
    return rc;
}

void xfer_store_free(char *value)
{
    mem_free(value);
}

/* Something that the client asks without anybody waiting for it. */
static int call_post(struct xfer_store_client *c, enum store_op op,
                     const char *key, struct store_request r,
                     xfer_store_on_value *on_value, void *arg, struct why *why)
{
    struct call *call = mem_must(1, sizeof *call);
    int rc = call_begin(c, call, op, key, &r, why);
    if (rc) {
        mem_free(call);
        return rc;
    }
    call->on_value = on_value;
    call->arg = arg;
    call->standing = op != STORE_OP_GET;
    pthread_mutex_lock(&c->lock);
    call_send(c, call);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

int xfer_store_watch(struct xfer_store_client *client, const char *key,
                     xfer_store_on_value *on_value, void *arg, struct why *why)
{
    struct store_request r = {.number = -1};
    return call_post(client, STORE_OP_GET, key, r, on_value, arg, why);
}

int xfer_store_watch_left(struct xfer_store_client *client, const char *prefix,
                          xfer_store_on_value *on_key, void *arg,
                          struct why *why)
{
    struct store_request r = {.number = -1};
    return call_post(client, STORE_OP_LEFT, prefix, r, on_key, arg, why);
}

int xfer_store_announce(struct xfer_store_client *client, const char *key,
                        const void *value, size_t n, struct why *why)
{
    struct store_request r = {.value = value, .value_bytes = n};
    return call_post(client, STORE_OP_ANNOUNCE, key, r, NULL, NULL, why);
}

/* ---- connecting and not ---- */

/* A first attempt that is under way may take first_ms more. */
static int await(struct xfer_store_client *c, int timeout_ms, int first_ms,
                 struct why *why)
{
    uint64_t deadline = deadline_after(timeout_ms), first = deadline;
    bool on_time = true;
    if (timeout_ms >= 0) first += (uint64_t)first_ms;
    pthread_mutex_lock(&c->lock);
    while (!c->up && c->why.code != ERR_AUTH && on_time)
        on_time =
            cond_until(&c->changed, &c->lock, c->why.code ? deadline : first);
    bool up = c->up;
    struct why last = c->why;
    pthread_mutex_unlock(&c->lock);
    if (up) return 0;
    int rc = last.code == ERR_AUTH ? ERR_AUTH : ERR_PEER;
    return fail(c, why, rc, last.text[0] ? last.text : "no answer");
}

int xfer_store_wait(struct xfer_store_client *c, int timeout_ms,
                    struct why *why)
{
    return await(c, timeout_ms, 0, why);
}

int xfer_store_meet(struct xfer_store_client *c, int timeout_ms,
                    struct why *why)
{
    return await(c, timeout_ms, 2 * GREETING_MS, why);
}

int xfer_store_open(const char *url, const struct xfer_store_auth *auth,
                    struct xfer_store_client **out, struct why *why)
{
    *out = NULL;
    struct xfer_store_client *c = mem_must(1, sizeof *c);
    c->wake = c->link.fd = -1;
    c->url = mem_dup(url);
    c->token = mem_dup(auth && auth->token ? auth->token : "");
    TAILQ_INIT(&c->calls);
    buf_init(&c->out, OUT_MAX);
    buf_init(&c->in, STORE_HEADER + STORE_BODY_MAX);
    pthread_mutex_init(&c->lock, NULL);
    cond_init(&c->changed);
    int rc = store_url_split(url, c->host, &c->port, why);
    if (!rc) rc = store_link_setup(&c->tls, auth, why);
    if (!rc && (c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        rc = err_sys(why, ERR_IO, errno, "eventfd");
    if (!rc) {
        int e = thread_start(&c->thread, client_main, c);
        c->running = !e;
        if (e) rc = err_sys(why, ERR_IO, e, "cannot start a thread");
    }
    if (rc)
        xfer_store_disconnect(c);
    else
        *out = c;
    return rc;
}

int xfer_store_connect(const char *url, const struct xfer_store_auth *auth,
                       int timeout_ms, struct xfer_store_client **out,
                       struct why *why)
{
    int rc = xfer_store_open(url, auth, out, why);
    if (!rc) rc = xfer_store_wait(*out, timeout_ms, why);
    if (!rc) return 0;
    xfer_store_disconnect(*out);
    *out = NULL;
    return rc;
}

void xfer_store_disconnect(struct xfer_store_client *c)
{
    if (!c) return;
    if (c->running) {
        pthread_mutex_lock(&c->lock);
        c->quit = true;
        thread_wake(c);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    pthread_mutex_lock(&c->lock);
    for (struct call *call; (call = TAILQ_FIRST(&c->calls));) {
        /* Only watches and announcements are left. */
        if (call->on_value) {
            call_end(c, call, ERR_CANCELED, NULL);
        } else {
            TAILQ_REMOVE(&c->calls, call, next);
            call_free(call);
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (c->wake >= 0) close(c->wake);
    buf_fini(&c->in);
    buf_fini(&c->out);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    tls_setup_destroy(c->tls);
    mem_free(c->url);
    mem_free(c->token);
    mem_free(c);
}
