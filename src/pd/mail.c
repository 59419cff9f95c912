/* ZeroMQ's descriptor tells edges: it becomes readable when the socket's state
 * may have changed, and any call on the socket may swallow that. So whoever
 * watches one drains the socket until it says EAGAIN. A watch that has done
 * its share for this turn goes on by a timer, since no edge will come. */
#include "pd/mail.h"

#include "base/mem.h"
#include "http/loop.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

enum {
    PEERS_MAX = 512,
    QUEUE_MAX = 16384, /* messages unsent to one peer */
    SHARE = 64,        /* messages taken in one turn of the loop */
    LINGER_MS = 100,
};

struct push {
    struct push *next;
    struct pd_mail *mail;
    struct pd_address to;
    void *socket, *monitor;
    struct loop_watch *watch;
    bool lost; /* reported at the next turn, then gone */
};

struct pd_mail {
    struct pd_mail_options options;
    struct pd_address address;
    void *context, *pull;
    struct loop_watch *watch;
    struct loop_timer *more;  /* the PULL socket has more */
    struct loop_timer *sweep; /* some push is lost */
    struct push *pushes;
    uint32_t push_count;
    uint32_t monitor_serial;
};

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value);
}

static int zmq_fail(struct why *why, int code, const char *what)
{
    return err_set(why, code, "%s: %s", what, zmq_strerror(zmq_errno()));
}

/* "tcp://host:port", brackets where the host is IPv6. */
static void endpoint(char *out, size_t size, const char *host, const char *port)
{
    bool v6 = strchr(host, ':');
    snprintf(out, size, "tcp://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "",
             port);
}

/* ---- receiving ---------------------------------------------------------- */

/* One message into frames; its parts stay open until parts_close. */
struct parts {
    zmq_msg_t at[PD_FRAMES_MAX];
    size_t count;
    bool too_many;
};

static void parts_close(struct parts *parts)
{
    for (size_t i = 0; i < parts->count; i++)
        zmq_msg_close(&parts->at[i]);
}

/* False: nothing there. Parts of a message arrive together. */
static bool parts_take(void *socket, struct parts *parts)
{
    *parts = (struct parts){0};
    for (int more = 1; more;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return false;
        }
        more = zmq_msg_more(&part);
        if (parts->count == PD_FRAMES_MAX) {
            parts->too_many = true;
            zmq_msg_close(&part);
        } else {
            zmq_msg_t *to = &parts->at[parts->count++];
            zmq_msg_init(to);
            zmq_msg_move(to, &part);
            zmq_msg_close(&part);
        }
    }
    return true;
}

static void deliver(struct pd_mail *mail, struct parts *parts)
{
    struct pd_frame frames[PD_FRAMES_MAX];
    for (size_t i = 0; i < parts->count; i++)
        frames[i] = (struct pd_frame){zmq_msg_data(&parts->at[i]),
                                      zmq_msg_size(&parts->at[i])};
    mail->options.on_message(mail->options.arg, frames, parts->count);
}

static void receive(void *arg)
{
    struct pd_mail *mail = arg;
    struct parts parts;
    for (int i = 0; i < SHARE; i++) {
        if (!parts_take(mail->pull, &parts)) {
            parts_close(&parts);
            return;
        }
        if (!parts.too_many) deliver(mail, &parts);
        parts_close(&parts);
    }
    loop_timer_set(mail->more, 0, 0);
}

static void on_pull(void *arg, unsigned ready)
{
    (void)ready;
    receive(arg);
}

/* ---- sending ------------------------------------------------------------ */

static void push_close(struct push *p)
{
    loop_watch_destroy(p->watch);
    if (p->socket) zmq_socket_monitor(p->socket, NULL, 0);
    if (p->monitor) zmq_close(p->monitor);
    if (p->socket) zmq_close(p->socket);
    mem_free(p);
}

static void unlink_push(struct pd_mail *mail, struct push *p)
{
    struct push **at = &mail->pushes;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    mail->push_count--;
}

static void sweep(void *arg)
{
    struct pd_mail *mail = arg;
    for (struct push *p = mail->pushes; p;) {
        if (!p->lost) {
            p = p->next;
            continue;
        }
        struct pd_address address = p->to;
        unlink_push(mail, p);
        push_close(p);
        mail->options.on_lost(mail->options.arg, &address);
        p = mail->pushes; /* the callback may have changed the list */
    }
}

static void push_lost(struct push *p)
{
    p->lost = true;
    loop_timer_set(p->mail->sweep, 0, 0);
}

