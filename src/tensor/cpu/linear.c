/* op_linear: who computes what. Rows of the weights are cut into chunks of
 * whole panels, which the workers take one by one; a chunk is computed for
 * all tokens, so that weights are read from memory once.
 *
 * Few tokens (a decode step): each chunk goes through the fused kernels,
 * which unpack weights in registers while they stream by. Many tokens: a
 * slab of columns of a chunk is unpacked into the worker's scratch (first
 * level cache) and multiplied with one group of tokens after another. */
#include "tensor/cpu/cpu.h"

#include "tensor/quant.h"

#include <assert.h>
#include <string.h>

enum {
    SLAB_RUNS = 16,   /* columns of a slab: blocks 512 ..                */
    SLAB_COLS = 256,  /* .. floats 256                                   */
    CHUNK_PANELS = 4, /* of a chunk of many tokens                       */
    PREFETCH_TOKENS = 64,
    /* Tokens whose sums a worker keeps; a multiple of all group sizes. */
    BLOCK_TOKENS = 504,
};

struct scratch {
    union {
        struct wrun runs[CHUNK_PANELS][SLAB_RUNS];
        float floats[CHUNK_PANELS][SLAB_COLS * ROWS];
    } slab;
    float sums[CHUNK_PANELS][BLOCK_TOKENS][ROWS];
};

size_t linear_scratch_bytes(void)
{
    return sizeof(struct scratch);
}

struct job {
    struct cpu *cpu;
    const float *x;
    const void *floats; /* grouped activations of float weights */
    size_t tokens, cols;
    const struct linear *list;
    size_t count;
    bool few; /* few tokens: fused kernels */
    size_t chunk_panels;
};

/* --- groups of tokens -------------------------------------------------- */

/* How many of the tokens left are the next group. */
static size_t group_tokens(const struct job *job, bool block, size_t left)
{
    static const uint8_t few[] = {4, 2, 1};
    const struct kernels *k = job->cpu->kernels;
    const uint8_t *sizes = job->few ? few
                           : block  ? k->block_groups
                                    : k->float_groups;
    while (*sizes > left)
        sizes++;
    return *sizes;
}

enum { PREPARE_TOKENS = 24 }; /* a chunk of preparation: whole groups */

static void prepare_runs(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    const struct kernels *k = job->cpu->kernels;
    size_t t = chunk * PREPARE_TOKENS, end = t + PREPARE_TOKENS, n;
    if (end > job->tokens) end = job->tokens;
    for (; t < end; t += n) {
        n = group_tokens(job, true, job->tokens - t);
        k->group_runs(job->cpu->runs + t * (job->cols / RUN),
                      job->x + t * job->cols, n, job->cols);
    }
}

static void prepare_floats(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    const struct kernels *k = job->cpu->kernels;
    size_t t = chunk * PREPARE_TOKENS, end = t + PREPARE_TOKENS, n;
    if (end > job->tokens) end = job->tokens;
    for (; t < end; t += n) {
        n = group_tokens(job, false, job->tokens - t);
        k->group_floats(job->cpu->floats + t * job->cols,
                        job->x + t * job->cols, n, job->cols);
    }
}

/* --- results ----------------------------------------------------------- */

/* Sums of one panel and one token to where they belong. */
static void result_store(const struct linear *l, size_t panel, size_t token,
                         const float *sums)
{
    size_t rows = l->w->rows, first = panel * ROWS;
    size_t n = rows - first < ROWS ? rows - first : ROWS;
    float *out = l->out + token * rows + first;
    float y[ROWS];
    memcpy(y, sums, sizeof y);
    if (l->bias)
        for (size_t i = 0; i < n; i++)
            y[i] += l->bias[first + i];
    if (l->add)
        for (size_t i = 0; i < n; i++)
            y[i] = out[i] + y[i];
    memcpy(out, y, n * sizeof *y);
}

/* --- few tokens -------------------------------------------------------- */

static const void *group_at(const struct job *job, bool block, size_t t)
{
    if (block) return job->cpu->runs + t * (job->cols / RUN);
    return (const float *)job->floats + t * job->cols;
}

static void chunk_fused(const struct job *job, const struct linear *l,
                        size_t first, size_t panels)
{
    const struct kernels *k = job->cpu->kernels;
    const struct cpu_weight *w = (const struct cpu_weight *)l->w;
    bool block = dtype_is_block(w->plain.type);
    float sums[PANELS_MAX * 4 * ROWS];
    for (size_t t = 0, n; t < job->tokens; t += n) {
        n = group_tokens(job, block, job->tokens - t);
        struct tile tile = {
            .type = w->plain.type,
            .panels = (const char *)w->panels + first * w->panel_bytes,
            .panel_stride = w->panel_bytes,
            .panel_count = panels,
            .cols = job->cols,
            .x = group_at(job, block, t),
            .sums = sums,
        };
        k->fused(&tile, n);
        for (size_t p = 0; p < panels; p++)
            for (size_t i = 0; i < n; i++)
                result_store(l, first + p, t + i, sums + (p * n + i) * ROWS);
    }
}

