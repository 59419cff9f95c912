/* model/model.h - a model: its configuration, its weights, its forward pass.
 *
 * model_open maps a GGUF file or a Hugging Face folder, checks every tensor's
 * name, type and shape, and binds the weights to a device. The architecture
 * is a row in model.c's table and one file with a forward pass to read from
 * top to bottom (llama.c, qwen3.c, ...). One thread (the engine's) calls
 * forward; the rest is read-only after open. */
#ifndef BATON_MODEL_MODEL_H
#define BATON_MODEL_MODEL_H

#include "base/err.h"
#include "kv/pool.h"
#include "tensor/ops.h"

#include <stdbool.h>

/* ROPE_DIVISORS: each frequency has a divisor of its own, in the weights
 * (rope_freqs.weight, how GGUF files carry llama3 scaling). */
enum rope_kind {
    ROPE_PLAIN,
    ROPE_LINEAR,
    ROPE_LLAMA3,
    ROPE_YARN,
    ROPE_DIVISORS
};

/* What a config says of how the weights are stored. */
enum quant_method {
    QUANT_NONE,
    QUANT_FP8,
    QUANT_INT8, /* w8a8_int8, compressed-tensors, modelslim: the tensors say */
    QUANT_AWQ,
    QUANT_GPTQ
};

