#include "tensor/roofline.h"

#include "base/clock.h"
#include "tensor/cpu/cpu.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REPEATS = 5,
    MIN_BYTES = 256 << 20,
    MAX_BYTES = 1 << 30,
    SLICE_UNIT = 1 << 20,
    ROUNDS = 1 << 20,
};

struct job {
    const struct kernels *kernels;
    char *memory;
    size_t slice;   /* bytes of a thread         */
    size_t streams; /* read side by side in it   */
    double sink[64];
};

static void slice_touch(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    memset(job->memory + chunk * job->slice, 1, job->slice);
}

static void slice_read(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    job->sink[worker % 64] += job->kernels->peak_read(
        job->memory + chunk * job->slice, job->slice, job->streams);
}

static void floats(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct job *job = arg;
    job->sink[worker % 64] += job->kernels->peak_floats(ROUNDS);
}

static void dots(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct job *job = arg;
    job->sink[worker % 64] += job->kernels->peak_dots(ROUNDS);
}

static void pairs(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct job *job = arg;
    job->sink[worker % 64] += job->kernels->peak_bf16(ROUNDS);
}

/* The best rate of a few runs of chunks pieces of work of units each. */
static double best_rate(struct pool *pool, void (*fn)(void *, size_t, int),
                        struct job *job, size_t chunks, double units)
{
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        uint64_t begin = clock_ns();
        pool_run(pool, fn, job, chunks);
        double rate = (double)chunks * units / (double)(clock_ns() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

/* Some cores keep more lines under way when they read at several places, some
 * fetch one stream better by themselves. */
static double read_rate(struct pool *pool, struct job *job, size_t slices)
{
    static const size_t streams[] = {8, 1};
    double best = 0;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        job->streams = streams[i];
        double rate =
            best_rate(pool, slice_read, job, slices, (double)job->slice);
        if (rate > best) best = rate;
    }
    return best;
}

/* Twice the last level cache, within reason. */
static size_t wanted_bytes(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = cache > 0 ? 2 * (size_t)cache : MIN_BYTES;
    if (bytes < MIN_BYTES) bytes = MIN_BYTES;
    return bytes < MAX_BYTES ? bytes : MAX_BYTES;
}

int roofline_measure(int threads, const char *isa, struct roofline *out,
                     struct why *why)
{
    memset(out, 0, sizeof *out);
    const struct kernels *kernels = kernels_choose(isa);
    if (!kernels) return kernels_unknown(isa, why);
    struct pool_options options = {.threads = threads};
    if (threads == 0) options.threads = pool_usable_cores();
    struct pool *pool;
    int rc = pool_create(&pool, &options, why);
    if (rc) return rc;
    size_t n = (size_t)options.threads, bytes = wanted_bytes();
    struct job job = {.kernels = kernels};
    while (!(job.memory = host_alloc(bytes)) && bytes > MIN_BYTES / 16)
        bytes /= 2;
    if (!job.memory) {
        pool_destroy(pool);
        return err_set(why, ERR_NOMEM, "%zu bytes to read", bytes);
    }
    /* Four slices a thread, so that one that is held up is helped out. */
    job.slice = bytes / (n * 4) / SLICE_UNIT * SLICE_UNIT;
    if (job.slice == 0) job.slice = SLICE_UNIT;
    size_t slices = bytes / job.slice;

    out->threads = options.threads;
    out->read_bytes = slices * job.slice;
    snprintf(out->isa, sizeof out->isa, "%s", job.kernels->name);
    pool_run_near(pool, slice_touch, &job, slices);
    out->read_gb_s = read_rate(pool, &job, slices);
    out->f32_gflop_s = best_rate(pool, floats, &job, n,
                                 (double)ROUNDS * job.kernels->floats_round);
    out->int8_gop_s = best_rate(pool, dots, &job, n,
                                (double)ROUNDS * job.kernels->dots_round);
    if (job.kernels->peak_bf16)
        out->bf16_gflop_s = best_rate(pool, pairs, &job, n,
                                      (double)ROUNDS * job.kernels->bf16_round);
    host_free(job.memory);
    pool_destroy(pool);
    return 0;
}
