/* Every weight is asked for by its names in both kinds of file, its shape and
 * whether it must exist; what does not match is refused by name. A device reads
 * a matrix from where it is mapped, row by row where a file keeps them in
 * another order or in a form that must be converted (matrix.h), and keeps its
 * own, rounded where so asked; vectors become float32.
 *
 * All of it is one walk over what the architecture wants, to bind it or only
 * to count it (survey). */
#include "model/load.h"
#include "model/cache.h"
#include "model/config.h"
#include "model/file.h"
#include "model/matrix.h"
#include "model/rows.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct load {
    struct model_files files;
    struct device *dev;
    const struct model_config *config;
    uint32_t rotary;
    struct weight **weights; /* made here, to be destroyed */
    size_t weight_count, weight_cap;
    void **vectors; /* device memory */
    size_t vector_count, vector_cap;
    bool *used; /* of each tensor: somebody asked for it */
    size_t bound_bytes, done_bytes, total_bytes;
    size_t elements[DTYPE_COUNT]; /* of matrices that were bound so */
    uint64_t hash;
    struct model_survey *survey; /* not NULL: nothing is bound, only counted */
    struct later {
        struct weight *weight;
        const uint8_t *bytes;
        size_t size;
    } * later; /* weights that are not packed yet, from later_at on */
    size_t later_at, later_count, later_cap;
    bool puts_off;     /* what can be */
    uint64_t bound_us; /* when that was all */
    void (*note)(void *arg, bool coped, const char *text); /* of the options */
    void *note_arg;
    struct cache *cache;                 /* where matrices come from, or NULL */
    struct cache_save *save;             /* where they go to, or NULL */
    size_t missed;                       /* that it lacked */
    const struct model_options *options; /* while binding */
    struct why *why;                     /* while binding */
};

int load_open(struct load **out, struct model_config *config, const char *path,
              struct why *why)
{
    *out = NULL;
    struct load *l = mem_must(1, sizeof *l);
    int rc = model_files_open(&l->files, config, path, why);
    if (rc) {
        mem_free(l);
        return rc;
    }
    l->total_bytes = model_files_bytes(&l->files);
    *out = l;
    return 0;
}

void load_close(struct load *l)
{
    if (!l) return;
    cache_save_close(l->save);
    for (size_t i = 0; i < l->weight_count; i++)
        weight_destroy(l->weights[i]);
    for (size_t i = 0; i < l->vector_count; i++)
        device_free(l->dev, l->vectors[i]);
    cache_close(l->cache);
    mem_free(l->later);
    mem_free(l->weights);
    mem_free(l->vectors);
    model_files_close(&l->files);
    mem_free(l->used);
    mem_free(l);
}

size_t load_bound_bytes(const struct load *l)
{
    return l->bound_bytes;
}

enum dtype load_bound_type(const struct load *l)
{
    enum dtype most = DTYPE_F32;
    for (enum dtype t = 0; t < DTYPE_COUNT; t++)
        if (l->elements[t] > l->elements[most]) most = t;
    return most;
}

/* --- one weight ------------------------------------------------------- */

/* What a forward pass wants to find: names without ".weight". Those of a
 * layer are what stands behind "model.layers.N." and "blk.N.". */
struct want {
    const char *hf, *gguf;
    uint32_t rows, cols; /* rows 0: a vector of cols                        */
    uint32_t heads;      /* not 0: of so many heads, interleaved in GGUF    */
    bool floats;         /* never quantized while loading                   */
    uint32_t expert, experts; /* experts not 0: one of so many; in GGUF they
                                 lie in one tensor, in hf is a %u */
};
enum { NO_LAYER = -1 };
#define NAMES(hf_, gguf_, rows_, cols_) \
    .hf = hf_, .gguf = gguf_, .rows = rows_, .cols = cols_

