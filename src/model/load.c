/* Every weight is asked for by its names in both kinds of file, its shape and
 * whether it must exist; what does not match is refused by name. Matrices
 * stay where they are mapped. Only three things are copied: vectors (to
 * float32), rows of q and k that a GGUF file keeps in another order, and
 * matrices that a file did not align. */
#include "model/load.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/safetensors.h"
#include "base/map.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct load {
    char *path;
    struct gguf *gguf; /* one of the two */
    struct safetensors *shards;
    struct device *dev;
    struct weight **weights; /* made here, to be destroyed */
    size_t weight_count, weight_cap;
    void **vectors; /* device memory */
    size_t vector_count, vector_cap;
    void **copies; /* host memory that weights borrow */
    size_t copy_count, copy_cap;
    size_t bound_bytes;
    uint64_t hash;
    const struct model_options *options; /* while binding */
    struct why *why;                     /* while binding */
};

static size_t tensor_count(const struct load *l)
{
    return l->gguf ? gguf_tensor_count(l->gguf)
                   : safetensors_tensor_count(l->shards);
}

static const struct stored_tensor *tensor_at(const struct load *l, size_t i)
{
    return l->gguf ? gguf_tensor(l->gguf, i) : safetensors_tensor(l->shards, i);
}

static const struct stored_tensor *tensor_find(const struct load *l,
                                               const char *name)
{
    return l->gguf ? gguf_find(l->gguf, name)
                   : safetensors_find(l->shards, name);
}

/* The type that most bytes of weights have. */
static enum dtype main_type(const struct load *l, enum dtype fallback)
{
    size_t bytes[DTYPE_COUNT] = {0}, most = 0;
    enum dtype best = fallback;
    for (size_t i = 0; i < tensor_count(l); i++) {
        const struct stored_tensor *t = tensor_at(l, i);
        if (t->type < 0) continue;
        bytes[t->type] += t->size;
        if (bytes[t->type] > most) {
            most = bytes[t->type];
            best = (enum dtype)t->type;
        }
    }
    return best;
}

static int open_files(struct load *l, struct model_config *config,
                      struct why *why)
{
    struct stat st;
    if (stat(l->path, &st))
        return err_sys(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno,
                       "%s", l->path);
    if (S_ISDIR(st.st_mode)) {
        int rc = config_from_folder(config, l->path, why);
        return rc ? rc : safetensors_open(&l->shards, l->path, why);
    }
    if (!gguf_is(l->path))
        return err_set(why, ERR_FORMAT,
                       "%s: is no GGUF file (for safetensors give the folder "
                       "that holds config.json)",
                       l->path);
    int rc = gguf_open(&l->gguf, l->path, why);
    return rc ? rc : config_from_gguf(config, l->gguf, l->path, why);
}

int load_open(struct load **out, struct model_config *config, const char *path,
              struct why *why)
{
    *out = NULL;
    struct load *l = mem_must(1, sizeof *l);
    l->path = mem_dup(path);
    int rc = open_files(l, config, why);
    if (rc) {
        load_close(l);
        return rc;
    }
    config->dtype = main_type(l, config->dtype);
    *out = l;
    return 0;
}

void load_close(struct load *l)
{
    if (!l) return;
    for (size_t i = 0; i < l->weight_count; i++)
        weight_destroy(l->weights[i]);
    for (size_t i = 0; i < l->vector_count; i++)
        device_free(l->dev, l->vectors[i]);
    for (size_t i = 0; i < l->copy_count; i++)
        mem_free(l->copies[i]);
    mem_free(l->weights);
    mem_free(l->vectors);
    mem_free(l->copies);
    gguf_close(l->gguf);
    safetensors_close(l->shards);
    mem_free(l->path);
    mem_free(l);
}

size_t load_stored_bytes(const struct load *l)
{
    size_t bytes = 0;
    for (size_t i = 0; i < tensor_count(l); i++)
        bytes += tensor_at(l, i)->size;
    return bytes;
}

size_t load_bound_bytes(const struct load *l)
{
    return l->bound_bytes;
}

/* --- one weight ------------------------------------------------------- */

/* What a forward pass wants to find. Names of a layer are what stands behind
 * "model.layers.N." and "blk.N.". */
