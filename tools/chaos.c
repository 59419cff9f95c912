/* tools/chaos.c - threads that lose the processor where it hurts: preloaded
 * into any program (LD_PRELOAD), it sleeps now and then before or after calls
 * at which threads and processes meet. Not a pace of anything: what fails
 * under it fails one day on a loaded machine. `make chaos` runs the tests.
 *
 *   CHAOS_SEED   which places and threads are slow, and when (1)
 *   CHAOS_RATE   sleeps in a thousand calls (20)
 *   CHAOS_MS     the longest sleep; one in sixteen is 7 times that (30)
 *   CHAOS_MAX_S  seconds all threads of a process may sleep (20)
 *
 * A fair coin at each call finds little: every thread becomes slower alike.
 * So each seed draws some call sites and some threads that are slow by far
 * more. The same seed is the same draw, not the same run. */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 1, rate = 20, longest_ms = 30, max_ms = 20000;
enum { SAVED_MS = 400 };

static bool ready;
static atomic_uint_fast64_t slept_ms;
static atomic_uint_fast64_t threads;

/* A thread sleeps half of its time at most, and so much of it at once. */
static __thread struct {
    uint64_t draw, weight, may_ms, since_ms;
} me = {.may_ms = SAVED_MS};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* Past every wrapper, this library's too. */
static uint64_t now_ms(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void)
{
    seed = number("CHAOS_SEED", seed);
    rate = number("CHAOS_RATE", rate);
    longest_ms = number("CHAOS_MS", longest_ms);
    max_ms = number("CHAOS_MAX_S", max_ms / 1000) * 1000;
    ready = true;
}

/* Perhaps sleeps; place is a return address, of which the part within its
 * memory page is the same in every run. */
static void maybe(void *place, uint64_t of16)
{
    if (!ready) return; /* another library's constructor */
    uint64_t now = now_ms();
    if (!me.draw) {
        me.draw = mix(seed << 20 | atomic_fetch_add(&threads, 1)) | 1;
        me.weight = me.draw >> 8 & 3 ? 1 : 8; /* one in four is slow */
        me.since_ms = now;
    }
    me.draw = me.draw * 6364136223846793005u + 1442695040888963407u;
    uint64_t site = mix(seed * 0x9e3779b97f4a7c15 ^ ((uintptr_t)place & 4095));
    uint64_t odds = rate * me.weight * (site & 7 ? 1 : 16) * of16;
    if ((me.draw >> 33) % 256000 >= odds) return;
    uint64_t drawn = mix(me.draw);
    uint64_t ms = drawn % (longest_ms + 1) * (drawn >> 32 & 15 ? 1 : 7);
    /* Slow, not dead, which others may be quick to see. */
    uint64_t earned = me.may_ms + (now - me.since_ms) / 2;
    me.may_ms = earned < SAVED_MS ? earned : SAVED_MS;
    me.since_ms = now;
    if (ms > me.may_ms || atomic_load(&slept_ms) + ms > max_ms) return;
    me.may_ms -= ms;
    atomic_fetch_add(&slept_ms, ms);
    int kept = errno;
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    syscall(SYS_nanosleep, &t, NULL);
    me.since_ms += ms;
    errno = kept;
}

/* The newest: what a plain dlsym finds of pthread_cond_* may be of 2003. */
static void *next(const char *name)
{
    void *f = NULL;
#if defined(__x86_64__)
    f = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
#endif
    return f ? f : dlsym(RTLD_NEXT, name);
}

/* One wrapper: RESULT NAME(PARAMETERS) calls the next with VALUES; BEFORE and
 * AFTER are sixteenths of the odds. Who sleeps with a lock held makes the
 * others slow too, as if nobody's share were bounded: seldom. */
