"""Writes tests/golden/model/NAME.json and NAME.npy: small random models and
the logits that transformers computes for them.

Nobody stores the weights. A weight is a function of the model's seed, the
tensor's name and the element's index, exact in float32, that this script and
tests/model/random_model.c both compute:

    k     = signed 24 bits: splitmix64(fnv1a64(name) + seed + index) >> 40
    gain  = 1 + k * 2^-25          (names that end in norm.weight)
    bias  = k * 2^-25
    other = k * 2^(1 - 23 - floor(log2(columns)) // 2)

then rounded to the model's dtype. Logits are float32 from float32 arithmetic
over the rounded weights, for the rows that the JSON lists, of one forward
pass over all its ids.

usage: python tools/golden/make_checkpoints.py [--folder DIR NAME]
       (with --folder: writes that model as a Hugging Face folder instead)
needs: numpy, torch, transformers (made with 2.4.6, 2.15.0, 5.23.0)
"""
import json
import os
import sys

import numpy as np
import torch
import transformers
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

OUT = os.path.join(os.path.dirname(__file__), "../../tests/golden/model")
ROWS = [0, 5, 16, 31, 39, 47]
VOCAB = 272  # the tokenizer of random_model.c
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
        "original_max_position_embeddings": 128}


def model(arch, hidden, layers, heads, kv_heads, ffn, head_dim=None, **more):
    dtype = more.pop("dtype", "float32")
    config = {
        "architectures": [arch + "ForCausalLM"],
        "model_type": arch.lower(), "vocab_size": VOCAB,
        "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "intermediate_size": ffn, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "bos_token_id": None, "eos_token_id": 271,
        "tie_word_embeddings": False, "torch_dtype": dtype,
    }
    if head_dim:
        config["head_dim"] = head_dim
    config.update(more)
    return config


MODELS = {
    # every head its own kv head, tied
    "llama-plain": model("Llama", 64, 2, 4, 4, 96, tie_word_embeddings=True,
                         rope_theta=10000.0),
    # SmolLM2's odd head counts, llama3 scaling in its older spelling
    "llama-odd": model("Llama", 144, 2, 9, 3, 160, dtype="bfloat16",
                       rope_theta=500000.0, rope_scaling=LLAMA3),
    # one kv head for 8, head_dim apart from hidden / heads, biases
    "llama-bias": model("Llama", 64, 2, 8, 1, 128, head_dim=32,
                        dtype="float16", attention_bias=True,
                        rope_parameters={"rope_type": "linear", "factor": 2.0,
                                         "rope_theta": 10000.0}),
    # whole K-quant blocks in every row
    "llama-256": model("Llama", 256, 2, 4, 2, 256, rope_theta=10000.0,
                       tie_word_embeddings=True),
    "qwen3-odd": model("Qwen3", 64, 2, 6, 2, 96, head_dim=16,
                       rope_theta=1000000.0),
    "qwen3-bf16": model("Qwen3", 96, 3, 8, 1, 128, head_dim=32,
                        dtype="bfloat16", tie_word_embeddings=True,
                        rope_parameters={"rope_type": "default",
                                         "rope_theta": 1000000.0}),
    "qwen3-256": model("Qwen3", 256, 1, 4, 1, 256, head_dim=128,
                       attention_bias=True, rope_parameters=YARN),
}
MASK = (1 << 64) - 1


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def splitmix64(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def weight(name, shape, seed, dtype):
    count = int(np.prod(shape))
    start = np.uint64((fnv1a64(name) + seed) & MASK)
    with np.errstate(over="ignore"):
        bits = splitmix64(start + np.arange(count, dtype=np.uint64))
    k = (bits >> np.uint64(40)).astype(np.int64) - (1 << 23)
    k = k.astype(np.float32)
    if len(shape) == 1:
        value = k * np.float32(2.0 ** -25)
        if name.endswith("norm.weight"):
            value = np.float32(1) + value
    else:
        e = (int(shape[-1]).bit_length() - 1) // 2
        value = k * np.float32(2.0 ** (1 - 23 - e))
    return torch.from_numpy(value.reshape(shape)).to(dtype)


def build(config, seed):
    dtype = getattr(torch, config["torch_dtype"])
    llama = config["model_type"] == "llama"
    # float32 arithmetic, whatever the weights were rounded to
    kind = (LlamaConfig if llama else Qwen3Config)
    net = (LlamaForCausalLM if llama else Qwen3ForCausalLM)(kind(**{
        k: v for k, v in config.items()
        if k not in ("architectures", "torch_dtype")},
        attn_implementation="eager")).float().eval()
    tensors = {n: weight(n, tuple(p.shape), seed, dtype)
               for n, p in net.state_dict().items()
               if not (n == "lm_head.weight" and net.config.tie_word_embeddings)}
    missing = net.load_state_dict({n: t.float() for n, t in tensors.items()},
                                  strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"]), missing
    net.tie_weights()
    return net, tensors


def write_golden(name, config, seed):
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.integers(0, VOCAB, 48)]
    net, _ = build(config, seed)
    with torch.no_grad():
        logits = net(torch.tensor([ids])).logits[0].numpy()
    rows = np.ascontiguousarray(logits[ROWS], dtype=np.float32)
    np.save(os.path.join(OUT, name + ".npy"), rows)
    with open(os.path.join(OUT, name + ".json"), "w") as f:
        json.dump({"made_by": "tools/golden/make_checkpoints.py",
                   "torch": torch.__version__,
                   "transformers": transformers.__version__,
                   "seed": seed, "config": config, "ids": ids, "rows": ROWS},
                  f, indent=1)
        f.write("\n")
    print(f"{name}: logits of rms {rows.std():.3f}, largest {abs(rows).max():.3f}")


def write_folder(folder, name):
    from safetensors.torch import save_file
    seed = 1 + list(MODELS).index(name)
    _, tensors = build(MODELS[name], seed)
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(MODELS[name], f, indent=1)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--folder":
        write_folder(sys.argv[2], sys.argv[3])
    else:
        for i, (name, config) in enumerate(MODELS.items()):
            write_golden(name, config, 1 + i)