struct want {
    const char *hf, *gguf;
    uint32_t rows, cols; /* rows 0: a vector of cols                       */
    uint32_t heads;      /* not 0: of so many heads, interleaved in GGUF   */
};
enum { NO_LAYER = -1 };

static const struct stored_tensor *find_want(const struct load *l,
                                             const struct want *w, int layer,
                                             char *name, size_t n)
{
    const char *suffix = l->gguf ? w->gguf : w->hf;
    if (layer == NO_LAYER)
        snprintf(name, n, "%s", suffix);
    else
        snprintf(name, n, "%s.%d.%s", l->gguf ? "blk" : "model.layers", layer,
                 suffix);
    return tensor_find(l, name);
}

static int check_want(const struct load *l, const struct want *w,
                      const char *name, const struct stored_tensor *t)
{
    char text[128];
    if (!t)
        return err_set(l->why, ERR_FORMAT, "%s: tensor %s is missing", l->path,
                       name);
    bool vector = w->rows == 0;
    bool fits = vector ? t->dims == 1 && t->shape[0] == w->cols
                       : t->dims == 2 && t->shape[0] == w->rows &&
                             t->shape[1] == w->cols;
    stored_shape_text(t, text, sizeof text);
    if (!fits && vector)
        return err_set(l->why, ERR_FORMAT,
                       "%s: tensor %s has shape %s, the config asks for [%u]",
                       t->file, name, text, w->cols);
    if (!fits)
        return err_set(
            l->why, ERR_FORMAT,
            "%s: tensor %s has shape %s, the config asks for [%u, %u]", t->file,
            name, text, w->rows, w->cols);
    if (t->type < 0 || (vector && dtype_block_elems((enum dtype)t->type) != 1))
        return err_set(l->why, ERR_UNSUPPORTED,
                       "%s: tensor %s is stored as %s, which is not supported",
                       t->file, name, t->type_name);
    return 0;
}

/* A sample of the bytes tells fine-tunes of one model apart. */
static void note_bound(struct load *l, const struct stored_tensor *t)
{
    enum { SAMPLE = 64 };
    size_t n = t->size < SAMPLE ? t->size : SAMPLE;
    l->hash = hash_bytes(t->name, strlen(t->name), l->hash);
    l->hash = hash_bytes(t->type_name, strlen(t->type_name), l->hash);
    l->hash = hash_bytes(t->shape, sizeof t->shape, l->hash);
    l->hash = hash_bytes(t->bytes, n, l->hash);
    l->hash = hash_bytes(t->bytes + t->size - n, n, l->hash);
    l->bound_bytes += t->size;
    if (l->options->progress)
        l->options->progress(l->options->arg, l->bound_bytes,
                             load_stored_bytes(l));
}

static void keep(void ***list, size_t *count, size_t *cap, void *what)
{
    if (*count == *cap) {
        *cap = *cap ? 2 * *cap : 64;
        *list = mem_remust(*list, *cap * sizeof **list);
    }
    (*list)[(*count)++] = what;
}

/* Where row r of a head of d rows stands in the interleaved order. */
static size_t interleaved(size_t r, size_t d)
{
    return r < d / 2 ? 2 * r : 2 * (r - d / 2) + 1;
}

/* A copy of count rows of row_bytes each, out of the interleaved order when
 * heads is not 0. NULL: no memory. */
static void *copy_rows(const uint8_t *from, size_t count, size_t row_bytes,
                       size_t heads)
{
    uint8_t *copy = mem_try(count, row_bytes, 64);
    if (!copy) return NULL;
    size_t d = heads ? count / heads : count;
    for (size_t i = 0; i < count; i++) {
        size_t r = heads ? i / d * d + interleaved(i % d, d) : i;
        memcpy(copy + i * row_bytes, from + r * row_bytes, row_bytes);
    }
    return copy;
}

static bool misaligned(const struct stored_tensor *t)
{
    return (uintptr_t)t->bytes % (t->type == DTYPE_F32 ? 4 : 2) != 0;
}

