/* bin/bench_rig.c */
#include "bin/bench_rig.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "bin/cpu_isa.h"
#include "bin/kv_type.h"
#include "bin/memory.h"

#include <string.h>
#include <sys/mman.h>

void rig_close(struct rig *r)
{
    mem_free(r->pages);
    mem_free(r->ids);
    mem_free(r->positions);
    mem_free(r->logit_rows);
    mem_free(r->seqs);
    sampler_destroy(r->sampler);
    reader_destroy(r->reader);
    model_close(r->model);
    kv_pool_destroy(r->pool);
    if (r->slab) munmap(r->slab, r->slab_bytes);
    device_close(r->device);
}

static int rig_open_pool(struct rig *r, const struct bench *b, struct why *why)
{
    const struct model_config *c = model_config(r->model);
    struct kv_pool_options po = {.shape = {c->layers, c->kv_heads, c->head_dim,
                                           64, kv_type_of(b->kv_dtype, c)}};
    r->batch = (uint32_t)b->batch;
    r->per_seq = (uint32_t)(b->prompt + b->gen + 63) / 64;
    po.page_count = r->per_seq * r->batch + 1;
    r->slab_bytes = kv_shape_slab_bytes(&po.shape, po.page_count);
    r->slab = mmap(NULL, r->slab_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r->slab == MAP_FAILED) {
        r->slab = NULL;
        return err_set(why, ERR_NOMEM, "KV cache of %zu bytes", r->slab_bytes);
    }
    memory_wish(r->slab, r->slab_bytes);
    memset(r->slab, 0, r->slab_bytes); /* touched before any run */
    po.slab = r->slab;
    int rc = kv_pool_create(&r->pool, &po, why);
    if (rc) return rc;
    r->pages = mem_must(po.page_count, sizeof *r->pages);
    size_t rows = (size_t)(b->chunk > b->batch ? b->chunk : b->batch);
    r->ids = mem_must(rows, sizeof *r->ids);
    r->positions = mem_must(rows, sizeof *r->positions);
    r->logit_rows = mem_must(r->batch, sizeof *r->logit_rows);
    r->seqs = mem_must(r->batch, sizeof *r->seqs);
    return kv_pool_take(r->pool, po.page_count - 1, r->pages);
}

int rig_open(struct rig *r, const struct bench *b, struct why *why)
{
    struct device_options dev = {b->device, (int)b->threads,
                                 cpu_isa_limit(b->isa)};
    int rc = device_open(&r->device, &dev, why);
    if (rc) return rc;
    int64_t rows = b->chunk > b->batch ? b->chunk : b->batch;
    struct model_options mo = {.path = b->model_path,
                               .max_tokens = (uint32_t)rows,
                               .max_logits = (uint32_t)b->batch,
                               .weight_cache = b->weight_cache};
    if (b->quantization) {
        rc = model_quantize_parse(&mo.quantize, b->quantization, why);
        if (rc) return rc;
    }
    uint64_t start = clock_ns();
    rc = model_open(&r->model, r->device, &mo, why);
    r->load_s = (double)(clock_ns() - start) * 1e-9;
    if (!rc) { /* done before anything is measured */
        model_save_cache(r->model);
        model_wait_cache(r->model);
        rc = sampler_create(&r->sampler, model_config(r->model)->vocab, why);
    }
    return rc ? rc : rig_open_pool(r, b, why);
}

/* The largest, as a server's greedy request takes it. */
static int32_t pick(struct rig *r, const float *logits)
{
    static const struct sampling greedy = {.top_k = 1};
    return sample_pick(r->sampler, logits, &greedy, 0);
}

int rig_prefill(struct rig *r, const struct bench *b, uint32_t s, int32_t *next,
                struct why *why)
{
    uint32_t vocab = model_config(r->model)->vocab;
    uint64_t seed = 1 + s;
    for (int64_t done = 0; done < b->prompt;) {
        int64_t n = b->prompt - done < b->chunk ? b->prompt - done : b->chunk;
        for (int64_t i = 0; i < n; i++) {
            r->ids[i] = (int32_t)(rng_next(&seed) % vocab);
            r->positions[i] = (uint32_t)(done + i);
        }
        done += n;
        bool last = done == b->prompt;
        r->seqs[0] = (struct op_seq){0, (uint32_t)n, (uint32_t)done,
                                     r->pages + (size_t)s * r->per_seq};
        r->logit_rows[0] = (uint32_t)n - 1;
        struct batch step = {(uint32_t)n, r->ids,        r->positions, 1,
                             r->seqs,     last ? 1u : 0, r->logit_rows};
        const float *logits;
        int rc = model_forward(r->model, &step, r->pool, &logits, why);
        if (rc) return rc;
        if (!last) continue;
        *next = pick(r, logits);
    }
    return 0;
}

int rig_decode(struct rig *r, uint32_t position, int32_t *next, struct why *why)
{
    uint32_t vocab = model_config(r->model)->vocab;
    for (uint32_t s = 0; s < r->batch; s++) {
        r->ids[s] = next[s];
        r->positions[s] = position;
        r->logit_rows[s] = s;
        r->seqs[s] = (struct op_seq){s, 1, position + 1,
                                     r->pages + (size_t)s * r->per_seq};
    }
    struct batch step = {r->batch, r->ids,   r->positions, r->batch,
                         r->seqs,  r->batch, r->logit_rows};
    const float *logits;
    int rc = model_forward(r->model, &step, r->pool, &logits, why);
    if (rc) return rc;
    for (uint32_t s = 0; s < r->batch; s++)
        next[s] = pick(r, logits + (size_t)s * vocab);
    r->logits = logits;
    return 0;
}

/* Of one token in one layer. */
static double layer_ops(const struct model_config *c)
{
    double q = (double)c->heads * c->head_dim,
           kv = (double)c->kv_heads * c->head_dim;
    return 2 * (c->hidden * (2 * q + 2 * kv) + 3.0 * c->hidden * c->ffn);
}

double rig_token_ops(const struct rig *r)
{
    const struct model_config *c = model_config(r->model);
    double kv = (double)c->kv_heads * c->head_dim;
    return (c->layers - 1) * layer_ops(c) + 4 * kv * c->hidden;
}

double rig_step_ops(const struct rig *r)
{
    const struct model_config *c = model_config(r->model);
    return (double)r->batch *
           (c->layers * layer_ops(c) + 2.0 * c->hidden * c->vocab);
}

double rig_step_bytes(const struct bench *b, const struct rig *r)
{
    double depth = (double)b->prompt + (double)b->gen / 2;
    return (double)model_step_bytes(r->model) +
           depth * (double)b->batch *
               (double)kv_shape_token_bytes(kv_pool_shape(r->pool));
}
