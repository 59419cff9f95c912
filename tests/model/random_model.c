#include "tests/model/random_model.h"
#include "tests/model/gguf_build.h"
#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct random_model {
    json_t *spec;
    const json_t *config;
    uint64_t seed;
    enum dtype dtype;
    bool llama, tied, bias;
    uint32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
};

static void check(bool ok, const char *what, const char *detail)
{
    if (ok) return;
    fprintf(stderr, "random model: %s %s\n", what, detail);
    abort();
}

static uint32_t count(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_is_integer(v) ? (uint32_t)json_integer_value(v) : 0;
}

struct random_model *random_model_read(const char *path)
{
    struct random_model *m = mem_must(1, sizeof *m);
    struct why why = {0};
    int rc = json_read(&m->spec, path, 1 << 20, &why);
    check(!rc, "cannot read", why.text);
    const json_t *c = m->config = json_object_get(m->spec, "config");
    const char *dtype = json_string_value(json_object_get(c, "torch_dtype"));
    const char *type = json_string_value(json_object_get(c, "model_type"));
    check(dtype && type, "no torch_dtype or model_type in", path);
    m->seed = (uint64_t)json_integer_value(json_object_get(m->spec, "seed"));
    m->dtype = !strcmp(dtype, "bfloat16")  ? DTYPE_BF16
               : !strcmp(dtype, "float16") ? DTYPE_F16
                                           : DTYPE_F32;
    m->llama = !strcmp(type, "llama");
    m->tied = json_is_true(json_object_get(c, "tie_word_embeddings"));
    m->bias = json_is_true(json_object_get(c, "attention_bias"));
    m->vocab = count(c, "vocab_size");
    m->hidden = count(c, "hidden_size");
    m->layers = count(c, "num_hidden_layers");
    m->heads = count(c, "num_attention_heads");
    m->kv_heads = count(c, "num_key_value_heads");
    m->ffn = count(c, "intermediate_size");
    m->head_dim = count(c, "head_dim");
    check(m->heads && m->vocab >= 272, "no heads or a small vocabulary in",
          path);
    if (!m->head_dim) m->head_dim = m->hidden / m->heads;
    return m;
}

struct random_model *random_model_named(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/model/%s.json", name);
    return random_model_read(path);
}

void random_model_free(struct random_model *m)
{
    if (!m) return;
    json_decref(m->spec);
    mem_free(m);
}

const json_t *random_model_spec(const struct random_model *m)
{
    return m->spec;
}

/* --- weights ---------------------------------------------------------- */

struct tensor {
    char hf[96], gguf[64];
    uint32_t rows, cols; /* rows 0: a vector */
    uint32_t heads;      /* not 0: Llama's converter interleaves them */
};

typedef void visit(void *arg, const struct random_model *m,
                   const struct tensor *t);

static void visit_layer(const struct random_model *m, uint32_t layer, visit *fn,
                        void *arg)
{
    const uint32_t n = m->hidden, f = m->ffn, d = m->head_dim;
    const uint32_t q = m->heads * d, kv = m->kv_heads * d;
    const uint32_t qh = m->llama ? m->heads : 0,
                   kh = m->llama ? m->kv_heads : 0;
    const struct {
        const char *hf, *gguf;
        uint32_t rows, cols, heads;
        bool present;
    } list[] = {
        {"input_layernorm.weight", "attn_norm.weight", 0, n, 0, true},
        {"self_attn.q_proj.weight", "attn_q.weight", q, n, qh, true},
        {"self_attn.k_proj.weight", "attn_k.weight", kv, n, kh, true},
        {"self_attn.v_proj.weight", "attn_v.weight", kv, n, 0, true},
        {"self_attn.o_proj.weight", "attn_output.weight", n, q, 0, true},
        {"self_attn.q_proj.bias", "attn_q.bias", 0, q, qh, m->bias},
        {"self_attn.k_proj.bias", "attn_k.bias", 0, kv, kh, m->bias},
        {"self_attn.v_proj.bias", "attn_v.bias", 0, kv, 0, m->bias},
        {"self_attn.o_proj.bias", "attn_output.bias", 0, n, 0, m->bias},
        {"self_attn.q_norm.weight", "attn_q_norm.weight", 0, d, 0, !m->llama},
        {"self_attn.k_norm.weight", "attn_k_norm.weight", 0, d, 0, !m->llama},
        {"post_attention_layernorm.weight", "ffn_norm.weight", 0, n, 0, true},
        {"mlp.gate_proj.weight", "ffn_gate.weight", f, n, 0, true},
        {"mlp.up_proj.weight", "ffn_up.weight", f, n, 0, true},
        {"mlp.down_proj.weight", "ffn_down.weight", n, f, 0, true},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct tensor t = {
            .rows = list[i].rows, .cols = list[i].cols, .heads = list[i].heads};
        snprintf(t.hf, sizeof t.hf, "model.layers.%u.%s", layer, list[i].hf);
        snprintf(t.gguf, sizeof t.gguf, "blk.%u.%s", layer, list[i].gguf);
        if (list[i].present) fn(arg, m, &t);
    }
}