static int load_matrix(struct load *l, struct weight **out,
                       const struct want *w, int layer)
{
    char name[128];
    const struct stored_tensor *t = find_want(l, w, layer, name, sizeof name);
    int rc = check_want(l, w, name, t);
    if (rc) return rc;
    const void *bytes = t->bytes;
    size_t heads = l->gguf ? w->heads : 0;
    if (heads || misaligned(t)) {
        void *copy = copy_rows(t->bytes, w->rows, t->size / w->rows, heads);
        if (!copy)
            return err_set(l->why, ERR_NOMEM, "%s: %zu bytes for a copy of %s",
                           t->file, t->size, name);
        keep(&l->copies, &l->copy_count, &l->copy_cap, copy);
        bytes = copy;
    }
    rc = weight_create(out, l->dev, (enum dtype)t->type, w->rows, w->cols,
                       bytes, l->why);
    if (rc) return rc;
    keep((void ***)&l->weights, &l->weight_count, &l->weight_cap, *out);
    note_bound(l, t);
    return 0;
}

/* The tensor as float32 in host memory, the caller's. */
static int read_vector(struct load *l, float **out, const struct want *w,
                       int layer)
{
    char name[128];
    const struct stored_tensor *t = find_want(l, w, layer, name, sizeof name);
    *out = NULL;
    int rc = check_want(l, w, name, t);
    if (rc) return rc;
    void *bytes =
        copy_rows(t->bytes, w->cols, t->size / w->cols, l->gguf ? w->heads : 0);
    float *values = mem_try(w->cols, sizeof *values, 0);
    if (bytes && values) {
        dtype_decode((enum dtype)t->type, bytes, values, w->cols);
        note_bound(l, t);
        *out = values;
    } else {
        rc = err_set(l->why, ERR_NOMEM, "%s: %s", t->file, name);
        mem_free(values);
    }
    mem_free(bytes);
    return rc;
}

static int load_vector(struct load *l, float **out, const struct want *w,
                       int layer)
{
    float *values;
    int rc = read_vector(l, &values, w, layer);
    if (rc) return rc;
    void *memory;
    rc = device_alloc(l->dev, &memory, w->cols * sizeof *values, l->why);
    if (!rc) {
        device_write(l->dev, memory, values, w->cols * sizeof *values);
        keep(&l->vectors, &l->vector_count, &l->vector_cap, memory);
        *out = memory;
    }
    mem_free(values);
    return rc;
}

/* --- all weights ------------------------------------------------------ */

/* Llama's layer, with Qwen3's norms of q and k and with the biases where the
 * config has them. */
static int load_layer(struct load *l, const struct model *m, int i)
{
    const struct model_config *c = &m->config;
    struct layer *to = &m->layers[i];
    const uint32_t n = c->hidden, f = c->ffn, d = c->head_dim;
    const uint32_t hd = c->heads * d, gd = c->kv_heads * d;
    const uint32_t qh = m->arch->gguf_interleaved ? c->heads : 0;
    const uint32_t kh = m->arch->gguf_interleaved ? c->kv_heads : 0;
    const struct {
        bool wanted;
        struct weight **to;
        struct want w;
    } matrices[] = {
        {true, &to->q, {"self_attn.q_proj.weight", "attn_q.weight", hd, n, qh}},
        {true, &to->k, {"self_attn.k_proj.weight", "attn_k.weight", gd, n, kh}},
        {true, &to->v, {"self_attn.v_proj.weight", "attn_v.weight", gd, n, 0}},
        {true,
         &to->o,
         {"self_attn.o_proj.weight", "attn_output.weight", n, hd, 0}},
        {true, &to->gate, {"mlp.gate_proj.weight", "ffn_gate.weight", f, n, 0}},
        {true, &to->up, {"mlp.up_proj.weight", "ffn_up.weight", f, n, 0}},
        {true, &to->down, {"mlp.down_proj.weight", "ffn_down.weight", n, f, 0}},
    };
    const struct {
        bool wanted;
        float **to;
        struct want w;
    } vectors[] = {
        {true,
         &to->attn_norm,
         {"input_layernorm.weight", "attn_norm.weight", 0, n, 0}},
        {c->attention_bias,
         &to->q_bias,
         {"self_attn.q_proj.bias", "attn_q.bias", 0, hd, qh}},
        {c->attention_bias,
         &to->k_bias,
         {"self_attn.k_proj.bias", "attn_k.bias", 0, gd, kh}},
        {c->attention_bias,
         &to->v_bias,
         {"self_attn.v_proj.bias", "attn_v.bias", 0, gd, 0}},
        {c->output_bias,
         &to->o_bias,
         {"self_attn.o_proj.bias", "attn_output.bias", 0, n, 0}},
        {c->qk_norm,
         &to->q_norm,
         {"self_attn.q_norm.weight", "attn_q_norm.weight", 0, d, 0}},
        {c->qk_norm,
         &to->k_norm,
         {"self_attn.k_norm.weight", "attn_k_norm.weight", 0, d, 0}},
        {true,
         &to->ffn_norm,
         {"post_attention_layernorm.weight", "ffn_norm.weight", 0, n, 0}},
    };
    int rc = 0;
    for (size_t k = 0; k < sizeof matrices / sizeof *matrices && !rc; k++)
        rc = load_matrix(l, matrices[k].to, &matrices[k].w, i);
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors && !rc; k++)
        if (vectors[k].wanted)
            rc = load_vector(l, vectors[k].to, &vectors[k].w, i);
    return rc;
}