/* A set of layers. */
enum { MODEL_MAX_LAYERS = 1024 };
struct layer_set {
    uint64_t bits[MODEL_MAX_LAYERS / 64];
};
static inline bool layer_set_has(const struct layer_set *s, uint32_t layer)
{
    return s->bits[layer / 64] >> layer % 64 & 1;
}
static inline void layer_set_add(struct layer_set *s, uint32_t layer)
{
    s->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

struct model_config {
    char arch[32];  /* "llama", "qwen3", ...: model_type             */
    uint32_t vocab; /* rows of the embedding                         */
    uint32_t hidden, layers, heads, kv_heads, head_dim, ffn;
    uint32_t context; /* positions the model was made for              */
    float norm_eps;
    bool tied;           /* the embedding is the output head too          */
    bool qk_norm;        /* per-head RMSNorm of q and k before rope       */
    bool attention_bias; /* q, k, v have a bias                           */
    bool output_bias;    /* and so has o                                  */
    bool mlp_bias;       /* gate, up, down have a bias                    */
    enum dtype dtype;    /* what most bytes in the files are, if they are one
                          * of ours: integers of folders are not counted  */
    struct {
        enum rope_kind kind;
        double theta, factor;
        double low_freq_factor, high_freq_factor; /* llama3 */
        double beta_fast, beta_slow;              /* yarn */
        double attention_factor;   /* times cos and sin; 1 but for yarn */
        uint32_t original_context; /* llama3, yarn */
        uint32_t rotary;           /* rotated elements of a head */
        bool untruncated;          /* yarn: its ramp has broken ends */
    } rope;
    uint32_t window; /* tokens that a row of the sliding layers sees */
    struct layer_set sliding;
    struct {
        uint32_t count, used, ffn; /* count 0: no layer has experts */
        bool normed;               /* the chosen weights add up to 1 */
        struct layer_set layers;   /* those that have */
    } experts;
    struct {
        enum quant_method method;
        bool zeros_as_is; /* gptq_v2: stored zeros are not one less */
        uint32_t block_rows, block_cols; /* of fp8 that share a scale */
    } quant;
    int32_t eos[8]; /* generation stops at these */
    uint32_t eos_count;
    int32_t bos; /* -1: none */
};

/* What matrices stored in floats become while loading; embedding, head and
 * routers stay, and so does what is stored in integers. In groups where they
 * divide the columns: int8 of 128 (else 32), int4 of 128 (else 64, 32). */
enum model_quantize {
    QUANTIZE_NONE,
    QUANTIZE_W8A8_INT8, /* int8, one scale a row; activations likewise */
    QUANTIZE_INT8,      /* int8 in groups */
    QUANTIZE_INT4,      /* int4 in groups */
};
/* From "w8a8_int8", "int8", "int4"; none: NULL, "none", and the names of forms
 * in which files store weights ("awq", ...: seen from them). ERR_INVALID. */
int model_quantize_parse(enum model_quantize *out, const char *text,
                         struct why *why);

struct model_options {
    const char *path;
    uint32_t max_tokens; /* rows of the largest batch                      */
    uint32_t max_logits; /* logit rows of the largest batch                */
    enum model_quantize quantize;
    /* A folder for a file of the weights as the device keeps them, which is
     * mapped: servers share it. Where it is missing, stale or damaged,
     * model_save_cache writes it. NULL: none. */
    const char *weight_cache;
    /* Where the files are in the page cache, weights that lie there as the
     * device wants their rows are packed by model_pack, behind the first steps
     * or between them; until then these read the files, slower. Not where a
     * weight cache has them, or is to be written, which wants all of them. */
    bool pack_later;
    /* Told what became of the cache, also on the thread that writes it, and
     * by model_pack that it is done. coped: a cache that was there, or asked
     * for, is not used. May be NULL. */
    void (*note)(void *arg, bool coped, const char *text);
    /* Called now and then while loading; may be NULL. */
    void (*progress)(void *arg, size_t done_bytes, size_t total_bytes);
    void *arg;
};

struct model;
/* Errors name the file and the field, key or tensor. ERR_NOT_FOUND, ERR_IO;
 * ERR_FORMAT: broken or incomplete files; ERR_UNSUPPORTED: an architecture, a
 * feature of it or an element type that this program does not compute;
 * ERR_NOMEM. On failure *out is NULL. options is not kept. */
int model_open(struct model **out, struct device *dev,
               const struct model_options *options, struct why *why);
void model_close(struct model *model); /* before its device; NULL is fine */

/* Packs some more of the weights that were put off, for a few milliseconds, or,
 * behind a step, for a part of one's time. False: all are packed. Like
 * model_forward, and never while that runs. */
bool model_pack(struct model *model, bool behind_step);

/* Writes the weight cache that model_open lacked, from the weights in memory,
 * on a thread that gives way to all others; model_close breaks it off. Where
 * nothing is to be written, and after the first call: nothing. wait_cache
 * returns when it is done. */
void model_save_cache(struct model *model);
void model_wait_cache(struct model *model);

const struct model_config *model_config(const struct model *model);
size_t model_weight_bytes(const struct model *model);
/* What most elements of matrices are in memory: read from the files, rounded
 * by quantize. */
enum dtype model_weight_type(const struct model *model);
/* Weight bytes that one decode step reads, each once (of experts all, so at
 * most): all but an embedding
 * that is not the head too, of which a step reads a few rows. */
size_t model_step_bytes(const struct model *model);
/* A hash of config, of each weight's name, type and shape, and of a sample of
 * its bytes, the same for the same files: peers compare it so that no KV of
 * another model (or of another fine-tune of it) is ever taken. */
uint64_t model_fingerprint(const struct model *model);

/* What model_open would make of the files, from their headers alone (and the
 * scales of int4 weights): for memory plans and for people. Errors as
 * model_open's; of options path and quantize count. */
struct model_survey {
    struct model_config config;
    size_t stored_bytes; /* of all tensors in the files      */
    size_t weight_bytes; /* what model_weight_bytes would be */
    size_t step_bytes;   /* and model_step_bytes             */
    struct {
        size_t count, bytes; /* of weights that would have the type */
    } types[DTYPE_COUNT];
};
int model_survey(struct model_survey *out, const struct model_options *options,
                 struct why *why);

/* The workers of its device do other work between steps: fn(fn_arg, i, worker)
 * once for each i < count, worker < model_workers, no two calls of one worker
 * at a time. */
int model_workers(const struct model *model);
void model_share(struct model *model, void (*fn)(void *, size_t i, int worker),
                 void *fn_arg, size_t count);

/* One step of a batch. All arrays in host memory. */
struct batch {
    uint32_t tokens;
    const int32_t *ids;        /* [tokens] each < vocab                    */
    const uint32_t *positions; /* [tokens]                                 */
    uint32_t seq_count;
    const struct op_seq *seqs; /* their rows, in order, cover 0..tokens-1  */
    uint32_t logit_count;
    const uint32_t *logit_rows; /* [logit_count] rows that want logits     */
};
/* Writes the KV of all tokens into pool, and the logits of the asked rows to
 * logits [logit_count, vocab] float32 in host memory (valid until the next
 * call). ERR_INVALID: an id or position out of range; ERR_IO: device. */
int model_forward(struct model *model, const struct batch *batch,
                  struct kv_pool *pool, const float **logits, struct why *why);

#endif
