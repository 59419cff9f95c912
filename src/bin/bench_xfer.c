/* baton bench xfer: what the transfer engine makes of this machine.
 *
 * A target engine in a child process, an initiator for each way here, and
 * plain memcpy, iperf3, ucx_perftest and mooncake beside them. One round
 * measures everything once, in turn, so that whatever else this machine does
 * falls on all alike; what is told are medians over the rounds. All our
 * transfers go through pools larger than the caches. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/bench_rivals.h"
#include "bin/commands.h"
#include "xfer/xfer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ROUNDS_MAX = 99,
    DEPTH = 8,
    AGAINST = 3,
    DESCS = 15000,
    IDLE_MS = 300,
    SETTLE_MS = 100
};

struct bench_xfer {
    int64_t pool_mib, rounds, ms;
    const char *mooncake, *only;
    bool json, alone;
};

#define AT(f) offsetof(struct bench_xfer, f)
static const struct opt options[] = {
    {"pool-mib", OPT_INT, AT(pool_mib), "256", 16, 65536,
     .help = "memory that transfers go through, on each side"},
    {"repeat", OPT_INT, AT(rounds), "5", 1, ROUNDS_MAX,
     .help = "rounds, medians kept"},
    {"ms", OPT_INT, AT(ms), "100", 1, 10000, .help = "time of one measurement"},
    {"mooncake-python", OPT_STRING, AT(mooncake),
     .help = "a python that can import mooncake.engine"},
    {"only", OPT_STRING, AT(only),
     .help = "figures with this, or that, in their name: this,that"},
    {"alone", OPT_FLAG, AT(alone), .help = "no other programs beside ours"},
    {"json", OPT_FLAG, AT(json), .help = "one JSON object on stdout"},
};

/* ---- the target, in a child ---- */

struct place { /* where its memory is */
    char name[XFER_NAME_MAX + 1];
    uint64_t shared, own; /* of xfer_alloc; its own, registered */
    int rc;
    struct why why;
};

struct target {
    pid_t pid;
    int ask, answer;
    struct place at;
};

static uint64_t cpu_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000u;
}

/* Memory with all its pages, which a fork for another program must not make
 * copy-on-write: the next write to each would be a fault. */
static char *memory_new(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_DONTFORK);
    memset(p, 1, bytes);
    return p;
}

/* Answers each byte on ask with the processor time used so far. */
static void target_main(size_t bytes, int ask, int answer)
{
    struct place at = {.rc = 0};
    struct xfer *x = NULL;
    struct xfer_mem *shared = NULL, *own = NULL;
    char *memory = memory_new(bytes);
    if (!memory) at.rc = err_set(&at.why, ERR_NOMEM, "pool of %zu", bytes);
    struct xfer_options opt = {.via = XFER_VIA_ALL | XFER_VIA_UCX};
    if (!at.rc) at.rc = xfer_open(&x, &opt, &at.why);
    if (at.rc == ERR_UNSUPPORTED) at.rc = xfer_open(&x, NULL, &at.why);
    if (!at.rc) at.rc = xfer_alloc(x, bytes, 0, &shared, &at.why);
    if (!at.rc) at.rc = xfer_register(x, memory, bytes, NULL, 0, &own, &at.why);
    if (!at.rc) {
        memset(xfer_mem_base(shared), 1, bytes);
        snprintf(at.name, sizeof at.name, "%s", xfer_name(x));
        at.shared = (uintptr_t)xfer_mem_base(shared);
        at.own = (uintptr_t)memory;
    }
    if (write(answer, &at, sizeof at) != sizeof at) _exit(1);
    for (char byte; read(ask, &byte, 1) == 1;) {
        uint64_t used = cpu_ns();
        if (write(answer, &used, sizeof used) != sizeof used) break;
    }
    _exit(0);
}

