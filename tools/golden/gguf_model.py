"""A GGUF file of architecture llama as transformers would have it: for
compare_llamacpp.py and perplexity.py. needs: gguf, numpy, torch"""
import gguf
import numpy as np
import torch

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "token_embd": "model.embed_tokens",
         "output": "lm_head", "output_norm": "model.norm"}


def read(path):
    """Tensors by their names in transformers, float32, and the config."""
    file = gguf.GGUFReader(path)

    def key(name):
        return file.fields["llama." + name].contents()

    heads = {"attn_q": key("attention.head_count"),
             "attn_k": key("attention.head_count_kv")}
    tensors = {}
    for t in file.tensors:
        *block, part, _ = t.name.split(".")
        name = NAMES[part] + ".weight"
        if block:
            name = f"model.layers.{block[1]}.{name}"
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if part in heads:  # pairs back to halves
            rows, cols = w.shape
            w = w.reshape(heads[part], -1, 2, cols).swapaxes(1, 2)
            w = w.reshape(rows, cols)
        tensors[name] = torch.from_numpy(np.ascontiguousarray(w))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
              "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
              "hidden_size": key("embedding_length"),
              "intermediate_size": key("feed_forward_length"),
              "num_hidden_layers": key("block_count"),
              "num_attention_heads": heads["attn_q"],
              "num_key_value_heads": heads["attn_k"],
              "max_position_embeddings": key("context_length"),
              "rms_norm_eps": float(key("attention.layer_norm_rms_epsilon")),
              "rope_theta": float(key("rope.freq_base")),
              "tie_word_embeddings": "lm_head.weight" not in tensors}
    return tensors, config
