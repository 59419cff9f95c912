#include "tests/xfer/sim_inside.h"
#include "tests/xfer/sim_real.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { STACK = 256 << 10 };

/* ---- state of a run ---- */

struct fiber {
    TAILQ_ENTRY(fiber) next;
    struct sim_proc *proc;
    ucontext_t context;
    char *stack;
    void *(*run)(void *);
    void *arg;
    bool (*ready)(void *); /* NULL: it can go on */
    void *ready_arg;
    uint64_t until;
    bool is_main, finished, detached, signaled;
    const void *cond; /* that it waits for */
    void *sanitizer;
};
TAILQ_HEAD(fiber_list, fiber);

static struct {
    uint64_t seed, rng, now, switch_in;
    struct fiber_list fibers;
    TAILQ_HEAD(, sim_proc) procs;
    int pids;
    struct fiber *running;
    ucontext_t scheduler;
    void *sanitizer;
} sim;

/* In the thread that simulates; any other one is real, with a real libc. */
static _Thread_local bool simulates;

static char *stacks[256]; /* kept for the next run */
static size_t stack_count;

void sim_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "seed %llu, %llu ms: ", (unsigned long long)sim.seed,
            (unsigned long long)(sim.now / MS));
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\nagain: BATON_SIM_SEED=%llu %s\n",
            (unsigned long long)sim.seed, program_invocation_short_name);
    va_end(ap);
    if (getenv("BATON_SIM_ABORT")) abort();
    _exit(1);
}

uint64_t sim_random(uint64_t n)
{
    return rng_next(&sim.rng) % n;
}

bool sim_chance(uint64_t one_in)
{
    return one_in && sim_random(one_in) == 0;
}

uint64_t sim_now(void)
{
    return sim.now;
}

uint64_t sim_ms(void)
{
    return sim.now / MS;
}

void sim_switch_often(uint64_t one_in)
{
    sim.switch_in = one_in;
}

struct sim_proc *sim_self(void)
{
    return simulates && sim.running ? sim.running->proc : NULL;
}

/* ---- switching ---- */

#if defined __SANITIZE_ADDRESS__
static void enter_scheduler(struct fiber *f, bool for_good)
{
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->sanitizer, NULL, 0);
    swapcontext(&f->context, &sim.scheduler);
    __sanitizer_finish_switch_fiber(f->sanitizer, NULL, NULL);
}
static void enter_fiber(struct fiber *f)
{
    __sanitizer_start_switch_fiber(&sim.sanitizer, f->stack, STACK);
    swapcontext(&sim.scheduler, &f->context);
    __sanitizer_finish_switch_fiber(sim.sanitizer, NULL, NULL);
}
#else
static void enter_scheduler(struct fiber *f, bool for_good)
{
    (void)for_good;
    swapcontext(&f->context, &sim.scheduler);
}
static void enter_fiber(struct fiber *f)
{
    swapcontext(&sim.scheduler, &f->context);
}
#endif

static void fiber_main(void)
{
    struct fiber *f = sim.running;
#if defined __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    f->run(f->arg);
    f->finished = true;
    enter_scheduler(f, true);
    abort();
}

static struct fiber *fiber_start(struct sim_proc *p, void *(*run)(void *),
                                 void *arg)
{
    struct fiber *f = __real_calloc(1, sizeof *f);
    f->proc = p;
    f->run = run;
    f->arg = arg;
    f->stack = stack_count ? stacks[--stack_count]
                           : __real_mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    makecontext(&f->context, fiber_main, 0);
    TAILQ_INSERT_TAIL(&sim.fibers, f, next);
    return f;
}

static void fiber_end(struct fiber *f)
{
    TAILQ_REMOVE(&sim.fibers, f, next);
#if defined __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(f->stack, STACK);
#endif
    if (stack_count < sizeof stacks / sizeof *stacks)
        stacks[stack_count++] = f->stack;
    else
        munmap(f->stack, STACK);
    __real_free(f);
}

