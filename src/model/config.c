/* Two readers, of config.json and of GGUF metadata, fill the same struct;
 * check() then holds for both. A reader keeps its first error and makes the
 * rest of its calls do nothing, so that the fields read as a list. */
#include "model/config.h"
#include "model/arch.h"
#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COUNT  (1u << 24) /* of anything: rows, columns, positions */
#define MAX_LAYERS 4096u

/* What is true of the configuration whatever file it came from. */
static int check(const struct model_config *c, const char *name,
                 struct why *why)
{
    const struct {
        const char *what;
        uint64_t value, max;
    } sizes[] = {
        {"vocabulary", c->vocab, MAX_COUNT},
        {"hidden size", c->hidden, MAX_COUNT},
        {"layer count", c->layers, MAX_LAYERS},
        {"head count", c->heads, MAX_COUNT},
        {"kv head count", c->kv_heads, c->heads},
        {"head size", c->head_dim, OP_HEAD_DIM_MAX},
        {"feed-forward size", c->ffn, MAX_COUNT},
        {"context", c->context, MAX_COUNT},
        {"heads times head size", (uint64_t)c->heads * c->head_dim, MAX_COUNT},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].max)
            return err_set(why, ERR_FORMAT, "%s: %s %llu is not in 1 .. %llu",
                           name, sizes[i].what,
                           (unsigned long long)sizes[i].value,
                           (unsigned long long)sizes[i].max);
    if (c->heads % c->kv_heads)
        return err_set(why, ERR_FORMAT,
                       "%s: %u heads cannot share %u kv heads evenly", name,
                       c->heads, c->kv_heads);
    if (c->head_dim % 2)
        return err_set(why, ERR_FORMAT, "%s: head size %u is odd", name,
                       c->head_dim);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return err_set(why, ERR_FORMAT,
                       "%s: rms norm epsilon %g is not in 0 .. 1", name,
                       (double)c->norm_eps);
    if (!(c->rope.theta > 1 && c->rope.theta < 1e12) ||
        !(c->rope.factor > 0 && c->rope.factor < 1e6) ||
        !(c->rope.attention_factor > 0 && c->rope.attention_factor < 1e3))
        return err_set(why, ERR_FORMAT,
                       "%s: rope theta %g, factor %g or attention factor %g is "
                       "out of range",
                       name, c->rope.theta, c->rope.factor,
                       c->rope.attention_factor);
    return 0;
}

static int check_scaling(const struct model_config *c, const char *name,
                         struct why *why)
{
    if (c->rope.kind == ROPE_LLAMA3 &&
        !(c->rope.low_freq_factor > 0 &&
          c->rope.high_freq_factor > c->rope.low_freq_factor))
        return err_set(why, ERR_FORMAT,
                       "%s: rope low_freq_factor %g and high_freq_factor %g "
                       "are no range",
                       name, c->rope.low_freq_factor, c->rope.high_freq_factor);
    if (c->rope.kind == ROPE_YARN &&
        !(c->rope.beta_slow > 0 && c->rope.beta_fast > c->rope.beta_slow))
        return err_set(why, ERR_FORMAT,
                       "%s: rope beta_slow %g and beta_fast %g are no range",
                       name, c->rope.beta_slow, c->rope.beta_fast);
    if (c->rope.original_context < 1 || c->rope.original_context > MAX_COUNT)
        return err_set(why, ERR_FORMAT,
                       "%s: rope original context %u is not in 1 .. %u", name,
                       c->rope.original_context, MAX_COUNT);
    return 0;
}

/* What a configuration has before a field is read. */
static void begin(struct model_config *c, const struct arch *arch)
{
    snprintf(c->arch, sizeof c->arch, "%s", arch->name);
    c->qk_norm = arch->qk_norm;
    c->rope.theta = 10000;
    c->rope.factor = c->rope.attention_factor = 1;
}

