#include "model/model.h"
#include "model/arch.h"
#include "model/load.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct arch *const archs[] = {
    &arch_llama, &arch_mistral, &arch_qwen2, &arch_qwen3, &arch_qwen3_moe};
enum { ARCHS = sizeof archs / sizeof *archs };

const struct arch *arch_find(const char *name, const char *class)
{
    for (size_t i = 0; i < ARCHS; i++)
        if (name ? !strcmp(name, archs[i]->name)
                 : !strcmp(class, archs[i]->class))
            return archs[i];
    return NULL;
}

const struct arch *arch_find_gguf(const char *gguf)
{
    for (size_t i = 0; i < ARCHS; i++)
        if (archs[i]->gguf && !strcmp(gguf, archs[i]->gguf)) return archs[i];
    return NULL;
}

char *arch_list(bool classes, char *text, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < ARCHS && at < n; i++)
        at += (size_t)snprintf(text + at, n - at, "%s%s",
                               i == 0           ? ""
                               : i == ARCHS - 1 ? " and "
                                                : ", ",
                               classes ? archs[i]->class : archs[i]->name);
    return text;
}

/* --- open and close --------------------------------------------------- */

/* Where the next array [rows, cols] begins, on a cache line. */
static float *place(struct model *m, size_t *at, size_t rows, size_t cols)
{
    float *p = m->activations ? m->activations + *at : NULL;
    *at += (rows * cols + 15) & ~(size_t)15;
    return p;
}

static size_t max3(size_t a, size_t b, size_t c)
{
    size_t ab = a > b ? a : b;
    return ab > c ? ab : c;
}

/* The activations of t rows, side by side from the beginning: few rows touch
 * little memory. What attention and the two kinds of feed-forward parts want
 * lies in one place, since a layer has one after the other. Returns the floats
 * of all. */
static size_t place_activations(struct model *m, size_t t)
{
    const struct model_config *c = &m->config;
    const size_t hd = (size_t)c->heads * c->head_dim;
    const size_t gd = (size_t)c->kv_heads * c->head_dim;
    size_t all = 0;
    const size_t asked = t < m->max_logits ? t : m->max_logits;
    m->x = place(m, &all, t, c->hidden);
    m->y = place(m, &all, c->experts.count ? t : asked, c->hidden);
    m->scores = place(m, &all, t, c->experts.count);
    size_t attention = all, dense = all, experts = all;
    m->q = place(m, &attention, t, hd);
    m->k = place(m, &attention, t, gd);
    m->v = place(m, &attention, t, gd);
    m->a = place(m, &attention, t, hd);
    m->gate = place(m, &dense, t, c->ffn);
    m->up = place(m, &dense, t, c->ffn);
    m->room =
        place(m, &experts, c->experts.count > 0,
              EXPERTS_ROOM(t, c->hidden, c->experts.ffn, c->experts.used));
    return max3(attention, dense, experts);
}

static int alloc_floats(struct model *m, float **out, size_t count,
                        struct why *why)
{
    void *memory;
    int rc = device_alloc(m->dev, &memory, count * sizeof(float), why);
    if (!rc) *out = memory;
    return rc;
}

static int alloc_activations(struct model *m, struct why *why)
{
    const struct model_config *c = &m->config;
    const size_t t = m->max_tokens, rows = m->max_logits, n = c->hidden;
    const size_t hd = (size_t)c->heads * c->head_dim;
    int rc = alloc_floats(m, &m->activations, place_activations(m, t), why);
    if (!rc) rc = alloc_floats(m, &m->last, rows * n, why);
    if (!rc) rc = alloc_floats(m, &m->logits, rows * c->vocab, why);
    if (rc) return rc;
    m->asked.seqs = mem_try(rows, sizeof *m->asked.seqs, 64);
    m->asked.positions = mem_try(rows, sizeof *m->asked.positions, 64);
    m->asked.rows = mem_try(rows, sizeof *m->asked.rows, 64);
    if (!m->asked.seqs || !m->asked.positions || !m->asked.rows)
        return err_set(why, ERR_NOMEM, "batches of %zu logit rows", rows);
    if (!device_is_host(m->dev))
        m->host = mem_try(rows * c->vocab, sizeof *m->host, 64);
    if (!device_is_host(m->dev) && !m->host)
        return err_set(why, ERR_NOMEM, "logits of %zu rows of %u", rows,
                       c->vocab);
    return device_reserve(m->dev, t > rows ? t : rows,
                          max3(n, hd, max3(c->ffn, c->experts.ffn, 0)), why);
}