/* --- many tokens ------------------------------------------------------- */

/* A chunk's panels first .. of l and tokens [t0, t1). */
struct chunk {
    const struct job *job;
    const struct linear *l;
    struct scratch *s;
    size_t first, panels, t0, t1;
};

static const char *panel_at(const struct chunk *c, size_t p)
{
    const struct cpu_weight *w = (const struct cpu_weight *)c->l->w;
    return (const char *)w->panels + (c->first + p) * w->panel_bytes;
}

/* Whether panel p has all its rows: then its results are stored at once. */
static bool is_whole(const struct chunk *c, size_t p)
{
    return (c->first + p + 1) * ROWS <= c->l->w->rows;
}

/* The sums of panel p for the group at token t, in columns [from, to). */
static struct tile_sums sums_at(const struct chunk *c, size_t p, size_t t,
                                size_t from, size_t to)
{
    size_t row = (c->first + p) * ROWS, rows = c->l->w->rows;
    struct tile_sums sums = {.sums = c->s->sums[p][t - c->t0],
                             .first = from == 0};
    if (to == c->job->cols && is_whole(c, p)) {
        sums.out = c->l->out + t * rows + row;
        sums.stride = rows;
        sums.bias = c->l->bias ? c->l->bias + row : NULL;
        sums.add = c->l->add;
    }
    return sums;
}

/* With few tokens the next slab's way from memory takes longer than this
 * slab's arithmetic, so it is asked for piece by piece meanwhile: piece i of
 * n of the next columns of each panel. */
static void slab_prefetch(const struct chunk *c, size_t to, size_t i, size_t n)
{
    size_t bytes = ((const struct cpu_weight *)c->l->w)->panel_bytes;
    size_t left = c->job->cols - to;
    if (left > SLAB_RUNS * RUN) left = SLAB_RUNS * RUN;
    size_t begin = bytes * to / c->job->cols;
    size_t size = bytes * left / c->job->cols;
    for (size_t p = 0; p < c->panels; p++) {
        const char *next = panel_at(c, p) + begin;
        for (size_t at = size * i / n; at < size * (i + 1) / n; at += 64)
            __builtin_prefetch(next + at, 0, 2);
    }
}

/* Columns [from, to) of up to two panels, p and p + 1, all groups. */
static void slab_blocks(const struct chunk *c, size_t p, size_t panels,
                        size_t from, size_t to)
{
    const struct kernels *k = c->job->cpu->kernels;
    size_t tokens = c->t1 - c->t0;
    const struct wrun *w[2] = {c->s->slab.runs[p],
                               c->s->slab.runs[p + panels - 1]};
    for (size_t t = c->t0, n; t < c->t1; t += n) {
        n = group_tokens(c->job, true, c->job->tokens - t);
        struct tile_sums sums[2] = {sums_at(c, p, t, from, to),
                                    sums_at(c, p + panels - 1, t, from, to)};
        const struct xrun *x = group_at(c->job, true, t);
        if (tokens <= PREFETCH_TOKENS) {
            size_t part = p / 2 * tokens + t - c->t0;
            size_t parts = (c->panels + 1) / 2 * tokens;
            for (size_t i = part; i < part + n; i++)
                slab_prefetch(c, to, i, parts);
        }
        k->tile_blocks(c->l->w->type, w, panels, (to - from) / RUN,
                       x + from / RUN * n, n, sums);
    }
}

static void slab_floats(const struct chunk *c, const float *const w[2],
                        size_t p, size_t panels, size_t from, size_t to)
{
    const struct kernels *k = c->job->cpu->kernels;
    for (size_t t = c->t0, n; t < c->t1; t += n) {
        n = group_tokens(c->job, false, c->job->tokens - t);
        struct tile_sums sums[2] = {sums_at(c, p, t, from, to),
                                    sums_at(c, p + panels - 1, t, from, to)};
        const float *x = group_at(c->job, false, t);
        k->tile_floats(w, panels, to - from, x + from * n, n, sums);
    }
}

