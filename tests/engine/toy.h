/* tests/engine/toy.h - a model small enough to predict, strict enough to find
 * any mix-up of pages.
 *
 * The KV of a token holds the token, its position and a digest of all tokens
 * up to it; logits are a function of that digest. A forward pass reads all
 * earlier KV through the page table it is given: one page too few, swapped,
 * stale or overwritten and the digest is another, and so is every token that
 * follows. toy_expect says what a request must yield, from tokens alone. */
#ifndef BATON_TESTS_ENGINE_TOY_H
#define BATON_TESTS_ENGINE_TOY_H

#include "tests/test.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/sample.h"
#include "text/grammar.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

enum { TOY_VOCAB = 260, TOY_END = 256, TOY_ROWS = 4096 };

static const struct kv_shape toy_shape = {
    .layers = 1, .kv_heads = 1, .head_dim = 4, .type = DTYPE_F32};

struct toy {
    struct model_config config;
    float *logits;                   /* [logit_rows, TOY_VOCAB] */
    uint32_t max_tokens, max_logits; /* what the engine promised */
    /* Watched: */
    uint32_t steps, most_tokens, most_seqs;
    uint32_t mixed; /* steps with both prompts and decoding */
    bool broken;    /* some KV was not what was written there */
    /* Asked for: */
    bool (*before)(struct toy *toy); /* false: the step fails */
    bool nan;
    pthread_mutex_t turn; /* rig_hold */
    /* Calls of pack that are left, and how many were while idle, [true] behind
     * a step. */
    _Atomic int packs, packed[2];
};

static inline uint64_t toy_digest(uint64_t before, int32_t token, uint32_t at)
{
    return hash_u64(before ^ ((uint64_t)(uint32_t)token << 32 | at));
}

/* A few letters, the two bytes of an é, and the end are likely; byte 0, which
 * would end C strings in tests, is not. */
static inline void toy_logits(uint64_t digest, float *out)
{
    uint64_t state = digest;
    for (int i = 0; i < TOY_VOCAB; i++) {
        bool likely = (i >= 'a' && i <= 'f') || i == 0xc3 || i == 0xa9;
        float base = likely ? 6 : i == TOY_END ? 2 : i == 0 ? -60 : 0;
        out[i] = base + (float)(rng_next(&state) >> 40) * 0x1p-22f;
    }
}

static inline float *toy_kv(const struct op_kv *kv, void *base,
                            const struct op_seq *seq, uint32_t at)
{
    uint32_t page = seq->pages[at / kv->page_tokens];
    return (float *)base +
           ((size_t)page * kv->page_tokens + at % kv->page_tokens) * 4;
}

static inline uint64_t toy_row(struct toy *toy, const struct op_kv *kv,
                               const struct op_seq *seq, uint32_t at,
                               uint64_t digest)
{
    const float *k = toy_kv(kv, kv->k, seq, at);
    const float *v = toy_kv(kv, kv->v, seq, at);
    digest = toy_digest(digest, (int32_t)k[0], (uint32_t)k[1]);
    if (k[1] != (float)at || v[0] != (float)(digest >> 44))
        toy->broken = true, digest ^= 1;
    return digest;
}

