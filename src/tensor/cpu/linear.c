/* op_linear: who computes what. Rows of the weights are cut into chunks of
 * whole panels, which the workers share; a chunk is computed for all tokens (or
 * a large block of them), so that weights are read from memory once.
 *
 * Few tokens (a decode step): chunks stream by, many in a row. Many tokens: a
 * slab of columns of a few panels, which fits the first level cache, or several
 * slabs, which fit the second (long_tile_slabs), are multiplied with one group
 * of tokens after another. */
#include "tensor/cpu/cpu.h"

#include <assert.h>
#include <string.h>

enum {
    CHUNK_PANELS = PANELS_MAX,
    STREAM_CHUNK = 4, /* of few tokens: of these a worker takes many at once */
    /* Tokens whose sums a worker keeps. */
    BLOCK_TOKENS = 516,
    LEAST_TOKENS = 48,
    OWN_TOKENS = 128, /* see job_cut */
};

struct scratch {
    struct slab_room room[CHUNK_PANELS];
    float sums[BLOCK_TOKENS][CHUNK_PANELS][ROWS];
};

/* That, or before it some rows that are made. */
size_t linear_scratch_bytes(size_t cols)
{
    size_t rows = ACTS_ROWS * cols * sizeof(float);
    return rows > sizeof(struct scratch) ? rows : sizeof(struct scratch);
}

/* Of a weight that is not packed yet a worker packs a few panels at a time,
 * behind struct scratch: whole chunks, and as many as its second level cache
 * takes. */
enum { LATER_AT = (sizeof(struct scratch) + 63) / 64 * 64 };
enum { LATER_BYTES = 256 << 10 };

static size_t later_panels(const struct cpu_weight *w)
{
    size_t n = LATER_BYTES / w->panel_bytes;
    return n > CHUNK_PANELS ? n : CHUNK_PANELS;
}

size_t linear_later_bytes(const struct cpu_weight *w)
{
    return LATER_AT + later_panels(w) * w->panel_bytes;
}

/* All products of a list that take their activations alike. */
struct job {
    struct cpu *cpu;
    const struct input *x;
    struct acts acts;
    size_t tokens, cols, slabs;
    const struct linear *list;
    size_t count;
    bool few;
    size_t chunk_panels, chunks; /* of all products             */
    size_t block_tokens, blocks;
    bool own_blocks; /* each worker has whole blocks */
};

static size_t parts_of(size_t all, size_t most)
{
    return (all + most - 1) / most;
}

static bool is_few(const struct job *job)
{
    return job->tokens <= job->cpu->kernels->few[job->acts.kind];
}

/* --- groups of tokens -------------------------------------------------- */

/* All tokens at once. */
static bool is_batch(const struct job *job)
{
    return job->few && job->cpu->kernels->batch && job->tokens >= BATCH_LEAST;
}

static const struct groups *job_groups(const struct job *job)
{
    const struct kernels *k = job->cpu->kernels;
    enum acts_kind kind = job->acts.kind;
    bool grouped = kind == ACTS_INT8 && job->acts.group <= GROUP_MOST;
    if (is_batch(job)) return &k->batches[grouped];
    return &(job->few ? k->streams : k->tiles)[kind];
}

/* How many tokens are the next group when so many are left. Weights come from
 * memory for a stream's first group: that is rather a larger one with tokens
 * that are not there. */
static size_t group_tokens(const struct job *job, size_t left)
{
    const uint8_t *sizes = job_groups(job)->sizes;
    if (is_batch(job)) return batch_group_tokens(left, *sizes);
    bool first = job->few && left == job->tokens;
    if (first && left <= *sizes) {
        while (sizes[1] >= left)
            sizes++;
        return *sizes;
    }
    while (*sizes > left)
        sizes++;
    return *sizes;
}

/* Marks of a token in a slab of columns. */
static size_t slab_marks(const struct job *job)
{
    size_t group = job->acts.kind == ACTS_INT8 ? job->acts.group : 0;
    return group == 0 ? 0 : group >= job->cols ? 1 : 4 * SLAB_STEPS / group;
}

/* The group of n tokens at t. Many tokens: all of a slab lie together, [slabs]
 * [tokens]. Few: all slabs of a group do, since it streams through them. */
