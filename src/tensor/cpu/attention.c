/* op_attention and op_kv_write: who computes what.
 *
 * A tile is up to ATTEND_ROWS rows of one sequence and one kv head, so that
 * a block of K and V is loaded once for all heads of the group. Where there
 * are fewer tiles than it takes to keep the workers busy, or only few rows
 * (a decode step: then it pays to read all heads of a token's K and V at
 * about the same time), each segment of a tile is a chunk of its own, and the
 * parts are merged afterwards in the same order as one worker would have. */
#include "tensor/cpu/cpu.h"

#include <string.h>

enum { FEW_ROWS = 16 };

size_t attention_scratch_bytes(void)
{
    return sizeof(struct attend_scratch);
}

struct job {
    struct cpu *cpu;
    float *out;
    const float *q;
    const struct op_kv *kv;
    const struct op_seq *seqs;
    size_t seq_count, heads, ratio, window;
    float scale;
    size_t tiles, longest; /* all tiles; most segments of one */
    size_t part_floats;    /* of one tile's part */
};

static size_t seq_tiles(const struct job *job, const struct op_seq *seq)
{
    return (seq->rows * job->ratio + ATTEND_ROWS - 1) / ATTEND_ROWS;
}

/* Tile index: sequence by sequence, in one its last rows first (they see
 * most and should not start last), in a run of rows head by head. */
static struct attend tile_at(const struct job *job, size_t index, int worker)
{
    size_t group = job->kv->kv_heads, n;
    const struct op_seq *seq = job->seqs;
    for (; index >= (n = seq_tiles(job, seq) * group); seq++)
        index -= n;
    size_t d = job->kv->head_dim, head = index % group;
    size_t rows = seq->rows * job->ratio;
    size_t first = (seq_tiles(job, seq) - 1 - index / group) * ATTEND_ROWS;
    size_t at = (seq->first_row * job->heads + head * job->ratio) * d;
    return (struct attend){
        .q = job->q + at,
        .out = job->out + at,
        .token_stride = job->heads * d,
        .ratio = job->ratio,
        .first = first,
        .count = rows - first < ATTEND_ROWS ? rows - first : ATTEND_ROWS,
        .seen = seq->kv_len - seq->rows + 1,
        .window = job->window,
        .scale = job->scale,
        .kv = job->kv,
        .pages = seq->pages,
        .kv_head = head,
        .scratch = cpu_scratch(job->cpu, worker),
    };
}

static size_t tile_segments(const struct attend *a)
{
    size_t sees = a->seen + (a->first + a->count - 1) / a->ratio;
    return (sees + SEGMENT - 1) / SEGMENT;
}

/* The first that any row sees. */
static size_t first_segment(const struct attend *a)
{
    size_t sees = a->seen + a->first / a->ratio;
    return a->window && sees > a->window ? (sees - a->window) / SEGMENT : 0;
}

static void tile_run(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    struct attend a = tile_at(job, chunk, worker);
    job->cpu->kernels->attend(&a);
}

/* Parts of a tile: [segments][rows][d + 2]. */
static float *tile_parts(const struct job *job, size_t tile)
{
    return job->cpu->partials + tile * job->longest * job->part_floats;
}

static void part_run(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    size_t tile = chunk % job->tiles; /* heads of a segment together */
    struct attend a = tile_at(job, tile, worker);
    a.segment = chunk / job->tiles;
    if (a.segment < first_segment(&a) || a.segment >= tile_segments(&a)) return;
    a.parts = tile_parts(job, tile) +
              a.segment * a.count * ((size_t)job->kv->head_dim + 2);
    job->cpu->kernels->attend(&a);
}

static void merge_run(void *arg, size_t chunk, int worker)
{
    struct job *job = arg;
    struct attend a = tile_at(job, chunk, worker);
    a.parts = tile_parts(job, chunk);
    job->cpu->kernels->attend_merge(&a);
}

void cpu_attention(struct device *dev, float *out, const float *q,
                   const struct op_kv *kv, const struct op_seq *seqs,
                   size_t seq_count, size_t heads, float scale, uint32_t window)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct job job = {.cpu = cpu,
                      .out = out,
                      .q = q,
                      .kv = kv,
                      .seqs = seqs,
                      .seq_count = seq_count,
                      .heads = heads,
                      .ratio = heads / kv->kv_heads,
                      .window = window,
                      .scale = scale};
    size_t rows = 0; /* of the largest tile */
    for (size_t s = 0; s < seq_count; s++) {
        if (seqs[s].rows == 0) continue;
        job.tiles += seq_tiles(&job, &seqs[s]) * kv->kv_heads;
        size_t segments = (seqs[s].kv_len + SEGMENT - 1) / SEGMENT;
        size_t n = seqs[s].rows * job.ratio;
        if (n > ATTEND_ROWS) n = ATTEND_ROWS;
        if (n > rows) rows = n;
        if (segments > job.longest) job.longest = segments;
    }
    job.part_floats = rows * (kv->head_dim + 2);
    bool fits = job.tiles * job.longest * job.part_floats * sizeof *out <=
                PARTIALS_BYTES;
    if (job.longest > 1 && fits &&
        (rows <= FEW_ROWS || job.tiles < 4 * (size_t)dev->threads)) {
        pool_run(cpu->pool, part_run, &job, job.tiles * job.longest);
        pool_run(cpu->pool, merge_run, &job, job.tiles);
    } else {
        pool_run(cpu->pool, tile_run, &job, job.tiles);
    }
}

/* --- writing KV -------------------------------------------------------- */

struct write_job {
    struct cpu *cpu;
    const struct op_kv *kv;
    const struct op_seq *seqs;
    const float *k, *v;
};

/* All rows of one sequence. */
static void seq_write(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct write_job *job = arg;
    const struct op_kv *kv = job->kv;
    const struct op_seq *s = &job->seqs[chunk];
    const struct kernels *kernels = job->cpu->kernels;
    size_t n = (size_t)kv->kv_heads * kv->head_dim;
    for (size_t i = 0; i < s->rows; i++) {
        size_t at = kv_offset(kv, s->pages, s->kv_len - s->rows + i);
        size_t row = (s->first_row + i) * n;
        kernels->encode(kv->type, job->k + row, (char *)kv->k + at, n);
        kernels->encode(kv->type, job->v + row, (char *)kv->v + at, n);
    }
}

void cpu_kv_write(struct device *dev, const struct op_kv *kv,
                  const struct op_seq *seqs, size_t seq_count, const float *k,
                  const float *v)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct write_job job = {cpu, kv, seqs, k, v};
    pool_run(cpu->pool, seq_write, &job, seq_count);
}
