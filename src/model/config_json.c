/* A Hugging Face config.json. The reader keeps its first error and makes the
 * rest of its calls do nothing, so that the fields read as a list. */
#include "model/config_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* The same, where 0 means something. */
static void get_zero_count(struct fields *f, const char *key, uint32_t *out)
{
    const json_t *v = field(f, key);
    if (json_is_integer(v) && json_integer_value(v) == 0)
        *out = 0;
    else
        get_count(f, key, out);
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
            f->rc = config_add_eos(c, json_integer_value(id), f->name, f->why);
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
    char names[200];
    if (arch) return arch;
    if (class)
        fail(f, ERR_UNSUPPORTED,
             "architectures: \"%.64s\" is not supported; %s are", class,
             arch_list(true, names, sizeof names));
    else
        fail(f, ERR_UNSUPPORTED,
             "names no architectures, and model_type \"%.64s\" is not "
             "supported; %s are",
             type ? type : "", arch_list(false, names, sizeof names));
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
    c->rope.untruncated = !truncate;
    if (field(f, "attention_factor"))
        c->rope.attention_factor = factor;
    else if (mscale != 0 && mscale_all != 0)
        c->rope.attention_factor =
            config_yarn_mscale(c->rope.factor, mscale) /
            config_yarn_mscale(c->rope.factor, mscale_all);
    else
        c->rope.attention_factor = config_yarn_mscale(c->rope.factor, 1);
}

/* The part of a head that is rotated, from its beginning. */
static void get_partial(struct fields *f, struct model_config *c)
{
    double partial = 1;
    if (!field(f, "partial_rotary_factor")) return;
    get_real(f, "partial_rotary_factor", &partial);
    if (!(partial > 0 && partial <= 1))
        fail(f, ERR_FORMAT, "partial_rotary_factor %g is not in 0 .. 1",
             partial);
    else
        c->rope.rotary = (uint32_t)(c->head_dim * partial);
    if (c->rope.rotary == 0)
        fail(f, ERR_FORMAT, "partial_rotary_factor rotates nothing");
}

