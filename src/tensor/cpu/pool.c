/* One word, the gate, says it all: bit 0 is set while a job is open, bits
 * 1..15 count the workers inside, the rest numbers the jobs. A worker enters
 * by adding itself while the gate is open; the caller closes the gate when
 * no chunk is left and waits until nobody is inside. A worker that wakes too
 * late finds the gate closed and never touches the job, so the caller waits
 * for nobody who has not begun. */
#include "tensor/cpu/pool.h"

#include "base/clock.h"
#include "base/cores.h"
#include "base/mem.h"
#include "base/nodes.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
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

struct ahead {
    const char *at;
    size_t bytes;
};

/* What a job's chunks are done with: one of the two. */
struct todo {
    void (*fn)(void *, size_t, int);
    void (*ranges)(void *, size_t, size_t, int);
    void *arg;
};

struct pool {
    _Alignas(64) _Atomic uint32_t gate;
    _Alignas(64) _Atomic uint32_t asleep; /* workers in the kernel */
    _Atomic uint32_t caller_asleep;
    _Atomic uint32_t quit;
    /* The open job; written while the gate is closed and nobody inside. */
    struct todo todo;

    int threads, started;
    bool timed;
    bool near; /* the open job's chunks are not for other nodes */
    uint64_t spin_ns;
    uint64_t number;    /* of all pools there were, from 1 */
    struct nodes nodes; /* workers stay on theirs if there are several */
    struct worker {
        /* Chunks that are left of its share: the next one, and in the upper
         * half the end. */
        _Alignas(64) _Atomic uint64_t share;
        struct pool *pool;
        pthread_t thread;
        int index, node;
        /* What to read while it waits: as told (written as the job is), and
         * what is left of it (its own); whether it, if it is not the caller,
         * may be at that between jobs. */
        struct ahead told, left;
        _Atomic bool reads;
        uint64_t busy_ns; /* its own; read between jobs */
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

/* Reads a few lines of what the worker was told to. These are loads, because
 * a core drops most of what it is asked to prefetch faster than memory gives
 * it, and loads its own prefetching follows. */
static void read_ahead(struct ahead *a)
{
    enum { LINE = 64, LINES = 4 };
    for (int i = 0; i < LINES && a->bytes; i++) {
        size_t n = a->bytes < LINE ? a->bytes : LINE;
        (void)*(const volatile char *)a->at;
        a->at += n;
        a->bytes -= n;
    }
}

static void ahead_drop(struct worker *w)
{
    w->left = (struct ahead){0};
    atomic_store_explicit(&w->reads, false, memory_order_release);
}

/* Watches the gate until it differs from seen in the bits of mask, for at
 * most ns; the clock is asked only now and then. */
static uint32_t gate_watch(struct pool *pool, struct worker *w, uint32_t seen,
                           uint32_t mask, uint64_t ns)
{
    uint64_t end = 0;
    for (;;) {
        for (int i = 0; i < 32; i++) {
            uint32_t gate =
                atomic_load_explicit(&pool->gate, memory_order_acquire);
            if ((gate ^ seen) & mask) return gate;
            if (ns == 0) return gate;
            if (w->left.bytes)
                read_ahead(&w->left);
            else
                relax();
        }
        uint64_t now = clock_ns();
        if (end == 0) end = now + ns;
        if (now >= end) return seen;
    }
}

/* Takes a share's first chunk, or half of what it has left. */
static size_t share_take(_Atomic uint64_t *share, bool half, size_t *first)
{
    uint64_t old = atomic_load_explicit(share, memory_order_relaxed), n;
    do {
        uint32_t next = (uint32_t)old, end = (uint32_t)(old >> 32);
        if (next >= end) return 0;
        *first = next;
        n = half ? (end - next + 1) / 2 : 1;
    } while (!atomic_compare_exchange_weak_explicit(
        share, &old, old + n, memory_order_relaxed, memory_order_relaxed));
    return n;
}

/* The second half of what a share has left goes to a worker whose own is
 * empty: chunks that lie together, which both go on to walk in order. */
static bool share_halve(_Atomic uint64_t *share, _Atomic uint64_t *own)
{
    uint64_t old = atomic_load_explicit(share, memory_order_relaxed);
    uint64_t next, middle, end;
    do {
        next = (uint32_t)old;
        end = old >> 32;
        if (next >= end) return false;
        middle = next + (end - next) / 2;
    } while (!atomic_compare_exchange_weak_explicit(
        share, &old, next | middle << 32, memory_order_relaxed,
        memory_order_relaxed));
    atomic_store_explicit(own, middle | end << 32, memory_order_relaxed);
    return true;
}

static void range_run(const struct todo *todo, size_t first, size_t n,
                      int worker)
{
    if (todo->ranges)
        todo->ranges(todo->arg, first, n, worker);
    else
        for (size_t i = 0; i < n; i++)
            todo->fn(todo->arg, first + i, worker);
}

/* What its share has, from the front. */
static void share_work(struct pool *pool, int worker)
{
    _Atomic uint64_t *share = &pool->workers[worker].share;
    size_t first, n;
    while ((n = share_take(share, pool->todo.ranges, &first)))
        range_run(&pool->todo, first, n, worker);
}

/* Its own share, then of the others' what they have not come to. */
static void work(struct pool *pool, int worker)
{
    uint64_t from = pool->timed ? clock_ns() : 0;
    share_work(pool, worker);
    for (int i = 1; i < pool->threads; i++) {
        int other = (worker + i) % pool->threads;
        if (pool->near &&
            pool->workers[other].node != pool->workers[worker].node)
            continue;
        while (share_halve(&pool->workers[other].share,
                           &pool->workers[worker].share))
            share_work(pool, worker);
    }
    struct worker *w = &pool->workers[worker];
    if (pool->timed) w->busy_ns += clock_ns() - from;
    w->left = w->told;
    w->told = (struct ahead){0};
    atomic_store_explicit(&w->reads, worker && w->left.bytes,
                          memory_order_relaxed);
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

/* --- nodes ------------------------------------------------------------- */

/* Of a thread that calls pool_run: the pool whose node it stays on, and the
 * cores that it may use otherwise. */
static _Thread_local uint64_t stays;
static _Thread_local cpu_set_t elsewhere;

/* The calling thread stays on the node of a worker. */
static void node_stay(const struct pool *pool, int worker)
{
    const cpu_set_t *cores = &pool->nodes.cores[pool->workers[worker].node];
    pthread_setaffinity_np(pthread_self(), sizeof *cores, cores); /* a wish */
}

static bool usable_cores(cpu_set_t *set)
{
    if (!stays) return sched_getaffinity(0, sizeof *set, set) == 0;
    *set = elsewhere;
    return true;
}

static void caller_stay(const struct pool *pool)
{
    if (stays == pool->number || !usable_cores(&elsewhere)) return;
    stays = pool->number;
    node_stay(pool, 0);
}

/* Are all chunks of the open job done, or being done? */
static bool all_taken(const struct pool *pool)
{
    for (int i = 0; i < pool->threads; i++) {
        uint64_t share =
            atomic_load_explicit(&pool->workers[i].share, memory_order_relaxed);
        if ((uint32_t)share < share >> 32) return false;
    }
    return true;
}

void pool_leave(void)
{
    if (!stays) return;
    stays = 0;
    pthread_setaffinity_np(pthread_self(), sizeof elsewhere, &elsewhere);
}

/* --- workers ----------------------------------------------------------- */

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *pool = w->pool;
    if (pool->nodes.count > 1) node_stay(pool, w->index);
    uint32_t done = 0; /* number of the last job this worker saw */
    while (!atomic_load_explicit(&pool->quit, memory_order_acquire)) {
        uint32_t gate =
            gate_watch(pool, w, done, -(uint32_t)ONE_JOB, pool->spin_ns);
        ahead_drop(w);
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

static void job_run(struct pool *pool, struct todo todo, size_t count)
{
    if (pool->started == 0 || count <= 1) {
        uint64_t from = pool->timed ? clock_ns() : 0;
        if (count) range_run(&todo, 0, count, 0);
        if (pool->timed) pool->workers[0].busy_ns += clock_ns() - from;
        return;
    }
    pool->todo = todo;
    if (pool->nodes.count > 1) caller_stay(pool);
    for (size_t i = 0, n = (size_t)pool->threads; i < n; i++)
        atomic_store_explicit(&pool->workers[i].share,
                              count * i / n | count * (i + 1) / n << 32,
                              memory_order_relaxed);
    atomic_fetch_add(&pool->gate, ONE_JOB + OPEN);
    if (atomic_load(&pool->asleep)) word_wake(&pool->gate);

    work(pool, 0);
    while (pool->near && !all_taken(pool))
        sched_yield();

    uint32_t gate =
        atomic_fetch_and(&pool->gate, ~(uint32_t)OPEN) & ~(uint32_t)OPEN;
    while (gate & INSIDE) {
        gate = gate_watch(pool, &pool->workers[0], gate, INSIDE, pool->spin_ns);
        if (!(gate & INSIDE)) break;
        atomic_store(&pool->caller_asleep, 1);
        gate = atomic_load(&pool->gate);
        if (gate & INSIDE) word_wait(&pool->gate, gate);
        atomic_store(&pool->caller_asleep, 0);
        gate = atomic_load(&pool->gate);
    }
}

void pool_run(struct pool *pool, void (*fn)(void *, size_t, int), void *arg,
              size_t count)
{
    job_run(pool, (struct todo){.fn = fn, .arg = arg}, count);
}

void pool_run_ranges(struct pool *pool, void (*fn)(void *, size_t, size_t, int),
                     void *arg, size_t count)
{
    job_run(pool, (struct todo){.ranges = fn, .arg = arg}, count);
}

void pool_run_near(struct pool *pool, void (*fn)(void *, size_t, int),
                   void *arg, size_t count)
{
    pool->near = pool->nodes.count > 1;
    pool_run(pool, fn, arg, count);
    pool->near = false;
}

void pool_ahead(struct pool *pool, int worker, const void *at, size_t bytes)
{
    pool->workers[worker].told = (struct ahead){at, bytes};
}

void pool_ahead_end(struct pool *pool)
{
    for (int i = 0; i < pool->threads; i++)
        pool->workers[i].told = (struct ahead){0};
    /* Who watches the gate sees that and drops what is left. */
    atomic_fetch_add(&pool->gate, ONE_JOB);
    for (int i = 1; i < pool->threads; i++)
        while (
            atomic_load_explicit(&pool->workers[i].reads, memory_order_acquire))
            sched_yield();
}

uint64_t pool_busy_ns(struct pool *pool, bool on)
{
    uint64_t all = 0;
    pool->timed = on;
    for (int i = 0; i < pool->threads; i++)
        all += pool->workers[i].busy_ns;
    return all;
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
    static _Atomic uint64_t pools;
    cpu_set_t usable;
    int rc = 0, err = 0;
    pool->threads = options->threads;
    pool->number = atomic_fetch_add(&pools, 1) + 1;
    if (pool->threads > 1 && usable_cores(&usable))
        nodes_read(&pool->nodes, NODES_FOLDER, &usable);
    pool->spin_ns = 1000ull * (uint64_t)(options->spin_us ? options->spin_us
                                                          : DEFAULT_SPIN_US);
    if (pool->threads > pool_usable_cores()) pool->spin_ns = 0;
    pool->workers = mem_try((size_t)pool->threads, sizeof *pool->workers,
                            _Alignof(struct worker));
    if (!pool->workers) {
        rc = err_set(why, ERR_NOMEM, "%d compute threads", pool->threads);
        goto fail;
    }
    for (int i = 0; i < pool->threads && pool->nodes.count > 1; i++)
        pool->workers[i].node = nodes_of_worker(&pool->nodes, i, pool->threads);
    for (int i = 1; i < pool->threads; i++) {
        struct worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i;
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

int pool_nodes(const struct pool *pool)
{
    return pool->nodes.count > 1 ? pool->nodes.count : 1;
}

int pool_usable_cores(void)
{
    cpu_set_t set;
    return cores_within_quota(usable_cores(&set) ? CPU_COUNT(&set) : 1);
}
