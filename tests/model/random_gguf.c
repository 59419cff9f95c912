/* A random model as a GGUF file. */
#include "tests/model/random_parts.h"
#include "tests/model/gguf_build.h"
#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct gguf_job {
    struct gguf_build b;
    enum dtype type;
    bool decoded;
};

/* Rows of a head in halves (j, i) to pairs (i, j), as llama.cpp's converter
 * does for Llama. */
static void interleave(float *v, const struct random_tensor *t, uint32_t rotary)
{
    size_t rows = t->rows ? t->rows : t->cols;
    size_t cols = t->rows ? t->cols : 1, d = rows / t->heads;
    float *copy = mem_must(rows * cols, sizeof *copy);
    memcpy(copy, v, rows * cols * sizeof *copy);
    for (size_t r = 0; r < rows; r++) {
        size_t in = r % d, half = rotary / 2;
        size_t to = in < half ? 2 * in : in < rotary ? 2 * (in - half) + 1 : in;
        memcpy(v + (r - in + to) * cols, copy + r * cols, cols * sizeof *v);
    }
    mem_free(copy);
}

/* Random bytes with scales such that the values have about the spread of
 * other weights and mean 0. */
static void random_blocks(enum dtype type, uint64_t seed, size_t cols,
                          uint8_t *out, size_t bytes)
{
    const size_t block = dtype_block_bytes(type);
    const float spread = 1 / sqrtf((float)cols);
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(rng_next(&seed) >> 56);
    for (size_t at = 0; at < bytes; at += block) {
        uint16_t d, dmin = 0;
        float range = type == DTYPE_Q4_K ? 220.f : 450.f;
        d = f32_to_f16(spread / (type == DTYPE_Q6_K ? 1340.f : range));
        if (type == DTYPE_Q4_K) dmin = f32_to_f16(f16_to_f32(d) * 7.5f);
        if (type == DTYPE_Q5_K) dmin = f32_to_f16(f16_to_f32(d) * 15.5f);
        if (type == DTYPE_Q6_K) {
            memcpy(out + at + block - 2, &d, 2);
        } else {
            memcpy(out + at, &d, 2);
            memcpy(out + at + 2, &dmin, 2);
        }
    }
}

static bool is_k_quant(enum dtype type)
{
    return type == DTYPE_Q4_K || type == DTYPE_Q5_K || type == DTYPE_Q6_K;
}

/* Of a tensor of n elements (one expert's) the bytes in type, into packed. */
static void pack(const struct random_model *m, const struct random_tensor *t,
                 uint32_t expert, enum dtype type, uint8_t *packed,
                 size_t bytes)
{
    float *v = random_values(m, t, expert);
    if (t->heads) interleave(v, t, m->rotary);
    if (is_k_quant(type))
        random_blocks(type, random_hash(t->hf) + expert, t->cols, packed,
                      bytes);
    else
        dtype_encode(type, v, packed, random_elements(t));
    mem_free(v);
}

static void add_gguf_tensor(void *arg, const struct random_model *m,
                            const struct random_tensor *t)
{
    struct gguf_job *job = arg;
    const size_t n = random_elements(t), count = t->experts ? t->experts : 1;
    enum dtype type =
        t->rows && dtype_row_bytes(job->type, t->cols) ? job->type : DTYPE_F32;
    size_t bytes = n / dtype_block_elems(type) * dtype_block_bytes(type);
    uint8_t *packed = mem_must(count, bytes);
    for (uint32_t e = 0; e < count; e++)
        pack(m, t, e, type, packed + e * bytes, bytes);
    const uint64_t shape[] = {count, t->rows ? t->rows : t->cols, t->cols};
    const uint32_t dims = t->experts ? 3 : t->rows ? 2 : 1;
    const uint64_t *own = t->experts ? shape : shape + 1;
    if (job->decoded) {
        float *v = mem_must(count * n, sizeof *v);
        dtype_decode(type, packed, v, count * n);
        gguf_build_tensor(&job->b, t->gguf, 0, dims, own, v,
                          count * n * sizeof *v);
        mem_free(v);
    } else {
        gguf_build_tensor(&job->b, t->gguf, gguf_build_type(type), dims, own,
                          packed, count * bytes);
    }
    mem_free(packed);
}

/* llama.cpp's converter writes llama3 scaling as what each frequency is
 * divided by. */