static int finish(struct model_config *c, const char *name, struct why *why)
{
    c->rope.rotary = c->head_dim;
    if (c->rope.original_context == 0) c->rope.original_context = c->context;
    int rc = check(c, name, why);
    return rc ? rc : check_scaling(c, name, why);
}

/* Adds a token at which generation stops, once. */
static int add_eos(struct model_config *c, int64_t id, const char *name,
                   struct why *why)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(why, ERR_FORMAT, "%s: eos token %lld is no token", name,
                       (long long)id);
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos[i] == id) return 0;
    if (c->eos_count == sizeof c->eos / sizeof *c->eos)
        return err_set(why, ERR_UNSUPPORTED, "%s: more than %zu eos tokens",
                       name, sizeof c->eos / sizeof *c->eos);
    c->eos[c->eos_count++] = (int32_t)id;
    return 0;
}

/* The attention factor that YaRN proposes for a stretch by scale. */
static double yarn_mscale(double scale, double mscale)
{
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

/* --- config.json ------------------------------------------------------ */

struct fields {
    const json_t *object;
    const char *name; /* of the file */
    const char *path; /* of object inside it: "" or "rope_scaling." */
    struct why *why;
    int rc;
};

static void fail(struct fields *f, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct fields *f, int code, const char *fmt, ...)
{
    if (f->rc) return;
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    f->rc = err_set(f->why, code, "%s: %s%s", f->name, f->path, text);
}

/* The member, NULL where absent or null. */
static const json_t *field(const struct fields *f, const char *key)
{
    const json_t *v = json_object_get(f->object, key);
    return json_is_null(v) ? NULL : v;
}

static void get_count(struct fields *f, const char *key, uint32_t *out)
{
    const json_t *v = field(f, key);
    if (!v) return;
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 1 || n > MAX_COUNT)
        fail(f, ERR_FORMAT, "%s is no whole number in 1 .. %u", key, MAX_COUNT);
    else
        *out = (uint32_t)n;
}

static void need_count(struct fields *f, const char *key, uint32_t *out)
{
    if (!field(f, key)) fail(f, ERR_FORMAT, "%s is missing", key);
    get_count(f, key, out);
}

static void get_real(struct fields *f, const char *key, double *out)
{
    struct why inner = {0};
    if (json_get_real(f->object, key, out, &inner))
        fail(f, ERR_FORMAT, "%s", inner.text);
}

static void need_real(struct fields *f, const char *key, double *out)
{
    if (!field(f, key)) fail(f, ERR_FORMAT, "%s is missing", key);
    get_real(f, key, out);
}

static void get_bool(struct fields *f, const char *key, bool *out)
{
    struct why inner = {0};
    if (json_get_bool(f->object, key, out, &inner))
        fail(f, ERR_FORMAT, "%s", inner.text);
}

/* A switch that must be off or absent. */
static void must_be_off(struct fields *f, const char *key)
{
    bool on = false;
    get_bool(f, key, &on);
    if (on) fail(f, ERR_UNSUPPORTED, "%s is not supported", key);
}

static void get_eos(struct fields *f, struct model_config *c)
{
    const json_t *v = field(f, "eos_token_id");
    size_t count = json_is_array(v) ? json_array_size(v) : v != NULL;
    for (size_t i = 0; i < count && !f->rc; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id))
            fail(f, ERR_FORMAT, "eos_token_id is no token or list of tokens");
        else
            f->rc = add_eos(c, json_integer_value(id), f->name, f->why);
    }
}

static const struct arch *get_arch(struct fields *f)
{
    const json_t *list = field(f, "architectures");
    const char *class = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(field(f, "model_type"));
    const struct arch *arch = class  ? arch_find(NULL, class)
                              : type ? arch_find(type, NULL)
                                     : NULL;
    if (arch) return arch;
    if (class)
        fail(f, ERR_UNSUPPORTED,
             "architectures: \"%.64s\" is not supported; LlamaForCausalLM and "
             "Qwen3ForCausalLM are",
             class);
    else
        fail(f, ERR_UNSUPPORTED,
             "names no architectures, and model_type \"%.64s\" is not "
             "supported; llama and qwen3 are",
             type ? type : "");
    return NULL;
}

