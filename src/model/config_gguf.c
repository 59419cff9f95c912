/* The metadata of a GGUF file. As in config_json.c the first error is kept. */
#include "model/config_parts.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

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
        c->rope.attention_factor = attn * config_yarn_mscale(c->rope.factor, 1);
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
                m->rc = config_add_eos(c, (int64_t)i, m->name, m->why);
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
            m->rc = config_add_eos(c, (int64_t)id, m->name, m->why);
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

/* Layers with experts are those that have a router. llama.cpp divides the
 * chosen weights by their sum for this architecture, whatever the file says. */
static void meta_experts(struct meta *m, struct model_config *c,
                         const struct arch *arch)
{
    if (!arch->experts) {
        meta_must_be(m, "expert_count", 0);
        return;
    }
    meta_count(m, "expert_count", &c->experts.count, true);
    meta_count(m, "expert_used_count", &c->experts.used, true);
    meta_count(m, "expert_feed_forward_length", &c->experts.ffn, true);
    c->experts.normed = true;
    for (uint32_t i = 0; i < c->layers && i < MODEL_MAX_LAYERS; i++) {
        char text[64];
        snprintf(text, sizeof text, "blk.%u.ffn_gate_inp.weight", i);
        if (has_tensor(m, text)) layer_set_add(&c->experts.layers, i);
    }
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
    const struct arch *arch = arch_find_gguf(text);
    char names[200];
    if (!arch)
        return err_set(why, ERR_UNSUPPORTED,
                       "%s: general.architecture \"%.64s\" is not supported; "
                       "%s are",
                       name, text, arch_list(false, names, sizeof names));
    struct model_config c = {.bos = -1};
    struct meta m = {g, name, text, why, 0};
    config_begin(&c, arch);

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
    meta_count(&m, "rope.dimension_count", &c.rope.rotary, false);
    meta_experts(&m, &c, arch);
    /* Files do not say which of the layers slide. */
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
    c.mlp_bias = has_tensor(&m, "blk.0.ffn_gate.bias");
    meta_tokens(&m, &c);
    if (m.rc) return m.rc;
    rc = config_finish(&c, name, why);
    if (!rc) *out = c;
    return rc;
}