bool sim_block(bool (*ready)(void *), void *arg, uint64_t until_ns)
{
    struct fiber *f = sim.running;
    f->ready = ready;
    f->ready_arg = arg;
    f->until = until_ns;
    enter_scheduler(f, false);
    f->ready = NULL;
    return !ready || ready(arg);
}

void sim_point(void)
{
    struct fiber *f = sim.running;
    struct sim_proc *p = f->proc;
    uint64_t call = ++p->calls;
    sim.now += 100;
    if (call == p->kill_at) sim_kill(p);
    if (call == p->stop_at) p->stopped_until = sim.now + p->stop_ns;
    if (call == p->stop_at || sim_chance(sim.switch_in))
        sim_block(NULL, NULL, 0);
}

static bool can_run(const struct fiber *f)
{
    if (f->finished || f->proc->stopped_until > sim.now) return false;
    return !f->ready || sim.now >= f->until || f->ready(f->ready_arg);
}

static struct fiber *fiber_choose(void)
{
    struct fiber *f, *chosen = NULL;
    uint64_t count = 0;
    TAILQ_FOREACH(f, &sim.fibers, next)
    if (can_run(f) && sim_random(++count) == 0) chosen = f;
    return chosen;
}

static uint64_t next_ns(void)
{
    uint64_t next = files_next_ns();
    struct fiber *f;
    TAILQ_FOREACH(f, &sim.fibers, next)
    {
        uint64_t stop = f->proc->stopped_until;
        uint64_t at = !f->ready || f->finished ? UINT64_MAX : f->until;
        if (stop > sim.now && stop < next) next = stop;
        if (stop <= sim.now && at < next) next = at;
    }
    return next;
}

static void proc_over(struct sim_proc *p)
{
    struct fiber *f, *after;
    p->dead = true;
    for (f = TAILQ_FIRST(&sim.fibers); f; f = after) {
        after = TAILQ_NEXT(f, next);
        if (f->proc == p && f != sim.running) fiber_end(f);
    }
    files_end_of(p);
}

/* A process ends with its main; threads that are left would be a fault of
 * whoever forgot them. */
static void fiber_finished(struct fiber *f)
{
    if (f->proc->dead || f->is_main) {
        struct fiber *g;
        TAILQ_FOREACH(g, &sim.fibers, next)
        if (g->proc == f->proc && g != f && !f->proc->dead && !g->detached)
            sim_fail("a thread is left at the end of its process");
        f->proc->dead = true;
        fiber_end(f);
    } else if (f->detached) {
        fiber_end(f);
    }
}

static void schedule(void)
{
    while (!TAILQ_EMPTY(&sim.fibers)) {
        struct fiber *f = fiber_choose();
        if (!f) {
            uint64_t next = next_ns();
            if (next == UINT64_MAX) sim_fail("everybody waits for ever");
            sim.now = next > sim.now ? next : sim.now + 1;
            continue;
        }
        sim.running = f;
        sim.now += sim_random(3 * US);
        enter_fiber(f);
        if (f->finished || f->proc->dead) fiber_finished(f);
        sim.running = NULL;
    }
}

/* ---- processes ---- */

struct start {
    void (*main)(void *);
    void *arg;
};

static void *proc_main(void *arg)
{
    struct start start = *(struct start *)arg;
    __real_free(arg);
    start.main(start.arg);
    return NULL;
}

struct sim_proc *sim_start(const char *host, void (*main)(void *), void *arg)
{
    struct sim_proc *p = __real_calloc(1, sizeof *p);
    struct start *start = __real_calloc(1, sizeof *start);
    *start = (struct start){main, arg};
    p->pid = ++sim.pids;
    p->kill_at = p->stop_at = UINT64_MAX;
    snprintf(p->host, sizeof p->host, "%s", host);
    TAILQ_INSERT_TAIL(&sim.procs, p, next);
    fiber_start(p, proc_main, start)->is_main = true;
    return p;
}

struct sim_proc *sim_proc_of(int pid)
{
    struct sim_proc *p;
    TAILQ_FOREACH(p, &sim.procs, next)
    if (p->pid == pid) return p;
    return NULL;
}