int model_open(struct model **out, struct device *dev,
               const struct model_options *options, struct why *why)
{
    *out = NULL;
    if (options->max_tokens == 0 || options->max_logits == 0)
        return err_set(why, ERR_INVALID, "a model for batches of no tokens");
    struct model *m = mem_must(1, sizeof *m);
    m->dev = dev;
    m->max_tokens = options->max_tokens;
    m->max_logits = options->max_logits;
    int rc = load_open(&m->load, &m->config, options->path, why);
    if (!rc) {
        m->arch = arch_find(m->config.arch, NULL);
        m->layers = mem_must(m->config.layers, sizeof *m->layers);
        rc = alloc_activations(m, why);
    }
    if (!rc) rc = load_bind(m->load, m, options, why);
    if (rc)
        model_close(m);
    else
        *out = m;
    return rc;
}

void model_close(struct model *m)
{
    if (!m) return;
    float *own[] = {m->activations, m->last, m->logits};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i]) device_free(m->dev, own[i]);
    load_close(m->load);
    mem_free(m->asked.seqs);
    mem_free(m->asked.positions);
    mem_free(m->asked.rows);
    mem_free(m->host);
    mem_free(m->rope_freqs);
    for (uint32_t i = 0; m->layers && i < m->config.layers; i++)
        mem_free(m->layers[i].expert_weights);
    mem_free(m->layers);
    mem_free(m);
}

bool model_pack(struct model *m, bool behind_step)
{
    enum { LEAST = 8 << 20, STEPS = 32 };
    size_t bytes = behind_step ? load_bound_bytes(m->load) / STEPS : 0;
    return load_pack(m->load, bytes > LEAST ? bytes : LEAST);
}

void model_save_cache(struct model *m)
{
    load_save(m->load);
}

void model_wait_cache(struct model *m)
{
    load_saved(m->load);
}

int model_quantize_parse(enum model_quantize *out, const char *text,
                         struct why *why)
{
    static const char *const names[] = {"none", "w8a8_int8", "int8", "int4"};
    static const char *const stored[] = {"fp8",         "awq",
                                         "awq_marlin",  "gptq",
                                         "gptq_marlin", "compressed-tensors",
                                         "modelslim"};
    *out = QUANTIZE_NONE;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text ? text : "none", names[i])) {
            *out = (enum model_quantize)i;
            return 0;
        }
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++)
        if (!strcmp(text, stored[i])) return 0;
    return err_set(why, ERR_INVALID,
                   "quantization \"%.64s\" is not one of w8a8_int8, int8, int4",
                   text);
}

const struct model_config *model_config(const struct model *model)
{
    return &model->config;
}

size_t model_weight_bytes(const struct model *model)
{
    return load_bound_bytes(model->load);
}

enum dtype model_weight_type(const struct model *model)
{
    return load_bound_type(model->load);
}

size_t model_step_bytes(const struct model *model)
{
    return load_bound_bytes(model->load) -
           (model->config.tied ? 0 : model->embed_bytes);
}

uint64_t model_fingerprint(const struct model *model)
{
    return model->fingerprint;
}

int model_survey(struct model_survey *out, const struct model_options *options,
                 struct why *why)
{
    struct load *load;
    *out = (struct model_survey){0};
    int rc = load_open(&load, &out->config, options->path, why);
    if (!rc) rc = load_survey(load, &out->config, options, out, why);
    load_close(load);
    return rc;
}

/* --- forward ---------------------------------------------------------- */

void forward_embed(struct model *m, const struct batch *b)
{
    op_embed(m->dev, m->x, m->embed, b->ids, b->tokens);
}

struct input attention_input(const struct model *m, const struct layer *l)
{
    return (struct input){
        .x = m->x, .gain = l->attn_norm, .eps = m->config.norm_eps};
}

struct input ffn_input(const struct model *m, const struct layer *l)
{
    return (struct input){
        .x = m->x, .gain = l->ffn_norm, .eps = m->config.norm_eps};
}

