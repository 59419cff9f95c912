/* Qwen2 and Qwen2.5 (Qwen team 2024), as Qwen2ForCausalLM of transformers, and
 * with them DeepSeek-R1-Distill-Qwen: Llama's pass, with biases of q, k and v
 * (and none of o) whatever the config says, and with a sliding window in the
 * later layers where the config switches it on. docs/models/qwen2.md */
#include "model/arch.h"

const struct arch arch_qwen2 = {
    .name = "qwen2",
    .gguf = "qwen2",
    .class = "Qwen2ForCausalLM",
    .qkv_bias = true,
    .window = ARCH_WINDOW_LATER,
    .context = 32768,
    .forward = llama_forward,
};