static void add_divisors(struct gguf_build *b, uint32_t pairs, double theta,
                         const json_t *rope)
{
    float *divisors = mem_must(pairs, sizeof *divisors);
    double old = random_real(rope, "original_max_position_embeddings", 0);
    double low = random_real(rope, "low_freq_factor", 0);
    double high = random_real(rope, "high_freq_factor", 0);
    double factor = random_real(rope, "factor", 1);
    for (uint32_t i = 0; i < pairs; i++) {
        double wave = 2 * M_PI * pow(theta, (double)i / pairs);
        double smooth = (old / wave - low) / (high - low);
        divisors[i] = wave < old / high ? 1
                      : wave > old / low
                          ? (float)factor
                          : (float)(1 / ((1 - smooth) / factor + smooth));
    }
    gguf_build_tensor(b, "rope_freqs.weight", 0, 1, (uint64_t[]){pairs},
                      divisors, pairs * sizeof *divisors);
    mem_free(divisors);
}

static void add_rope(struct gguf_build *b, const struct random_model *m)
{
    const char *arch = m->gguf;
    const json_t *rope = json_object_get(m->config, "rope_parameters");
    if (!rope) rope = json_object_get(m->config, "rope_scaling");
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    double theta = random_real(rope, "rope_theta",
                               random_real(m->config, "rope_theta", 10000));
    char key[64];
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    gguf_build_f32(b, key, (float)theta);
    if (!type || !strcmp(type, "default")) return;
    if (!strcmp(type, "llama3")) {
        add_divisors(b, m->rotary / 2, theta, rope);
        return;
    }
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    gguf_build_string(b, key, type);
    snprintf(key, sizeof key, "%s.rope.scaling.factor", arch);
    gguf_build_f32(b, key, (float)random_real(rope, "factor", 1));
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", arch);
    gguf_build_u32(
        b, key,
        (uint32_t)random_real(rope, "original_max_position_embeddings", 0));
}

static void add_vocabulary(struct gguf_build *b, uint32_t vocab)
{
    char(*text)[RANDOM_TOKEN_ROOM] = mem_must(vocab, sizeof *text);
    const char **tokens = mem_must(vocab, sizeof *tokens);
    int32_t *types = mem_must(vocab, sizeof *types);
    for (uint32_t i = 0; i < vocab; i++) {
        if (i <= RANDOM_IM_END)
            random_spell_token(text[i], i);
        else
            snprintf(text[i], sizeof text[i], "[unused%u]", i);
        tokens[i] = text[i];
        types[i] = i < RANDOM_EOT ? 1 : i <= RANDOM_IM_END ? 3 : 5;
    }
    gguf_build_string(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_strings(b, "tokenizer.ggml.tokens", tokens, vocab);
    gguf_build_ints(b, "tokenizer.ggml.token_type", types, vocab);
    for (unsigned i = 0; i < RANDOM_MERGES; i++) {
        random_spell_merge(text[i], i);
        tokens[i] = text[i];
    }
    gguf_build_strings(b, "tokenizer.ggml.merges", tokens, RANDOM_MERGES);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", RANDOM_IM_END);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    gguf_build_string(b, "tokenizer.chat_template", random_chat_template);
    mem_free(text);
    mem_free(tokens);
    mem_free(types);
}

static void add_sizes(struct gguf_build *b, const struct random_model *m)
{
    const struct {
        const char *key;
        uint32_t value;
    } counts[] = {
        {"embedding_length", m->hidden},
        {"block_count", m->layers},
        {"attention.head_count", m->heads},
        {"attention.head_count_kv", m->kv_heads},
        {"attention.key_length", m->head_dim},
        {"attention.value_length", m->head_dim},
        {"rope.dimension_count", m->rotary},
        {"feed_forward_length", m->ffn},
        {"context_length", random_count(m->config, "max_position_embeddings")}};
    const char *arch = m->gguf;
    const struct {
        const char *key;
        uint32_t value;
    } experts[] = {
        {"expert_count", m->experts},
        {"expert_used_count", random_count(m->config, "num_experts_per_tok")},
        {"expert_feed_forward_length", m->expert_ffn}};
    char key[64];
    gguf_build_string(b, "general.architecture", arch);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, counts[i].key);
        gguf_build_u32(b, key, counts[i].value);
    }
    for (size_t i = 0; m->experts && i < 3; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, experts[i].key);
        gguf_build_u32(b, key, experts[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_build_f32(b, key, (float)random_real(m->config, "rms_norm_eps", 1e-6));
}

void random_model_write_gguf(const struct random_model *m, const char *path,
                             enum dtype type, bool decoded)
{
    struct gguf_job job = {.type = type, .decoded = decoded};
    struct buf file;
    gguf_build_init(&job.b);
    add_sizes(&job.b, m);
    add_rope(&job.b, m);
    add_vocabulary(&job.b, m->vocab);
    random_visit_all(m, add_gguf_tensor, &job);
    buf_init(&file, (size_t)1 << 34);
    gguf_build_finish(&job.b, 3, &file);
    random_write_file("", path, file.data, file.len);
    buf_fini(&file);
    gguf_build_fini(&job.b);
}
