/* Llama (Touvron 2023; Llama 3, 2024), as LlamaForCausalLM of transformers:
 * RMSNorm before each half of a layer, rotary positions in the half-split
 * form, grouped-query attention, SwiGLU. docs/models/llama.md */
#include "model/arch.h"

#include <math.h>

/* x += o(attention(y)) with y = norm(x), of layer i. Returns the rows that go
 * on: b, or after the last layer's those that are asked. */
static const struct batch *attention(struct model *m, const struct batch *b,
                                     struct kv_pool *pool, uint32_t i)
{
    const struct model_config *c = &m->config;
    const struct layer *l = &m->layers[i];
    const struct op_kv kv = kv_pool_layer(pool, i);
    struct device *dev = m->dev;
    const bool parts = forward_parts(m, b, i);
    size_t t = b->tokens;

    /* q [t, h, d], k and v [t, g, d] of the normed x */
    struct input y = attention_input(m, l);
    const struct linear qkv[] = {{m->q, l->q, l->q_bias, false},
                                 {m->k, l->k, l->k_bias, false},
                                 {m->v, l->v, l->v_bias, false}};
    op_linear(dev, &y, t, qkv + parts, parts ? 2 : 3);

    struct turn turn = head_turn(m, b, NULL);
    op_kv_write(dev, &kv, b->seqs, b->seq_count, m->k, m->v, &turn);
    if (parts) {
        b = forward_asked(m, b);
        t = b->tokens;
        y = attention_input(m, l);
        op_linear(dev, &y, t, qkv, 1);
    }
    turn = head_turn(m, b, NULL);

    /* a [t, h, d] over the cached k and v of each token's sequence */
    const struct linear o = {m->x, l->o, l->o_bias, true};
    op_expect(dev, t, &o, 1);
    const struct query q = {m->q, &turn, c->heads,
                            1 / sqrtf((float)c->head_dim), layer_window(c, i)};
    op_attention(dev, m->a, &q, &kv, b->seqs, b->seq_count);
    expect_ffn(m, l, t);
    op_linear(dev, &(struct input){.x = m->a}, t, &o, 1); /* x += o(a) */
    return b;
}

void llama_forward(struct model *m, const struct batch *b, struct kv_pool *pool)
{
    forward_embed(m, b); /* x [t, n] */
    for (uint32_t i = 0; i < m->config.layers; i++) {
        b = attention(m, b, pool, i); /* x += o(a)                */
        forward_swiglu(m, &m->layers[i],
                       b->tokens); /* x += down(silu(gate) * up) */
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