static int target_start(struct target *t, size_t bytes, struct why *why)
{
    int ask[2], answer[2];
    if (pipe(ask) || pipe(answer)) return err_sys(why, ERR_IO, errno, "pipe");
    t->pid = fork();
    if (t->pid < 0) return err_sys(why, ERR_IO, errno, "fork");
    if (t->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ask[1]);
        target_main(bytes, ask[0], answer[1]);
    }
    close(ask[0]);
    close(answer[1]);
    t->ask = ask[1];
    t->answer = answer[0];
    if (read(t->answer, &t->at, sizeof t->at) != sizeof t->at)
        return err_set(why, ERR_PEER, "the target process ended");
    if (t->at.rc) *why = t->at.why;
    return t->at.rc;
}

static uint64_t target_cpu_ns(struct target *t)
{
    uint64_t used = 0;
    if (write(t->ask, "c", 1) != 1 ||
        read(t->answer, &used, sizeof used) != sizeof used)
        return 0;
    return used;
}

static void target_end(struct target *t)
{
    if (t->pid <= 0) return;
    close(t->ask);
    kill(t->pid, SIGKILL);
    waitpid(t->pid, NULL, 0);
}

/* ---- what is measured ---- */

/* An initiator that has one way. */
struct way {
    const char *name;
    unsigned via, workers;
    bool shared;       /* goes to the target's shared memory */
    struct why absent; /* its library is not installed */
    struct xfer *x;
    struct xfer_peer *peer;
};

enum { MEMFD, MEMFD_2, CMA, CMA_2, UNIX, TCP, UCX, WAYS, PLAIN };

struct rig {
    const struct bench_xfer *opt;
    struct target target;
    size_t bytes;
    char *from, *to; /* to: for plain memcpy */
    struct way ways[WAYS];
    struct xfer_op *descs;
};

struct figure {
    const char *name, *unit;
    int (*run)(struct rig *r, const struct figure *f, double *out,
               struct why *why);
    int way;
    size_t size;
    const char *against[AGAINST]; /* printed as a fraction of each */
    enum xfer_kind kind;
    size_t depth; /* transfers at a time; 0: DEPTH */
    const struct rival *rival;
    double samples[ROUNDS_MAX], median, spread;
    int count;
    struct why absent;
};

struct copy_part {
    pthread_t thread;
    char *to;
    const char *from;
    size_t bytes, block;
};

static void *copy_main(void *arg)
{
    struct copy_part *p = arg;
    for (size_t at = 0; at + p->block <= p->bytes; at += p->block)
        memcpy(p->to + at, p->from + at, p->block);
    return NULL;
}

/* memcpy in blocks of size, once through the pools; way: threads. */
static int run_memcpy(struct rig *r, const struct figure *f, double *out,
                      struct why *why)
{
    struct copy_part part[2];
    size_t share = r->bytes / (size_t)f->way;
    uint64_t start = clock_ns();
    for (int i = 0; i < f->way; i++) {
        size_t at = (size_t)i * share;
        part[i] = (struct copy_part){
            .to = r->to + at, .from = r->from + at, share, f->size};
        int e =
            i ? pthread_create(&part[i].thread, NULL, copy_main, &part[i]) : 0;
        if (e) return err_sys(why, ERR_IO, e, "cannot start a thread");
    }
    copy_main(&part[0]);
    for (int i = 1; i < f->way; i++)
        pthread_join(part[i].thread, NULL);
    *out = (double)r->bytes / (double)(clock_ns() - start);
    return 0;
}

static int take_done(struct xfer *x, size_t *open, struct why *why)
{
    struct xfer_done done[DEPTH];
    struct pollfd pfd = {.fd = xfer_fd(x), .events = POLLIN};
    poll(&pfd, 1, 10000);
    size_t n = xfer_poll(x, done, DEPTH);
    for (size_t i = 0; i < n; i++)
        if (done[i].rc) return err_set(why, done[i].rc, "%s", done[i].text);
    if (!n) return err_set(why, ERR_TIMEOUT, "no completion in 10 s");
    *open -= n;
    return 0;
}

