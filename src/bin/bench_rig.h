/* bin/bench_rig.h - a model opened for a benchmark: so many sequences with
 * prompts of random tokens, and steps of all of them. One thread; errors are
 * those of device_open, model_open, kv_pool_create and model_forward. */
#ifndef BATON_BIN_BENCH_RIG_H
#define BATON_BIN_BENCH_RIG_H

#include "base/err.h"
#include "engine/sample.h"
#include "model/model.h"
#include "tensor/roofline.h"
#include "tensor/trace.h"

#include <stdbool.h>
#include <stdint.h>

/* What the command line asks for. */
struct bench {
    const char *model_path, *device, *isa, *kv_dtype, *quantization,
        *weight_cache;
    int64_t threads, prompt, gen, chunk, batch, repeat;
    bool json, trace, turns;
};

/* All that one run needs; sequence s owns pages s * per_seq + 1 onward. */
struct rig {
    struct device *device;
    struct model *model;
    struct kv_pool *pool;
    void *slab;
    size_t slab_bytes;
    uint32_t per_seq, batch;
    kv_page *pages;
    int32_t *ids;
    uint32_t *positions, *logit_rows;
    struct op_seq *seqs;
    struct sampler *sampler;
    struct reader *reader; /* between steps */
    const float *logits;   /* [batch, vocab] of the last step */
    uint64_t hash;         /* of the last logits */
    double load_s;         /* until the model was ready */
    struct traced {
        struct trace trace;
        uint64_t ns, times;
    } prompts, steps; /* of all runs */
};

/* Whatever it returns, rig_close frees what there is; r is zeroed before. */
int rig_open(struct rig *r, const struct bench *b, struct why *why);
void rig_close(struct rig *r);

/* The prompt of sequence s, chunk by chunk; its first token to *next. */
int rig_prefill(struct rig *r, const struct bench *b, uint32_t s, int32_t *next,
                struct why *why);

/* One token for every sequence, next[batch], which is then the following one;
 * r->logits are of this step until the next. */
int rig_decode(struct rig *r, uint32_t position, int32_t *next,
               struct why *why);

/* Bytes that a step in the middle of b->gen reads: weights once, and KV. */
double rig_step_bytes(const struct bench *b, const struct rig *r);

/* Operations of a step's products, and of a prompt token's: those without the
 * head and what the last layer leaves out of a long prompt, all but k and v. */
double rig_step_ops(const struct rig *r);
double rig_token_ops(const struct rig *r);

#endif
