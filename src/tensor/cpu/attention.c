/* op_attention: who computes what.
 *
 * A task is some rows of one sequence: of a decode step all or some kv heads
 * of its token (they lie side by side in the cache and are read together),
 * otherwise a tile of up to ATTEND_TILE rows of one kv head, so that a segment
 * of K and V is made ready once for all of them. A task is one chunk of work,
 * or, where that would keep a worker busy while others wait, one chunk for
 * each segment of its KV. Then who finishes the last one merges the parts, in
 * the same order as one worker would have. */
#include "tensor/cpu/cpu.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum {
    CHUNKS_EACH = 4, /* a task that is more of a worker's share is split */
    TILE_COST = 64,  /* so many rows of a tile cost what a kv head of a decode
                        step does */
    READ_RATIO = 2,  /* reading K and V of 16 bits or more takes longer than
                        using them for so many heads */
};

size_t attention_scratch_bytes(void)
{
    return sizeof(struct attend_scratch);
}

static size_t up_div(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

/* --- planning ---------------------------------------------------------- */

struct job {
    struct cpu *cpu;
    float *out;
    const struct query *query;
    const struct op_kv *kv;
    const struct op_seq *seqs;
    size_t seq_count, ratio, window;
    size_t group;  /* kv heads of a decode step's task */
    size_t tile;   /* rows of a tile, at most */
    size_t chunks; /* in all */
};

static bool is_direct(const struct job *job, const struct op_seq *seq)
{
    return seq->rows == 1 && job->kv->head_dim % 32 == 0 &&
           job->ratio <= ATTEND_ROWS;
}

/* Segments that rows of seq see: [from, to). */
static struct span seq_segments(const struct job *job, const struct op_seq *seq,
                                size_t first_row, size_t rows)
{
    size_t seen = seq->kv_len - seq->rows + first_row + 1;
    size_t from = job->window && seen > job->window ? seen - job->window : 0;
    return (struct span){from / SEGMENT, up_div(seen + rows - 1, SEGMENT)};
}

static size_t seq_tiles(const struct job *job, const struct op_seq *seq)
{
    return up_div(seq->rows * job->ratio, job->tile);
}

static size_t seq_tasks(const struct job *job, const struct op_seq *seq)
{
    size_t g = job->kv->kv_heads;
    if (seq->rows == 0) return 0;
    return is_direct(job, seq) ? up_div(g, job->group)
                               : seq_tiles(job, seq) * g;
}

static size_t task_cost(const struct job *job, const struct op_seq *seq)
{
    struct span s = seq_segments(job, seq, 0, seq->rows);
    size_t rows = seq->rows * job->ratio;
    if (rows > job->tile) rows = job->tile;
    return (s.to - s.from) *
           (is_direct(job, seq) ? job->group : up_div(rows, TILE_COST));
}

/* As many kv heads in a task as leave a chunk for each worker: those of a token
 * lie side by side, and fewer of them are slower to read. So two workers with
 * half of the heads each, which both have lines of the other's fetched, are not
 * faster than one where reading takes longer than computing; the other one
 * rather reads ahead. */
static size_t choose_group(const struct job *job)
{
    size_t ready = 0, segments = 0, g = job->kv->kv_heads, group = g;
    for (const struct op_seq *s = job->seqs; s < job->seqs + job->seq_count;
         s++) {
        struct span span = seq_segments(job, s, 0, s->rows);
        if (is_direct(job, s))
            segments += span.to - span.from;
        else
            ready += seq_tiles(job, s) * g;
    }
    size_t want = (size_t)job->cpu->device.threads;
    if (want == 2 && job->ratio <= READ_RATIO && job->kv->type != DTYPE_KV8)
        want = 1;
    while (group > 1 && (group * job->ratio > ATTEND_ROWS ||
                         ready + segments * up_div(g, group) < want))
        group = (group + 1) / 2;
    return group;
}

/* The largest that leave each worker some. */
static void choose_tile(struct job *job)
{
    size_t want = CHUNKS_EACH * (size_t)job->cpu->device.threads, tasks;
    for (job->tile = ATTEND_TILE; job->tile > ATTEND_ROWS; job->tile /= 2) {
        tasks = 0;
        for (size_t i = 0; i < job->seq_count; i++)
            if (!is_direct(job, &job->seqs[i]))
                tasks += seq_tiles(job, &job->seqs[i]) * job->kv->kv_heads;
        if (tasks >= want) break;
    }
}

/* Gives seq's tasks room for the parts of their segments, if there is. */
static void plan_split(struct job *job, const struct op_seq *seq,
                       struct attend_plan *plan, size_t *floats,
                       size_t *counters)
{
    size_t rows =
        is_direct(job, seq) ? job->group * job->ratio : seq->rows * job->ratio;
    if (!is_direct(job, seq) && rows > job->tile) rows = job->tile;
    struct span s = seq_segments(job, seq, 0, seq->rows);
    size_t segments = s.to - s.from;
    if (segments < 2) return; /* nothing to merge */
    size_t size = rows * ATTEND_PART(job->kv->head_dim);
    size_t all = plan->tasks * segments * size;
    if (all > PARTIALS_BYTES / sizeof(float) - *floats ||
        plan->tasks > ATTEND_COUNTERS - *counters)
        return;
    plan->segments = segments;
    plan->part_floats = size;
    plan->parts = job->cpu->partials + *floats;
    plan->done = job->cpu->counters + *counters;
    *floats += all;
    *counters += plan->tasks;
}

static void plan_all(struct job *job)
{
    struct attend_plan *plans = job->cpu->plans;
    size_t threads = (size_t)job->cpu->device.threads, cost = 0;
    size_t floats = 0, counters = 0;
    choose_tile(job);
    job->group = choose_group(job);
    for (size_t i = 0; i < job->seq_count; i++)
        cost += seq_tasks(job, &job->seqs[i]) * task_cost(job, &job->seqs[i]);
    for (size_t i = 0; i < job->seq_count; i++) {
        const struct op_seq *seq = &job->seqs[i];
        plans[i] = (struct attend_plan){
            .chunk = job->chunks, .tasks = seq_tasks(job, seq), .segments = 1};
        if (threads > 1 && task_cost(job, seq) > cost / (CHUNKS_EACH * threads))
            plan_split(job, seq, &plans[i], &floats, &counters);
        job->chunks += plans[i].tasks * plans[i].segments;
    }
}

/* --- running ----------------------------------------------------------- */

/* In a head the last rows come first: they see most and should not start
 * last. */
static struct attend tile_at(const struct job *job, const struct op_seq *seq,
                             size_t task)
{
    size_t tiles = seq_tiles(job, seq), rows = seq->rows * job->ratio;
    size_t first = (tiles - 1 - task % tiles) * job->tile;
    return (struct attend){
        .head = task / tiles,
        .per_token = job->ratio,
        .first = first,
        .count = rows - first < job->tile ? rows - first : job->tile,
    };
}

static struct attend direct_at(const struct job *job, size_t task)
{
    size_t head = task * job->group, left = job->kv->kv_heads - head;
    size_t rows = (left < job->group ? left : job->group) * job->ratio;
    return (struct attend){
        .head = head, .per_token = rows, .count = rows, .direct = true};
}

static struct attend task_at(const struct job *job, const struct op_seq *seq,
                             size_t task, int worker)
{
    size_t d = job->kv->head_dim;
    struct attend a =
        is_direct(job, seq) ? direct_at(job, task) : tile_at(job, seq, task);
    const struct query *query = job->query;
    size_t at = (seq->first_row * query->heads + a.head * job->ratio) * d;
    a.call = job->cpu->attends;
    a.q = query->q + at;
    a.turn = query->turn;
    a.cs = job->cpu->rope.cs + seq->first_row * OP_HEAD_DIM_MAX;
    a.out = job->out + at;
    a.token_stride = query->heads * d;
    a.ratio = job->ratio;
    a.seen = seq->kv_len - seq->rows + 1;
    a.window = job->window;
    a.scale = query->scale;
    a.kv = job->kv;
    a.pages = seq->pages;
    a.scratch = cpu_scratch(job->cpu, worker);
    return a;
}

/* The last plan that begins at or before chunk. */
static size_t plan_of(const struct job *job, size_t chunk)
{
    size_t low = 0, high = job->seq_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (job->cpu->plans[middle].chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Whose K comes behind a decode step's task of all heads: a worker takes chunks
 * in order, so most likely that of the next sequence. */
static void then_set(const struct job *job, size_t seq, struct attend *a)
{
    if (!a->direct || job->group < job->kv->kv_heads ||
        seq + 1 == job->seq_count)
        return;
    const struct op_seq *then = &job->seqs[seq + 1];
    if (!is_direct(job, then)) return;
    size_t seen = then->kv_len, window = job->window;
    a->then_pages = then->pages;
    a->then.from = window && seen > window ? seen - window : 0;
    a->then.to = seen;
}

static void chunk_run(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    if (chunk >= job->chunks) return;
    size_t i = plan_of(job, chunk);
    const struct attend_plan *plan = &job->cpu->plans[i];
    const struct op_seq *seq = &job->seqs[i];
    size_t task = (chunk - plan->chunk) % plan->tasks;
    struct attend a = task_at(job, seq, task, worker);
    then_set(job, i, &a);
    if (!plan->parts) {
        job->cpu->kernels->attention->run(&a);
        return;
    }
    struct span all = seq_segments(job, seq, 0, seq->rows);
    struct span own = seq_segments(job, seq, a.first / a.per_token,
                                   (a.first + a.count - 1) / a.per_token -
                                       a.first / a.per_token + 1);
    float *parts = plan->parts + task * plan->segments * plan->part_floats;
    a.segment = all.from + (chunk - plan->chunk) / plan->tasks;
    if (a.segment >= own.from && a.segment < own.to) {
        a.parts = parts + (a.segment - own.from) * a.count *
                              ATTEND_PART(job->kv->head_dim);
        job->cpu->kernels->attention->run(&a);
    }
    if (atomic_fetch_add(&plan->done[task], 1) + 1 < plan->segments) return;
    atomic_store_explicit(&plan->done[task], 0, memory_order_relaxed);
    a.parts = parts;
    job->cpu->kernels->attention->merge(&a);
}

void cpu_attention(struct device *dev, float *out, const struct query *query,
                   const struct op_kv *kv, const struct op_seq *seqs,
                   size_t seq_count)
{
    struct cpu *cpu = (struct cpu *)dev;
    assert(seq_count <= cpu->rows); /* device_reserve */
    struct job job = {.cpu = cpu,
                      .out = out,
                      .query = query,
                      .kv = kv,
                      .seqs = seqs,
                      .seq_count = seq_count,
                      .ratio = query->heads / kv->kv_heads,
                      .window = query->window};
    if (query->turn) cpu_sines(cpu, query->turn, seqs, seq_count);
    cpu->attends++;
    plan_all(&job);
    /* At least one for each worker: who has none reads ahead at once. */
    size_t threads = (size_t)cpu->device.threads;
    pool_run(cpu->pool, chunk_run, &job,
             job.chunks < threads ? threads : job.chunks);
}