static struct acts_room room_at(const struct job *job, size_t t, size_t n)
{
    struct cpu *cpu = job->cpu;
    size_t marks = slab_marks(job), word_bytes = SLAB_STEPS * 4;
    size_t each = job->few ? job->slabs : 1,
           together = job->few ? n : job->tokens;
    return (struct acts_room){(char *)cpu->words + t * each * word_bytes,
                              cpu->marks + t * each * marks,
                              together * word_bytes,
                              together * marks,
                              n * 4,
                              n};
}

/* Of that group's i-th token. */
static struct acts_room token_room(const struct job *job, size_t t, size_t n,
                                   size_t i)
{
    struct acts_room room = room_at(job, t, n);
    size_t apart = 4;
    if (job_groups(job)->by_token) {
        apart = SLAB_STEPS * 4;
        room.words_step = 4;
    }
    room.words = (char *)room.words + i * apart;
    room.marks += i;
    return room;
}

/* Of the block that begins there: groups do not go beyond it. */
static size_t block_end(const struct job *job, size_t begin)
{
    size_t end = begin + job->block_tokens;
    return end < job->tokens ? end : job->tokens;
}

/* A chunk of preparation: of many tokens whole groups; of few as many rows as
 * are made ready at a time, so that all workers have some. */
enum { PREPARE_TOKENS = 12 };

static size_t prepare_tokens(const struct job *job)
{
    size_t most = job_groups(job)->sizes[0];
    if (job->few) return ACTS_ROWS;
    return most > PREPARE_TOKENS ? most : PREPARE_TOKENS / most * most;
}

/* Rows [t, t + n) of the input, in room where they have to be made: the second
 * level cache has them still when they are rounded. */
static const float *rows_of(const struct job *job, size_t t, size_t n,
                            float *room)
{
    const struct kernels *k = job->cpu->kernels;
    const struct input *x = job->x;
    size_t cols = job->cols, at = t * cols;
    if (x->up)
        k->silu_mul(room, x->x + at, x->up + at, n * cols);
    else if (x->gain)
        for (size_t i = 0; i < n; i++)
            k->rmsnorm(room + i * cols, x->x + at + i * cols, x->gain, cols,
                       x->eps);
    else
        return x->x + at;
    return room;
}

/* n rows, of which only some are there, at x: the last one instead of those
 * that are not. */
static const float *rows_fill(const struct job *job, const float *x,
                              size_t some, size_t n, float *room)
{
    size_t row = job->cols * sizeof *x;
    if (some == n) return x;
    if (x != room) memcpy(room, x, some * row);
    for (size_t i = some; i < n; i++)
        memcpy(room + i * job->cols, room + (some - 1) * job->cols, row);
    return room;
}

/* A group of tokens, of those before last; some may not be there. */
struct group {
    size_t first, n, last;
};

static void group_next(const struct job *job, struct group *g)
{
    g->first += g->n;
    g->n = g->first < g->last ? group_tokens(job, g->last - g->first) : 0;
}

/* Where up to ACTS_ROWS rows from t on go. How many there are. */
static size_t rooms_find(const struct job *job, struct group *g, size_t t,
                         struct acts_room to[ACTS_ROWS])
{
    size_t n = 0;
    for (; n < ACTS_ROWS; n++, t++) {
        while (g->n && t >= g->first + g->n)
            group_next(job, g);
        if (!g->n) break;
        to[n] = token_room(job, g->first, g->n, t - g->first);
    }
    return n;
}