static void visit_all(const struct random_model *m, visit *fn, void *arg)
{
    const struct tensor embed = {"model.embed_tokens.weight",
                                 "token_embd.weight", m->vocab, m->hidden, 0};
    const struct tensor norm = {"model.norm.weight", "output_norm.weight", 0,
                                m->hidden, 0};
    const struct tensor head = {"lm_head.weight", "output.weight", m->vocab,
                                m->hidden, 0};
    fn(arg, m, &embed);
    for (uint32_t i = 0; i < m->layers; i++)
        visit_layer(m, i, fn, arg);
    fn(arg, m, &norm);
    if (!m->tied) fn(arg, m, &head);
}

static size_t elements(const struct tensor *t)
{
    return (t->rows ? t->rows : 1) * (size_t)t->cols;
}

static uint64_t fnv1a64(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* The function of make_checkpoints.py, before rounding to the dtype. */
static void fill(const struct random_model *m, const struct tensor *t,
                 float *out)
{
    const uint64_t start = fnv1a64(t->hf) + m->seed;
    const size_t n = strlen(t->hf), tail = strlen("norm.weight");
    const bool gain = n > tail && !strcmp(t->hf + n - tail, "norm.weight");
    const int half_log = (31 - __builtin_clz(t->cols)) / 2;
    const float scale = t->rows ? ldexpf(1, 1 - 23 - half_log) : ldexpf(1, -25);
    for (size_t i = 0; i < elements(t); i++) {
        uint64_t state = start + i;
        int32_t k = (int32_t)(rng_next(&state) >> 40) - (1 << 23);
        out[i] = (float)k * scale + (gain ? 1 : 0);
    }
}

/* The tensor in the model's own dtype, as float32. */
static float *values(const struct random_model *m, const struct tensor *t)
{
    size_t n = elements(t);
    float *v = mem_must(n, sizeof *v);
    fill(m, t, v);
    if (m->dtype != DTYPE_F32) {
        void *rounded = mem_must(n, 2);
        dtype_encode(m->dtype, v, rounded, n);
        dtype_decode(m->dtype, rounded, v, n);
        mem_free(rounded);
    }
    return v;
}

/* --- files ------------------------------------------------------------ */

static void write_file(const char *folder, const char *name, const void *bytes,
                       size_t n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "cannot write", path);
}

static void write_json(const char *folder, const char *name, json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_ENCODE_ANY);
    check(value && text, "cannot make", name);
    write_file(folder, name, text, strlen(text));
    free(text);
    json_decref(value);
}

/* --- tokenizer -------------------------------------------------------- */

enum { BYTES = 256, SPECIALS = 3, EOT = 269, IM_START = 270, IM_END = 271 };
static const char *const merges[][2] = {
    {" ", "t"}, {"h", "e"},   {"i", "n"}, {"e", "r"},       {"a", "n"},
    {"r", "e"}, {"o", "n"},   {" ", "a"}, {"\xc3", "\xa9"}, {" t", "he"},
    {"n", "d"}, {" a", "nd"}, {"in", "g"}};