/* Transfers of size, one a batch, depth at a time, until the time is over. */
static int run_rate(struct rig *r, const struct figure *f, double *out,
                    struct why *why)
{
    struct way *w = &r->ways[f->way];
    uint64_t start = clock_ns(), end = start + (uint64_t)r->opt->ms * 1000000u;
    uint64_t base = w->shared ? r->target.at.shared : r->target.at.own;
    size_t at = 0, open = 0, sent = 0, depth = f->depth ? f->depth : DEPTH;
    int rc = 0;
    while (!rc && clock_ns() < end) {
        struct xfer_op op = {.kind = f->kind,
                             .local = r->from + at,
                             .remote = base + at,
                             .bytes = f->size};
        rc = xfer_submit(w->peer, &op, 1, 0, why);
        sent += f->size;
        at = at + 2 * f->size <= r->bytes ? at + f->size : 0;
        if (++open == depth && !rc) rc = take_done(w->x, &open, why);
    }
    while (open && !rc)
        rc = take_done(w->x, &open, why);
    *out = (double)sent / (double)(clock_ns() - start);
    return rc;
}

/* One at a time, its caller waiting for each. */
static int run_waited(struct rig *r, const struct figure *f, double *out,
                      struct why *why)
{
    struct way *w = &r->ways[f->way];
    uint64_t start = clock_ns(), end = start + (uint64_t)r->opt->ms * 1000000u;
    uint64_t base = w->shared ? r->target.at.shared : r->target.at.own;
    size_t at = 0, sent = 0;
    int rc = 0;
    while (!rc && clock_ns() < end) {
        struct xfer_op op = {.kind = f->kind,
                             .local = r->from + at,
                             .remote = base + at,
                             .bytes = f->size};
        rc = xfer_transfer(w->peer, &op, 1, -1, why);
        sent += f->size;
        at = at + 2 * f->size <= r->bytes ? at + f->size : 0;
    }
    *out = (double)sent / (double)(clock_ns() - start);
    return rc;
}

/* Pieces of size in one batch, every second one first: nothing can be merged.
 * PLAIN: the same by memcpy. */
