#include "http/loop.h"
#include "base/inbox.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Posts travel through a base/inbox: the only lock here is that one's, so
 * libevent itself runs without locks. */
enum { POSTS_MAX = 16384, POSTS_A_TURN = 256 };

struct loop {
    struct event_base *base;
    struct inbox *posts;
    struct loop_watch *posts_watch;
    atomic_bool stopping;
    int signal_fd;
    sigset_t signals;
    struct loop_watch *signal_watch;
    void (*on_signal)(void *arg, int signal);
    void *signal_arg;
};

struct post {
    void (*fn)(void *arg);
    void *arg;
};

struct loop_timer {
    struct event *event;
    void (*fn)(void *arg);
    void *arg;
    uint64_t period_ms;
};

struct loop_watch {
    struct event *event;
    struct event_base *base;
    int fd;
    void (*fn)(void *arg, unsigned ready);
    void *arg;
};

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

/* A bounded number per turn: a busy poster must not starve the sockets. What
 * is left keeps the descriptor readable. */
static void take_posts(void *arg, unsigned ready)
{
    (void)ready;
    struct loop *loop = arg;
    for (int i = 0; i < POSTS_A_TURN; i++) {
        struct post *post = inbox_take(loop->posts);
        if (!post) break;
        struct post copy = *post;
        mem_free(post);
        copy.fn(copy.arg);
    }
    if (atomic_load(&loop->stopping)) event_base_loopbreak(loop->base);
}

/* libevent's own words; a warning of its is an error code of ours. */
static void take_log(int severity, const char *text)
{
    if (severity >= EVENT_LOG_ERR)
        log_error("http", "libevent: %s", text);
    else
        log_debug("http", "libevent: %s", text);
}

int loop_create(struct loop **out, struct why *why)
{
    *out = NULL;
    signal(SIGPIPE, SIG_IGN);
    event_set_log_callback(take_log);
    struct loop *loop = mem_must(1, sizeof *loop);
    loop->signal_fd = -1;
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        /* What is watched for is told to the kernel once a turn: evhttp and
         * libcurl take a watch back and set it again for each request. No
         * descriptor may be watched under two numbers (dup). */
        event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    int rc = loop->base ? 0 : ERR_IO;
    if (!rc) rc = inbox_create(&loop->posts, POSTS_MAX);
    if (!rc)
        rc = loop_watch_create(&loop->posts_watch, loop, inbox_fd(loop->posts),
                               LOOP_READ, take_posts, loop);
    if (rc) {
        err_set(why, rc, "event loop: %s", err_text(rc));
        loop_destroy(loop);
        return rc;
    }
    *out = loop;
    return 0;
}

void loop_destroy(struct loop *loop)
{
    if (!loop) return;
    loop_watch_destroy(loop->signal_watch);
    if (loop->signal_fd >= 0) {
        close(loop->signal_fd);
        pthread_sigmask(SIG_UNBLOCK, &loop->signals, NULL);
    }
    loop_watch_destroy(loop->posts_watch);
    for (void *post; loop->posts && (post = inbox_take(loop->posts));)
        mem_free(post);
    inbox_destroy(loop->posts);
    if (loop->base) event_base_free(loop->base);
    mem_free(loop);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->stopping))
        if (event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0) break;
    atomic_store(&loop->stopping, false);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    inbox_wake(loop->posts);
}

int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct post *post = mem_must(1, sizeof *post);
    *post = (struct post){fn, arg};
    int rc = inbox_put(loop->posts, post);
    if (rc) mem_free(post);
    return rc;
}

static struct timeval timeval_of(uint64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop_timer *timer = arg;
    if (timer->period_ms) {
        struct timeval tv = timeval_of(timer->period_ms);
        event_add(timer->event, &tv);
    }
    timer->fn(timer->arg); /* may destroy the timer */
}

struct loop_timer *loop_timer_create(struct loop *loop, void (*fn)(void *arg),
                                     void *arg)
{
    struct loop_timer *timer = mem_must(1, sizeof *timer);
    timer->fn = fn;
    timer->arg = arg;
    timer->event = event_new(loop->base, -1, 0, timer_fired, timer);
    if (!timer->event) abort();
    return timer;
}

void loop_timer_set(struct loop_timer *timer, uint64_t after_ms,
                    uint64_t period_ms)
{
    struct timeval tv = timeval_of(after_ms);
    timer->period_ms = period_ms;
    event_add(timer->event, &tv);
}

void loop_timer_unset(struct loop_timer *timer)
{
    timer->period_ms = 0;
    event_del(timer->event);
}

void loop_timer_destroy(struct loop_timer *timer)
{
    if (!timer) return;
    event_free(timer->event);
    mem_free(timer);
}

static void watch_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct loop_watch *watch = arg;
    watch->fn(watch->arg, (what & EV_READ ? LOOP_READ : 0u) |
                              (what & EV_WRITE ? LOOP_WRITE : 0u));
}

static int watch_arm(struct loop_watch *watch, unsigned events)
{
    short what = EV_PERSIST;
    if (events & LOOP_READ) what |= EV_READ;
    if (events & LOOP_WRITE) what |= EV_WRITE;
    event_assign(watch->event, watch->base, watch->fd, what, watch_ready,
                 watch);
    return events ? event_add(watch->event, NULL) : 0;
}

int loop_watch_create(struct loop_watch **out, struct loop *loop, int fd,
                      unsigned events, void (*fn)(void *arg, unsigned ready),
                      void *arg)
{
    *out = NULL;
    if (fcntl(fd, F_GETFD) < 0) return ERR_IO;
    struct loop_watch *watch = mem_must(1, sizeof *watch);
    *watch =
        (struct loop_watch){.base = loop->base, .fd = fd, .fn = fn, .arg = arg};
    watch->event = event_new(loop->base, fd, 0, watch_ready, watch);
    if (!watch->event) abort();
    if (watch_arm(watch, events)) {
        loop_watch_destroy(watch);
        return ERR_IO;
    }
    *out = watch;
    return 0;
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    event_del(watch->event);
    watch_arm(watch, events);
}

void loop_watch_destroy(struct loop_watch *watch)
{
    if (!watch) return;
    event_free(watch->event);
    mem_free(watch);
}

static void take_signals(void *arg, unsigned ready)
{
    (void)ready;
    struct loop *loop = arg;
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        loop->on_signal(loop->signal_arg, (int)info.ssi_signo);
}

int loop_signals(struct loop *loop, const int *signals, size_t count,
                 void (*fn)(void *arg, int signal), void *arg, struct why *why)
{
    sigemptyset(&loop->signals);
    for (size_t i = 0; i < count; i++)
        sigaddset(&loop->signals, signals[i]);
    loop->on_signal = fn;
    loop->signal_arg = arg;
    loop->signal_fd = signalfd(-1, &loop->signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (loop->signal_fd < 0) return err_sys(why, ERR_IO, errno, "signalfd");
    pthread_sigmask(SIG_BLOCK, &loop->signals, NULL);
    return loop_watch_create(&loop->signal_watch, loop, loop->signal_fd,
                             LOOP_READ, take_signals, loop);
}
