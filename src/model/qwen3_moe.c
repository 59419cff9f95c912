/* Qwen3 mixtures of experts (Qwen3-30B-A3B, 235B-A22B), as Qwen3MoeForCausalLM
 * of transformers: Qwen3's attention, and in the layers that the config names
 * a router and experts instead of one feed-forward. docs/models/qwen3_moe.md */
#include "model/arch.h"

static void forward(struct model *m, const struct batch *b,
                    struct kv_pool *pool)
{
    forward_embed(m, b); /* x [t, n] */
    for (uint32_t i = 0; i < m->config.layers; i++) {
        const struct layer *l = &m->layers[i];
        b = qwen3_attention(m, b, pool, i); /* x += o(a) */
        if (l->router)
            forward_experts(m, l, b->tokens); /* x += sum of the chosen */
        else
            forward_swiglu(m, l, b->tokens); /* x += down(silu(gate) * up) */
    }
    forward_logits(m, b); /* [logit rows, V] */
}

const struct arch arch_qwen3_moe = {
    .name = "qwen3_moe",
    .gguf = "qwen3moe",
    .class = "Qwen3MoeForCausalLM",
    .qk_norm = true,
    .experts = true,
    .window = ARCH_WINDOW_ALL,
    .context = 32768,
    .forward = forward,
};