static void chunk_blocks(const struct chunk *c)
{
    const struct kernels *k = c->job->cpu->kernels;
    for (size_t from = 0, to; from < c->job->cols; from = to) {
        to = from + SLAB_RUNS * RUN;
        if (to > c->job->cols) to = c->job->cols;
        for (size_t p = 0; p < c->panels; p++)
            k->unpack_blocks(c->l->w->type, panel_at(c, p), from, to - from,
                             c->s->slab.runs[p]);
        for (size_t p = 0; p < c->panels; p += 2)
            slab_blocks(c, p, c->panels - p > 1 ? 2 : 1, from, to);
    }
}

static void chunk_floats(const struct chunk *c)
{
    const struct kernels *k = c->job->cpu->kernels;
    for (size_t from = 0, to; from < c->job->cols; from = to) {
        to = from + SLAB_COLS;
        if (to > c->job->cols) to = c->job->cols;
        const float *slab[CHUNK_PANELS + 1];
        for (size_t p = 0; p < c->panels; p++) {
            const char *panel = panel_at(c, p);
            slab[p] = c->s->slab.floats[p];
            if (c->l->w->type == DTYPE_F32)
                slab[p] = (const float *)(const void *)panel + from * ROWS;
            else
                k->unpack_floats(c->l->w->type, panel, from, to - from,
                                 c->s->slab.floats[p]);
        }
        slab[c->panels] = slab[c->panels - 1];
        for (size_t p = 0; p < c->panels; p += 2)
            slab_floats(c, slab + p, p, c->panels - p > 1 ? 2 : 1, from, to);
    }
}

static void chunk_many(const struct job *job, const struct linear *l,
                       struct scratch *s, size_t first, size_t panels)
{
    struct chunk c = {job, l, s, first, panels, 0, 0};
    for (; c.t0 < job->tokens; c.t0 = c.t1) {
        c.t1 = job->tokens - c.t0 < BLOCK_TOKENS ? job->tokens
                                                 : c.t0 + BLOCK_TOKENS;
        if (dtype_is_block(l->w->type))
            chunk_blocks(&c);
        else
            chunk_floats(&c);
        size_t p = panels - 1; /* only a matrix's last panel has fewer rows */
        for (size_t t = c.t0; !is_whole(&c, p) && t < c.t1; t++)
            result_store(l, first + p, t, s->sums[p][t - c.t0]);
    }
}

/* --- the whole --------------------------------------------------------- */

static size_t panel_count(const struct linear *l)
{
    return ((const struct cpu_weight *)l->w)->panel_count;
}

static size_t chunk_count(const struct job *job, const struct linear *l)
{
    return (panel_count(l) + job->chunk_panels - 1) / job->chunk_panels;
}

static void chunk_run(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    const struct linear *l = job->list;
    for (size_t n; chunk >= (n = chunk_count(job, l)); l++)
        chunk -= n;
    size_t first = chunk * job->chunk_panels;
    size_t panels = panel_count(l) - first;
    if (panels > job->chunk_panels) panels = job->chunk_panels;
    if (job->few)
        chunk_fused(job, l, first, panels);
    else
        chunk_many(job, l, cpu_scratch(job->cpu, worker), first, panels);
}

void cpu_linear(struct device *dev, const float *x, size_t tokens,
                const struct linear *list, size_t count)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct job job = {.cpu = cpu,
                      .x = x,
                      .floats = cpu->floats,
                      .tokens = tokens,
                      .cols = list->w->cols,
                      .list = list,
                      .count = count,
                      .few = tokens <= cpu->kernels->fused_tokens};
    assert(tokens <= cpu->rows && job.cols <= cpu->cols); /* device_reserve */

    bool blocks = false, floats = false;
    size_t panels = 0, chunks = 0;
    for (size_t i = 0; i < count; i++) {
        *(dtype_is_block(list[i].w->type) ? &blocks : &floats) = true;
        panels += panel_count(&list[i]);
    }
    size_t prepare = (tokens + PREPARE_TOKENS - 1) / PREPARE_TOKENS;
    if (blocks) pool_run(cpu->pool, prepare_runs, &job, prepare);
    if (floats && tokens == 1)
        job.floats = x;
    else if (floats)
        pool_run(cpu->pool, prepare_floats, &job, prepare);

    /* Large chunks are many streams and few takes; a few for each worker
     * keep them all busy to the end. */
    job.chunk_panels = job.few ? PANELS_MAX : CHUNK_PANELS;
    size_t share = panels / ((size_t)dev->threads * 4);
    while (job.chunk_panels > 2 && job.chunk_panels > share)
        job.chunk_panels /= 2;
    for (size_t i = 0; i < count; i++)
        chunks += chunk_count(&job, &list[i]);
    pool_run(cpu->pool, chunk_run, &job, chunks);
}