/* Events of a PUSH socket: frame 0 is {u16 event, u32 value}. */
static void on_monitor(void *arg, unsigned ready)
{
    (void)ready;
    const uint16_t ends = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED |
                          ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    struct push *p = arg;
    struct parts parts;
    bool more = true;
    while (more) {
        more = parts_take(p->monitor, &parts);
        uint16_t event = 0;
        if (parts.count && zmq_msg_size(&parts.at[0]) >= sizeof event)
            memcpy(&event, zmq_msg_data(&parts.at[0]), sizeof event);
        parts_close(&parts);
        if (event & ends) push_lost(p);
    }
}

static int watch_socket(struct loop_watch **out, struct loop *loop,
                        void *socket, void (*fn)(void *arg, unsigned ready),
                        void *arg, struct why *why)
{
    int fd;
    size_t size = sizeof fd;
    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &size))
        return zmq_fail(why, ERR_IO, "ZeroMQ descriptor");
    int rc = loop_watch_create(out, loop, fd, LOOP_READ, fn, arg);
    if (rc) return err_set(why, rc, "ZeroMQ descriptor cannot be watched");
    return 0;
}

/* Connections to a host that vanished without a word end after 6 s, whether
 * quiet or with bytes under way. */
static void end_on_dead_host(void *socket)
{
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, 3);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
    set_int(socket, ZMQ_TCP_MAXRT, 6000);
}

static int push_open(struct push *p, struct why *why)
{
    struct pd_mail *mail = p->mail;
    p->socket = zmq_socket(mail->context, ZMQ_PUSH);
    p->monitor = zmq_socket(mail->context, ZMQ_PAIR);
    if (!p->socket || !p->monitor)
        return zmq_fail(why, ERR_NOMEM, "ZeroMQ socket");
    set_int(p->socket, ZMQ_LINGER, LINGER_MS);
    set_int(p->socket, ZMQ_SNDHWM, QUEUE_MAX);
    set_int(p->socket, ZMQ_RECONNECT_IVL, -1);
    set_int(p->socket, ZMQ_IPV6, 1);
    end_on_dead_host(p->socket);
    char name[64], port[8], to[PD_HOST_MAX + 32];
    snprintf(name, sizeof name, "inproc://monitor-%u", mail->monitor_serial++);
    if (zmq_socket_monitor(p->socket, name, ZMQ_EVENT_ALL) ||
        zmq_connect(p->monitor, name))
        return zmq_fail(why, ERR_IO, "ZeroMQ monitor");
    int rc = watch_socket(&p->watch, mail->options.loop, p->monitor, on_monitor,
                          p, why);
    if (rc) return rc;
    snprintf(port, sizeof port, "%u", p->to.port);
    endpoint(to, sizeof to, p->to.host, port);
    if (zmq_connect(p->socket, to)) return zmq_fail(why, ERR_INVALID, to);
    on_monitor(p, 0); /* its first edge may have passed */
    return 0;
}

static struct push *find(struct pd_mail *mail, const struct pd_address *to)
{
    struct push *p = mail->pushes;
    while (p && (p->lost || !pd_address_same(&p->to, to)))
        p = p->next;
    return p;
}

static int connected(struct pd_mail *mail, const struct pd_address *to,
                     struct push **out, struct why *why)
{
    *out = find(mail, to);
    if (*out) return 0;
    if (mail->push_count >= PEERS_MAX)
        return err_set(why, ERR_AGAIN, "%d ZeroMQ peers are connected",
                       PEERS_MAX);
    struct push *p = mem_must(1, sizeof *p);
    p->mail = mail;
    p->to = *to;
    int rc = push_open(p, why);
    if (rc) {
        push_close(p);
        return rc;
    }
    p->next = mail->pushes;
    mail->pushes = p;
    mail->push_count++;
    *out = p;
    return 0;
}

int pd_mail_connect(struct pd_mail *mail, const struct pd_address *to,
                    struct why *why)
{
    struct push *p;
    return connected(mail, to, &p, why);
}