static void get_dtype(struct fields *f, struct model_config *c)
{
    const json_t *v = field(f, "dtype");
    const char *text = json_string_value(v ? v : field(f, "torch_dtype"));
    if (!text) return;
    if (!strcmp(text, "bfloat16")) c->dtype = DTYPE_BF16;
    if (!strcmp(text, "float16")) c->dtype = DTYPE_F16;
}

static void get_yarn(struct fields *f, struct model_config *c)
{
    double mscale = 0, mscale_all = 0, factor = 0;
    bool truncate = true;
    c->rope.beta_fast = 32;
    c->rope.beta_slow = 1;
    get_real(f, "beta_fast", &c->rope.beta_fast);
    get_real(f, "beta_slow", &c->rope.beta_slow);
    get_real(f, "mscale", &mscale);
    get_real(f, "mscale_all_dim", &mscale_all);
    get_real(f, "attention_factor", &factor);
    get_bool(f, "truncate", &truncate);
    if (!truncate) fail(f, ERR_UNSUPPORTED, "truncate false is not supported");
    if (field(f, "attention_factor"))
        c->rope.attention_factor = factor;
    else if (mscale != 0 && mscale_all != 0)
        c->rope.attention_factor = yarn_mscale(c->rope.factor, mscale) /
                                   yarn_mscale(c->rope.factor, mscale_all);
    else
        c->rope.attention_factor = yarn_mscale(c->rope.factor, 1);
}

static void get_scaling(struct fields *f, struct model_config *c)
{
    const json_t *v = field(f, "rope_type");
    const char *type = json_string_value(v ? v : field(f, "type"));
    double partial = 1;
    get_real(f, "rope_theta", &c->rope.theta);
    get_real(f, "partial_rotary_factor", &partial);
    if (partial != 1)
        fail(f, ERR_UNSUPPORTED, "partial_rotary_factor %g is not supported",
             partial);
    if (!type || !strcmp(type, "default")) return;
    if (!strcmp(type, "linear"))
        c->rope.kind = ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        c->rope.kind = ROPE_LLAMA3;
    else if (!strcmp(type, "yarn"))
        c->rope.kind = ROPE_YARN;
    else
        fail(f, ERR_UNSUPPORTED, "rope_type \"%.32s\" is not supported", type);
    need_real(f, "factor", &c->rope.factor);
    get_count(f, "original_max_position_embeddings", &c->rope.original_context);
    if (c->rope.kind == ROPE_LLAMA3) {
        need_real(f, "low_freq_factor", &c->rope.low_freq_factor);
        need_real(f, "high_freq_factor", &c->rope.high_freq_factor);
    }
    if (c->rope.kind == ROPE_YARN) get_yarn(f, c);
}

/* rope_scaling is the older spelling of rope_parameters. One object for each
 * kind of layer instead of one for all is for models with several kinds. */
static void get_rope(struct fields *f, struct model_config *c)
{
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    double partial = 1;
    get_real(f, "rope_theta", &c->rope.theta);
    get_real(f, "partial_rotary_factor", &partial);
    if (partial != 1)
        fail(f, ERR_UNSUPPORTED, "partial_rotary_factor %g is not supported",
             partial);
    for (size_t i = 0; i < 2; i++) {
        const json_t *object = field(f, keys[i]);
        const char *key;
        json_t *v;
        if (!object) continue;
        if (!json_is_object(object))
            fail(f, ERR_FORMAT, "%s is no object", keys[i]);
        json_object_foreach ((json_t *)(uintptr_t)object, key, v)
            if (json_is_object(v))
                fail(f, ERR_UNSUPPORTED, "%s by kind of layer is not supported",
                     keys[i]);
        char path[32];
        snprintf(path, sizeof path, "%s.", keys[i]);
        struct fields inner = {object, f->name, path, f->why, f->rc};
        get_scaling(&inner, c);
        f->rc = inner.rc;
        return;
    }
}