struct turn head_turn(const struct model *m, const struct batch *b,
                      const float *gain)
{
    return (struct turn){gain, m->config.norm_eps, &m->rope, b->positions};
}

bool forward_parts(const struct model *m, const struct batch *b, uint32_t i)
{
    return i + 1 == m->config.layers && b->logit_count < b->tokens;
}

/* The asked rows as a batch of their own: neighbours of a sequence as one. */
static void asked_fill(struct asked *a, const struct batch *b)
{
    const struct op_seq *s = b->seqs;
    struct op_seq *last = NULL;
    a->batch = *b;
    a->batch.seq_count = 0;
    for (uint32_t i = 0; i < b->logit_count; i++) {
        uint32_t row = b->logit_rows[i];
        if (row < s->first_row) s = b->seqs;
        while (row - s->first_row >= s->rows)
            last = NULL, s++;
        a->positions[i] = b->positions[row];
        a->rows[i] = i;
        if (i == 0 || row != b->logit_rows[i - 1] + 1) last = NULL;
        if (!last) {
            last = &a->seqs[a->batch.seq_count++];
            *last = *s;
            last->first_row = i;
            last->rows = 0;
            last->kv_len = s->kv_len - s->rows + (row - s->first_row);
        }
        last->rows++;
        last->kv_len++;
    }
    a->batch.tokens = b->logit_count;
    a->batch.ids = NULL; /* behind the embedding */
    a->batch.positions = a->positions;
    a->batch.seqs = a->seqs;
    a->batch.logit_rows = a->rows;
}

const struct batch *forward_asked(struct model *m, const struct batch *b)
{
    float *x = m->x;
    op_gather(m->dev, m->y, x, b->logit_rows, b->logit_count, m->config.hidden);
    m->x = m->y;
    m->y = x;
    asked_fill(&m->asked, b);
    return &m->asked.batch;
}

void expect_attention(struct model *m, const struct layer *l, size_t t)
{
    if (l == m->layers + m->config.layers) {
        const struct linear head = {m->logits, m->head, NULL, false};
        op_expect(m->dev, t, &head, 1);
        return;
    }
    const struct linear qkv[] = {{m->q, l->q, l->q_bias, false},
                                 {m->k, l->k, l->k_bias, false},
                                 {m->v, l->v, l->v_bias, false}};
    op_expect(m->dev, t, qkv, 3);
}

void expect_ffn(struct model *m, const struct layer *l, size_t t)
{
    const struct linear gate_up[] = {{m->gate, l->gate, l->gate_bias, false},
                                     {m->up, l->up, l->up_bias, false}};
    const struct linear router = {m->scores, l->router, NULL, false};
    if (l->router)
        op_expect(m->dev, t, &router, 1);
    else
        op_expect(m->dev, t, gate_up, 2);
}

void forward_swiglu(struct model *m, const struct layer *l, size_t t)
{
    const struct input y = ffn_input(m, l);
    const struct input silu = {.x = m->gate, .up = m->up};
    const struct linear gate_up[] = {{m->gate, l->gate, l->gate_bias, false},
                                     {m->up, l->up, l->up_bias, false}};
    const struct linear down = {m->x, l->down, l->down_bias, true};
    op_expect(m->dev, t, &down, 1);
    op_linear(m->dev, &y, t, gate_up, 2); /* [t, f] */
    expect_attention(m, l + 1, t);
    op_linear(m->dev, &silu, t, &down, 1); /* [t, n] */
}

void forward_experts(struct model *m, const struct layer *l, size_t t)
{
    const struct model_config *c = &m->config;
    op_rmsnorm(m->dev, m->y, m->x, l->ffn_norm, t, c->hidden, c->norm_eps);
    const struct linear router = {m->scores, l->router, NULL, false};
    const struct input y = {.x = m->y};
    op_linear(m->dev, &y, t, &router, 1); /* [t, experts] */
    op_experts(m->dev, m->x, m->y, m->scores, t, &l->experts, m->room);
}