static int run_pieces(struct rig *r, const struct figure *f, double *out,
                      struct why *why)
{
    bool plain = f->way == PLAIN;
    struct way *w = plain ? NULL : &r->ways[f->way];
    uint64_t base = plain       ? (uintptr_t)r->to
                    : w->shared ? r->target.at.shared
                                : r->target.at.own;
    int rc = 0;
    size_t count = r->bytes / f->size < DESCS ? r->bytes / f->size : DESCS;
    for (size_t i = 0; i < count; i++) {
        size_t at = (2 * i % count + (2 * i >= count)) % count * f->size;
        r->descs[i] = (struct xfer_op){.kind = f->kind,
                                       .local = r->from + at,
                                       .remote = base + at,
                                       .bytes = f->size};
    }
    uint64_t start = clock_ns();
    for (size_t i = 0; i < count && plain; i++)
        memcpy((char *)(uintptr_t)r->descs[i].remote, r->descs[i].local,
               f->size);
    if (!plain) rc = xfer_transfer(w->peer, r->descs, count, -1, why);
    *out = (double)(count * f->size) / (double)(clock_ns() - start);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of one write that is waited for. */
static int run_latency(struct rig *r, const struct figure *f, double *out,
                       struct why *why)
{
    enum { COUNT = 2000 };
    struct way *w = &r->ways[f->way];
    uint64_t base = w->shared ? r->target.at.shared : r->target.at.own;
    double took[COUNT];
    int rc = 0;
    for (size_t i = 0; i < COUNT && !rc; i++) {
        size_t at = i * f->size % r->bytes;
        struct xfer_op op = {.kind = f->kind,
                             .local = r->from + at,
                             .remote = base + at,
                             .bytes = f->size};
        uint64_t start = clock_ns();
        rc = xfer_transfer(w->peer, &op, 1, -1, why);
        took[i] = (double)(clock_ns() - start) * 1e-3;
    }
    qsort(took, COUNT, sizeof *took, by_value);
    *out = took[COUNT / 2];
    return rc;
}

/* Until a batch of 15 000 operations is submitted. */
static int run_submit(struct rig *r, const struct figure *f, double *out,
                      struct why *why)
{
    struct way *w = &r->ways[f->way];
    for (size_t i = 0; i < DESCS; i++)
        r->descs[i] =
            (struct xfer_op){.local = r->from + i * 2 * f->size,
                             .remote = r->target.at.own + i * 2 * f->size,
                             .bytes = f->size};
    uint64_t start = clock_ns();
    int rc = xfer_submit(w->peer, r->descs, DESCS, 0, why);
    *out = (double)(clock_ns() - start) * 1e-6;
    size_t open = 1;
    return rc ? rc : take_done(w->x, &open, why);
}

/* A new engine, its memory registered, a peer and a first write. */
static int run_first(struct rig *r, const struct figure *f, double *out,
                     struct why *why)
{
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct xfer_options opt = {.via = r->ways[f->way].via};
    struct xfer_op op = {
        .local = r->from, .remote = r->target.at.shared, .bytes = f->size};
    uint64_t start = clock_ns();
    int rc = xfer_open(&x, &opt, why);
    if (rc) return rc;
    rc = xfer_register(x, r->from, r->bytes, NULL, 0, &mem, why);
    if (!rc) rc = xfer_peer_open(x, r->target.at.name, &peer, why);
    if (!rc) rc = xfer_transfer(peer, &op, 1, 10000, why);
    *out = (double)(clock_ns() - start) * 1e-6;
    xfer_close(x);
    return rc;
}

/* Processor time of both processes while all is connected and nothing moves. */
static int run_idle(struct rig *r, const struct figure *f, double *out,
                    struct why *why)
{
    (void)f;
    (void)why;
    uint64_t start = clock_ns(), used = cpu_ns() + target_cpu_ns(&r->target);
    poll(NULL, 0, IDLE_MS);
    used = cpu_ns() + target_cpu_ns(&r->target) - used;
    *out = 100.0 * (double)used / (double)(clock_ns() - start);
    return 0;
}

static int run_rival(struct rig *r, const struct figure *f, double *out,
                     struct why *why)
{
    if (r->opt->alone) return err_set(why, ERR_NOT_FOUND, "not asked for");
    int rc = f->rival->run(r->opt->mooncake, out, why);
    poll(NULL, 0, SETTLE_MS); /* until its processes are gone */
    return rc;
}

#define RATE(label, w, bytes, vs)                                 \
    {                                                             \
        .name = label, .unit = "GB/s", .run = run_rate, .way = w, \
        .size = bytes, .against = {                               \
            vs                                                    \
        }                                                         \
    }
#define READ(label, w, bytes, vs)                                 \
    {                                                             \
        .name = label, .unit = "GB/s", .run = run_rate, .way = w, \
        .size = bytes, .against = {vs}, .kind = XFER_READ         \
    }
#define PIECES(label, w, bytes, vs)                                 \
    {                                                               \
        .name = label, .unit = "GB/s", .run = run_pieces, .way = w, \
        .size = bytes, .against = {                                 \
            vs                                                      \
        }                                                           \
    }
#define COPY(label, threads, bytes)                                       \
    {                                                                     \
        .name = label, .unit = "GB/s", .run = run_memcpy, .way = threads, \
        .size = bytes                                                     \
    }
#define LATENCY(label, w)                                          \
    {                                                              \
        .name = label, .unit = "us", .run = run_latency, .way = w, \
        .size = 4096                                               \
    }

static struct figure figures[64] = {
    COPY("memcpy 64 KiB", 1, 64 << 10),
    RATE("memfd 64 KiB", MEMFD, 64 << 10, "memcpy 64 KiB"),
    COPY("memcpy 1 MiB", 1, 1 << 20),
    RATE("memfd 1 MiB", MEMFD, 1 << 20, "memcpy 1 MiB"),
    READ("memfd read 1 MiB", MEMFD, 1 << 20, "memcpy 1 MiB"),
    COPY("memcpy 16 MiB", 1, 16 << 20),
    RATE("memfd 16 MiB", MEMFD, 16 << 20, "memcpy 16 MiB"),
    COPY("memcpy 1 MiB, 2 threads", 2, 1 << 20),
    RATE("memfd 1 MiB, 2 threads", MEMFD_2, 1 << 20, "memcpy 1 MiB, 2 threads"),
    RATE("cma 64 KiB", CMA, 64 << 10, "memcpy 64 KiB"),
    RATE("cma 1 MiB", CMA, 1 << 20, "memcpy 1 MiB"),
    RATE("cma 1 MiB, 2 threads", CMA_2, 1 << 20, "memcpy 1 MiB, 2 threads"),
    READ("cma read 1 MiB", CMA, 1 << 20, "memcpy 1 MiB"),
    RATE("cma 16 MiB", CMA, 16 << 20, "memcpy 16 MiB"),
    RATE("unix 64 KiB", UNIX, 64 << 10, NULL),
    RATE("unix 1 MiB", UNIX, 1 << 20, NULL),
    RATE("unix 16 MiB", UNIX, 16 << 20, NULL),
    RATE("tcp 64 KiB", TCP, 64 << 10, "iperf3_1m"),
    {.name = "tcp 1 MiB",
     .unit = "GB/s",
     .run = run_rate,
     .way = TCP,
     .size = 1 << 20,
     .against = {"iperf3_1m", "mooncake_batch", "mooncake_async"}},
    {.name = "tcp 1 MiB, one at a time",
     .unit = "GB/s",
     .run = run_rate,
     .way = TCP,
     .size = 1 << 20,
     .against = {"mooncake", "ucx_put"},
     .depth = 1},
    {.name = "tcp 1 MiB, waited for",
     .unit = "GB/s",
     .run = run_waited,
     .way = TCP,
     .size = 1 << 20,
     .against = {"mooncake", "ucx_put"}},
    READ("tcp read 1 MiB", TCP, 1 << 20, "iperf3_1m"),
    RATE("tcp 16 MiB", TCP, 16 << 20, "iperf3_1m"),
    PIECES("memcpy pieces of 4 KiB", PLAIN, 4 << 10, NULL),
    PIECES("memfd pieces of 4 KiB", MEMFD, 4 << 10, "memcpy pieces of 4 KiB"),
    PIECES("cma pieces of 4 KiB", CMA, 4 << 10, "memcpy pieces of 4 KiB"),
    PIECES("unix pieces of 4 KiB", UNIX, 4 << 10, NULL),
    PIECES("tcp pieces of 4 KiB", TCP, 4 << 10, "iperf3_1m"),
    RATE("ucx 1 MiB", UCX, 1 << 20, "ucx_put"),
    READ("ucx read 1 MiB", UCX, 1 << 20, NULL),
    LATENCY("memfd write of 4 KiB", MEMFD),
    LATENCY("cma write of 4 KiB", CMA),
    LATENCY("unix write of 4 KiB", UNIX),
    LATENCY("tcp write of 4 KiB", TCP),
    LATENCY("ucx write of 4 KiB", UCX),
    {.name = "submit of 15000 pieces",
     .unit = "ms",
     .run = run_submit,
     .way = TCP,
     .size = 512},
    {.name = "open, register, first write",
     .unit = "ms",
     .run = run_first,
     .way = MEMFD,
     .size = 4096},
    {.name = "open, register, first write over tcp",
     .unit = "ms",
     .run = run_first,
     .way = TCP,
     .size = 4096},
    {.name = "idle processor time", .unit = "%", .run = run_idle},
};

static int figures_count(void)
{
    int n = 0;
    while (figures[n].name)
        n++;
    return n;
}

static void figures_add_rivals(void)
{
    int n = figures_count();
    for (int i = 0; i < bench_rival_count; i++)
        figures[n + i] = (struct figure){.name = bench_rivals[i].name,
                                         .unit = bench_rivals[i].unit,
                                         .run = run_rival,
                                         .rival = &bench_rivals[i]};
}

/* The k-th that f is compared with; NULL: none, or not measured. */
static const struct figure *figure_base(const struct figure *f, int k)
{
    for (int i = 0; i < figures_count(); i++)
        if (f->against[k] && !strcmp(figures[i].name, f->against[k]))
            return figures[i].count ? &figures[i] : NULL;
    return NULL;
}

/* ---- the run ---- */

static int way_open(struct rig *r, struct way *w, struct why *why)
{
    struct xfer_options opt = {.via = w->via, .workers = w->workers};
    struct xfer_mem *mem;
    int rc = xfer_open(&w->x, &opt, &w->absent);
    if (rc == ERR_UNSUPPORTED) return 0;
    if (rc) *why = w->absent;
    if (!rc) rc = xfer_register(w->x, r->from, r->bytes, NULL, 0, &mem, why);
    if (!rc) rc = xfer_peer_open(w->x, r->target.at.name, &w->peer, why);
    return rc ? rc : xfer_peer_wait(w->peer, 10000, why);
}

static int rig_open(struct rig *r, struct why *why)
{
    static const struct way ways[WAYS] = {
        [MEMFD] = {"memfd", XFER_VIA_MEMFD | XFER_VIA_TCP, 1, true},
        [MEMFD_2] = {"memfd", XFER_VIA_MEMFD | XFER_VIA_TCP, 2, true},
        [CMA] = {"cma", XFER_VIA_CMA | XFER_VIA_TCP, 1, false},
        [CMA_2] = {"cma", XFER_VIA_CMA | XFER_VIA_TCP, 2, false},
        [UNIX] = {"unix", XFER_VIA_UNIX, 1, false},
        [TCP] = {"tcp", XFER_VIA_TCP, 1, false},
        [UCX] = {"ucx", XFER_VIA_UCX, 1, false},
    };
    r->bytes = (size_t)r->opt->pool_mib << 20;
    int rc = target_start(&r->target, r->bytes, why);
    if (rc) return rc;
    r->from = memory_new(r->bytes);
    r->to = memory_new(r->bytes);
    r->descs = mem_must(DESCS, sizeof *r->descs);
    if (!r->from || !r->to)
        return err_set(why, ERR_NOMEM, "two pools of %zu bytes", r->bytes);
    memcpy(r->ways, ways, sizeof ways);
    for (int i = 0; i < WAYS && !rc; i++)
        rc = way_open(r, &r->ways[i], why);
    return rc;
}

static void rig_close(struct rig *r)
{
    for (int i = 0; i < WAYS; i++)
        xfer_close(r->ways[i].x);
    target_end(&r->target);
    mem_free(r->descs);
    if (r->from) munmap(r->from, r->bytes);
    if (r->to) munmap(r->to, r->bytes);
}

/* What is absent once is not tried again; anything else that fails ends the
 * run. */
static int figure_run(struct rig *r, struct figure *f, struct why *why)
{
    struct why mine = {0};
    if (!f->rival && f->way < WAYS) f->absent = r->ways[f->way].absent;
    if (f->absent.code) return 0;
    int rc = f->run(r, f, &f->samples[f->count], &mine);
    if (rc && f->rival) {
        f->absent = mine;
        f->absent.code = rc;
        f->count = 0;
        return 0;
    }
    if (rc) return err_set(why, rc, "%s: %s", f->name, why_text(&mine, rc));
    f->count++;
    return 0;
}

static void figure_judge(struct figure *f)
{
    int n = f->count;
    if (!n) return;
    qsort(f->samples, (size_t)n, sizeof *f->samples, by_value);
    f->median = n % 2 ? f->samples[n / 2]
                      : (f->samples[n / 2 - 1] + f->samples[n / 2]) / 2;
    f->spread =
        f->median > 0 ? (f->samples[n - 1] - f->samples[0]) / f->median : 0;
}

/* Whether one of the words, separated by commas, is in name. */
static bool is_asked_for(const char *words, const char *name)
{
    char word[100];
    if (!words) return true;
    for (int n; sscanf(words, "%99[^,]%n", word, &n) == 1; words += n) {
        if (strstr(name, word)) return true;
        if (words[n] == ',') n++;
    }
    return false;
}

static int run_all(struct rig *r, struct why *why)
{
    int count = figures_count(), rc = 0;
    const char *only = r->opt->only;
    for (int64_t round = 0; round <= r->opt->rounds && !rc; round++) {
        fprintf(stderr,
                round ? "round %" PRId64 " of %" PRId64 "\n" : "warming up\n",
                round, r->opt->rounds);
        for (int i = 0; i < count && !rc; i++) {
            if (!round && figures[i].rival) continue;
            if (!is_asked_for(only, figures[i].name)) continue;
            rc = figure_run(r, &figures[i], why);
            if (!round) figures[i].count = 0;
        }
    }
    for (int i = 0; i < count; i++)
        figure_judge(&figures[i]);
    return rc;
}

static void print_json(const struct bench_xfer *b)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    const char *comma = "";
    buf_printf(&out,
               "{\"pool_mib\":%" PRId64 ",\"rounds\":%" PRId64
               ",\"cores\":%ld,\"figures\":[",
               b->pool_mib, b->rounds, sysconf(_SC_NPROCESSORS_ONLN));
    for (int i = 0; i < figures_count(); i++) {
        const struct figure *f = &figures[i];
        if (!f->count && !f->absent.code) continue; /* not asked for */
        buf_printf(&out, "%s\n {\"name\":\"%s\",\"unit\":\"%s\",", comma,
                   f->name, f->unit);
        comma = ",";
        if (f->absent.code) {
            buf_puts(&out, "\"absent\":\"");
            buf_json(&out, f->absent.text, strlen(f->absent.text));
            buf_puts(&out, "\"}");
            continue;
        }
        buf_printf(&out, "\"median\":%.4g,\"spread\":%.3f", f->median,
                   f->spread);
        buf_puts(&out, ",\"ratios\":{");
        for (int k = 0, some = 0; k < AGAINST; k++) {
            const struct figure *base = figure_base(f, k);
            if (base)
                buf_printf(&out, "%s\"%s\":%.3f", some++ ? "," : "", base->name,
                           f->median / base->median);
        }
        buf_puts(&out, "}}");
    }
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_fini(&out);
}

