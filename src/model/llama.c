/* Llama (Touvron 2023; Llama 3, 2024), as LlamaForCausalLM of transformers:
 * RMSNorm before each half of a layer, rotary positions in the half-split
 * form, grouped-query attention, SwiGLU. docs/models/llama.md */
#include "model/arch.h"

#include <math.h>

void llama_forward(struct model *m, const struct batch *b, struct kv_pool *pool)
{
    const struct model_config *c = &m->config;
    struct device *dev = m->dev;
    const size_t t = b->tokens;
    const float scale = 1 / sqrtf((float)c->head_dim);

    forward_embed(m, b); /* x [t, n] */
    for (uint32_t i = 0; i < c->layers; i++) {
        const struct layer *l = &m->layers[i];
        const struct op_kv kv = kv_pool_layer(pool, i);

        /* q [t, h, d], k and v [t, g, d] of the normed x */
        op_rmsnorm(dev, m->y, m->x, l->attn_norm, t, c->hidden, c->norm_eps);
        const struct linear qkv[] = {{m->q, l->q, l->q_bias, false},
                                     {m->k, l->k, l->k_bias, false},
                                     {m->v, l->v, l->v_bias, false}};
        op_linear(dev, m->y, t, qkv, 3);
        op_rope(dev, m->q, &m->rope, b->positions, t, c->heads, c->head_dim);
        op_rope(dev, m->k, &m->rope, b->positions, t, c->kv_heads, c->head_dim);

        /* a [t, h, d] over the cached k and v of each token's sequence */
        op_kv_write(dev, &kv, b->seqs, b->seq_count, m->k, m->v);
        const struct linear o = {m->x, l->o, l->o_bias, true};
        op_expect(dev, t, &o, 1);
        op_attention(dev, m->a, m->q, &kv, b->seqs, b->seq_count, c->heads,
                     scale, layer_window(c, i));
        expect_ffn(m, l, t);
        op_linear(dev, m->a, t, &o, 1); /* x += o(a) */

        forward_swiglu(m, l, t); /* x += down(silu(gate) * up) */
    }
    forward_logits(m, b); /* [logit rows, V] */
}

const struct arch arch_llama = {
    .name = "llama",
    .gguf = "llama",
    .class = "LlamaForCausalLM",
    .gguf_interleaved = true,
    .context = 2048,
    .forward = llama_forward,
};

/* Mistral 7B (Jiang 2023): Llama with a sliding window in every layer, where
 * the config has one. Its GGUF files call themselves llama. */
const struct arch arch_mistral = {
    .name = "mistral",
    .class = "MistralForCausalLM",
    .window = ARCH_WINDOW_ALWAYS,
    .context = 131072,
    .forward = llama_forward,
};