void forward_logits(struct model *m, const struct batch *b)
{
    const struct model_config *c = &m->config;
    const size_t rows = b->logit_count;
    op_gather(m->dev, m->last, m->x, b->logit_rows, rows, c->hidden);
    const struct input last = {
        .x = m->last, .gain = m->final_norm, .eps = c->norm_eps};
    const struct linear head = {m->logits, m->head, NULL, false};
    op_linear(m->dev, &last, rows, &head, 1); /* [logit rows, V] */
}

static int check_tokens(const struct model *m, const struct batch *b,
                        struct why *why)
{
    const struct model_config *c = &m->config;
    if (b->tokens > m->max_tokens || b->logit_count > m->max_logits)
        return err_set(why, ERR_INVALID,
                       "a batch of %u tokens and %u logit rows; the most are "
                       "%u and %u",
                       b->tokens, b->logit_count, m->max_tokens, m->max_logits);
    for (uint32_t i = 0; i < b->tokens; i++) {
        if (b->ids[i] < 0 || (uint32_t)b->ids[i] >= c->vocab)
            return err_set(why, ERR_INVALID, "token id %d is not in 0 .. %u",
                           b->ids[i], c->vocab - 1);
        if (b->positions[i] >= c->context)
            return err_set(why, ERR_INVALID,
                           "position %u is past the model's context of %u",
                           b->positions[i], c->context);
    }
    for (uint32_t i = 0; i < b->logit_count; i++)
        if (b->logit_rows[i] >= b->tokens)
            return err_set(why, ERR_INVALID, "logit row %u of %u tokens",
                           b->logit_rows[i], b->tokens);
    return 0;
}

static int check_pool(const struct model *m, const struct kv_pool *pool,
                      struct why *why)
{
    const struct model_config *c = &m->config;
    const struct kv_shape *s = kv_pool_shape(pool);
    if (s->layers == c->layers && s->kv_heads == c->kv_heads &&
        s->head_dim == c->head_dim)
        return 0;
    return err_set(why, ERR_INVALID,
                   "a pool of %u layers, %u kv heads of %u for a model of %u, "
                   "%u of %u",
                   s->layers, s->kv_heads, s->head_dim, c->layers, c->kv_heads,
                   c->head_dim);
}

/* Wrong pages would write over another sequence's. */
static int check_seqs(const struct batch *b, const struct kv_pool *pool,
                      struct why *why)
{
    const uint32_t page_tokens = kv_pool_shape(pool)->page_tokens;
    const uint32_t page_count = kv_pool_page_count(pool);
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->seq_count; i++) {
        const struct op_seq *s = &b->seqs[i];
        if (s->first_row != row || s->rows > b->tokens - row ||
            s->kv_len < s->rows)
            return err_set(why, ERR_INVALID,
                           "sequence %u: rows %u + %u of %u, %u tokens with KV",
                           i, s->first_row, s->rows, b->tokens, s->kv_len);
        row += s->rows;
        for (size_t p = 0; p * page_tokens < s->kv_len; p++)
            if (s->pages[p] == 0 || s->pages[p] >= page_count)
                return err_set(why, ERR_INVALID,
                               "sequence %u: page %u of %u pages", i,
                               s->pages[p], page_count);
    }
    if (row != b->tokens)
        return err_set(why, ERR_INVALID, "%u of %u rows belong to no sequence",
                       b->tokens - row, b->tokens);
    return 0;
}

int model_workers(const struct model *m)
{
    return device_threads(m->dev);
}

void model_share(struct model *m, void (*fn)(void *, size_t, int), void *fn_arg,
                 size_t count)
{
    device_share(m->dev, fn, fn_arg, count);
}

int model_forward(struct model *m, const struct batch *batch,
                  struct kv_pool *pool, const float **logits, struct why *why)
{
    int rc = check_pool(m, pool, why);
    if (!rc) rc = check_tokens(m, batch, why);
    if (!rc) rc = check_seqs(batch, pool, why);
    if (rc) return rc;
    place_activations(m, batch->tokens);
    m->arch->forward(m, batch, pool);
    size_t n = (size_t)batch->logit_count * m->config.vocab;
    if (m->host) device_read(m->dev, m->host, m->logits, n * sizeof *m->host);
    rc = device_sync(m->dev, why);
    if (!rc) *logits = m->host ? m->host : m->logits;
    return rc;
}
