/* tests/model/rig.h - a model on a device with a KV pool, and prompts run
 * through it in pieces, for the tests of this folder. */
#ifndef BATON_TESTS_MODEL_RIG_H
#define BATON_TESTS_MODEL_RIG_H

#include "tests/test.h"
#include "base/mem.h"
#include "model/model.h"

enum { RIG_TOKENS = 160, RIG_PAGES = 400 };

struct rig {
    struct device *dev;
    struct model *model;
    struct kv_pool *pool;
    void *slab;
    uint32_t vocab, page_tokens;
};

/* max_tokens and max_logits of options are filled in. */
static inline void rig_open_with(struct rig *r, struct model_options options,
                                 const char *device, uint32_t page_tokens,
                                 enum dtype kv)
{
    struct why why = {0};
    const struct device_options dev = {.kind = device, .threads = 2};
    options.max_tokens = options.max_logits = RIG_TOKENS;
    if (device_open(&r->dev, &dev, &why) ||
        model_open(&r->model, r->dev, &options, &why))
        fail_msg("%s", why.text);
    const struct model_config *c = model_config(r->model);
    struct kv_pool_options pool = {
        .shape = {c->layers, c->kv_heads, c->head_dim, page_tokens, kv},
        .page_count = RIG_PAGES};
    r->slab = mem_must(kv_shape_slab_bytes(&pool.shape, RIG_PAGES), 1);
    pool.slab = r->slab;
    if (kv_pool_create(&r->pool, &pool, &why)) fail_msg("%s", why.text);
    r->vocab = c->vocab;
    r->page_tokens = page_tokens;
}

static inline void rig_open_as(struct rig *r, const char *path,
                               const char *device, uint32_t page_tokens,
                               enum dtype kv, enum model_quantize quantize)
{
    const struct model_options options = {.path = path, .quantize = quantize};
    rig_open_with(r, options, device, page_tokens, kv);
}

static inline void rig_open(struct rig *r, const char *path, const char *device,
                            uint32_t page_tokens, enum dtype kv)
{
    rig_open_as(r, path, device, page_tokens, kv, QUANTIZE_NONE);
}

static inline void rig_close(struct rig *r)
{
    kv_pool_destroy(r->pool);
    mem_free(r->slab);
    model_close(r->model);
    device_close(r->dev);
}

/* One sequence: its tokens, how many have KV, its pages. */
struct rig_seq {
    const int32_t *ids;
    uint32_t done;
    kv_page pages[RIG_TOKENS];
    float *logits; /* [tokens, vocab] filled as they are done */
};

static inline void rig_seq_open(struct rig *r, struct rig_seq *s,
                                const int32_t *ids, uint32_t tokens)
{
    *s = (struct rig_seq){.ids = ids};
    uint32_t pages = (tokens + r->page_tokens - 1) / r->page_tokens;
    assert_int_equal(kv_pool_take(r->pool, pages, s->pages), 0);
    s->logits = mem_must((size_t)tokens * r->vocab, sizeof *s->logits);
}

/* One forward pass: rows[i] more tokens of each sequence. Returns the logits of
 * asked rows of it (NULL: of all). Changes no sequence. */
static inline const float *rig_forward(struct rig *r, struct rig_seq **seqs,
                                       const uint32_t *rows, uint32_t count,
                                       const uint32_t *asked, uint32_t n)
{
    int32_t ids[RIG_TOKENS];
    uint32_t positions[RIG_TOKENS], all[RIG_TOKENS], t = 0;
    struct op_seq list[8];
    for (uint32_t i = 0; i < count; i++) {
        list[i] = (struct op_seq){t, rows[i], seqs[i]->done + rows[i],
                                  seqs[i]->pages};
        for (uint32_t k = 0; k < rows[i]; k++, t++) {
            assert_true(t < RIG_TOKENS);
            positions[t] = seqs[i]->done + k;
            ids[t] = seqs[i]->ids[positions[t]];
            all[t] = t;
        }
    }
    const struct batch b = {t,    ids,           positions,          count,
                            list, asked ? n : t, asked ? asked : all};
    const float *logits;
    struct why why = {0};
    if (model_forward(r->model, &b, r->pool, &logits, &why))
        fail_msg("%s", why.text);
    return logits;
}

/* One forward pass, all logits kept. */
static inline void rig_step(struct rig *r, struct rig_seq **seqs,
                            const uint32_t *rows, uint32_t count)
{
    const float *logits = rig_forward(r, seqs, rows, count, NULL, 0);
    for (uint32_t i = 0; i < count; i++) {
        size_t n = (size_t)rows[i] * r->vocab;
        memcpy(seqs[i]->logits + (size_t)seqs[i]->done * r->vocab, logits,
               n * sizeof *logits);
        seqs[i]->done += rows[i];
        logits += n;
    }
}

/* All tokens' logits [tokens, vocab], in chunks of the given sizes, the last
 * of which repeats. The caller's: mem_free. */
static inline float *rig_logits(struct rig *r, const int32_t *ids,
                                uint32_t tokens, const uint32_t *chunks,
                                size_t chunk_count)
{
    struct rig_seq s, *list[] = {&s};
    rig_seq_open(r, &s, ids, tokens);
    for (size_t i = 0; s.done < tokens; i++) {
        uint32_t rows = chunks[i < chunk_count ? i : chunk_count - 1];
        if (rows > tokens - s.done) rows = tokens - s.done;
        rig_step(r, list, &rows, 1);
    }
    for (uint32_t p = 0; p * r->page_tokens < tokens; p++)
        kv_pool_drop(r->pool, s.pages[p]);
    return s.logits;
}

#endif