static void refuse_unsupported(struct fields *f)
{
    static const char *const off[] = {"mlp_bias", "use_sliding_window",
                                      "is_encoder_decoder",
                                      "add_cross_attention"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        must_be_off(f, off[i]);
    const json_t *act = field(f, "hidden_act");
    const char *text = json_string_value(act);
    if (act && (!text || strcmp(text, "silu")))
        fail(f, ERR_UNSUPPORTED, "hidden_act \"%.32s\" is not supported",
             text ? text : "?");
    if (field(f, "quantization_config"))
        fail(f, ERR_UNSUPPORTED, "quantization_config is not supported");
    const json_t *layers = field(f, "layer_types");
    for (size_t i = 0; i < json_array_size(layers); i++) {
        text = json_string_value(json_array_get(layers, i));
        if (!text || strcmp(text, "full_attention"))
            fail(f, ERR_UNSUPPORTED,
                 "layer_types[%zu] \"%.32s\" is not "
                 "supported",
                 i, text ? text : "?");
    }
}

int config_from_json(struct model_config *out, const json_t *config,
                     const json_t *generation, const char *name,
                     struct why *why)
{
    struct model_config c = {.dtype = DTYPE_F32, .bos = -1};
    struct fields f = {config, name, "", why, 0};
    if (!json_is_object(config)) fail(&f, ERR_FORMAT, "is no JSON object");
    const struct arch *arch = get_arch(&f);
    if (f.rc) return f.rc;
    begin(&c, arch);

    need_count(&f, "vocab_size", &c.vocab);
    need_count(&f, "hidden_size", &c.hidden);
    need_count(&f, "num_hidden_layers", &c.layers);
    need_count(&f, "num_attention_heads", &c.heads);
    need_count(&f, "intermediate_size", &c.ffn);
    c.kv_heads = c.heads;
    get_count(&f, "num_key_value_heads", &c.kv_heads);
    c.head_dim = arch->head_dim;
    if (!c.head_dim && c.heads) c.head_dim = c.hidden / c.heads;
    get_count(&f, "head_dim", &c.head_dim);
    c.context = arch->context;
    get_count(&f, "max_position_embeddings", &c.context);
    double eps = 1e-6;
    get_real(&f, "rms_norm_eps", &eps);
    c.norm_eps = (float)eps;
    get_bool(&f, "tie_word_embeddings", &c.tied);
    get_bool(&f, "attention_bias", &c.attention_bias);
    c.output_bias = c.attention_bias;
    get_rope(&f, &c);
    get_dtype(&f, &c);
    refuse_unsupported(&f);

    get_eos(&f, &c);
    const json_t *bos = field(&f, "bos_token_id");
    if (json_is_integer(bos)) c.bos = (int32_t)json_integer_value(bos);
    struct fields g = {generation, name, "generation_config: ", why, f.rc};
    if (generation) get_eos(&g, &c);
    if (g.rc) return g.rc;
    int rc = finish(&c, name, why);
    if (!rc) *out = c;
    return rc;
}

int config_from_folder(struct model_config *out, const char *folder,
                       struct why *why)
{
    char path[4096], generation_path[4096];
    json_t *config = NULL, *generation = NULL;
    const size_t max = (size_t)16 << 20;
    snprintf(path, sizeof path, "%s/config.json", folder);
    snprintf(generation_path, sizeof generation_path,
             "%s/generation_config.json", folder);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(why, ERR_NOT_FOUND,
                       "%s: has no config.json; a model is a Hugging Face "
                       "folder or a GGUF file",
                       folder);
    fclose(f);
    int rc = json_read(&config, path, max, why);
    if (!rc && (f = fopen(generation_path, "rb"))) {
        fclose(f);
        rc = json_read(&generation, generation_path, max, why);
    }
    if (!rc) rc = config_from_json(out, config, generation, path, why);
    json_decref(config);
    json_decref(generation);
    return rc;
}

/* --- GGUF ------------------------------------------------------------- */

struct meta {
    const struct gguf *g;
    const char *name;
    const char *arch; /* "llama": what keys of the architecture begin with */
    struct why *why;
    int rc;
};

static const char *arch_key(const struct meta *m, const char *key, char *text,
                            size_t n)
{
    snprintf(text, n, "%s.%s", m->arch, key);
    return text;
}

static bool meta_has(const struct meta *m, const char *key)
{
    char text[128];
    return gguf_has(m->g, arch_key(m, key, text, sizeof text));
}

static void meta_count(struct meta *m, const char *key, uint32_t *out,
                       bool needed)
{
    char text[128];
    uint64_t n = *out;
    arch_key(m, key, text, sizeof text);
    if (m->rc) return;
    if (needed && !gguf_has(m->g, text))
        m->rc =
            err_set(m->why, ERR_FORMAT, "%s: key %s is missing", m->name, text);
    else if (!(m->rc = gguf_get_uint(m->g, text, &n, m->why)) && n > MAX_COUNT)
        m->rc = err_set(m->why, ERR_FORMAT, "%s: key %s is %llu, more than %u",
                        m->name, text, (unsigned long long)n, MAX_COUNT);
    if (!m->rc) *out = (uint32_t)n;
}

static void meta_real(struct meta *m, const char *key, double *out)
{
    char text[128];
    if (!m->rc)
        m->rc = gguf_get_real(m->g, arch_key(m, key, text, sizeof text), out,
                              m->why);
}

/* A number that must have its neutral value where it is given at all. */
static void meta_must_be(struct meta *m, const char *key, double neutral)
{
    double v = neutral;
    meta_real(m, key, &v);
    if (!m->rc && v != neutral)
        m->rc = err_set(m->why, ERR_UNSUPPORTED,
                        "%s: key %s.%s is %g, which is not supported", m->name,
                        m->arch, key, v);
}

static void meta_rope(struct meta *m, struct model_config *c)
{
    const char *type = "none";
    char text[128];
    double attn = 1;
    meta_real(m, "rope.freq_base", &c->rope.theta);
    if (meta_has(m, "rope.scale_linear")) {
        type = "linear"; /* how files said it before rope.scaling.* */
        meta_real(m, "rope.scale_linear", &c->rope.factor);
    }
    if (!m->rc)
        m->rc = gguf_get_string(
            m->g, arch_key(m, "rope.scaling.type", text, sizeof text), &type,
            m->why);
    if (m->rc || !strcmp(type, "none")) return;
    meta_real(m, "rope.scaling.factor", &c->rope.factor);
    meta_count(m, "rope.scaling.original_context_length",
               &c->rope.original_context, false);
    if (!strcmp(type, "linear")) {
        c->rope.kind = ROPE_LINEAR;
    } else if (!strcmp(type, "yarn")) {
        c->rope.kind = ROPE_YARN;
        c->rope.beta_fast = 32;
        c->rope.beta_slow = 1;
        meta_real(m, "rope.scaling.yarn_beta_fast", &c->rope.beta_fast);
        meta_real(m, "rope.scaling.yarn_beta_slow", &c->rope.beta_slow);
        meta_real(m, "rope.scaling.attn_factor", &attn);
        meta_real(m, "rope.scaling.yarn_attn_factor", &attn);
        meta_must_be(m, "rope.scaling.yarn_ext_factor", 1);
        meta_must_be(m, "rope.scaling.yarn_log_multiplier", 0);
        c->rope.attention_factor = attn * yarn_mscale(c->rope.factor, 1);
    } else if (!m->rc) {
        m->rc = err_set(m->why, ERR_UNSUPPORTED,
                        "%s: key %s.rope.scaling.type \"%.32s\" is not "
                        "supported",
                        m->name, m->arch, type);
    }
}

/* Divisors of the frequencies may lie in the weights. */
static void meta_divisors(struct meta *m, struct model_config *c)
{
    if (m->rc || !gguf_find(m->g, "rope_freqs.weight")) return;
    if (c->rope.kind != ROPE_PLAIN)
        m->rc = err_set(m->why, ERR_UNSUPPORTED,
                        "%s: rope_freqs.weight beside %s.rope.scaling.type is "
                        "not supported",
                        m->name, m->arch);
    else
        c->rope.kind = ROPE_DIVISORS;
}

/* Files name one end, of the turn or of the text. A control token with one of
 * these names is an end as well (as llama.cpp has it), the one that a model
 * may choose instead. */
static void meta_named_ends(struct meta *m, struct model_config *c)
{
    static const char *const ends[] = {"<|im_end|>", "<|endoftext|>",
                                       "<|eot_id|>", "<|end_of_text|>",
                                       "<|eom_id|>"};
    struct gguf_string *tokens = NULL;
    int32_t *types = NULL;
    size_t count = 0, type_count = 0;
    if (!m->rc)
        m->rc = gguf_get_string_array(m->g, "tokenizer.ggml.tokens", &tokens,
                                      &count, m->why);
    if (!m->rc)
        m->rc = gguf_get_int_array(m->g, "tokenizer.ggml.token_type", &types,
                                   &type_count, m->why);
    for (size_t i = 0; i < count && i < type_count && !m->rc; i++) {
        if (types[i] != 3 || tokens[i].len > 16) continue; /* 3: control */
        for (size_t e = 0; e < sizeof ends / sizeof *ends && !m->rc; e++)
            if (strlen(ends[e]) == tokens[i].len &&
                !memcmp(ends[e], tokens[i].data, tokens[i].len))
                m->rc = add_eos(c, (int64_t)i, m->name, m->why);
    }
    mem_free(tokens);
    mem_free(types);
}

static void meta_tokens(struct meta *m, struct model_config *c)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    uint64_t id;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !m->rc; i++)
        if (gguf_has(m->g, keys[i]) &&
            !(m->rc = gguf_get_uint(m->g, keys[i], &id, m->why)))
            m->rc = add_eos(c, (int64_t)id, m->name, m->why);
    id = UINT32_MAX;
    if (!m->rc)
        m->rc = gguf_get_uint(m->g, "tokenizer.ggml.bos_token_id", &id, m->why);
    if (id <= INT32_MAX) c->bos = (int32_t)id;
    meta_named_ends(m, c);
}

