/* engine/sample.h - from a row of logits to a token and its logprobs.
 *
 *     logits --adjust--> penalties, bias, barred ends --pick--> token
 *                                          \--logprobs--> log-softmax
 *
 * Pure: a token depends on its row, the sampling parameters, the output so
 * far and its position, and on nothing else. That is what makes a request
 * come out the same alone, in a batch, after retraction, and when one server
 * draws position 0 and another the rest.
 *
 * A sampler is scratch memory for one thread; nothing is allocated after
 * create. No row is sorted: where top_k or top_p cuts is found by counting and
 * weighing what is above a few values, again and again between two of them. */
#ifndef BATON_ENGINE_SAMPLE_H
#define BATON_ENGINE_SAMPLE_H

#include "engine/request.h"

struct sampler;
int sampler_create(struct sampler **out, uint32_t vocab, struct why *why);
void sampler_destroy(struct sampler *s);

/* Workers that take parts of a row: share(arg, fn, fn_arg, count) calls
 * fn(fn_arg, i, worker) for each i < count and returns when all are done. What
 * comes out is the same with and without. share NULL: the caller alone. */
struct share {
    void (*share)(void *arg, void (*fn)(void *, size_t, int), void *fn_arg,
                  size_t count);
    void *arg;
};
void sampler_share(struct sampler *s, const struct share *share);

/* What the output so far does to a row, in this order (SGLang's):
 *   - frequency_penalty * count, - presence_penalty     of tokens in output
 *   / repetition_penalty where positive, * where not    of tokens in output
 *   + logit_bias
 *   = -inf for stop_ids and end_ids while output_count < min_new_tokens,
 *          unless the grammar has come to its end
 *   = -inf for what the grammar does not allow
 * Returns logits itself where nothing changes, else the sampler's own row,
 * good until the next call. */
struct sample_history {
    const int32_t *output;
    uint32_t output_count;
    const int32_t *end_ids; /* the model's and tokenizer's end tokens */
    uint32_t end_count;
    struct matcher *matcher; /* text/grammar.h; NULL: any token may come */
};
const float *sample_adjust(struct sampler *s, const float *logits /* [vocab] */,
                           const struct sampling *p,
                           const struct sample_history *h);

/* The token for output position (0: the first). Greedy takes the lowest id
 * of the largest. Otherwise a token stays in the draw when fewer than top_k
 * come before it, they weigh at most top_p together, and it weighs at least
 * min_p of the first; before means larger logit, then lower id. -1: the row
 * holds a NaN or an infinity, no token can be had. */
int32_t sample_pick(struct sampler *s, const float *logits,
                    const struct sampling *p, uint32_t position);

/* The draw of a seed at a position, [0, 1): counter-based. */
double sample_unit(uint64_t seed, uint32_t position);

/* log_softmax(logits / temperature) (greedy and inputs: temperature 1) of
 * token, of the top_count largest (largest first, then lower id) and of
 * ids[id_count]. out's arrays are the caller's: top_values, top_ids
 * [top_count], id_values [id_count]. */
struct logprob_ask {
    float temperature;
    int32_t token;
    uint32_t top_count; /* <= SAMPLE_TOP_MAX; cut to vocab */
    const int32_t *ids;
    uint32_t id_count;
};
struct logprob_room {
    float *top_values;
    int32_t *top_ids;
    float *id_values;
};
#define SAMPLE_TOP_MAX 128
void sample_logprobs(struct sampler *s, const float *logits,
                     const struct logprob_ask *ask,
                     const struct logprob_room *room,
                     struct token_logprob *out);

/* temperature < 1e-6 or top_k 1 */
bool sampling_is_greedy(const struct sampling *p);

#endif