static void get_scaling(struct fields *f, struct model_config *c)
{
    const json_t *v = field(f, "rope_type");
    const char *type = json_string_value(v ? v : field(f, "type"));
    get_real(f, "rope_theta", &c->rope.theta);
    get_partial(f, c);
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
    get_real(f, "rope_theta", &c->rope.theta);
    get_partial(f, c);
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

/* Which layers have a sliding window. layer_types, where given, says it for
 * each; else all layers from max_window_layers on. */
static void get_window(struct fields *f, struct model_config *c,
                       const struct arch *arch)
{
    bool on = arch->window == ARCH_WINDOW_ALWAYS;
    uint32_t window = 4096, first = 28;
    if (arch->window == ARCH_WINDOW_ALWAYS)
        on = !json_is_null(json_object_get(f->object, "sliding_window"));
    else
        get_bool(f, "use_sliding_window", &on);
    if (on && arch->window == ARCH_WINDOW_NEVER)
        fail(f, ERR_UNSUPPORTED, "use_sliding_window is not supported for %s",
             arch->class);
    if (on) get_count(f, "sliding_window", &window);
    if (arch->window == ARCH_WINDOW_LATER)
        get_zero_count(f, "max_window_layers", &first);
    else
        first = 0;
    const json_t *types = field(f, "layer_types");
    if (types && json_array_size(types) != c->layers)
        fail(f, ERR_FORMAT, "layer_types is no list of %u layers", c->layers);
    for (uint32_t i = 0; i < c->layers && i < MODEL_MAX_LAYERS && !f->rc; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool slides =
            type ? !strcmp(type, "sliding_attention") : on && i >= first;
        if (types && (!type || (!slides && strcmp(type, "full_attention"))))
            fail(f, ERR_UNSUPPORTED,
                 "layer_types[%u] \"%.32s\" is not supported", i,
                 type ? type : "?");
        else if (slides && !on)
            fail(f, ERR_UNSUPPORTED,
                 "layer_types[%u] slides, but no sliding_window is in use", i);
        if (!slides) continue;
        layer_set_add(&c->sliding, i);
        c->window = window;
    }
}

/* Which layers have experts: those after each decoder_sparse_step-th, less
 * mlp_only_layers. */
static void get_experts(struct fields *f, struct model_config *c)
{
    uint32_t step = 1;
    c->experts.ffn = 768;
    c->experts.used = 8;
    c->experts.count = 128;
    get_zero_count(f, "num_experts", &c->experts.count);
    get_zero_count(f, "num_local_experts", &c->experts.count);
    get_count(f, "num_experts_per_tok", &c->experts.used);
    get_count(f, "moe_intermediate_size", &c->experts.ffn);
    get_bool(f, "norm_topk_prob", &c->experts.normed);
    get_count(f, "decoder_sparse_step", &step);
    const json_t *plain = field(f, "mlp_only_layers");
    if (plain && !json_is_array(plain))
        fail(f, ERR_FORMAT, "mlp_only_layers is no list");
    for (uint32_t i = 0; i < c->layers && i < MODEL_MAX_LAYERS; i++) {
        bool sparse = c->experts.count && (i + 1) % step == 0;
        for (size_t k = 0; k < json_array_size(plain); k++)
            if (json_integer_value(json_array_get(plain, k)) == i)
                sparse = false;
        if (sparse) layer_set_add(&c->experts.layers, i);
    }
}

/* A word that must be one of a few, where it is given at all. */
static void must_be_one(struct fields *f, const char *key, const char *a,
                        const char *b)
{
    const json_t *v = field(f, key);
    const char *text = json_string_value(v);
    if (v && (!text || (strcasecmp(text, a) != 0 && strcasecmp(text, b) != 0)))
        fail(f, ERR_UNSUPPORTED, "%s \"%.32s\" is not supported", key,
             text ? text : "?");
}

static void must_be_four(struct fields *f, const char *key)
{
    const json_t *v = field(f, key);
    if (v && json_integer_value(v) != 4)
        fail(f, ERR_UNSUPPORTED, "%s %lld is not supported; 4 is", key,
             (long long)json_integer_value(v));
}

static void get_blocks(struct fields *f, struct model_config *c)
{
    const json_t *v = field(f, "weight_block_size");
    json_int_t rows = json_integer_value(json_array_get(v, 0));
    json_int_t cols = json_integer_value(json_array_get(v, 1));
    if (!v) return;
    if (json_array_size(v) != 2 || rows < 1 || cols < 1 || rows > MAX_COUNT ||
        cols > MAX_COUNT)
        fail(f, ERR_FORMAT, "weight_block_size is no pair of counts");
    c->quant.block_rows = (uint32_t)rows;
    c->quant.block_cols = (uint32_t)cols;
}

/* Which layers are quantized, and in what groups, the tensors show
 * (matrix.h); what they cannot show stands here. */
static void get_quantization(struct fields *outer, struct model_config *c)
{
    const json_t *object = field(outer, "quantization_config");
    if (!object) return;
    struct fields inner = {object, outer->name, "quantization_config.",
                           outer->why, outer->rc},
                  *f = &inner;
    const char *method = json_string_value(field(f, "quant_method"));
    if (!method) {
        fail(f, ERR_UNSUPPORTED, "quant_method is missing");
    } else if (!strcmp(method, "fp8")) {
        c->quant.method = QUANT_FP8;
        must_be_one(f, "fmt", "e4m3", "float8_e4m3fn");
        get_blocks(f, c);
    } else if (!strcmp(method, "awq")) {
        c->quant.method = QUANT_AWQ;
        must_be_one(f, "version", "gemm", "gemm");
        must_be_four(f, "bits");
        must_be_four(f, "w_bit");
    } else if (!strcmp(method, "gptq")) {
        c->quant.method = QUANT_GPTQ;
        must_be_one(f, "checkpoint_format", "gptq", "gptq_v2");
        const char *format = json_string_value(field(f, "checkpoint_format"));
        c->quant.zeros_as_is = format && !strcasecmp(format, "gptq_v2");
        must_be_four(f, "bits");
    } else if (!strcmp(method, "compressed-tensors") ||
               !strcmp(method, "w8a8_int8") || !strcmp(method, "modelslim")) {
        c->quant.method = QUANT_INT8;
        if (field(f, "transform_config"))
            fail(f, ERR_UNSUPPORTED, "transform_config is not supported");
        const json_t *sparsity = field(f, "sparsity_config");
        const char *format =
            json_string_value(json_object_get(sparsity, "format"));
        if (format && strcmp(format, "dense") != 0)
            fail(f, ERR_UNSUPPORTED,
                 "sparsity_config.format \"%.32s\" is not supported", format);
    } else {
        fail(f, ERR_UNSUPPORTED, "quant_method \"%.32s\" is not supported",
             method);
    }
    outer->rc = inner.rc;
}

static void refuse_unsupported(struct fields *f)
{
    static const char *const off[] = {"is_encoder_decoder",
                                      "add_cross_attention"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        must_be_off(f, off[i]);
    const json_t *act = field(f, "hidden_act");
    const char *text = json_string_value(act);
    if (act && (!text || strcmp(text, "silu")))
        fail(f, ERR_UNSUPPORTED, "hidden_act \"%.32s\" is not supported",
             text ? text : "?");
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
    config_begin(&c, arch);

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
    if (!arch->qkv_bias) {
        get_bool(&f, "attention_bias", &c.attention_bias);
        c.output_bias = c.attention_bias;
    }
    get_bool(&f, "mlp_bias", &c.mlp_bias);
    get_rope(&f, &c);
    get_window(&f, &c, arch);
    if (arch->experts) get_experts(&f, &c);
    get_dtype(&f, &c);
    get_quantization(&f, &c);
    refuse_unsupported(&f);

    get_eos(&f, &c);
    const json_t *bos = field(&f, "bos_token_id");
    if (json_is_integer(bos)) c.bos = (int32_t)json_integer_value(bos);
    struct fields g = {generation, name, "generation_config: ", why, f.rc};
    if (generation) get_eos(&g, &c);
    if (g.rc) return g.rc;
    int rc = config_finish(&c, name, why);
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