static int load_rope(struct load *l, struct model *m)
{
    const uint32_t pairs = m->config.rope.rotary / 2;
    const struct want w = {"", "rope_freqs.weight", 0, pairs, 0};
    float *divisors = NULL;
    int rc = 0;
    if (m->config.rope.kind == ROPE_DIVISORS)
        rc = read_vector(l, &divisors, &w, NO_LAYER);
    for (uint32_t i = 0; divisors && i < pairs && !rc; i++)
        if (!(divisors[i] > 0 && isfinite(divisors[i])))
            rc = err_set(l->why, ERR_FORMAT, "%s: rope_freqs.weight[%u] is %g",
                         l->path, i, (double)divisors[i]);
    if (!rc) {
        m->rope_freqs = mem_must(pairs, sizeof *m->rope_freqs);
        config_rope_freqs(&m->config, divisors, m->rope_freqs);
        m->rope = (struct rope){m->rope_freqs, m->config.rope.rotary,
                                (float)m->config.rope.attention_factor};
    }
    mem_free(divisors);
    return rc;
}

static int load_ends(struct load *l, struct model *m)
{
    const uint32_t n = m->config.hidden, vocab = m->config.vocab;
    const struct want embed = {"model.embed_tokens.weight", "token_embd.weight",
                               vocab, n, 0};
    const struct want norm = {"model.norm.weight", "output_norm.weight", 0, n,
                              0};
    const struct want head = {"lm_head.weight", "output.weight", vocab, n, 0};
    size_t before = l->bound_bytes;
    int rc = load_matrix(l, &m->embed, &embed, NO_LAYER);
    m->embed_bytes = l->bound_bytes - before;
    if (!rc) rc = load_vector(l, &m->final_norm, &norm, NO_LAYER);
    if (rc) return rc;
    m->head = m->embed;
    return m->config.tied ? 0 : load_matrix(l, &m->head, &head, NO_LAYER);
}

/* Field by field: the padding of a struct is nobody's. */
static uint64_t hash_config(const struct model_config *c)
{
    const uint32_t counts[] = {
        c->vocab,    c->hidden,         c->layers,     c->heads,
        c->kv_heads, c->head_dim,       c->ffn,        c->tied,
        c->qk_norm,  c->attention_bias, c->output_bias};
    const double reals[] = {(double)c->norm_eps, c->rope.attention_factor};
    uint64_t h = hash_bytes(c->arch, strlen(c->arch), 1);
    h = hash_bytes(counts, sizeof counts, h);
    return hash_bytes(reals, sizeof reals, h);
}

int load_bind(struct load *l, struct model *m,
              const struct model_options *options, struct why *why)
{
    l->dev = m->dev;
    l->options = options;
    l->why = why;
    l->hash = hash_config(&m->config);
    int rc = load_ends(l, m);
    if (!rc) rc = load_rope(l, m);
    for (uint32_t i = 0; i < m->config.layers && !rc; i++)
        rc = load_layer(l, m, (int)i);
    l->options = NULL;
    l->why = NULL;
    if (rc) return rc;
    m->fingerprint = hash_bytes(
        m->rope_freqs, m->config.rope.rotary / 2 * sizeof(float), l->hash);
    return 0;
}