#define WRAP_(result, name, parameters, values, before, after)  \
    result name parameters                                      \
    {                                                           \
        static _Atomic(void *) found_;                          \
        void *next_ = atomic_load(&found_);                     \
        if (!next_) atomic_store(&found_, next_ = next(#name)); \
        char *place_ = __builtin_return_address(0);             \
        maybe(place_, before);                                  \
        result rc_ = ((result(*) parameters)next_)values;       \
        maybe(place_ + 1, after);                               \
        return rc_;                                             \
    }
#define WRAP(result, name, parameters, values) \
    WRAP_(result, name, parameters, values, 16, 16)

WRAP_(int, pthread_mutex_lock, (pthread_mutex_t * m), (m), 16, 1)
WRAP_(int, pthread_mutex_unlock, (pthread_mutex_t * m), (m), 1, 16)
WRAP_(int, pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l), 16, 1)
WRAP_(int, pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l), 16, 1)
WRAP_(int, pthread_rwlock_unlock, (pthread_rwlock_t * l), (l), 1, 16)
WRAP_(int, pthread_cond_signal, (pthread_cond_t * c), (c), 4, 4)
WRAP_(int, pthread_cond_broadcast, (pthread_cond_t * c), (c), 4, 4)
WRAP_(int, pthread_cond_wait, (pthread_cond_t * c, pthread_mutex_t *m), (c, m),
      4, 4)
WRAP_(int, pthread_cond_timedwait,
      (pthread_cond_t * c, pthread_mutex_t *m, const struct timespec *t),
      (c, m, t), 4, 4)
WRAP(int, pthread_join, (pthread_t t, void **result), (t, result))
WRAP(int, sem_wait, (sem_t * s), (s))
WRAP(int, sem_post, (sem_t * s), (s))
WRAP(int, sched_yield, (void), ())
WRAP(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n))
WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(int, eventfd_read, (int fd, eventfd_t *v), (fd, v))
WRAP(int, eventfd_write, (int fd, eventfd_t v), (fd, v))
WRAP(ssize_t, send, (int fd, const void *p, size_t n, int f), (fd, p, n, f))
WRAP(ssize_t, recv, (int fd, void *p, size_t n, int f), (fd, p, n, f))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f))
WRAP(ssize_t, process_vm_writev,
     (pid_t pid, const struct iovec *l, unsigned long ln, const struct iovec *r,
      unsigned long rn, unsigned long f),
     (pid, l, ln, r, rn, f))
WRAP(ssize_t, process_vm_readv,
     (pid_t pid, const struct iovec *l, unsigned long ln, const struct iovec *r,
      unsigned long rn, unsigned long f),
     (pid, l, ln, r, rn, f))
WRAP(int, poll, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
WRAP(int, epoll_wait, (int fd, struct epoll_event *e, int n, int ms),
     (fd, e, n, ms))
WRAP(int, epoll_ctl, (int fd, int op, int of, struct epoll_event *e),
     (fd, op, of, e))
WRAP(int, select, (int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *t),
     (n, r, w, x, t))
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f),
     (fd, a, n, f))
WRAP(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))
WRAP(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, shutdown, (int fd, int how), (fd, how))
WRAP(int, close, (int fd), (fd))
WRAP(int, kill, (pid_t pid, int sig), (pid, sig))
WRAP(pid_t, waitpid, (pid_t pid, int *status, int f), (pid, status, f))
WRAP(int, clock_gettime, (clockid_t c, struct timespec *t), (c, t))

/* Both sides of a fork; the child has a draw and an account of its own. */
pid_t fork(void)
{
    pid_t (*f)(void) = (pid_t(*)(void))next("fork");
    pid_t pid = f();
    if (!pid) {
        me.draw = mix(me.draw + (uint64_t)getpid()) | 1;
        atomic_store(&slept_ms, 0);
    }
    maybe(__builtin_return_address(0), 16);
    return pid;
}

struct start {
    void *(*run)(void *);
    void *arg;
};

static void *started(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    maybe((void *)s.run, 16);
    return s.run(s.arg);
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *),
                   void *arg)
{
    int (*f)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                 void *))next("pthread_create");
    struct start *s = malloc(sizeof *s);
    if (!s) return EAGAIN;
    *s = (struct start){run, arg};
    int rc = f(t, a, started, s);
    if (rc) free(s);
    maybe(__builtin_return_address(0), 16);
    return rc;
}