static void prepare(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    const struct kernels *k = job->cpu->kernels;
    float *room = cpu_scratch(job->cpu, worker);
    size_t each = prepare_tokens(job),
           parts = parts_of(job->block_tokens, each);
    size_t begin = chunk / parts * job->block_tokens;
    size_t last = block_end(job, begin), t = begin + chunk % parts * each, n;
    struct group g = {.first = job->few ? begin : t, .last = last};
    group_next(job, &g);
    for (size_t end = t + each; t < end && t < last; t += n) {
        struct acts_room to[ACTS_ROWS];
        n = rooms_find(job, &g, t, to);
        if (n > end - t) n = end - t;
        size_t some = n < last - t ? n : last - t;
        const float *x =
            rows_fill(job, rows_of(job, t, some, room), some, n, room);
        if (job->acts.kind == ACTS_INT8)
            k->acts_int8(to, x, n, job->cols, job->acts.group);
        else if (job->acts.kind == ACTS_BF16 && k->bf16)
            k->acts_bf16(to, x, n, job->cols);
        else
            k->acts_floats(to, x, n, job->cols, job->acts.kind == ACTS_BF16);
    }
    assert(t < last || !g.n || t >= g.first + g.n); /* so are those not there */
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

static const struct cpu_weight *weight_of(const struct linear *l)
{
    return (const struct cpu_weight *)l->w;
}

static const char *panel_at(const struct linear *l, size_t panel)
{
    const struct cpu_weight *w = weight_of(l);
    return (const char *)w->panels + panel * w->panel_bytes;
}

/* Panels first .. first + count - 1, at most later_panels where they are not
 * packed yet. */
static const char *panels_of(const struct job *job, const struct linear *l,
                             size_t first, size_t count, int worker)
{
    if (first + count <= weight_of(l)->packed) return panel_at(l, first);
    char *room = (char *)cpu_scratch(job->cpu, worker) + LATER_AT;
    cpu_panels_pack(job->cpu, weight_of(l), first, count, room);
    return room;
}

/* --- few tokens -------------------------------------------------------- */

static void panels_stream(const struct job *job, const struct linear *l,
                          size_t first, size_t panels, const char *at)
{
    size_t rows = l->w->rows, row = first * ROWS, last = first + panels - 1;
    const struct kernels *k = job->cpu->kernels;
    bool batch = is_batch(job);
    float part[BATCH_TOKENS * ROWS];
    for (size_t t = 0, n; t < job->tokens; t += n) {
        size_t left = job->tokens - t;
        n = batch ? left : group_tokens(job, left);
        struct acts_room x = room_at(job, t, n);
        struct stream s = {
            .many_lines = job->cpu->many_lines,
            .type = l->w->type,
            .panels = at,
            .panel_bytes = weight_of(l)->panel_bytes,
            .panel_count = panels,
            .cols = job->cols,
            .tokens = n,
            .results = n < left ? n : left,
            .group = job_groups(job)->sizes[0],
            .words = x.words,
            .marks = x.marks,
            .words_stride = job->slabs * SLAB_STEPS * 4,
            .marks_stride = job->slabs * slab_marks(job),
            .out = l->out + t * rows + row,
            .stride = rows,
            .rows = rows - row,
            .bias = l->bias ? l->bias + row : NULL,
            .add = l->add,
            .part = part,
        };
        (batch ? k->batch : k->stream)(&s);
        if (rows - last * ROWS < ROWS)
            for (size_t i = 0; i < s.results; i++)
                result_store(l, last, t + i, part + i * ROWS);
    }
}

static void chunk_stream(const struct job *job, const struct linear *l,
                         size_t first, size_t panels, int worker)
{
    const struct cpu_weight *w = weight_of(l);
    for (size_t end = first + panels, n; first < end; first += n) {
        n = end - first;
        if (end > w->packed && first < w->packed) n = w->packed - first;
        if (first >= w->packed && n > later_panels(w)) n = later_panels(w);
        panels_stream(job, l, first, n, panels_of(job, l, first, n, worker));
    }
}

/* --- many tokens ------------------------------------------------------- */

/* A chunk's panels first .. of l and tokens [t0, t1). */
struct chunk {
    const struct job *job;
    const struct linear *l;
    struct scratch *s;
    const char *at; /* the first panel */
    size_t first, panels, t0, t1;
    enum form form;
    size_t tile_panels;
    struct slab slabs[CHUNK_PANELS]; /* columns [from, to) */
    size_t from, to;
    struct slab_ahead ahead;
};

/* Whether panel p has all its rows: then its results are stored at once. */
static bool is_whole(const struct chunk *c, size_t p)
{
    return p < c->panels && (c->first + p + 1) * ROWS <= c->l->w->rows;
}

/* A tile's sums: those of its panels lie together. */
static float *sums_at(const struct chunk *c, size_t p, size_t t, size_t n)
{
    return c->s->sums[t - c->t0][0] + p * n * ROWS;
}

/* The weights of panels p .. of a tile, and where the words, marks, sums and
 * results are of the tokens from t on of which groups are alike. Panels past
 * the chunk's last repeat it, for nothing. */
static void tile_start(struct tile *tile, struct chunk *c, size_t p, size_t t)
{
    const struct job *job = c->job;
    size_t rows = c->l->w->rows, columns = form_columns(c->form);
    size_t n = group_tokens(job, c->t1 - t);
    *tile = (struct tile){
        .steps = (c->to - c->from + columns - 1) / columns,
        .tokens = n,
        .groups = (c->t1 - t) / n,
        .token_marks = slab_marks(job),
        .sums = sums_at(c, p, t, n),
        .first = c->from == 0,
        .last = c->to == job->cols,
        .stride = rows,
        .add = c->l->add,
        .ahead = &c->ahead,
    };
    for (size_t i = 0; i < c->tile_panels; i++) {
        size_t panel = p + i < c->panels ? p + i : c->panels - 1;
        tile->w[i] = c->slabs[panel];
        if (!is_whole(c, p + i)) continue;
        size_t row = (c->first + p + i) * ROWS;
        tile->out[i] = c->l->out + t * rows + row;
        if (c->l->bias) tile->bias[i] = c->l->bias + row;
    }
    size_t slab = c->from / columns / SLAB_STEPS;
    struct acts_room x = room_at(job, t, 1);
    tile->words = (const char *)x.words + slab * x.words_stride;
    tile->words_slab = x.words_stride;
    tile->marks = x.marks;
    if (c->form != FORM_ROW) tile->marks += slab * x.marks_stride;
}

/* Behind the last slab of a chunk is the first one of the next, which is
 * mostly this worker's too. */
static struct slab_ahead ahead_of(const struct chunk *c)
{
    const struct job *job = c->job;
    const struct cpu_weight *w = weight_of(c->l);
    size_t from = c->to < job->cols ? c->to : 0, columns = c->to - c->from;
    size_t first = from ? c->first : c->first + job->chunk_panels;
    if (first >= w->packed) return (struct slab_ahead){0};
    if (columns > job->cols - from) columns = job->cols - from;
    size_t begin = w->panel_bytes * from / job->cols / STEP * STEP;
    struct slab_ahead a = {
        .panel = panel_at(c->l, first) + begin,
        .panel_bytes = w->panel_bytes,
        .lines = parts_of(w->panel_bytes * columns / job->cols, STEP),
        .panels = w->packed - first,
    };
    if (a.panels > c->panels) a.panels = c->panels;
    size_t groups = parts_of(c->t1 - c->t0, job_groups(job)->sizes[0]);
    a.lines_each = parts_of(a.lines * a.panels,
                            groups * parts_of(c->panels, c->tile_panels));
    return a;
}

/* One slab of the panels of a tile, all groups of tokens. What is taken apart
 * goes where the tile before had its own: in the first level cache. */
static void slab_tiles(struct chunk *c, size_t p)
{
    const struct kernels *k = c->job->cpu->kernels;
    for (size_t i = 0; i < c->tile_panels && p + i < c->panels; i++)
        k->unpack(c->l->w->type, c->job->cols,
                  c->at + (p + i) * weight_of(c->l)->panel_bytes, c->from,
                  c->to - c->from, &c->s->room[i], &c->slabs[p + i]);
    struct tile tile;
    for (size_t t = c->t0; t < c->t1; t += tile.tokens * tile.groups) {
        tile_start(&tile, c, p, t);
        k->tile(c->form, &tile);
    }
}

/* How many slabs tiles take at a time: many only of what is not taken apart on
 * the way. */
static size_t tile_slabs(const struct chunk *c)
{
    const struct cpu *cpu = c->job->cpu;
    enum dtype type = c->l->w->type;
    bool as_it_lies = type == DTYPE_F32 || type == DTYPE_INT8 ||
                      (type == DTYPE_BF16 && cpu->kernels->bf16);
    return as_it_lies && cpu->kernels->tiles_long ? cpu->tile_slabs : 1;
}

static void chunk_tiles(struct chunk *c)
{
    size_t cols = tile_slabs(c) * SLAB_STEPS * form_columns(c->form);
    for (c->from = 0; c->from < c->job->cols; c->from = c->to) {
        c->to = c->from + cols;
        if (c->to > c->job->cols) c->to = c->job->cols;
        c->ahead = ahead_of(c);
        for (size_t p = 0; p < c->panels; p += c->tile_panels)
            slab_tiles(c, p);
    }
}

static void chunk_many(const struct job *job, const struct linear *l,
                       size_t first, size_t panels, size_t t0, int worker)
{
    struct chunk c = {.job = job,
                      .l = l,
                      .s = cpu_scratch(job->cpu, worker),
                      .at = panels_of(job, l, first, panels, worker),
                      .first = first,
                      .panels = panels,
                      .t0 = t0,
                      .t1 = block_end(job, t0),
                      .form = kernels_form(job->cpu->kernels, l->w->type)};
    const struct kernels *k = job->cpu->kernels;
    c.tile_panels = k->tile_panels[c.form];
    if (k->tiles_begin) k->tiles_begin(c.form);
    chunk_tiles(&c);
    if (k->tiles_end) k->tiles_end();
    size_t p = panels - 1; /* only a matrix's last panel has fewer rows */
    if (is_whole(&c, p)) return;
    size_t in_tile = p % c.tile_panels;
    for (size_t t = c.t0, n; t < c.t1; t += n) {
        n = group_tokens(job, c.t1 - t);
        const float *sums = sums_at(&c, p - in_tile, t, n);
        for (size_t i = 0; i < n; i++)
            result_store(l, first + p, t + i, sums + (in_tile * n + i) * ROWS);
    }
}

/* --- the whole --------------------------------------------------------- */

static size_t panel_count(const struct linear *l)
{
    return weight_of(l)->panel_count;
}

static bool takes(const struct job *job, const struct linear *l)
{
    struct acts acts = acts_of(l->w->type, job->cols);
    return acts.kind == job->acts.kind && acts.group == job->acts.group;
}

/* Chunks of one product and one block of tokens. */
static size_t chunk_count(const struct job *job, const struct linear *l)
{
    if (!takes(job, l)) return 0;
    return (panel_count(l) + job->chunk_panels - 1) / job->chunk_panels;
}

/* The product and the first panel of the chunk-th of all. */
static const struct linear *chunk_find(const struct job *job, size_t chunk,
                                       size_t *panel)
{
    const struct linear *l = job->list;
    for (size_t n; chunk >= (n = chunk_count(job, l)); l++)
        chunk -= n;
    *panel = chunk * job->chunk_panels;
    return l;
}

/* Chunks first .. of few tokens; those that lie together at once, since they
 * stream by. But what another group of tokens reads again has to stay in
 * cache: that is a chunk at a time. */
static void chunks_stream(void *arg, size_t first, size_t count, int worker)
{
    const struct job *job = arg;
    for (size_t end = first + count, n; first < end; first += n) {
        size_t panel;
        const struct linear *l = chunk_find(job, first, &panel);
        size_t panels = panel_count(l) - panel;
        bool once =
            is_batch(job) || group_tokens(job, job->tokens) >= job->tokens;
        n = once ? parts_of(panels, job->chunk_panels) : 1;
        if (n > end - first) n = end - first;
        if (panels > n * job->chunk_panels) panels = n * job->chunk_panels;
        chunk_stream(job, l, panel, panels, worker);
    }
}

static void chunk_tile(void *arg, size_t chunk, int worker)
{
    const struct job *job = arg;
    size_t block = chunk % job->blocks, first;
    if (job->own_blocks) block = chunk / job->chunks;
    const struct linear *l = chunk_find(
        job, job->own_blocks ? chunk % job->chunks : chunk / job->blocks,
        &first);
    size_t panels = panel_count(l) - first;
    if (panels > job->chunk_panels) panels = job->chunk_panels;
    chunk_many(job, l, first, panels, block * job->block_tokens, worker);
}

/* Blocks of about the same size. Where there are tokens enough each worker has
 * its own: rows of x become words, words are multiplied, and mostly the rows
 * before and after that are computed, by one core, and lines that another one
 * has read need not be taken from it. That is worth reading the weights once a
 * block; but not on several nodes, where they lie with who reads them. */
static void job_blocks(struct job *job)
{
    size_t threads = (size_t)job->cpu->device.threads;
    size_t blocks = job->few ? 1 : parts_of(job->tokens, BLOCK_TOKENS);
    size_t own = parts_of(blocks, threads) * threads;
    job->own_blocks = !job->few && threads > 1 &&
                      pool_nodes(job->cpu->pool) == 1 &&
                      job->tokens / own >= OWN_TOKENS;
    if (job->own_blocks) blocks = own;
    job->block_tokens = parts_of(job->tokens, 2 * blocks) * 2;
    job->blocks = parts_of(job->tokens, job->block_tokens);
}

/* Chunks of panels and blocks of tokens: large ones read less, but a few for
 * each worker keep them all busy to the end. */
static void job_cut(struct job *job, size_t panels)
{
    size_t wanted = (size_t)job->cpu->device.threads * 4;
    job->chunk_panels = job->few ? STREAM_CHUNK : CHUNK_PANELS;
    while (job->few && job->chunk_panels > 2 &&
           panels / job->chunk_panels < wanted)
        job->chunk_panels /= 2;
    size_t chunks = panels / job->chunk_panels + 1, unit = prepare_tokens(job);
    job_blocks(job);
    while (!job->few && job->block_tokens / 2 > LEAST_TOKENS &&
           job->blocks * chunks < wanted) {
        job->block_tokens = job->block_tokens / 2 / unit * unit;
        job->blocks = parts_of(job->tokens, job->block_tokens);
        job->own_blocks = false;
    }
}

/* Cuts it; of each block there are so many chunks. */
static void job_chunks(struct job *job)
{
    size_t panels = 0;
    for (size_t i = 0; i < job->count; i++)
        if (takes(job, &job->list[i])) panels += panel_count(&job->list[i]);
    job_cut(job, panels);
    job->chunks = 0;
    for (size_t i = 0; i < job->count; i++)
        job->chunks += chunk_count(job, &job->list[i]);
}

static void job_run(struct job *job)
{
    struct cpu *cpu = job->cpu;
    job_chunks(job);
    size_t columns = job->acts.kind == ACTS_INT8   ? 4
                     : job->acts.kind == ACTS_BF16 ? cpu->kernels->bf16 ? 2 : 1
                                                   : 1;
    size_t steps = (job->cols + columns - 1) / columns;
    job->slabs = (steps + SLAB_STEPS - 1) / SLAB_STEPS;
    pool_run(cpu->pool, prepare, job,
             job->blocks * parts_of(job->block_tokens, prepare_tokens(job)));
    if (job->few)
        pool_run_ranges(cpu->pool, chunks_stream, job, job->chunks);
    else
        pool_run(cpu->pool, chunk_tile, job, job->blocks * job->chunks);
}

/* Of a worker's share, into its second level cache. */
enum { EXPECT_BYTES = 256 << 10 };

void cpu_expect(struct device *dev, size_t tokens, const struct linear *list,
                size_t count)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct job job = {.cpu = cpu,
                      .tokens = tokens,
                      .cols = list->w->cols,
                      .list = list,
                      .count = count,
                      .acts = acts_of(list->w->type, list->w->cols)};
    job.few = is_few(&job);
    if (!job.few) return; /* arithmetic limits those */
    size_t threads = (size_t)cpu->device.threads;
    job_chunks(&job);
    for (size_t i = 0; i < threads; i++) {
        size_t panel;
        const struct linear *l =
            chunk_find(&job, job.chunks * i / threads, &panel);
        const struct cpu_weight *w = weight_of(l);
        if (panel >= w->packed) continue;
        size_t bytes = (w->packed - panel) * w->panel_bytes;
        if (bytes > EXPECT_BYTES) bytes = EXPECT_BYTES;
        pool_ahead(cpu->pool, (int)i, panel_at(l, panel), bytes);
    }
}

void cpu_linear(struct device *dev, const struct input *x, size_t tokens,
                const struct linear *list, size_t count)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct job job = {.cpu = cpu,
                      .x = x,
                      .tokens = tokens,
                      .cols = list->w->cols,
                      .list = list,
                      .count = count};
    assert(tokens <= cpu->rows && job.cols <= cpu->cols); /* device_reserve */
    for (size_t i = 0; i < count; i++) {
        size_t before = 0;
        job.acts = acts_of(list[i].w->type, job.cols);
        job.few = is_few(&job);
        while (before < i && !takes(&job, &list[before]))
            before++;
        if (before == i) job_run(&job); /* the first of its kind: all of it */
    }
}
