#include "base/inbox.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* signaled tells that the eventfd was written since the last take, so that a
 * burst of puts costs one system call. */
struct inbox {
    pthread_mutex_t lock;
    void **ring;
    size_t cap, head, count;
    int fd;
    int signaled;
    int woken; /* inbox_wake since the last inbox_wait */
};

int inbox_create(struct inbox **out, size_t capacity)
{
    *out = NULL;
    struct inbox *in = mem_must(1, sizeof *in);
    in->fd = -1;
    pthread_mutex_init(&in->lock, NULL);
    in->cap = capacity;
    in->ring = mem_try(capacity, sizeof *in->ring, 0);
    if (!in->ring) {
        inbox_destroy(in);
        return ERR_NOMEM;
    }
    in->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (in->fd < 0) {
        inbox_destroy(in);
        return ERR_IO;
    }
    *out = in;
    return 0;
}

void inbox_destroy(struct inbox *in)
{
    if (!in) return;
    if (in->fd >= 0) close(in->fd);
    pthread_mutex_destroy(&in->lock);
    mem_free(in->ring);
    mem_free(in);
}

static void signal_locked(struct inbox *in)
{
    if (in->signaled) return;
    in->signaled = 1;
    uint64_t one = 1;
    ssize_t n = write(in->fd, &one, sizeof one);
    (void)n; /* EAGAIN: the counter is at its top, so it is readable */
}

int inbox_put(struct inbox *in, void *message)
{
    int rc = ERR_AGAIN;
    pthread_mutex_lock(&in->lock);
    if (in->count < in->cap) {
        in->ring[(in->head + in->count++) % in->cap] = message;
        signal_locked(in);
        rc = 0;
    }
    pthread_mutex_unlock(&in->lock);
    return rc;
}

void *inbox_take(struct inbox *in)
{
    void *message = NULL;
    pthread_mutex_lock(&in->lock);
    if (in->count) {
        message = in->ring[in->head];
        in->head = (in->head + 1) % in->cap;
        in->count--;
    }
    if (in->count == 0 && in->signaled) {
        uint64_t drained;
        ssize_t n = read(in->fd, &drained, sizeof drained);
        (void)n;
        in->signaled = 0;
    }
    pthread_mutex_unlock(&in->lock);
    return message;
}

static int take_wake(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    int woken = in->woken;
    in->woken = 0;
    pthread_mutex_unlock(&in->lock);
    return woken;
}

void *inbox_wait(struct inbox *in, int timeout_ms)
{
    void *message = inbox_take(in);
    if (message || take_wake(in)) return message;
    struct pollfd p = {.fd = in->fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) < 0 && errno != EINTR) return NULL;
    take_wake(in);
    return inbox_take(in);
}

int inbox_fd(const struct inbox *in)
{
    return in->fd;
}

void inbox_wake(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    in->woken = 1;
    signal_locked(in);
    pthread_mutex_unlock(&in->lock);
}
