/* The engine: options, opening and closing, numbers. */
#include "xfer/conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/fabric.h"
#include "xfer/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { TOKEN_MAX = 4096 };

uint64_t deadline_after(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_ms() + (uint64_t)timeout_ms;
}

bool cond_until(pthread_cond_t *cond, pthread_mutex_t *lock,
                uint64_t deadline_ms)
{
    if (deadline_ms == UINT64_MAX) {
        pthread_cond_wait(cond, lock);
        return true;
    }
    struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000),
                          .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(cond, lock, &at) != ETIMEDOUT;
}

/* ---- opening ---- */

static unsigned or_default(unsigned value, unsigned fallback)
{
    return value ? value : fallback;
}

static int options_fill(struct xfer *x, const struct xfer_options *from,
                        struct why *why)
{
    struct xfer_options *o = &x->opt;
    unsigned cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (from) *o = *from;
    o->via = or_default(o->via, XFER_VIA_ALL);
    o->lanes = or_default(o->lanes, cores < 4 ? 2 : cores < 8 ? cores / 2 : 4);
    o->workers = or_default(o->workers, cores < 2 ? 1 : 2);
    o->heartbeat_ms = or_default(o->heartbeat_ms, 600);
    o->connect_ms = or_default(o->connect_ms, 3000);
    o->batches_max = or_default(o->batches_max, 65536);
    o->notes_max = or_default(o->notes_max, 1024);
    if (!o->host) o->host = "127.0.0.1";
    if (o->lanes > LANES_MAX || o->workers > WORKERS_MAX ||
        o->via & ~(unsigned)(XFER_VIA_ALL | XFER_VIA_RDMA | XFER_VIA_UCX) ||
        o->heartbeat_ms > 3600000)
        return err_set(why, ERR_INVALID,
                       "lanes %u, workers %u, via 0x%x or heartbeat %u ms is "
                       "out of range",
                       o->lanes, o->workers, o->via, o->heartbeat_ms);
    x->token_bytes = o->token ? strlen(o->token) : 0;
    if (x->token_bytes > TOKEN_MAX)
        return err_set(why, ERR_INVALID, "token of %zu bytes", x->token_bytes);
    x->token = mem_dup(o->token ? o->token : "");
    return 0;
}

static bool is_wildcard(const struct addr *addr)
{
    const struct sockaddr_in *v4 = (const void *)&addr->ss;
    const struct sockaddr_in6 *v6 = (const void *)&addr->ss;
    if (addr->ss.ss_family == AF_INET) return v4->sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
}

static int listen_tcp(struct xfer *x, struct why *why)
{
    const char *host = x->opt.advertise ? x->opt.advertise : x->opt.host;
    struct addr addr;
    char what[WIRE_NAME_MAX + 1];
    if (strlen(host) >= HOST_MAX || strlen(x->opt.host) >= HOST_MAX || !*host)
        return err_set(why, ERR_INVALID, "host name of %zu bytes",
                       strlen(host));
    int rc = addr_resolve(x->opt.host, x->opt.port, &addr, why);
    if (rc) return rc;
    if (is_wildcard(&addr) && !x->opt.advertise)
        return err_set(why, ERR_INVALID,
                       "listening on %s needs the name that peers use",
                       x->opt.host);
    addr_join(x->opt.host, x->opt.port, what, sizeof what);
    x->listen_fd = addr_listen(&addr, what, why);
    if (x->listen_fd < 0) return x->listen_fd;
    x->port = addr_port_of(x->listen_fd);
    memcpy(x->host, host, strlen(host) + 1);
    addr_join(x->host, x->port, x->name, sizeof x->name);
    return 0;
}

static int listen_unix(struct xfer *x, struct why *why)
{
    struct addr addr;
    addr_unix(&x->epoch, &addr);
    x->unix_fd = addr_listen(&addr, "a unix socket", why);
    return x->unix_fd < 0 ? x->unix_fd : 0;
}

void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