static const char *const specials[SPECIALS] = {"<|endoftext|>", "<|im_start|>",
                                               "<|im_end|>"};
enum { MERGES = sizeof merges / sizeof *merges };
_Static_assert(BYTES + MERGES == EOT, "token ids");

static const char chat_template[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/* Appends bytes in GPT-2's alphabet: what prints stands for itself, the rest
 * for U+0100 and on. */
static void spell(char *out, const char *bytes)
{
    char *p = out + strlen(out);
    for (; *bytes; bytes++) {
        unsigned byte = (unsigned char)*bytes, point = 256;
        for (unsigned b = 0; b <= byte; b++) {
            bool prints = (b >= 0x21 && b <= 0x7e) ||
                          (b >= 0xa1 && b <= 0xac) || b >= 0xae;
            if (b == byte && prints) point = b;
            if (b < byte && !prints) point++;
        }
        if (point >= 0x80) *p++ = (char)(0xc0 | point >> 6);
        *p++ = (char)(point >= 0x80 ? 0x80 | (point & 0x3f) : point);
    }
    *p = 0;
}

enum { TOKEN_ROOM = 32 };

static void spell_token(char out[TOKEN_ROOM], unsigned id)
{
    out[0] = 0;
    if (id == 0) {
        strcpy(out, "\xc4\x80"); /* the byte 0 is U+0100 */
    } else if (id < BYTES) {
        spell(out, (char[]){(char)id, 0});
    } else if (id < EOT) {
        spell(out, merges[id - BYTES][0]);
        spell(out, merges[id - BYTES][1]);
    } else {
        strcpy(out, specials[id - EOT]);
    }
}

static void spell_merge(char out[TOKEN_ROOM], unsigned i)
{
    out[0] = 0;
    spell(out, merges[i][0]);
    strcat(out, " ");
    spell(out, merges[i][1]);
}

static json_t *byte_level(void)
{
    return json_pack("{ss sb sb sb}", "type", "ByteLevel", "add_prefix_space",
                     0, "trim_offsets", 0, "use_regex", 1);
}

static void write_tokenizer(const char *folder)
{
    json_t *vocab = json_object(), *list = json_array(), *added = json_array();
    char text[TOKEN_ROOM];
    for (unsigned i = 0; i < EOT; i++) {
        spell_token(text, i);
        json_object_set_new(vocab, text, json_integer(i));
    }
    for (unsigned i = 0; i < MERGES; i++) {
        spell_merge(text, i);
        json_array_append_new(list, json_string(text));
    }
    for (unsigned i = 0; i < SPECIALS; i++)
        json_array_append_new(
            added, json_pack("{si ss sb sb sb sb sb}", "id", EOT + i, "content",
                             specials[i], "single_word", 0, "lstrip", 0,
                             "rstrip", 0, "normalized", 0, "special", 1));
    write_json(
        folder, "tokenizer.json",
        json_pack("{ss sn sn so sn so so so s{ss sn sn sn sn sb sb so so}}",
                  "version", "1.0", "truncation", "padding", "added_tokens",
                  added, "normalizer", "pre_tokenizer", byte_level(),
                  "post_processor", byte_level(), "decoder", byte_level(),
                  "model", "type", "BPE", "dropout", "unk_token",
                  "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                  0, "byte_fallback", 0, "vocab", vocab, "merges", list));
    write_json(folder, "tokenizer_config.json",
               json_pack("{ss sn ss sb ss}", "tokenizer_class",
                         "PreTrainedTokenizerFast", "bos_token", "eos_token",
                         specials[2], "add_bos_token", 0, "chat_template",
                         chat_template));
}

/* --- safetensors ------------------------------------------------------ */

struct shards {
    unsigned count, next;
    json_t **headers; /* as many as shards */
    struct buf *data;
    json_t *map; /* tensor -> file */
};

static void shard_name(char out[64], unsigned i, unsigned n)
{
    if (n == 1)
        strcpy(out, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", i + 1, n);
}

static void add_tensor(void *arg, const struct random_model *m,
                       const struct tensor *t)
{
    static const char *const names[] = {
        [DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16"};
    struct shards *s = arg;
    unsigned i = s->next++ % s->count;
    struct buf *data = &s->data[i];
    size_t n = elements(t), begin = data->len;
    float *v = values(m, t);
    char *bytes = buf_grow(data, dtype_row_bytes(m->dtype, n));
    check(bytes, "no memory for", t->hf);
    dtype_encode(m->dtype, v, bytes, n);
    data->len += dtype_row_bytes(m->dtype, n);
    mem_free(v);
    json_t *shape = t->rows ? json_pack("[ii]", t->rows, t->cols)
                            : json_pack("[i]", t->cols);
    json_object_set_new(s->headers[i], t->hf,
                        json_pack("{ss so s[II]}", "dtype", names[m->dtype],
                                  "shape", shape, "data_offsets",
                                  (json_int_t)begin, (json_int_t)data->len));
    char name[64];
    shard_name(name, i, s->count);
    json_object_set_new(s->map, t->hf, json_string(name));
}

static void write_shard(const char *folder, const char *name,
                        const json_t *header, const struct buf *data)
{
    struct buf file;
    buf_init(&file, (size_t)1 << 34);
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t n = (strlen(text) + 7) / 8 * 8;
    buf_add(&file, &n, sizeof n);
    buf_puts(&file, text);
    while (file.len < sizeof n + n)
        buf_putc(&file, ' ');
    buf_add(&file, data->data, data->len);
    check(!file.failed, "no memory for", name);
    write_file(folder, name, file.data, file.len);
    buf_fini(&file);
    free(text);
}

static void write_weights(const struct random_model *m, const char *folder,
                          unsigned shards)
{
    struct shards s = {.count = shards, .map = json_object()};
    s.headers = mem_must(shards, sizeof(json_t *));
    s.data = mem_must(shards, sizeof *s.data);
    for (unsigned i = 0; i < shards; i++) {
        s.headers[i] = json_object();
        buf_init(&s.data[i], (size_t)1 << 34);
    }
    visit_all(m, add_tensor, &s);
    for (unsigned i = 0; i < shards; i++) {
        char name[64];
        shard_name(name, i, shards);
        write_shard(folder, name, s.headers[i], &s.data[i]);
        json_decref(s.headers[i]);
        buf_fini(&s.data[i]);
    }
    if (shards > 1)
        write_json(folder, "model.safetensors.index.json",
                   json_pack("{sO}", "weight_map", s.map));
    json_decref(s.map);
    mem_free(s.headers);
    mem_free(s.data);
}

void random_model_write_folder(const struct random_model *m, const char *folder,
                               unsigned shards)
{
    mkdir(folder, 0777); /* it may be there */
    write_json(folder, "config.json", json_deep_copy(m->config));
    write_json(folder, "generation_config.json",
               json_pack("{s[ii]}", "eos_token_id", IM_END, EOT));
    write_tokenizer(folder);
    write_weights(m, folder, shards);
}

/* --- GGUF ------------------------------------------------------------- */

struct gguf_job {
    struct gguf_build b;
    enum dtype type;
    bool decoded;
};

/* Rows of a head in halves (j, i) to pairs (i, j), as llama.cpp's converter
 * does for Llama. */
static void interleave(float *v, const struct tensor *t)
{
    size_t rows = t->rows ? t->rows : t->cols;
    size_t cols = t->rows ? t->cols : 1, d = rows / t->heads;
    float *copy = mem_must(rows * cols, sizeof *copy);
    memcpy(copy, v, rows * cols * sizeof *copy);
    for (size_t r = 0; r < rows; r++) {
        size_t in = r % d, to = in < d / 2 ? 2 * in : 2 * (in - d / 2) + 1;
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

static void add_gguf_tensor(void *arg, const struct random_model *m,
                            const struct tensor *t)
{
    struct gguf_job *job = arg;
    const size_t n = elements(t);
    enum dtype type =
        t->rows && dtype_row_bytes(job->type, t->cols) ? job->type : DTYPE_F32;
    float *v = values(m, t);
    if (t->heads) interleave(v, t);
    size_t bytes = n / dtype_block_elems(type) * dtype_block_bytes(type);
    uint8_t *packed = mem_must(bytes, 1);
    if (is_k_quant(type))
        random_blocks(type, fnv1a64(t->hf), t->cols, packed, bytes);
    else
        dtype_encode(type, v, packed, n);
    const uint64_t shape[] = {t->rows ? t->rows : t->cols, t->cols};
    const uint32_t dims = t->rows ? 2 : 1;
    if (job->decoded) {
        dtype_decode(type, packed, v, n);
        gguf_build_tensor(&job->b, t->gguf, 0, dims, shape, v, n * sizeof *v);
    } else {
        gguf_build_tensor(&job->b, t->gguf, gguf_build_type(type), dims, shape,
                          packed, bytes);
    }
    mem_free(packed);
    mem_free(v);
}

static double real(const json_t *object, const char *key, double fallback)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

/* llama.cpp's converter writes llama3 scaling as what each frequency is
 * divided by. */
static void add_divisors(struct gguf_build *b, uint32_t pairs, double theta,
                         const json_t *rope)
{
    float *divisors = mem_must(pairs, sizeof *divisors);
    double old = real(rope, "original_max_position_embeddings", 0);
    double low = real(rope, "low_freq_factor", 0);
    double high = real(rope, "high_freq_factor", 0);
    double factor = real(rope, "factor", 1);
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
    const char *arch = m->llama ? "llama" : "qwen3";
    const json_t *rope = json_object_get(m->config, "rope_parameters");
    if (!rope) rope = json_object_get(m->config, "rope_scaling");
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    double theta =
        real(rope, "rope_theta", real(m->config, "rope_theta", 10000));
    char key[64];
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    gguf_build_f32(b, key, (float)theta);
    if (!type || !strcmp(type, "default")) return;
    if (!strcmp(type, "llama3")) {
        add_divisors(b, m->head_dim / 2, theta, rope);
        return;
    }
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    gguf_build_string(b, key, type);
    snprintf(key, sizeof key, "%s.rope.scaling.factor", arch);
    gguf_build_f32(b, key, (float)real(rope, "factor", 1));
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", arch);
    gguf_build_u32(b, key,
                   (uint32_t)real(rope, "original_max_position_embeddings", 0));
}

static void add_vocabulary(struct gguf_build *b, uint32_t vocab)
{
    char(*text)[TOKEN_ROOM] = mem_must(vocab, sizeof *text);
    const char **tokens = mem_must(vocab, sizeof *tokens);
    int32_t *types = mem_must(vocab, sizeof *types);
    for (uint32_t i = 0; i < vocab; i++) {
        if (i <= IM_END)
            spell_token(text[i], i);
        else
            snprintf(text[i], sizeof text[i], "[unused%u]", i);
        tokens[i] = text[i];
        types[i] = i < EOT ? 1 : i <= IM_END ? 3 : 5;
    }
    gguf_build_string(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_strings(b, "tokenizer.ggml.tokens", tokens, vocab);
    gguf_build_ints(b, "tokenizer.ggml.token_type", types, vocab);
    for (unsigned i = 0; i < MERGES; i++) {
        spell_merge(text[i], i);
        tokens[i] = text[i];
    }
    gguf_build_strings(b, "tokenizer.ggml.merges", tokens, MERGES);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", IM_END);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    gguf_build_string(b, "tokenizer.chat_template", chat_template);
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
        {"rope.dimension_count", m->head_dim},
        {"feed_forward_length", m->ffn},
        {"context_length", count(m->config, "max_position_embeddings")}};
    const char *arch = m->llama ? "llama" : "qwen3";
    char key[64];
    gguf_build_string(b, "general.architecture", arch);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, counts[i].key);
        gguf_build_u32(b, key, counts[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_build_f32(b, key, (float)real(m->config, "rms_norm_eps", 1e-6));
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
    visit_all(m, add_gguf_tensor, &job);
    buf_init(&file, (size_t)1 << 34);
    gguf_build_finish(&job.b, 3, &file);
    write_file("", path, file.data, file.len);
    buf_fini(&file);
    gguf_build_fini(&job.b);
}
