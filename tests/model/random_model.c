#include "tests/model/random_parts.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void random_check(bool ok, const char *what, const char *detail)
{
    if (ok) return;
    fprintf(stderr, "random model: %s %s\n", what, detail);
    abort();
}

uint32_t random_count(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_is_integer(v) ? (uint32_t)json_integer_value(v) : 0;
}

double random_real(const json_t *object, const char *key, double fallback)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

struct random_model *random_model_read(const char *path)
{
    struct random_model *m = mem_must(1, sizeof *m);
    struct why why = {0};
    int rc = json_read(&m->spec, path, 1 << 20, &why);
    random_check(!rc, "cannot read", why.text);
    const json_t *c = m->config = json_object_get(m->spec, "config");
    const char *dtype = json_string_value(json_object_get(c, "torch_dtype"));
    const char *type = json_string_value(json_object_get(c, "model_type"));
    random_check(dtype && type, "no torch_dtype or model_type in", path);
    m->seed = (uint64_t)json_integer_value(json_object_get(m->spec, "seed"));
    m->dtype = !strcmp(dtype, "bfloat16")  ? DTYPE_BF16
               : !strcmp(dtype, "float16") ? DTYPE_F16
                                           : DTYPE_F32;
    const char *qwen = strstr(type, "qwen");
    m->gguf = !strcmp(type, "qwen3_moe") ? "qwen3moe" : qwen ? type : "llama";
    m->interleaved = !qwen;
    m->qk_norm = qwen && strcmp(type, "qwen2") != 0;
    m->qkv_bias = qwen && !m->qk_norm;
    m->tied = json_is_true(json_object_get(c, "tie_word_embeddings"));
    m->mlp_bias = json_is_true(json_object_get(c, "mlp_bias"));
    m->o_bias = json_is_true(json_object_get(c, "attention_bias"));
    m->qkv_bias = m->qkv_bias || m->o_bias;
    m->vocab = random_count(c, "vocab_size");
    m->hidden = random_count(c, "hidden_size");
    m->layers = random_count(c, "num_hidden_layers");
    m->heads = random_count(c, "num_attention_heads");
    m->kv_heads = random_count(c, "num_key_value_heads");
    m->ffn = random_count(c, "intermediate_size");
    m->head_dim = random_count(c, "head_dim");
    random_check(m->heads && m->vocab >= 272,
                 "no heads or a small vocabulary in", path);
    if (!m->head_dim) m->head_dim = m->hidden / m->heads;
    m->rotary = (uint32_t)(random_real(json_object_get(c, "rope_parameters"),
                                       "partial_rotary_factor", 1) *
                           m->head_dim);
    m->experts = random_count(c, "num_experts");
    m->expert_ffn = random_count(c, "moe_intermediate_size");
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

/* How many experts a layer has, 0: a plain feed-forward. */
static uint32_t layer_experts(const struct random_model *m, uint32_t layer)
{
    const json_t *plain = json_object_get(m->config, "mlp_only_layers");
    uint32_t step = random_count(m->config, "decoder_sparse_step");
    for (size_t i = 0; i < json_array_size(plain); i++)
        if (json_integer_value(json_array_get(plain, i)) == layer) return 0;
    return (layer + 1) % (step ? step : 1) == 0 ? m->experts : 0;
}

static void visit_layer(const struct random_model *m, uint32_t layer,
                        random_visit *fn, void *arg)
{
    const uint32_t n = m->hidden, f = m->ffn, d = m->head_dim;
    const uint32_t q = m->heads * d, kv = m->kv_heads * d;
    const uint32_t qh = m->interleaved ? m->heads : 0,
                   kh = m->interleaved ? m->kv_heads : 0;
    const uint32_t e = layer_experts(m, layer), fe = m->expert_ffn;
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
        {"self_attn.q_proj.bias", "attn_q.bias", 0, q, qh, m->qkv_bias},
        {"self_attn.k_proj.bias", "attn_k.bias", 0, kv, kh, m->qkv_bias},
        {"self_attn.v_proj.bias", "attn_v.bias", 0, kv, 0, m->qkv_bias},
        {"self_attn.o_proj.bias", "attn_output.bias", 0, n, 0, m->o_bias},
        {"self_attn.q_norm.weight", "attn_q_norm.weight", 0, d, 0, m->qk_norm},
        {"self_attn.k_norm.weight", "attn_k_norm.weight", 0, d, 0, m->qk_norm},
        {"post_attention_layernorm.weight", "ffn_norm.weight", 0, n, 0, true},
        {"mlp.gate_proj.weight", "ffn_gate.weight", f, n, 0, !e},
        {"mlp.up_proj.weight", "ffn_up.weight", f, n, 0, !e},
        {"mlp.down_proj.weight", "ffn_down.weight", n, f, 0, !e},
        {"mlp.gate_proj.bias", "ffn_gate.bias", 0, f, 0, m->mlp_bias},
        {"mlp.up_proj.bias", "ffn_up.bias", 0, f, 0, m->mlp_bias},
        {"mlp.down_proj.bias", "ffn_down.bias", 0, n, 0, m->mlp_bias},
        {"mlp.gate.weight", "ffn_gate_inp.weight", e, n, 0, e > 0},
        {"mlp.experts.%u.gate_proj.weight", "ffn_gate_exps.weight", fe, n, 0,
         e > 0},
        {"mlp.experts.%u.up_proj.weight", "ffn_up_exps.weight", fe, n, 0,
         e > 0},
        {"mlp.experts.%u.down_proj.weight", "ffn_down_exps.weight", n, fe, 0,
         e > 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct random_tensor t = {.rows = list[i].rows,
                                  .cols = list[i].cols,
                                  .heads = list[i].heads,
                                  .experts = strchr(list[i].hf, '%') ? e : 0};
        snprintf(t.hf, sizeof t.hf, "model.layers.%u.%s", layer, list[i].hf);
        snprintf(t.gguf, sizeof t.gguf, "blk.%u.%s", layer, list[i].gguf);
        if (list[i].present) fn(arg, m, &t);
    }
}

void random_visit_all(const struct random_model *m, random_visit *fn, void *arg)
{
    const struct random_tensor embed = {"model.embed_tokens.weight",
                                        "token_embd.weight",
                                        m->vocab,
                                        m->hidden,
                                        0,
                                        0};
    const struct random_tensor norm = {
        "model.norm.weight", "output_norm.weight", 0, m->hidden, 0, 0};
    const struct random_tensor head = {
        "lm_head.weight", "output.weight", m->vocab, m->hidden, 0, 0};
    fn(arg, m, &embed);
    for (uint32_t i = 0; i < m->layers; i++)
        visit_layer(m, i, fn, arg);
    fn(arg, m, &norm);
    if (!m->tied) fn(arg, m, &head);
}

size_t random_elements(const struct random_tensor *t)
{
    return (t->rows ? t->rows : 1) * (size_t)t->cols;
}

uint64_t random_hash(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* The function of make_checkpoints.py, before rounding to the dtype. */
static void fill(const struct random_model *m, const struct random_tensor *t,
                 const char *name, float *out)
{
    const uint64_t start = random_hash(name) + m->seed;
    const size_t n = strlen(name), tail = strlen("norm.weight");
    const bool gain = n > tail && !strcmp(name + n - tail, "norm.weight");
    const int half_log = (31 - __builtin_clz(t->cols)) / 2;
    const float scale = t->rows ? ldexpf(1, 1 - 23 - half_log) : ldexpf(1, -25);
    for (size_t i = 0; i < random_elements(t); i++) {
        uint64_t state = start + i;
        int32_t k = (int32_t)(rng_next(&state) >> 40) - (1 << 23);
        out[i] = (float)k * scale + (gain ? 1 : 0);
    }
}

/* The name of the tensor, or of that expert's. */
static void tensor_name(char out[128], const struct random_tensor *t,
                        uint32_t expert)
{
    const char *mark = t->experts ? strstr(t->hf, "%u") : NULL;
    if (mark)
        snprintf(out, 128, "%.*s%u%s", (int)(mark - t->hf), t->hf, expert,
                 mark + 2);
    else
        snprintf(out, 128, "%s", t->hf);
}

float *random_values(const struct random_model *m,
                     const struct random_tensor *t, uint32_t expert)
{
    char name[128];
    tensor_name(name, t, expert);
    size_t n = random_elements(t);
    float *v = mem_must(n, sizeof *v);
    fill(m, t, name, v);
    if (m->dtype != DTYPE_F32) {
        void *rounded = mem_must(n, 2);
        dtype_encode(m->dtype, v, rounded, n);
        dtype_decode(m->dtype, rounded, v, n);
        mem_free(rounded);
    }
    return v;
}

/* --- files ------------------------------------------------------------ */

void random_write_file(const char *folder, const char *name, const void *bytes,
                       size_t n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);
    FILE *f = fopen(path, "wb");
    random_check(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "cannot write",
                 path);
}

static void write_json(const char *folder, const char *name, json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_ENCODE_ANY);
    random_check(value && text, "cannot make", name);
    random_write_file(folder, name, text, strlen(text));
    free(text);
    json_decref(value);
}