int xfer_open(struct xfer **out, const struct xfer_options *opt,
              struct why *why)
{
    *out = NULL;
    struct xfer *x = mem_must(1, sizeof *x);
    x->listen_fd = x->unix_fd = x->done_fd = x->note_fd = -1;
    pthread_mutex_init(&x->lock, NULL);
    cond_init(&x->done_cond);
    cond_init(&x->quiet_cond);
    cond_init(&x->work_cond);
    TAILQ_INIT(&x->links);
    TAILQ_INIT(&x->copy_links);
    TAILQ_INIT(&x->peers);
    TAILQ_INIT(&x->inlinks);
    TAILQ_INIT(&x->conns);
    TAILQ_INIT(&x->done);
    TAILQ_INIT(&x->notes);
    random_bytes(&x->epoch, sizeof x->epoch);
    x->probe = random_u64();
    x->kept_ms = clock_ms();
    x->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    int rc = options_fill(x, opt, why);
    if (!rc) rc = listen_tcp(x, why);
    if (!rc) rc = listen_unix(x, why);
    if (!rc) x->done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!rc) x->note_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!rc && (x->done_fd < 0 || x->note_fd < 0))
        rc = err_sys(why, ERR_IO, errno, "eventfd");
    const struct xfer_options *o = &x->opt;
    if (!rc && (o->tls_cert || o->tls_key || o->tls_ca))
        rc = tls_setup_create(&x->tls,
                              &(struct tls_files){.cert = o->tls_cert,
                                                  .key = o->tls_key,
                                                  .ca = o->tls_ca},
                              why);
    if (!rc) rc = fabric_open(x, why);
    if (!rc) rc = io_start(x, why);
    if (!rc) rc = workers_start(x, why);
    if (rc)
        xfer_close(x);
    else
        *out = x;
    return rc;
}

/* ---- closing ---- */

static bool all_over(const struct xfer *x)
{
    return TAILQ_EMPTY(&x->conns) && TAILQ_EMPTY(&x->links) &&
           TAILQ_EMPTY(&x->inlinks) && x->batch_count == 0;
}

void xfer_stop(struct xfer *x)
{
    struct xfer_peer *peer;
    struct inlink *in;
    pthread_mutex_lock(&x->lock);
    if (x->stopped) {
        pthread_mutex_unlock(&x->lock);
        return;
    }
    x->stopping = true;
    TAILQ_FOREACH(peer, &x->peers, next)
    {
        batches_fail_unrouted(peer, ERR_CANCELED, "engine is closing");
        if (peer->link)
            link_fail(peer->link, ERR_CANCELED, "engine is closing");
    }
    TAILQ_FOREACH(in, &x->inlinks, next)
    inlink_fail(x, in);
    /* Half-open ones end by themselves; nobody need wait for that. */
    struct conn *c;
    TAILQ_FOREACH(c, &x->conns, next)
    conn_attend(c, ATTEND_KILL);
    while (x->io_running && !all_over(x))
        pthread_cond_wait(&x->quiet_cond, &x->lock);
    x->stopped = true;
    pthread_mutex_unlock(&x->lock);
    io_stop(x);
    workers_stop(x);
}

void xfer_close(struct xfer *x)
{
    if (!x) return;
    xfer_stop(x);
    if (x->listen_fd >= 0) close(x->listen_fd);
    if (x->unix_fd >= 0) close(x->unix_fd);
    for (struct xfer_done done; xfer_poll(x, &done, 1);) {
    }
    if (x->done_fd >= 0) close(x->done_fd);
    if (x->note_fd >= 0) close(x->note_fd);
    notes_free(x);
    peers_free_all(x);
    mem_free_all(x);
    fabric_close(x);
    tls_setup_destroy(x->tls);
    for (struct xfer_chunk *chunk; (chunk = x->free_chunks);) {
        x->free_chunks = chunk->next;
        mem_free(chunk);
    }
    pthread_cond_destroy(&x->done_cond);
    pthread_cond_destroy(&x->quiet_cond);
    pthread_cond_destroy(&x->work_cond);
    pthread_mutex_destroy(&x->lock);
    mem_free(x->token);
    mem_free(x->passes);
    mem_free(x);
}

const char *xfer_name(const struct xfer *x)
{
    return x->name;
}

uint16_t xfer_port(const struct xfer *x)
{
    return x->port;
}

struct xfer_epoch xfer_epoch(const struct xfer *x)
{
    return x->epoch;
}

/* ---- numbers ---- */

void xfer_stats_get(struct xfer *x, struct xfer_stats *out)
{
    struct xfer_peer *peer;
    pthread_mutex_lock(&x->lock);
    *out = x->stats;
    out->mems = x->mem_count;
    out->batches_open = x->batch_count;
    TAILQ_FOREACH(peer, &x->peers, next)
    out->peers++;
    pthread_mutex_unlock(&x->lock);
}

const char *xfer_way_name(size_t way)
{
    static const struct xfer_way *const ways[XFER_WAYS] = {
        &xfer_way_self, &xfer_way_memfd, &xfer_way_cma, &xfer_way_unix,
        &xfer_way_tcp,  &xfer_way_rdma,  &xfer_way_ucx};
    return way < XFER_WAYS ? ways[way]->name : "?";
}
