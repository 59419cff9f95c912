/* op_rope and op_kv_write: what heads go through between the products that
 * make them and attention. A token's heads are normed, turned and, of k,
 * rounded into the cache while the first level cache has them. */
#include "tensor/cpu/cpu.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    CHUNK_FLOATS = 4096, /* less is not worth another thread */
    SINE_FLOATS = 16,    /* what a sine and a cosine cost    */
    WRITE_ROWS = 4,      /* of a chunk of op_kv_write        */
};

static size_t up_div(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

/* --- cosines and sines --------------------------------------------------- */

struct sines {
    struct cpu *cpu;
    const struct turn *turn;
    size_t tokens, chunk_tokens;
};

static void sines_fill(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct sines *job = arg;
    const struct rope *rope = job->turn->rope;
    size_t half = rope->rotary / 2, t = chunk * job->chunk_tokens;
    for (size_t end = t + job->chunk_tokens; t < end && t < job->tokens; t++) {
        float *cs = job->cpu->rope.cs + t * OP_HEAD_DIM_MAX;
        for (size_t i = 0; i < half; i++) {
            float angle = (float)job->turn->positions[t] * rope->freqs[i];
            cs[i] = (float)(cos(angle) * rope->scale);
            cs[half + i] = (float)(sin(angle) * rope->scale);
        }
    }
}

static bool sines_known(const struct cpu *cpu, const struct turn *turn,
                        size_t tokens)
{
    const struct rope *rope = turn->rope;
    size_t half = rope->rotary / 2;
    return cpu->rope.tokens == tokens && cpu->rope.rotary == rope->rotary &&
           cpu->rope.scale == rope->scale &&
           memcmp(cpu->rope.positions, turn->positions,
                  tokens * sizeof *turn->positions) == 0 &&
           memcmp(cpu->rope.freqs, rope->freqs, half * sizeof *rope->freqs) ==
               0;
}

/* So that cpu->rope.cs has those of the tokens. */
static void sines_make(struct cpu *cpu, const struct turn *turn, size_t tokens)
{
    const struct rope *rope = turn->rope;
    assert(tokens <= cpu->rows); /* device_reserve */
    if (rope->rotary == 0 || sines_known(cpu, turn, tokens)) return;
    struct sines job = {cpu, turn, tokens,
                        CHUNK_FLOATS / (rope->rotary * SINE_FLOATS) + 1};
    pool_run(cpu->pool, sines_fill, &job, up_div(tokens, job.chunk_tokens));
    memcpy(cpu->rope.positions, turn->positions,
           tokens * sizeof *turn->positions);
    memcpy(cpu->rope.freqs, rope->freqs,
           rope->rotary / 2 * sizeof *rope->freqs);
    cpu->rope.rotary = rope->rotary;
    cpu->rope.scale = rope->scale;
    cpu->rope.tokens = tokens;
}

/* Heads [heads, d] of token t. */
static void heads_turn(const struct cpu *cpu, float *out, const float *x,
                       const struct turn *turn, size_t t, size_t heads,
                       size_t d)
{
    cpu->kernels->rope(out, x, turn->gain, turn->eps,
                       cpu->rope.cs + t * OP_HEAD_DIM_MAX, heads,
                       turn->rope->rotary, d);
}

/* --- op_rope ------------------------------------------------------------- */

struct rope_job {
    struct cpu *cpu;
    const struct turn *turn;
    float *x;
    size_t tokens, heads, d, chunk_tokens;
};

static void tokens_turn(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct rope_job *job = arg;
    size_t t = chunk * job->chunk_tokens, end = t + job->chunk_tokens;
    for (; t < end && t < job->tokens; t++) {
        float *x = job->x + t * job->heads * job->d;
        heads_turn(job->cpu, x, x, job->turn, t, job->heads, job->d);
    }
}

void cpu_rope(struct device *dev, float *x, const struct turn *turn,
              size_t tokens, size_t heads, size_t d)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct rope_job job = {
        cpu, turn, x, tokens, heads, d, CHUNK_FLOATS / (heads * d) + 1};
    sines_make(cpu, turn, tokens);
    pool_run(cpu->pool, tokens_turn, &job, up_div(tokens, job.chunk_tokens));
}

/* --- op_kv_write --------------------------------------------------------- */

struct write_job {
    struct cpu *cpu;
    const struct op_kv *kv;
    const struct op_seq *seqs;
    size_t seq_count;
    const float *k, *v;
    const struct turn *turn;
};

/* Row t of k and v to a token of the cache. */
static void row_write(const struct write_job *job, size_t t, size_t at,
                      float *turned)
{
    const struct op_kv *kv = job->kv;
    size_t g = kv->kv_heads, d = kv->head_dim;
    const float *k = job->k + t * g * d, *v = job->v + t * g * d;
    if (job->turn) {
        heads_turn(job->cpu, turned, k, job->turn, t, g, d);
        k = turned;
    }
    job->cpu->kernels->encode(kv->type, k, (char *)kv->k + at, g, d);
    job->cpu->kernels->encode(kv->type, v, (char *)kv->v + at, g, d);
}

/* Rows [chunk * WRITE_ROWS, + WRITE_ROWS) of all sequences' rows. */
static void rows_write(void *arg, size_t chunk, int worker)
{
    struct write_job *job = arg;
    size_t skip = chunk * WRITE_ROWS, want = WRITE_ROWS;
    for (size_t n = 0; n < job->seq_count && want; n++) {
        const struct op_seq *s = &job->seqs[n];
        size_t i = skip < s->rows ? skip : s->rows;
        skip -= i;
        for (; i < s->rows && want; i++, want--)
            row_write(job, s->first_row + i,
                      kv_offset(job->kv, s->pages, s->kv_len - s->rows + i),
                      cpu_scratch(job->cpu, worker));
    }
}

void cpu_kv_write(struct device *dev, const struct op_kv *kv,
                  const struct op_seq *seqs, size_t seq_count, const float *k,
                  const float *v, const struct turn *turn)
{
    struct cpu *cpu = (struct cpu *)dev;
    struct write_job job = {cpu, kv, seqs, seq_count, k, v, turn};
    size_t rows = 0, end = 0; /* of all sequences; behind the last */
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++) {
        rows += s->rows;
        if (s->rows && s->first_row + s->rows > end)
            end = s->first_row + s->rows;
    }
    assert(kv->kv_heads * kv->head_dim * sizeof(float) <= cpu->scratch_bytes);
    if (turn) sines_make(cpu, turn, end);
    pool_run(cpu->pool, rows_write, &job, up_div(rows, WRITE_ROWS));
}