bool sim_alive(const struct sim_proc *p)
{
    return !p->dead;
}

uint64_t sim_calls(const struct sim_proc *p)
{
    return p->calls;
}

void sim_kill(struct sim_proc *p)
{
    if (p->dead) return;
    proc_over(p);
    if (sim_self() == p) enter_scheduler(sim.running, true);
}

void sim_kill_later(struct sim_proc *p, uint64_t calls)
{
    p->kill_at = p->calls + 1 + calls;
}

void sim_stop_later(struct sim_proc *p, uint64_t calls, uint64_t ms)
{
    p->stop_at = p->calls + 1 + calls;
    p->stop_ns = ms * MS;
}

size_t sim_blocks(const struct sim_proc *p)
{
    return p->blocks;
}

size_t sim_files(const struct sim_proc *p)
{
    return p->files;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void sim_sleep(uint64_t ms)
{
    sim_block(never, NULL, sim.now + ms * MS);
}

bool sim_until(bool (*what)(void *), void *arg, uint64_t ms)
{
    return what(arg) || sim_block(what, arg, sim.now + ms * MS);
}

void sim_cut(uint64_t ms)
{
    files_cut(sim.now + ms * MS);
}

void sim_delay(uint64_t us)
{
    files_delay(us * US);
}

void sim_lose(uint64_t one_in)
{
    files_lose(one_in);
}

void sim_run(uint64_t seed, void (*main)(void *), void *arg)
{
    memset(&sim, 0, sizeof sim);
    sim.seed = sim.rng = seed;
    sim.now = 1000 * (uint64_t)MS;
    sim.switch_in = 20;
    TAILQ_INIT(&sim.fibers);
    TAILQ_INIT(&sim.procs);
    memory_begin();
    files_begin();
    simulates = true;
    sim_start("test", main, arg);
    schedule();
    simulates = false;
    for (struct sim_proc *p; (p = TAILQ_FIRST(&sim.procs));) {
        TAILQ_REMOVE(&sim.procs, p, next);
        __real_free(p);
    }
}

/* ---- clock and chance ---- */

uint64_t __real_clock_ns(void);
uint64_t __wrap_clock_ns(void);
uint64_t __wrap_clock_us(void);
uint64_t __wrap_clock_ms(void);
void __real_random_bytes(void *out, size_t n);
void __wrap_random_bytes(void *out, size_t n);
uint64_t __wrap_random_u64(void);

uint64_t __wrap_clock_ns(void)
{
    if (!sim_self()) return __real_clock_ns();
    return sim.now += 100;
}

uint64_t __wrap_clock_us(void)
{
    return __wrap_clock_ns() / 1000;
}

uint64_t __wrap_clock_ms(void)
{
    return __wrap_clock_ns() / 1000000;
}

void __wrap_random_bytes(void *out, size_t n)
{
    uint8_t *at = out;
    if (!sim_self()) {
        __real_random_bytes(out, n);
        return;
    }
    while (n--)
        *at++ = (uint8_t)sim_random(256);
}

uint64_t __wrap_random_u64(void)
{
    uint64_t v;
    __wrap_random_bytes(&v, sizeof v);
    return v;
}

/* ---- threads ---- */

/* What a mutex and a condition are here lies in the bytes of the real ones,
 * which are all zero before their first use. */
struct mutex {
    struct fiber *owner;
};

static bool mutex_free(void *arg)
{
    return !((struct mutex *)arg)->owner;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a);
int __wrap_pthread_cond_destroy(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr,
                          void *(*run)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **out);
int __wrap_pthread_detach(pthread_t thread);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_sigmask(int how, const void *set, void *old);
int __wrap_sched_yield(void);

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
    if (!sim_self()) return __real_pthread_mutex_init(m, a);
    (void)a;
    memset(m, 0, sizeof *m);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
    if (!sim_self()) return __real_pthread_mutex_destroy(m);
    if (((struct mutex *)m)->owner) sim_fail("a held lock is destroyed");
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
    struct mutex *m = (struct mutex *)lock;
    if (!sim_self()) return __real_pthread_mutex_lock(lock);
    sim_point();
    if (m->owner == sim.running) sim_fail("a lock is taken twice");
    while (m->owner)
        sim_block(mutex_free, m, UINT64_MAX);
    m->owner = sim.running;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
    struct mutex *m = (struct mutex *)lock;
    if (!sim_self()) return __real_pthread_mutex_unlock(lock);
    if (m->owner != sim.running) sim_fail("a lock is given back by another");
    m->owner = NULL;
    sim_point();
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a)
{
    if (!sim_self()) return __real_pthread_cond_init(c, a);
    (void)a;
    memset(c, 0, sizeof *c);
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
    if (!sim_self()) return __real_pthread_cond_destroy(c);
    struct fiber *f;
    TAILQ_FOREACH(f, &sim.fibers, next)
    if (f->cond == c) sim_fail("a condition is destroyed under a waiter");
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    if (!sim_self()) return __real_pthread_cond_broadcast(c);
    struct fiber *f;
    TAILQ_FOREACH(f, &sim.fibers, next)
    if (f->cond == c) f->signaled = true;
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    if (!sim_self()) return __real_pthread_cond_signal(c);
    struct fiber *f, *chosen = NULL;
    uint64_t count = 0;
    TAILQ_FOREACH(f, &sim.fibers, next)
    if (f->cond == c && !f->signaled && sim_random(++count) == 0) chosen = f;
    if (chosen) chosen->signaled = true;
    return 0;
}