static char *want_name(const struct load *l, const struct want *w, int layer,
                       char *name, size_t n)
{
    char hf[96];
    const char *own = w->gguf;
    if (l->files.shards) {
        const char *mark = w->experts ? strstr(w->hf, "%u") : NULL;
        own = w->hf;
        if (mark) {
            snprintf(hf, sizeof hf, "%.*s%u%s", (int)(mark - w->hf), w->hf,
                     w->expert, mark + 2);
            own = hf;
        }
    }
    if (layer == NO_LAYER)
        snprintf(name, n, "%s", own);
    else
        snprintf(name, n, "%s.%d.%s", l->files.gguf ? "blk" : "model.layers",
                 layer, own);
    return name;
}

/* The device has its own of these bytes now. A sample of them tells fine-tunes
 * of one model apart. */
static void note_bound(struct load *l, const struct stored_tensor *t,
                       const uint8_t *bytes, size_t size)
{
    enum { SAMPLE = 64 };
    size_t n = size < SAMPLE ? size : SAMPLE;
    l->hash = hash_bytes(t->name, strlen(t->name), l->hash);
    l->hash = hash_bytes(t->type_name, strlen(t->type_name), l->hash);
    l->hash = hash_bytes(t->shape, sizeof t->shape, l->hash);
    l->hash = hash_bytes(bytes, n, l->hash);
    l->hash = hash_bytes(bytes + size - n, n, l->hash);
    model_file_drop(bytes, size);
}

static void note_used(struct load *l, const struct stored_tensor *t)
{
    l->used[t - model_files_at(&l->files, 0)] = true;
}

static void note_progress(struct load *l, size_t stored)
{
    l->done_bytes += stored;
    if (l->options->progress)
        l->options->progress(l->options->arg, l->done_bytes, l->total_bytes);
}

static void keep(void ***list, size_t *count, size_t *cap, void *what)
{
    if (*count == *cap) {
        *cap = *cap ? 2 * *cap : 64;
        *list = mem_remust(*list, *cap * sizeof **list);
    }
    (*list)[(*count)++] = what;
}

static struct row_order order_of(const struct load *l, const struct want *w)
{
    size_t rows = w->rows ? w->rows : w->cols;
    return (struct row_order){l->files.gguf && w->heads ? rows / w->heads : 0,
                              l->rotary};
}

/* What a matrix is bound as. */
static enum dtype bound_type(const struct load *l, const struct want *w,
                             const struct matrix *m)
{
    return w->floats ? m->type
                     : rows_quantized(l->options->quantize, m->type, m->cols);
}

static void count_bound(struct load *l, enum dtype type, size_t bytes)
{
    l->bound_bytes += bytes;
    if (!l->survey) return;
    l->survey->types[type].count++;
    l->survey->types[type].bytes += bytes;
}

static int load_floats(struct load *l, float **out, const float *values,
                       size_t n)
{
    if (l->survey) return 0;
    void *memory;
    int rc = device_alloc(l->dev, &memory, n * sizeof *values, l->why);
    if (rc) return rc;
    device_write(l->dev, memory, values, n * sizeof *values);
    keep(&l->vectors, &l->vector_count, &l->vector_cap, memory);
    *out = memory;
    return 0;
}

static int load_hidden_bias(struct load *l, const struct matrix *m,
                            float **bias)
{
    float *values = mem_must(m->rows, sizeof *values);
    matrix_bias(m, values);
    int rc = load_floats(l, bias, values, m->rows);
    mem_free(values);
    return rc;
}

/* A weight whose rows stay may have been put off. */
static void note_later(struct load *l, struct weight *weight,
                       const struct matrix *m)
{
    if (l->later_count == l->later_cap) {
        l->later_cap = l->later_cap ? 2 * l->later_cap : 256;
        l->later = mem_remust(l->later, l->later_cap * sizeof *l->later);
    }
    l->later[l->later_count++] = (struct later){weight, m->bytes, m->size};
}

