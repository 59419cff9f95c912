#include "tensor/roofline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tensor/cpu/cpu.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REPEATS = 5,
    MIN_BYTES = 256 << 20,
    MAX_BYTES = 1 << 30,
    SLICE_UNIT = 1 << 20,
    PARTS = 8,        /* of a slice, read one at a time */
    READ_UNIT = 4096, /* a multiple of what peak_read takes of all streams */
    ROUNDS = 1 << 20,
};

/* Some cores keep more lines under way when they read at several places, some
 * fetch one stream better by themselves. */
static const size_t ways[] = {8, 1};
enum { WAYS = sizeof ways / sizeof *ways };

/* Workers and the memory that they read; other rates are measured with the same
 * workers. */
struct reader {
    const struct kernels *kernels;
    struct pool *pool;
    char *memory;
    size_t slice, slices; /* its parts of so many bytes, a few a thread, so that
                             one that is held up is helped out */
    size_t streams;       /* read side by side in a slice */
    size_t at, part;      /* what is read of each slice: [at, at + part) */
    uint64_t bytes, ns[WAYS]; /* since reader_rate: read in each way */
    double sink[64];
};

static void slice_touch(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct reader *r = arg;
    memset(r->memory + chunk * r->slice, 1, r->slice);
}

static void slice_read(void *arg, size_t chunk, int worker)
{
    struct reader *r = arg;
    r->sink[worker % 64] += r->kernels->peak_read(
        r->memory + chunk * r->slice + r->at, r->part, r->streams);
}

static void floats(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct reader *r = arg;
    r->sink[worker % 64] += r->kernels->peak_floats(ROUNDS);
}

static void dots(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct reader *r = arg;
    r->sink[worker % 64] += r->kernels->peak_dots(ROUNDS);
}

static void pairs(void *arg, size_t chunk, int worker)
{
    (void)chunk;
    struct reader *r = arg;
    r->sink[worker % 64] += r->kernels->peak_bf16(ROUNDS);
}

/* The best rate of a few runs of chunks pieces of work of units each. */
static double best_rate(struct reader *r, void (*fn)(void *, size_t, int),
                        size_t chunks, double units)
{
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        uint64_t begin = clock_ns();
        pool_run(r->pool, fn, r, chunks);
        double rate = (double)chunks * units / (double)(clock_ns() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

static double read_rate(struct reader *r)
{
    double best = 0;
    r->part = r->slice;
    for (size_t i = 0; i < WAYS; i++) {
        r->streams = ways[i];
        double rate = best_rate(r, slice_read, r->slices, (double)r->slice);
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

int reader_create(struct reader **out, int threads, const char *isa,
                  struct why *why)
{
    *out = NULL;
    const struct kernels *kernels = kernels_choose(isa);
    if (!kernels) return kernels_unknown(isa, why);
    struct reader *r = mem_must(1, sizeof *r);
    r->kernels = kernels;
    struct pool_options options = {.threads = threads};
    if (threads == 0) options.threads = pool_usable_cores();
    int rc = pool_create(&r->pool, &options, why);
    size_t n = (size_t)options.threads, bytes = wanted_bytes();
    while (!rc && !(r->memory = host_alloc(bytes)) && bytes > MIN_BYTES / 16)
        bytes /= 2;
    if (!rc && !r->memory)
        rc = err_set(why, ERR_NOMEM, "%zu bytes to read", bytes);
    if (rc) {
        reader_destroy(r);
        return rc;
    }
    r->slice = bytes / (n * 4) / SLICE_UNIT * SLICE_UNIT;
    if (r->slice == 0) r->slice = SLICE_UNIT;
    r->slices = bytes / r->slice;
    pool_run_near(r->pool, slice_touch, r, r->slices);
    *out = r;
    return 0;
}

void reader_destroy(struct reader *r)
{
    if (!r) return;
    host_free(r->memory);
    pool_destroy(r->pool);
    mem_free(r);
}

/* The workers have to be awake, and other pools' asleep, before time counts.
 * Which way is better is not asked once: a host may change in between. */
void reader_read(struct reader *r)
{
    size_t part = r->slice / PARTS / READ_UNIT * READ_UNIT;
    r->streams = 1;
    r->part = part / 4 / READ_UNIT * READ_UNIT;
    pool_run(r->pool, slice_read, r, r->slices);
    r->part = part;
    for (size_t i = 0; i < WAYS; i++) {
        r->streams = ways[i];
        if ((r->at += part) + part > r->slice) r->at = 0;
        uint64_t begin = clock_ns();
        pool_run(r->pool, slice_read, r, r->slices);
        r->ns[i] += clock_ns() - begin;
    }
    r->bytes += r->slices * part;
}

double reader_rate(struct reader *r)
{
    uint64_t least = r->ns[0];
    for (size_t i = 1; i < WAYS; i++)
        if (r->ns[i] < least) least = r->ns[i];
    double rate = least ? (double)r->bytes / (double)least : 0;
    r->bytes = 0;
    memset(r->ns, 0, sizeof r->ns);
    return rate;
}

int roofline_measure(int threads, const char *isa, struct roofline *out,
                     struct why *why)
{
    memset(out, 0, sizeof *out);
    struct reader *r;
    int rc = reader_create(&r, threads, isa, why);
    if (rc) return rc;
    size_t n = (size_t)pool_threads(r->pool);
    const struct kernels *k = r->kernels;
    out->threads = (int)n;
    out->read_bytes = r->slices * r->slice;
    snprintf(out->isa, sizeof out->isa, "%s", k->name);
    out->read_gb_s = read_rate(r);
    out->f32_gflop_s =
        best_rate(r, floats, n, (double)ROUNDS * k->floats_round);
    out->int8_gop_s = best_rate(r, dots, n, (double)ROUNDS * k->dots_round);
    if (k->peak_bf16)
        out->bf16_gflop_s =
            best_rate(r, pairs, n, (double)ROUNDS * k->bf16_round);
    reader_destroy(r);
    return 0;
}