static bool is_signaled(void *arg)
{
    return ((struct fiber *)arg)->signaled;
}

static int cond_wait(pthread_cond_t *c, pthread_mutex_t *lock, uint64_t until)
{
    struct mutex *m = (struct mutex *)lock;
    struct fiber *f = sim.running;
    if (m->owner != f) sim_fail("waiting without the lock");
    m->owner = NULL;
    f->cond = c;
    f->signaled = false;
    bool came = sim_block(is_signaled, f, until);
    f->cond = NULL;
    while (m->owner)
        sim_block(mutex_free, m, UINT64_MAX);
    m->owner = f;
    return came ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    if (!sim_self()) return __real_pthread_cond_wait(c, m);
    return cond_wait(c, m, UINT64_MAX);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until)
{
    if (!sim_self()) return __real_pthread_cond_timedwait(c, m, until);
    return cond_wait(
        c, m, (uint64_t)until->tv_sec * 1000 * MS + (uint64_t)until->tv_nsec);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr,
                          void *(*run)(void *), void *arg)
{
    if (!sim_self()) return __real_pthread_create(out, attr, run, arg);
    (void)attr;
    *out = (pthread_t)(uintptr_t)fiber_start(sim_self(), run, arg);
    return 0;
}

static bool has_finished(void *arg)
{
    return ((struct fiber *)arg)->finished;
}

int __wrap_pthread_join(pthread_t thread, void **out)
{
    if (!sim_self()) return __real_pthread_join(thread, out);
    struct fiber *f = (struct fiber *)(uintptr_t)thread;
    if (out) *out = NULL;
    while (!f->finished)
        sim_block(has_finished, f, UINT64_MAX);
    fiber_end(f);
    return 0;
}

int __wrap_pthread_detach(pthread_t thread)
{
    if (!sim_self()) return __real_pthread_detach(thread);
    struct fiber *f = (struct fiber *)(uintptr_t)thread;
    f->detached = true;
    if (f->finished) fiber_end(f);
    return 0;
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
    if (!sim_self()) return __real_pthread_setname_np(thread, name);
    (void)thread;
    (void)name;
    return 0;
}

int __wrap_pthread_sigmask(int how, const void *set, void *old)
{
    if (!sim_self()) return __real_pthread_sigmask(how, set, old);
    (void)how;
    (void)set;
    (void)old;
    return 0;
}

int __wrap_sched_yield(void)
{
    if (!sim_self()) return __real_sched_yield();
    sim.now += US;
    sim_point();
    return 0;
}