/* Makes the weight from the model's files. */
static int make_weight(struct load *l, struct weight **out,
                       const struct want *w, const struct matrix *m,
                       enum dtype type)
{
    struct rows rows = {m, order_of(l, w)};
    bool plain = m->form == MATRIX_AS_IS && !rows.order.head_rows;
    const struct weight_rows from = {.type = m->type,
                                     .bytes = plain ? m->bytes : NULL,
                                     .stay = plain && type == m->type &&
                                             l->puts_off,
                                     .row = rows_row,
                                     .arg = &rows};
    int rc =
        weight_create_from(out, l->dev, type, w->rows, w->cols, &from, l->why);
    if (!rc && from.stay) note_later(l, *out, m);
    return rc;
}

static int bind_weight(struct load *l, struct weight **out,
                       const struct want *w, const struct matrix *m,
                       const struct cache_entry *e)
{
    const void *packed = l->cache ? cache_find(l->cache, e) : NULL;
    enum dtype type = (enum dtype)e->type;
    if (l->cache && !packed) l->missed++;
    int rc =
        packed ? weight_map(out, l->dev, type, w->rows, w->cols, packed, l->why)
               : make_weight(l, out, w, m, type);
    if (rc) return rc;
    keep((void ***)&l->weights, &l->weight_count, &l->weight_cap, *out);
    if (l->save) cache_save_add(l->save, e, *out);
    return 0;
}

static struct cache_entry entry_of(const struct load *l, const struct want *w,
                                   enum dtype type, const char *name)
{
    struct cache_entry e = {
        .type = type, .expert = w->expert, .rows = w->rows, .cols = w->cols};
    snprintf(e.name, sizeof e.name, "%s", name);
    if (l->cache || l->save)
        e.bytes = weight_packed_bytes(l->dev, type, w->rows, w->cols);
    return e;
}

/* *bias is filled where the matrix hides one. */
static int load_matrix(struct load *l, struct weight **out, float **bias,
                       const struct want *w, int layer)
{
    static float hidden; /* stands for a bias that is not read */
    char name[160];
    struct matrix m;
    int rc = matrix_find(
        &m, &l->files, l->config, want_name(l, w, layer, name, sizeof name),
        w->rows, w->cols, w->expert, l->files.gguf ? w->experts : 0, l->why);
    if (rc) return rc;
    enum dtype type = bound_type(l, w, &m);
    count_bound(l, type, w->rows * dtype_row_bytes(type, w->cols));
    l->elements[type] += (size_t)w->rows * w->cols;
    note_used(l, m.main);
    const struct cache_entry e = entry_of(l, w, type, name);
    if (l->survey) {
        if (m.partial) *bias = &hidden;
        return 0;
    }
    rc = bind_weight(l, out, w, &m, &e);
    if (!rc && m.partial) rc = load_hidden_bias(l, &m, bias);
    if (rc) return rc;
    note_bound(l, m.main, m.bytes,
               m.main->size / (l->files.gguf && w->experts ? w->experts : 1));
    if (m.scales) note_bound(l, m.scales, m.scales->bytes, m.scales->size);
    l->hash = hash_bytes(&type, sizeof type, l->hash);
    note_progress(l, m.size);
    return 0;
}

