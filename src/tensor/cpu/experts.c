/* op_experts: expert by expert, the rows that chose it side by side.
 *
 * An expert's products run on its rows alone, and a row of a product does not
 * see the others; what an expert adds to a row is added in ascending order of
 * experts. So a row's sum is the same in any batch. A single row takes all
 * its experts' gates in one product, since they share the input. */
#include "tensor/cpu/cpu.h"

#include <assert.h>
#include <string.h>

enum { MOVE_ROWS = 8 }; /* rows that a worker gathers or adds at a time */

struct job {
    struct cpu *cpu;
    const struct experts *e;
    const uint32_t *ids;  /* [tokens, used] */
    const float *weights; /* [tokens, used] */
    size_t n, f;          /* columns of x; of the gates */
    float *x;
    const float *y;
    size_t count;     /* rows that chose the expert */
    uint32_t *pairs;  /* [count] index into ids and weights */
    float *rows;      /* [count, n] what was gathered, then what is added */
    float *gate, *up; /* [count, f] */
};

static size_t chunk_end(const struct job *job, size_t chunk)
{
    size_t end = (chunk + 1) * MOVE_ROWS;
    return end < job->count ? end : job->count;
}

static void gather(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct job *job = arg;
    for (size_t i = chunk * MOVE_ROWS; i < chunk_end(job, chunk); i++)
        memcpy(job->rows + i * job->n,
               job->y + job->pairs[i] / job->e->used * job->n,
               job->n * sizeof *job->y);
}

/* No two rows of a job are the same token's. */
static void scatter(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct job *job = arg;
    for (size_t i = chunk * MOVE_ROWS; i < chunk_end(job, chunk); i++) {
        float *to = job->x + job->pairs[i] / job->e->used * job->n;
        const float *from = job->rows + i * job->n;
        float weight = job->weights[job->pairs[i]];
        for (size_t c = 0; c < job->n; c++)
            to[c] += weight * from[c];
    }
}

static void move(struct job *job, void (*fn)(void *, size_t, int))
{
    pool_run(job->cpu->pool, fn, job, (job->count + MOVE_ROWS - 1) / MOVE_ROWS);
}

static void run_expert(struct job *job, uint32_t expert)
{
    struct device *dev = &job->cpu->device;
    const struct linear gate_up[] = {
        {job->gate, job->e->gate[expert], NULL, false},
        {job->up, job->e->up[expert], NULL, false}};
    const struct linear down = {job->rows, job->e->down[expert], NULL, false};
    move(job, gather);
    const struct input in = {.x = job->rows};
    const struct input silu = {.x = job->gate, .up = job->up};
    dev->ops->linear(dev, &in, job->count, gate_up, 2);
    dev->ops->linear(dev, &silu, job->count, &down, 1);
    move(job, scatter);
}

static void run_one_row(struct job *job)
{
    enum { MOST = 16 }; /* experts in one product */
    struct device *dev = &job->cpu->device;
    const uint32_t used = job->e->used;
    struct linear list[2 * MOST];
    for (uint32_t first = 0, n; first < used; first += n) {
        n = used - first < MOST ? used - first : MOST;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t id = job->ids[first + i];
            list[i] = (struct linear){job->gate + i * job->f, job->e->gate[id],
                                      NULL, false};
            list[n + i] = (struct linear){job->up + i * job->f, job->e->up[id],
                                          NULL, false};
        }
        const struct input in = {.x = job->y};
        dev->ops->linear(dev, &in, 1, list, 2 * n);
        for (uint32_t i = 0; i < n; i++) {
            const struct linear down = {
                job->rows, job->e->down[job->ids[first + i]], NULL, false};
            const struct input silu = {.x = job->gate + i * job->f,
                                       .up = job->up + i * job->f};
            dev->ops->linear(dev, &silu, 1, &down, 1);
            job->pairs[0] = first + i;
            scatter(job, 0, 0);
        }
    }
}

void cpu_experts(struct device *dev, float *x, const float *y,
                 const float *scores, size_t tokens, const struct experts *e,
                 float *room)
{
    const size_t most = tokens > e->used ? tokens : e->used;
    struct job job = {.cpu = (struct cpu *)dev,
                      .e = e,
                      .n = weight_cols(e->gate[0]),
                      .f = weight_rows(e->gate[0]),
                      .x = x,
                      .y = y,
                      .rows = room};
    job.gate = job.rows + most * job.n;
    job.up = job.gate + most * job.f;
    float *weights = job.up + most * job.f;
    uint32_t *ids = (uint32_t *)(weights + tokens * e->used);
    job.pairs = ids + tokens * e->used;
    job.ids = ids;
    job.weights = weights;
    experts_choose(e, scores, tokens, ids, weights);
    if (tokens == 1) {
        job.count = 1;
        run_one_row(&job);
        return;
    }
    for (uint32_t expert = 0; expert < e->count; expert++) {
        job.count = 0;
        for (size_t i = 0; i < tokens * e->used; i++)
            if (ids[i] == expert) job.pairs[job.count++] = (uint32_t)i;
        if (job.count) run_expert(&job, expert);
    }
}