/* Whether layer 0 has the tensor, and so, load.c sees to it, all layers. */
static bool has_tensor(const struct meta *m, const char *name)
{
    return gguf_find(m->g, name) != NULL;
}

int config_from_gguf(struct model_config *out, const struct gguf *g,
                     const char *name, struct why *why)
{
    const char *text = NULL;
    int rc = gguf_get_string(g, "general.architecture", &text, why);
    if (rc) return rc;
    if (!text)
        return err_set(why, ERR_FORMAT,
                       "%s: key general.architecture is "
                       "missing",
                       name);
    const struct arch *arch = arch_find(text, NULL);
    if (!arch)
        return err_set(why, ERR_UNSUPPORTED,
                       "%s: general.architecture \"%.64s\" is not supported; "
                       "llama and qwen3 are",
                       name, text);
    struct model_config c = {.bos = -1};
    struct meta m = {g, name, arch->name, why, 0};
    begin(&c, arch);

    meta_count(&m, "embedding_length", &c.hidden, true);
    meta_count(&m, "block_count", &c.layers, true);
    meta_count(&m, "attention.head_count", &c.heads, true);
    meta_count(&m, "feed_forward_length", &c.ffn, true);
    meta_count(&m, "context_length", &c.context, true);
    c.kv_heads = c.heads;
    meta_count(&m, "attention.head_count_kv", &c.kv_heads, false);
    if (c.heads) c.head_dim = c.hidden / c.heads;
    meta_count(&m, "attention.key_length", &c.head_dim, false);
    double eps = 0;
    meta_real(&m, "attention.layer_norm_rms_epsilon", &eps);
    c.norm_eps = (float)eps;
    meta_rope(&m, &c);
    meta_divisors(&m, &c);

    meta_must_be(&m, "attention.value_length", c.head_dim);
    meta_must_be(&m, "rope.dimension_count", c.head_dim);
    meta_must_be(&m, "expert_count", 0);
    meta_must_be(&m, "attention.sliding_window", 0);
    meta_must_be(&m, "attention.scale", 0);
    meta_must_be(&m, "logit_scale", 0);
    meta_must_be(&m, "residual_scale", 0);
    meta_must_be(&m, "embedding_scale", 0);

    const struct stored_tensor *embed = gguf_find(g, "token_embd.weight");
    if (!m.rc && (!embed || embed->dims != 2 || embed->shape[0] > MAX_COUNT))
        m.rc = err_set(why, ERR_FORMAT,
                       "%s: tensor token_embd.weight is missing or no matrix",
                       name);
    if (m.rc) return m.rc;
    c.vocab = (uint32_t)embed->shape[0];
    c.tied = !has_tensor(&m, "output.weight");
    c.attention_bias = has_tensor(&m, "blk.0.attn_q.bias");
    c.output_bias = has_tensor(&m, "blk.0.attn_output.bias");
    meta_tokens(&m, &c);
    if (m.rc) return m.rc;
    rc = finish(&c, name, why);
    if (!rc) *out = c;
    return rc;
}