/* The tensor as float32 in host memory, the caller's. */
static int read_vector(struct load *l, float **out, const struct want *w,
                       const char *suffix, int layer)
{
    char base[160], name[192], text[128];
    snprintf(name, sizeof name, "%s.%s",
             want_name(l, w, layer, base, sizeof base), suffix);
    const struct stored_tensor *t = model_files_find(&l->files, name);
    *out = NULL;
    if (!t)
        return err_set(l->why, ERR_FORMAT, "%s: tensor %s is missing",
                       l->files.path, name);
    if (t->dims != 1 || t->shape[0] != w->cols)
        return err_set(l->why, ERR_FORMAT,
                       "%s: tensor %s has shape %s, the config asks for [%u]",
                       t->file, name, stored_shape_text(t, text, sizeof text),
                       w->cols);
    if (t->type < 0 || t->type > DTYPE_BF16)
        return err_set(l->why, ERR_UNSUPPORTED,
                       "%s: tensor %s is stored as %s, which is not supported",
                       t->file, name, t->type_name);
    float *values = mem_try(w->cols, sizeof *values, 0);
    if (!values) return err_set(l->why, ERR_NOMEM, "%s: %s", t->file, name);
    size_t size = dtype_block_bytes((enum dtype)t->type);
    const struct row_order order = order_of(l, w);
    for (size_t i = 0; i < w->cols; i++)
        dtype_decode((enum dtype)t->type,
                     t->bytes + rows_place(&order, i) * size, &values[i], 1);
    note_bound(l, t, t->bytes, t->size);
    count_bound(l, (enum dtype)t->type, t->size);
    note_used(l, t);
    note_progress(l, t->size);
    *out = values;
    return 0;
}

static int load_vector(struct load *l, float **out, const struct want *w,
                       const char *suffix, int layer)
{
    float *values;
    int rc = read_vector(l, &values, w, suffix, layer);
    if (!rc) rc = load_floats(l, out, values, w->cols);
    mem_free(values);
    return rc;
}

/* --- all weights ------------------------------------------------------ */

/* Experts of one layer, and the router. */
static int load_experts(struct load *l, const struct model *m, int i)
{
    const struct model_config *c = &m->config;
    struct layer *to = &m->layers[i];
    const uint32_t n = c->hidden, f = c->experts.ffn, e = c->experts.count;
    const struct want router = {NAMES("mlp.gate", "ffn_gate_inp", e, n),
                                .floats = true};
    const struct want parts[] = {
        {NAMES("mlp.experts.%u.gate_proj", "ffn_gate_exps", f, n),
         .experts = e},
        {NAMES("mlp.experts.%u.up_proj", "ffn_up_exps", f, n), .experts = e},
        {NAMES("mlp.experts.%u.down_proj", "ffn_down_exps", n, f),
         .experts = e},
    };
    float *bias = NULL;
    int rc = load_matrix(l, &to->router, &bias, &router, i);
    to->expert_weights = mem_must(3 * (size_t)e, sizeof *to->expert_weights);
    for (uint32_t k = 0; k < 3 * e && !rc; k++) {
        struct want w = parts[k / e];
        w.expert = k % e;
        rc = load_matrix(l, &to->expert_weights[k], &bias, &w, i);
    }
    if (!rc && bias)
        return err_set(l->why, ERR_UNSUPPORTED,
                       "%s: experts with biases are not supported",
                       l->files.path);
    to->experts = (struct experts){e,
                                   c->experts.used,
                                   c->experts.normed,
                                   to->expert_weights,
                                   to->expert_weights + e,
                                   to->expert_weights + 2 * e};
    return rc;
}

struct want_matrix {
    struct weight **to;
    float **bias;
    struct want w;
    bool has_bias; /* as a tensor of its own */
};

/* The matrix, and its bias where the config has one that the matrix does not
 * hide. */
static int load_pair(struct load *l, const struct want_matrix *p, int i)
{
    int rc = load_matrix(l, p->to, p->bias, &p->w, i);
    if (rc || !p->has_bias || *p->bias) return rc;
    struct want bias = p->w;
    bias.cols = p->w.rows;
    bias.rows = 0;
    return load_vector(l, p->bias, &bias, "bias", i);
}

/* Llama's layer, with Qwen3's norms of q and k, and with the biases and
 * experts where the config has them. */