/* --- tokenizer -------------------------------------------------------- */

enum { SPECIALS = 3 };
static const char *const merges[][2] = {
    {" ", "t"}, {"h", "e"},   {"i", "n"}, {"e", "r"},       {"a", "n"},
    {"r", "e"}, {"o", "n"},   {" ", "a"}, {"\xc3", "\xa9"}, {" t", "he"},
    {"n", "d"}, {" a", "nd"}, {"in", "g"}};
static const char *const specials[SPECIALS] = {"<|endoftext|>", "<|im_start|>",
                                               "<|im_end|>"};
_Static_assert(RANDOM_MERGES == sizeof merges / sizeof *merges, "token ids");

const char random_chat_template[] =
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

void random_spell_token(char out[RANDOM_TOKEN_ROOM], unsigned id)
{
    out[0] = 0;
    if (id == 0) {
        strcpy(out, "\xc4\x80"); /* the byte 0 is U+0100 */
    } else if (id < RANDOM_BYTES) {
        spell(out, (char[]){(char)id, 0});
    } else if (id < RANDOM_EOT) {
        spell(out, merges[id - RANDOM_BYTES][0]);
        spell(out, merges[id - RANDOM_BYTES][1]);
    } else {
        strcpy(out, specials[id - RANDOM_EOT]);
    }
}