static inline int toy_forward(void *arg, const struct batch *b,
                              struct kv_pool *pool, const float **logits,
                              struct why *why)
{
    struct toy *toy = arg;
    pthread_mutex_lock(&toy->turn);
    pthread_mutex_unlock(&toy->turn);
    if (toy->before && !toy->before(toy))
        return err_set(why, ERR_IO, "the toy broke");
    struct op_kv kv = kv_pool_layer(pool, 0);
    uint32_t row = 0, logit = 0;
    bool prompt = false, decode = false;
    for (uint32_t s = 0; s < b->seq_count; s++) {
        const struct op_seq *seq = &b->seqs[s];
        assert_true(seq->rows > 0 && seq->first_row == row);
        (seq->rows > 1) ? (prompt = true) : (decode = true);
        uint32_t done = seq->kv_len - seq->rows;
        uint64_t digest = 0;
        for (uint32_t at = 0; at < done; at++)
            digest = toy_row(toy, &kv, seq, at, digest);
        for (uint32_t at = done; at < seq->kv_len; at++, row++) {
            assert_int_equal(b->positions[row], at);
            assert_in_range(b->ids[row], 0, TOY_VOCAB - 1);
            digest = toy_digest(digest, b->ids[row], at);
            float *k = toy_kv(&kv, kv.k, seq, at);
            float *v = toy_kv(&kv, kv.v, seq, at);
            k[0] = (float)b->ids[row];
            k[1] = (float)at;
            v[0] = (float)(digest >> 44);
            if (logit == b->logit_count || b->logit_rows[logit] != row)
                continue;
            float *out = toy->logits + (size_t)logit++ * TOY_VOCAB;
            toy_logits(digest, out);
            if (toy->nan) out[7] = NAN;
        }
    }
    assert_int_equal(row, b->tokens);
    assert_int_equal(logit, b->logit_count);
    assert_in_range(b->tokens, 1, toy->max_tokens);
    assert_in_range(b->logit_count, 0, toy->max_logits);
    toy->steps++;
    toy->mixed += prompt && decode;
    if (b->tokens > toy->most_tokens) toy->most_tokens = b->tokens;
    if (b->seq_count > toy->most_seqs) toy->most_seqs = b->seq_count;
    *logits = toy->logits;
    return 0;
}

static inline struct toy *toy_create(uint32_t max_tokens, uint32_t max_logits)
{
    struct toy *toy = mem_must(1, sizeof *toy);
    toy->config = (struct model_config){
        .arch = "toy", .vocab = TOY_VOCAB, .eos = {TOY_END}, .eos_count = 1};
    toy->max_tokens = max_tokens;
    toy->max_logits = max_logits;
    pthread_mutex_init(&toy->turn, NULL);
    toy->logits = mem_must((size_t)max_logits * TOY_VOCAB, sizeof(float));
    return toy;
}

static inline bool toy_pack(void *arg, bool behind_step)
{
    struct toy *toy = arg;
    if (toy->packs == 0) return false;
    toy->packed[behind_step]++;
    return atomic_fetch_sub(&toy->packs, 1) > 1;
}

static inline void toy_destroy(struct toy *toy)
{
    pthread_mutex_destroy(&toy->turn);
    mem_free(toy->logits);
    mem_free(toy);
}

/* What spec must yield: fills out, returns the number of tokens, and how it
 * ends (stop strings aside). */
static inline uint32_t toy_expect(const struct request_spec *spec, int32_t *out,
                                  enum finish_kind *finish)
{
    static struct sampler *sampler;
    if (!sampler)
        assert_int_equal(sampler_create(&sampler, TOY_VOCAB, NULL), 0);
    const struct sampling *p = &spec->sampling;
    const int32_t end = TOY_END;
    float row[TOY_VOCAB];
    uint64_t digest = 0;
    uint32_t at = 0, n = 0;
    for (; at < spec->token_count; at++)
        digest = toy_digest(digest, spec->tokens[at], at);
    int32_t ends[8] = {end};
    for (uint32_t i = 0; i < p->stop_id_count; i++)
        ends[1 + i] = p->stop_ids[i];
    struct matcher *m =
        spec->grammar
            ? matcher_create(spec->grammar, ends, 1 + p->stop_id_count,
                             spec->grammar_open, spec->grammar_after)
            : NULL;
    for (*finish = FINISH_NONE; *finish == FINISH_NONE; at++) {
        toy_logits(digest, row);
        struct sample_history h = {out, n, &end, 1, m};
        out[n] = sample_pick(sampler, sample_adjust(sampler, row, p, &h), p, n);
        digest = toy_digest(digest, out[n], at);
        bool stop = out[n] == TOY_END;
        for (uint32_t i = 0; i < p->stop_id_count; i++)
            stop |= out[n] == p->stop_ids[i];
        if (m) assert_true(matcher_accept(m, out[n]));
        n++;
        if (n >= p->max_new_tokens)
            *finish = FINISH_LENGTH;
        else if ((m && matcher_ended(m)) || (stop && !p->ignore_eos))
            *finish = FINISH_STOP_TOKEN;
    }
    matcher_destroy(m);
    return n;
}

#endif