static int load_layer(struct load *l, const struct model *m, int i)
{
    const struct model_config *c = &m->config;
    struct layer *to = &m->layers[i];
    const uint32_t n = c->hidden, f = c->ffn, d = c->head_dim;
    const uint32_t hd = c->heads * d, gd = c->kv_heads * d;
    const bool pairs = m->arch->gguf_interleaved, qkv = c->attention_bias;
    const uint32_t qh = pairs ? c->heads : 0, kh = pairs ? c->kv_heads : 0;
    const bool sparse = layer_set_has(&c->experts.layers, (uint32_t)i);
    const bool mlp = c->mlp_bias;
#define MATRIX(part, hf_, gguf_, rows_, cols_, heads_, bias)         \
    {                                                                \
        &to->part, &to->part##_bias,                                 \
            {NAMES(hf_, gguf_, rows_, cols_), .heads = heads_}, bias \
    }
    const struct want_matrix matrices[] = {
        MATRIX(q, "self_attn.q_proj", "attn_q", hd, n, qh, qkv),
        MATRIX(k, "self_attn.k_proj", "attn_k", gd, n, kh, qkv),
        MATRIX(v, "self_attn.v_proj", "attn_v", gd, n, 0, qkv),
        MATRIX(o, "self_attn.o_proj", "attn_output", n, hd, 0, c->output_bias),
        MATRIX(gate, "mlp.gate_proj", "ffn_gate", f, n, 0, mlp),
        MATRIX(up, "mlp.up_proj", "ffn_up", f, n, 0, mlp),
        MATRIX(down, "mlp.down_proj", "ffn_down", n, f, 0, mlp),
    };
#undef MATRIX
    enum { ATTENTION = 4 }; /* the first of them */
    const struct {
        bool wanted;
        float **to;
        struct want w;
    } norms[] = {
        {true,
         &to->attn_norm,
         {.hf = "input_layernorm", .gguf = "attn_norm", .cols = n}},
        {c->qk_norm,
         &to->q_norm,
         {.hf = "self_attn.q_norm", .gguf = "attn_q_norm", .cols = d}},
        {c->qk_norm,
         &to->k_norm,
         {.hf = "self_attn.k_norm", .gguf = "attn_k_norm", .cols = d}},
        {true,
         &to->ffn_norm,
         {.hf = "post_attention_layernorm", .gguf = "ffn_norm", .cols = n}},
    };
    int rc = 0;
    for (size_t k = 0; k < sizeof matrices / sizeof *matrices && !rc; k++)
        if (k < ATTENTION || !sparse) rc = load_pair(l, &matrices[k], i);
    for (size_t k = 0; k < sizeof norms / sizeof *norms && !rc; k++)
        if (norms[k].wanted)
            rc = load_vector(l, norms[k].to, &norms[k].w, "weight", i);
    return rc || !sparse ? rc : load_experts(l, m, i);
}

static int load_rope(struct load *l, struct model *m)
{
    const uint32_t pairs = m->config.rope.rotary / 2;
    const struct want w = {.hf = "", .gguf = "rope_freqs", .cols = pairs};
    float *divisors = NULL;
    int rc = 0;
    if (m->config.rope.kind == ROPE_DIVISORS)
        rc = read_vector(l, &divisors, &w, "weight", NO_LAYER);
    for (uint32_t i = 0; divisors && i < pairs && !rc; i++)
        if (!(divisors[i] > 0 && isfinite(divisors[i])))
            rc = err_set(l->why, ERR_FORMAT, "%s: rope_freqs.weight[%u] is %g",
                         l->files.path, i, (double)divisors[i]);
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
    const struct want embed = {
        NAMES("model.embed_tokens", "token_embd", vocab, n), .floats = true};
    const struct want norm = {
        .hf = "model.norm", .gguf = "output_norm", .cols = n};
    const struct want head = {NAMES("lm_head", "output", vocab, n),
                              .floats = true};
    float *bias = NULL;
    int rc = load_matrix(l, &m->embed, &bias, &embed, NO_LAYER);
    m->embed_bytes = l->bound_bytes;
    if (!rc) rc = load_vector(l, &m->final_norm, &norm, "weight", NO_LAYER);
    m->head = m->embed;
    if (!rc && !m->config.tied)
        rc = load_matrix(l, &m->head, &bias, &head, NO_LAYER);
    if (!rc && bias)
        rc = err_set(l->why, ERR_UNSUPPORTED,
                     "%s: a head with a bias is not supported", l->files.path);
    return rc;
}

