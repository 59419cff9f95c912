/* The threads that own sockets. A turn: wait, events, requests of other
 * threads, (io 0) peers' timers, flush what was queued, bury the dead. */
#include "xfer/conn.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS = 64, ACCEPTS = 16, ACCEPT_PAUSE_MS = 100 };

int thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

void io_watch(struct conn *c)
{
    struct epoll_event ev = {.events = c->events, .data.ptr = c};
    epoll_ctl(c->io->epoll, c->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd,
              &ev);
    c->in_epoll = true;
}

void io_unwatch(struct conn *c)
{
    if (c->in_epoll) epoll_ctl(c->io->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    c->in_epoll = false;
}

void io_wake(struct io *io)
{
    if (io->signaled) return;
    uint64_t one = 1;
    io->signaled = write(io->wake, &one, sizeof one) > 0;
}

void xfer_chores(struct xfer *x)
{
    x->chores = true;
    if (x->ios) io_wake(&x->ios[0]);
}

static void listener_watch(struct xfer *x, int *fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = fd};
    epoll_ctl(x->ios[0].epoll, EPOLL_CTL_ADD, *fd, &ev);
}

void io_accept_again(struct xfer *x)
{
    x->accept_ms = 0;
    listener_watch(x, &x->listen_fd);
    listener_watch(x, &x->unix_fd);
}

/* Out of descriptors: without a pause a waiting connection would keep us
 * awake for ever. */
static void accept_pause(struct xfer *x)
{
    epoll_ctl(x->ios[0].epoll, EPOLL_CTL_DEL, x->listen_fd, NULL);
    epoll_ctl(x->ios[0].epoll, EPOLL_CTL_DEL, x->unix_fd, NULL);
    x->accept_ms = clock_ms() + ACCEPT_PAUSE_MS;
    pthread_mutex_lock(&x->lock);
    xfer_chores(x);
    pthread_mutex_unlock(&x->lock);
}

static void accept_some(struct xfer *x, const int *listener)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(*listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_accept(x, fd, listener == &x->unix_fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
                   errno == ENOBUFS) {
            accept_pause(x);
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

static void event(struct io *io, const struct epoll_event *ev)
{
    struct xfer *x = io->x;
    void *source = ev->data.ptr;
    if (source == io) {
        uint64_t drained;
        pthread_mutex_lock(&x->lock);
        io->signaled = read(io->wake, &drained, sizeof drained) < 0;
        pthread_mutex_unlock(&x->lock);
    } else if (source == &x->listen_fd || source == &x->unix_fd) {
        accept_some(x, source);
    } else {
        conn_event(source, ev->events);
    }
}

static void attend_all(struct io *io)
{
    struct xfer *x = io->x;
    struct conn *c;
    pthread_mutex_lock(&x->lock);
    while ((c = TAILQ_FIRST(&io->attention))) {
        unsigned attention = c->attention;
        TAILQ_REMOVE(&io->attention, c, attending);
        c->in_attention = false;
        c->attention = 0;
        pthread_mutex_unlock(&x->lock);
        conn_attended(c, attention);
        pthread_mutex_lock(&x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}

static void flush_all(struct io *io)
{
    struct conn *c;
    while ((c = TAILQ_FIRST(&io->flush))) {
        TAILQ_REMOVE(&io->flush, c, flushing);
        c->want_flush = false;
        if (c->dead) continue;
        conn_flush(c);
        if (!c->dead && c->moving) conn_move(c);
    }
}

static void bury_all(struct io *io)
{
    struct conn *c;
    while ((c = TAILQ_FIRST(&io->graves))) {
        TAILQ_REMOVE(&io->graves, c, burying);
        conn_destroy(c);
    }
}

static int wait_ms(uint64_t next)
{
    if (next == UINT64_MAX) return -1;
    uint64_t now = clock_ms();
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static int io_wait(struct io *io, struct epoll_event events[EVENTS],
                   uint64_t next)
{
    uint64_t start = clock_ns(), until = start + spin_ns(&io->spin);
    int n = 0;
    while (start < until && !n && clock_ns() < until) {
        n = epoll_wait(io->epoll, events, EVENTS, 0);
        cpu_relax();
    }
    if (n <= 0) n = epoll_wait(io->epoll, events, EVENTS, wait_ms(next));
    if (io->x->spins) spin_learn(&io->spin, clock_ns() - start);
    return n;
}

static void *io_main(void *arg)
{
    struct io *io = arg;
    struct xfer *x = io->x;
    struct epoll_event events[EVENTS];
    uint64_t next = UINT64_MAX;
    bool quit = false;
    char name[16];
    snprintf(name, sizeof name, "xfer-io%u", io->index);
    pthread_setname_np(pthread_self(), name);
    while (!quit) {
        int n = io_wait(io, events, next);
        for (int i = 0; i < n; i++)
            event(io, &events[i]);
        attend_all(io);
        pthread_mutex_lock(&x->lock);
        bool chores = io->index == 0 && x->chores;
        if (chores) x->chores = false;
        quit = x->io_quit;
        pthread_mutex_unlock(&x->lock);
        if (chores || (next != UINT64_MAX && clock_ms() >= next))
            next = peers_housekeep(x, clock_ms());
        flush_all(io);
        bury_all(io);
    }
    return NULL;
}

static int io_open(struct io *io, struct why *why)
{
    io->epoll = epoll_create1(EPOLL_CLOEXEC);
    io->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = io};
    if (io->epoll < 0 || io->wake < 0 ||
        epoll_ctl(io->epoll, EPOLL_CTL_ADD, io->wake, &ev))
        return err_sys(why, ERR_IO, errno, "epoll");
    return 0;
}

int io_start(struct xfer *x, struct why *why)
{
    x->ios = mem_must(x->opt.lanes, sizeof *x->ios);
    for (; x->io_count < x->opt.lanes; x->io_count++) {
        struct io *io = &x->ios[x->io_count];
        io->x = x;
        io->index = x->io_count;
        io->epoll = io->wake = -1;
        TAILQ_INIT(&io->attention);
        TAILQ_INIT(&io->flush);
        TAILQ_INIT(&io->graves);
    }
    for (unsigned i = 0; i < x->io_count; i++) {
        int rc = io_open(&x->ios[i], why);
        if (rc) return rc;
    }
    io_accept_again(x);
    for (; x->io_running < x->io_count; x->io_running++) {
        struct io *io = &x->ios[x->io_running];
        int e = thread_start(&io->thread, io_main, io);
        if (e) return err_sys(why, ERR_IO, e, "cannot start an io thread");
    }
    return 0;
}

void io_stop(struct xfer *x)
{
    if (!x->ios) return;
    pthread_mutex_lock(&x->lock);
    x->io_quit = true;
    for (unsigned i = 0; i < x->io_count; i++)
        io_wake(&x->ios[i]);
    pthread_mutex_unlock(&x->lock);
    while (x->io_running)
        pthread_join(x->ios[--x->io_running].thread, NULL);
    for (unsigned i = 0; i < x->io_count; i++) {
        if (x->ios[i].epoll >= 0) close(x->ios[i].epoll);
        if (x->ios[i].wake >= 0) close(x->ios[i].wake);
    }
    pthread_mutex_lock(&x->lock);
    mem_free(x->ios);
    x->ios = NULL;
    x->io_count = 0;
    pthread_mutex_unlock(&x->lock);
}