void random_spell_merge(char out[RANDOM_TOKEN_ROOM], unsigned i)
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
    char text[RANDOM_TOKEN_ROOM];
    for (unsigned i = 0; i < RANDOM_EOT; i++) {
        random_spell_token(text, i);
        json_object_set_new(vocab, text, json_integer(i));
    }
    for (unsigned i = 0; i < RANDOM_MERGES; i++) {
        random_spell_merge(text, i);
        json_array_append_new(list, json_string(text));
    }
    for (unsigned i = 0; i < SPECIALS; i++)
        json_array_append_new(
            added, json_pack("{si ss sb sb sb sb sb}", "id", RANDOM_EOT + i,
                             "content", specials[i], "single_word", 0, "lstrip",
                             0, "rstrip", 0, "normalized", 0, "special", 1));
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
                         random_chat_template));
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

static void add_one(struct shards *s, const struct random_model *m,
                    const struct random_tensor *t, uint32_t expert)
{
    static const char *const names[] = {
        [DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16"};
    char full[128];
    tensor_name(full, t, expert);
    unsigned i = s->next++ % s->count;
    struct buf *data = &s->data[i];
    size_t n = random_elements(t), begin = data->len;
    float *v = random_values(m, t, expert);
    char *bytes = buf_grow(data, dtype_row_bytes(m->dtype, n));
    random_check(bytes, "no memory for", t->hf);
    dtype_encode(m->dtype, v, bytes, n);
    data->len += dtype_row_bytes(m->dtype, n);
    mem_free(v);
    json_t *shape = t->rows ? json_pack("[ii]", t->rows, t->cols)
                            : json_pack("[i]", t->cols);
    json_object_set_new(s->headers[i], full,
                        json_pack("{ss so s[II]}", "dtype", names[m->dtype],
                                  "shape", shape, "data_offsets",
                                  (json_int_t)begin, (json_int_t)data->len));
    char name[64];
    shard_name(name, i, s->count);
    json_object_set_new(s->map, full, json_string(name));
}

static void add_tensor(void *arg, const struct random_model *m,
                       const struct random_tensor *t)
{
    for (uint32_t e = 0; e < (t->experts ? t->experts : 1); e++)
        add_one(arg, m, t, e);
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
    random_check(!file.failed, "no memory for", name);
    random_write_file(folder, name, file.data, file.len);
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
    random_visit_all(m, add_tensor, &s);
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
               json_pack("{s[ii]}", "eos_token_id", RANDOM_IM_END, RANDOM_EOT));
    write_tokenizer(folder);
    write_weights(m, folder, shards);
}
