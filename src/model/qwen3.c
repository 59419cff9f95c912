/* Qwen3 dense (Qwen team 2025), as Qwen3ForCausalLM of transformers: Llama's
 * layer, with an RMSNorm of each head of q and k before the rotary positions,
 * and a head size that is its own number. docs/models/qwen3.md */
#include "model/arch.h"

#include <math.h>

const struct batch *qwen3_attention(struct model *m, const struct batch *b,
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

    struct turn turn = head_turn(m, b, l->k_norm);
    op_kv_write(dev, &kv, b->seqs, b->seq_count, m->k, m->v, &turn);
    if (parts) {
        b = forward_asked(m, b);
        t = b->tokens;
        y = attention_input(m, l);
        op_linear(dev, &y, t, qkv, 1);
    }
    turn = head_turn(m, b, l->q_norm);

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

static void forward(struct model *m, const struct batch *b,
                    struct kv_pool *pool)
{
    forward_embed(m, b); /* x [t, n] */
    for (uint32_t i = 0; i < m->config.layers; i++) {
        b = qwen3_attention(m, b, pool, i); /* x += o(a)                */
        forward_swiglu(m, &m->layers[i],
                       b->tokens); /* x += down(silu(gate) * up) */
    }
    forward_logits(m, b); /* [logit rows, V] */
}

const struct arch arch_qwen3 = {
    .name = "qwen3",
    .gguf = "qwen3",
    .class = "Qwen3ForCausalLM",
    .qk_norm = true,
    .window = ARCH_WINDOW_LATER,
    .head_dim = 128,
    .context = 32768,
    .forward = forward,
};