/* A bias that nobody asked for would be missing in the answers. */
static int refuse_unused_biases(const struct load *l)
{
    for (size_t i = 0; i < model_files_count(&l->files); i++) {
        const struct stored_tensor *t = model_files_at(&l->files, i);
        size_t n = strlen(t->name);
        if (l->used[i] || n < 5 || strcmp(t->name + n - 5, ".bias") != 0)
            continue;
        char base[192];
        snprintf(base, sizeof base, "%.*s.quant_bias", (int)(n - 5), t->name);
        if (model_files_find(&l->files, base)) continue; /* stood in for it */
        for (size_t k = 0; k < t->size; k++)
            if (t->bytes[k])
                return err_set(l->why, ERR_UNSUPPORTED,
                               "%s: tensor %s is a bias that this architecture "
                               "does not have",
                               t->file, t->name);
    }
    return 0;
}

/* Field by field: the padding of a struct is nobody's. */
static uint64_t hash_config(const struct model_config *c)
{
    const uint32_t counts[] = {
        c->vocab,         c->hidden,         c->layers,       c->heads,
        c->kv_heads,      c->head_dim,       c->ffn,          c->tied,
        c->qk_norm,       c->attention_bias, c->output_bias,  c->mlp_bias,
        c->window,        c->experts.count,  c->experts.used, c->experts.ffn,
        c->experts.normed};
    const double reals[] = {(double)c->norm_eps, c->rope.attention_factor};
    uint64_t h = hash_bytes(c->arch, strlen(c->arch), 1);
    h = hash_bytes(counts, sizeof counts, h);
    h = hash_bytes(&c->sliding, sizeof c->sliding, h);
    h = hash_bytes(&c->experts.layers, sizeof c->experts.layers, h);
    return hash_bytes(reals, sizeof reals, h);
}

/* All of m: binds it, or counts what would be bound. */
static int load_all(struct load *l, struct model *m,
                    const struct model_options *options, struct why *why)
{
    l->dev = m->dev;
    l->config = &m->config;
    l->rotary = m->config.rope.rotary;
    l->bound_bytes = l->done_bytes = 0;
    memset(l->elements, 0, sizeof l->elements);
    mem_free(l->used);
    l->used = mem_must(model_files_count(&l->files), sizeof *l->used);
    l->options = options;
    l->why = why;
    l->hash = hash_config(&m->config);
    int rc = load_ends(l, m);
    if (!rc) rc = load_rope(l, m);
    for (uint32_t i = 0; i < m->config.layers && !rc; i++)
        rc = load_layer(l, m, (int)i);
    if (!rc) rc = refuse_unused_biases(l);
    l->options = NULL;
    l->why = NULL;
    return rc;
}

/* The same for a model that is not kept: nothing of it is bound. */
static int load_dry(struct load *l, const struct model_config *config,
                    struct device *dev, const struct model_options *options,
                    size_t *embed_bytes, struct why *why)
{
    struct model *m = mem_must(1, sizeof *m);
    m->config = *config;
    m->arch = arch_find(config->arch, NULL);
    m->dev = dev;
    m->layers = mem_must(config->layers, sizeof *m->layers);
    int rc = load_all(l, m, options, why);
    *embed_bytes = m->embed_bytes;
    for (uint32_t i = 0; i < config->layers; i++)
        mem_free(m->layers[i].expert_weights);
    mem_free(m->layers);
    mem_free(m->rope_freqs);
    mem_free(m);
    return rc;
}

/* --- the cache file --------------------------------------------------- */