/* --- rope ------------------------------------------------------------- */

static double clamp01(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* The pair of a head (0 .. rotary/2) that turns rotations times over the
 * original context. */
static double yarn_pair(const struct model_config *c, double rotations)
{
    return c->rope.rotary *
           log(c->rope.original_context / (rotations * 2 * M_PI)) /
           (2 * log(c->rope.theta));
}

/* How far pair i is on the way from its own frequency (0) to the divided one
 * (1): fast pairs stay, slow ones stretch. */
static double yarn_ramp(const struct model_config *c, uint32_t i)
{
    double low = fmax(floor(yarn_pair(c, c->rope.beta_fast)), 0);
    double high =
        fmin(ceil(yarn_pair(c, c->rope.beta_slow)), (double)c->rope.rotary - 1);
    if (low == high) high += 0.001;
    return clamp01((i - low) / (high - low));
}

static double llama3_freq(const struct model_config *c, double freq)
{
    double turns = c->rope.original_context * freq / (2 * M_PI);
    double low = c->rope.low_freq_factor, high = c->rope.high_freq_factor;
    double keep = clamp01((turns - low) / (high - low));
    return (1 - keep) * freq / c->rope.factor + keep * freq;
}

void config_rope_freqs(const struct model_config *c, const float *divisors,
                       float *out)
{
    for (uint32_t i = 0; i < c->rope.rotary / 2; i++) {
        double freq = pow(c->rope.theta, -2.0 * i / c->rope.rotary);
        double ramp;
        switch (c->rope.kind) {
        case ROPE_PLAIN: break;
        case ROPE_LINEAR: freq /= c->rope.factor; break;
        case ROPE_LLAMA3: freq = llama3_freq(c, freq); break;
        case ROPE_YARN:
            ramp = yarn_ramp(c, i);
            freq = freq * (1 - ramp) + freq / c->rope.factor * ramp;
            break;
        case ROPE_DIVISORS: freq /= (double)divisors[i]; break;
        }
        out[i] = (float)freq;
    }
}
