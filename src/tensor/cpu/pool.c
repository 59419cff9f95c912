/* One word, the gate, says it all: bit 0 is set while a job is open, bits
 * 1..15 count the workers inside, the rest numbers the jobs. A worker enters
 * by adding itself while the gate is open; the caller closes the gate when
 * no chunk is left and waits until nobody is inside. A worker that wakes too
 * late finds the gate closed and never touches the job, so the caller waits
 * for nobody who has not begun. */
#include "tensor/cpu/pool.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    OPEN = 1,
    ONE_INSIDE = 2,
    INSIDE = 0xfffe,
    ONE_JOB = 0x10000,
    DEFAULT_SPIN_US = 40,
    MAX_THREADS = 1024,
};

struct pool {
    _Alignas(64) _Atomic uint32_t gate;
    _Alignas(64) _Atomic size_t next;     /* chunk to take */
    _Alignas(64) _Atomic uint32_t asleep; /* workers in the kernel */
    _Atomic uint32_t caller_asleep;
    _Atomic uint32_t quit;
    /* The open job; written while the gate is closed and nobody inside. */
    void (*fn)(void *, size_t, int);
    void *arg;
    size_t count;

    int threads, started;
    uint64_t spin_ns;
    struct worker {
        struct pool *pool;
        pthread_t thread;
        int index, core; /* core -1: not pinned */
    } * workers;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps while *word is value; may wake for no reason. */
static void word_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void word_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Watches the gate until it differs from seen in the bits of mask, for at
 * most ns; the clock is asked only now and then. */
static uint32_t gate_watch(struct pool *pool, uint32_t seen, uint32_t mask,
                           uint64_t ns)
{
    uint64_t end = 0;
    for (;;) {
        for (int i = 0; i < 32; i++) {
            uint32_t gate =
                atomic_load_explicit(&pool->gate, memory_order_acquire);
            if ((gate ^ seen) & mask) return gate;
            if (ns == 0) return gate;
            relax();
        }
        uint64_t now = clock_ns();
        if (end == 0) end = now + ns;
        if (now >= end) return seen;
    }
}

static void work(struct pool *pool, int worker)
{
    size_t count = pool->count, chunk;
    while ((chunk = atomic_fetch_add_explicit(&pool->next, 1,
                                              memory_order_relaxed)) < count)
        pool->fn(pool->arg, chunk, worker);
}

/* Takes part in the open job, if there still is one. */
static void join(struct pool *pool, uint32_t gate, int worker)
{
    while (gate & OPEN) {
        if (!atomic_compare_exchange_weak_explicit(
                &pool->gate, &gate, gate + ONE_INSIDE, memory_order_acquire,
                memory_order_acquire))
            continue;
        work(pool, worker);
        gate = atomic_fetch_sub(&pool->gate, ONE_INSIDE) - ONE_INSIDE;
        if (!(gate & (OPEN | INSIDE)) && atomic_load(&pool->caller_asleep))
            word_wake(&pool->gate);
        return;
    }
}

static void worker_pin(const struct worker *w)
{
    if (w->core < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->core, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set); /* a wish */
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *pool = w->pool;
    worker_pin(w);
    uint32_t done = 0; /* number of the last job this worker saw */
    while (!atomic_load_explicit(&pool->quit, memory_order_acquire)) {
        uint32_t gate =
            gate_watch(pool, done, -(uint32_t)ONE_JOB, pool->spin_ns);
        if (((gate ^ done) & -(uint32_t)ONE_JOB) == 0) {
            atomic_fetch_add(&pool->asleep, 1);
            gate = atomic_load(&pool->gate);
            if (((gate ^ done) & -(uint32_t)ONE_JOB) == 0 &&
                !atomic_load(&pool->quit))
                word_wait(&pool->gate, gate);
            atomic_fetch_sub(&pool->asleep, 1);
            continue;
        }
        done = gate & -(uint32_t)ONE_JOB;
        join(pool, gate, w->index);
    }
    return NULL;
}

void pool_run(struct pool *pool, void (*fn)(void *, size_t, int), void *arg,
              size_t count)
{
    if (pool->started == 0 || count <= 1) {
        for (size_t i = 0; i < count; i++)
            fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_fetch_add(&pool->gate, ONE_JOB + OPEN);
    if (atomic_load(&pool->asleep)) word_wake(&pool->gate);

    work(pool, 0);

    uint32_t gate =
        atomic_fetch_and(&pool->gate, ~(uint32_t)OPEN) & ~(uint32_t)OPEN;
    while (gate & INSIDE) {
        gate = gate_watch(pool, gate, INSIDE, pool->spin_ns);
        if (!(gate & INSIDE)) break;
        atomic_store(&pool->caller_asleep, 1);
        gate = atomic_load(&pool->gate);
        if (gate & INSIDE) word_wait(&pool->gate, gate);
        atomic_store(&pool->caller_asleep, 0);
        gate = atomic_load(&pool->gate);
    }
}

/* The index-th core of the affinity mask, or -1. */
static int core_at(int index)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return -1;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set) && index-- == 0) return core;
    return -1;
}

int pool_create(struct pool **out, const struct pool_options *options,
                struct why *why)
{
    *out = NULL;
    if (options->threads < 1 || options->threads > MAX_THREADS)
        return err_set(why, ERR_INVALID, "%d compute threads (1 to %d)",
                       options->threads, MAX_THREADS);
    struct pool *pool = mem_try(1, sizeof *pool, _Alignof(struct pool));
    if (!pool) return err_set(why, ERR_NOMEM, "thread pool");
    int rc = 0, err = 0;
    pool->threads = options->threads;
    pool->spin_ns = 1000ull * (uint64_t)(options->spin_us ? options->spin_us
                                                          : DEFAULT_SPIN_US);
    if (pool->threads > pool_usable_cores()) pool->spin_ns = 0;
    pool->workers = mem_try((size_t)pool->threads, sizeof *pool->workers, 0);
    if (!pool->workers) {
        rc = err_set(why, ERR_NOMEM, "%d compute threads", pool->threads);
        goto fail;
    }
    for (int i = 1; i < pool->threads; i++) {
        struct worker *w = &pool->workers[i];
        *w = (struct worker){
            .pool = pool, .index = i, .core = options->pin ? core_at(i) : -1};
        err = pthread_create(&w->thread, NULL, worker_main, w);
        if (err) {
            rc = err_sys(why, ERR_IO, err, "compute thread %d", i);
            goto fail;
        }
        pool->started++;
    }
    *out = pool;
    return 0;

fail:
    pool_destroy(pool);
    return rc;
}

void pool_destroy(struct pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->quit, 1);
    /* Changes the gate, so that nobody falls asleep on its old value. */
    atomic_fetch_add(&pool->gate, ONE_JOB);
    word_wake(&pool->gate);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    mem_free(pool->workers);
    mem_free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

/* cgroup v2: "max 100000" or "quota period". No limit: INT_MAX-like. */
static int quota_cores(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return MAX_THREADS;
    long long quota = 0, period = 0;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return MAX_THREADS;
    long long cores = (quota + period - 1) / period;
    return cores < MAX_THREADS ? (int)cores : MAX_THREADS;
}

int pool_usable_cores(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    int quota = quota_cores();
    if (quota < cores) cores = quota;
    return cores < 1 ? 1 : cores;
}