static void note(const struct model_options *options, bool coped,
                 const char *fmt, const char *text)
{
    char line[768];
    snprintf(line, sizeof line, fmt, text);
    if (options->note) options->note(options->arg, coped, line);
}

/* Opens the cache file of the model, or, where there is none or it is of no
 * use, notes what one is to be made of. Without it all goes on, slower. */
static void cache_prepare(struct load *l, const struct model *m,
                          const struct model_options *options)
{
    if (!device_layout(m->dev)) {
        note(options, true, "no weight cache: %s keeps its own form",
             device_describe(m->dev));
        return;
    }
    struct why why = {0};
    char *path = cache_path(options->weight_cache, options, m->dev);
    char *source = cache_source(&l->files, &m->config, options, m->dev);
    int rc = cache_open(&l->cache, path, source, m->dev, &why);
    if (rc == ERR_IO)
        note(options, true, "no weight cache: %s", why_text(&why, rc));
    else if (rc && rc != ERR_NOT_FOUND)
        note(options, true, "weight cache not used: %s", why_text(&why, rc));
    if (rc && rc != ERR_IO) {
        l->save = cache_save_create(path, source, options->note, options->arg);
        return;
    }
    mem_free(path);
    mem_free(source);
}

void load_save(struct load *l)
{
    cache_save_start(l->save);
}

void load_saved(struct load *l)
{
    cache_save_wait(l->save);
}

/* Whether the page cache has about all of the tensors; of others the server
 * would say that it is ready, and then read for as long as the disk takes. */
static bool is_cached(const struct load *l)
{
    size_t missing = 0;
    for (size_t i = 0; i < model_files_count(&l->files); i++) {
        const struct stored_tensor *t = model_files_at(&l->files, i);
        missing += model_file_uncached(t->bytes, t->size);
    }
    return missing <= l->total_bytes / 64;
}

int load_bind(struct load *l, struct model *m,
              const struct model_options *options, struct why *why)
{
    if (options->weight_cache) cache_prepare(l, m, options);
    l->puts_off = options->pack_later && !l->cache && !l->save && is_cached(l);
    int rc = load_all(l, m, options, why);
    if (rc) return rc;
    if (l->missed)
        note(options, true, "%s", "the weight cache lacks some matrices");
    m->fingerprint = hash_bytes(
        m->rope_freqs, m->config.rope.rotary / 2 * sizeof(float), l->hash);
    if (!l->later_count) model_files_close(&l->files);
    l->bound_us = clock_us();
    l->note = options->note;
    l->note_arg = options->arg;
    return 0;
}

static void all_packed(struct load *l)
{
    char line[80];
    snprintf(line, sizeof line,
             "all weights are packed, %.2f s after they were loaded",
             (double)(clock_us() - l->bound_us) * 1e-6);
    if (l->note) l->note(l->note_arg, false, line);
    model_files_close(&l->files);
}

bool load_pack(struct load *l, size_t bytes)
{
    for (size_t n; l->later_at < l->later_count; bytes -= n) {
        const struct later *a = &l->later[l->later_at];
        if (!bytes) return true;
        n = weight_pack(a->weight, bytes);
        if (n > bytes) n = bytes;
        if (n) continue;
        model_file_drop(a->bytes, a->size);
        if (++l->later_at == l->later_count) all_packed(l);
    }
    return false;
}

int load_survey(struct load *l, const struct model_config *config,
                const struct model_options *options, struct model_survey *out,
                struct why *why)
{
    struct model_options plain = *options;
    size_t embed_bytes;
    plain.progress = NULL;
    l->survey = out;
    int rc = load_dry(l, config, NULL, &plain, &embed_bytes, why);
    out->stored_bytes = l->total_bytes;
    out->weight_bytes = l->bound_bytes;
    out->step_bytes = l->bound_bytes - (config->tied ? 0 : embed_bytes);
    return rc;
}