int pd_mail_send(struct pd_mail *mail, const struct pd_address *to,
                 const struct pd_message *message, struct why *why)
{
    if (message->bytes.failed)
        return err_set(why, ERR_RANGE, "message of more than %d bytes",
                       PD_MESSAGE_MAX);
    struct push *p;
    int rc = connected(mail, to, &p, why);
    for (uint32_t i = 0; !rc && i < message->count; i++) {
        struct pd_frame f = pd_message_frame(message, i);
        int flags = i + 1 < message->count ? ZMQ_SNDMORE : 0;
        if (zmq_send(p->socket, f.data, f.len, flags | ZMQ_DONTWAIT) < 0)
            rc = err_set(why, ERR_PEER, "%s:%u takes no message: %s", to->host,
                         to->port, zmq_strerror(zmq_errno()));
    }
    if (rc == ERR_PEER) push_lost(p); /* half a message may be inside */
    return rc;
}

void pd_mail_hang_up(struct pd_mail *mail, const struct pd_address *to)
{
    struct push *p = find(mail, to);
    if (!p) return;
    unlink_push(mail, p);
    push_close(p);
}

/* ---- life --------------------------------------------------------------- */

/* The first numeric address of host. */
static int resolve(const char *host, char out[PD_HOST_MAX + 1], struct why *why)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (!rc)
        rc = getnameinfo(found->ai_addr, found->ai_addrlen, out, PD_HOST_MAX,
                         NULL, 0, NI_NUMERICHOST);
    if (found) freeaddrinfo(found);
    if (rc) return err_set(why, ERR_INVALID, "%s: %s", host, gai_strerror(rc));
    if (!strcmp(out, "0.0.0.0") || !strcmp(out, "::"))
        return err_set(why, ERR_INVALID,
                       "%s is no address that a peer can reach", out);
    return 0;
}

static int pull_open(struct pd_mail *mail, struct why *why)
{
    mail->context = zmq_ctx_new();
    if (!mail->context) return zmq_fail(why, ERR_NOMEM, "ZeroMQ");
    zmq_ctx_set(mail->context, ZMQ_MAX_SOCKETS, 2 * PEERS_MAX + 64);
    mail->pull = zmq_socket(mail->context, ZMQ_PULL);
    if (!mail->pull) return zmq_fail(why, ERR_NOMEM, "ZeroMQ socket");
    int64_t max = PD_MESSAGE_MAX; /* of a frame; a peer beyond it is cut off */
    zmq_setsockopt(mail->pull, ZMQ_MAXMSGSIZE, &max, sizeof max);
    end_on_dead_host(mail->pull);
    set_int(mail->pull, ZMQ_LINGER, 0);
    set_int(mail->pull, ZMQ_IPV6, strchr(mail->address.host, ':') ? 1 : 0);
    char to[PD_HOST_MAX + 32];
    endpoint(to, sizeof to, mail->address.host, "*");
    if (zmq_bind(mail->pull, to)) return zmq_fail(why, ERR_IO, to);
    size_t size = sizeof to;
    if (zmq_getsockopt(mail->pull, ZMQ_LAST_ENDPOINT, to, &size))
        return zmq_fail(why, ERR_IO, "ZeroMQ endpoint");
    unsigned port = 0;
    const char *colon = strrchr(to, ':');
    if (!colon || sscanf(colon + 1, "%u", &port) != 1)
        return err_set(why, ERR_IO, "ZeroMQ endpoint %s", to);
    mail->address.port = (uint16_t)port;
    return watch_socket(&mail->watch, mail->options.loop, mail->pull, on_pull,
                        mail, why);
}

int pd_mail_open(struct pd_mail **out, const struct pd_mail_options *options,
                 struct why *why)
{
    *out = NULL;
    struct pd_mail *mail = mem_must(1, sizeof *mail);
    mail->options = *options;
    mail->more = loop_timer_create(options->loop, receive, mail);
    mail->sweep = loop_timer_create(options->loop, sweep, mail);
    int rc = resolve(options->host, mail->address.host, why);
    if (!rc) rc = pull_open(mail, why);
    if (rc) {
        pd_mail_close(mail);
        return rc;
    }
    loop_timer_set(mail->more, 0, 0); /* its first edge may have passed */
    *out = mail;
    return 0;
}

void pd_mail_close(struct pd_mail *mail)
{
    if (!mail) return;
    while (mail->pushes) {
        struct push *p = mail->pushes;
        mail->pushes = p->next;
        push_close(p);
    }
    loop_watch_destroy(mail->watch);
    loop_timer_destroy(mail->more);
    loop_timer_destroy(mail->sweep);
    if (mail->pull) zmq_close(mail->pull);
    if (mail->context) zmq_ctx_term(mail->context);
    mem_free(mail);
}

const struct pd_address *pd_mail_address(const struct pd_mail *mail)
{
    return &mail->address;
}