static void print_text(void)
{
    for (int i = 0; i < figures_count(); i++) {
        const struct figure *f = &figures[i];
        if (!f->count && !f->absent.code) continue; /* not asked for */
        if (f->absent.code) {
            printf("%-38s absent: %s\n", f->name, f->absent.text);
            continue;
        }
        printf("%-38s %8.3f %-4s (spread %3.0f %%)", f->name, f->median,
               f->unit, 100 * f->spread);
        for (int k = 0; k < AGAINST; k++) {
            const struct figure *base = figure_base(f, k);
            if (base)
                printf("%s%5.0f %% of %s", k ? "," : "  ",
                       100 * f->median / base->median, base->name);
        }
        if (f->rival) printf("  %s", f->rival->what);
        putchar('\n');
    }
}

int bench_xfer_main(int argc, char **argv)
{
    struct bench_xfer b = {0};
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &b, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count, "baton bench xfer [--json]");
        return 0;
    }
    if (rc) {
        fprintf(stderr, "baton bench xfer: %s\n", why_text(&why, rc));
        return 2;
    }
    struct rig rig = {.opt = &b};
    figures_add_rivals();
    rc = rig_open(&rig, &why);
    if (!rc) rc = run_all(&rig, &why);
    if (rc)
        fprintf(stderr, "baton bench xfer: %s\n", why_text(&why, rc));
    else if (b.json)
        print_json(&b);
    else
        print_text();
    rig_close(&rig);
    return rc ? 1 : 0;
}
