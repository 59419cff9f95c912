/* op_kv_write: what heads of k and v go through between the products that make
 * them and the cache. A token's heads are normed, turned and rounded while the
 * first level cache has them. */
#include "tensor/cpu/cpu.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    CHUNK_FLOATS = 4096, /* less is not worth another thread */
    SINE_FLOATS = 16,    /* what a sine and a cosine cost    */
    WRITE_ROWS = 2,      /* of a chunk of op_kv_write        */
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

void cpu_sines(struct cpu *cpu, const struct turn *turn,
               const struct op_seq *seqs, size_t seq_count)
{
    const struct rope *rope = turn->rope;
    size_t tokens = 0; /* behind the last */
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++)
        if (s->rows && s->first_row + s->rows > tokens)
            tokens = s->first_row + s->rows;
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

/* --- op_kv_write --------------------------------------------------------- */

struct write_job {
    struct cpu *cpu;
    const struct op_kv *kv;
    const struct op_seq *seqs;
    size_t seq_count;
    const float *k, *v;
    const struct turn *turn;
};

/* Asks for what will be written. */
static void token_ask(char *token, size_t bytes)
{
    for (size_t b = 0; b < bytes; b += 64)
        __builtin_prefetch(token + b, 1);
}

/* Row t of k and v to a token of the cache. */
static void row_write(const struct write_job *job, size_t t, size_t at,
                      float *turned)
{
    const struct op_kv *kv = job->kv;
    size_t g = kv->kv_heads, d = kv->head_dim;
    const float *k = job->k + t * g * d, *v = job->v + t * g * d;
    const size_t bytes = op_kv_token_bytes(kv->type, g, d);
    token_ask((char *)kv->k + at, bytes);
    token_ask((char *)kv->v + at, bytes);
    if (job->turn) {
        job->cpu->kernels->turn(turned, k, job->turn,
                                job->cpu->rope.cs + t * OP_HEAD_DIM_MAX, g, d);
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
    size_t rows = 0;
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++)
        rows += s->rows;
    assert(kv->kv_heads * kv->head_dim * sizeof(float) <= cpu->scratch_bytes);
    if (turn) cpu_sines(cpu, turn, seqs, seq_count);
    pool_run(cpu->pool, rows_write, &job, up_div(rows, WRITE_ROWS));
}
