/* tests/model/random_parts.h - what the two writers of random_model.h share.
 * Internal to random_*.c. */
#ifndef BATON_TESTS_MODEL_RANDOM_PARTS_H
#define BATON_TESTS_MODEL_RANDOM_PARTS_H

#include "tests/model/random_model.h"

#include <stdbool.h>

struct random_model {
    json_t *spec;
    const json_t *config;
    uint64_t seed;
    enum dtype dtype;
    const char *gguf; /* its architecture there */
    bool interleaved; /* its GGUF files have q and k in pairs */
    bool tied, qk_norm, qkv_bias, o_bias, mlp_bias;
    uint32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, rotary;
    uint32_t experts, expert_ffn;
};

/* Tokens of the tokenizer that comes along. */
enum {
    RANDOM_BYTES = 256,
    RANDOM_EOT = 269,
    RANDOM_IM_START = 270,
    RANDOM_IM_END = 271,
    RANDOM_MERGES = RANDOM_EOT - RANDOM_BYTES,
    RANDOM_TOKEN_ROOM = 32
};
extern const char random_chat_template[];
void random_spell_token(char out[RANDOM_TOKEN_ROOM], unsigned id);
void random_spell_merge(char out[RANDOM_TOKEN_ROOM], unsigned i);

struct random_tensor {
    char hf[96], gguf[64];
    uint32_t rows, cols; /* rows 0: a vector */
    uint32_t heads;      /* not 0: Llama's converter interleaves them */
    uint32_t experts;    /* not 0: so many, whose number is a %u in hf */
};
typedef void random_visit(void *arg, const struct random_model *m,
                          const struct random_tensor *t);
void random_visit_all(const struct random_model *m, random_visit *fn,
                      void *arg);

size_t random_elements(const struct random_tensor *t); /* of one expert */
/* The tensor (of an expert) in the model's own dtype, as float32. */
float *random_values(const struct random_model *m,
                     const struct random_tensor *t, uint32_t expert);
double random_real(const json_t *object, const char *key, double fallback);
uint32_t random_count(const json_t *config, const char *key);
uint64_t random_hash(const char *text);

void random_check(bool ok, const char *what, const char *detail);
void random_write_file(const char *folder, const char *name, const void *bytes,
                       size_t n);

#endif
