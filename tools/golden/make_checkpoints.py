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
pass over all its ids. Products with weights in bfloat16 take their input
rounded to bfloat16, as src/tensor/ops.h says.

usage: python tools/golden/make_checkpoints.py [NAME ... | --folder DIR NAME]
       (with --folder: writes that model as a Hugging Face folder instead)
needs: numpy, torch, transformers (made with 2.4.6, 2.15.0, 5.23.0)
"""
import json
import os
import sys

import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama

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
        "model_type": arch.lower().replace("3moe", "3_moe"),
        "vocab_size": VOCAB,
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
    # biases of q, k, v alone; 7 heads for each kv head, as Qwen2.5-0.5B
    "qwen2-odd": model("Qwen2", 112, 2, 14, 2, 96, dtype="bfloat16",
                       tie_word_embeddings=True, rope_theta=1000000.0),
    # layer 1 and 2 slide, from max_window_layers on
    "qwen2-window": model("Qwen2", 64, 3, 4, 4, 96, use_sliding_window=True,
                          sliding_window=7, max_window_layers=1,
                          rope_theta=10000.0),
    # every other layer slides, by layer_types
    "qwen3-window": model("Qwen3", 64, 4, 8, 2, 96, head_dim=16,
                          use_sliding_window=True, sliding_window=5,
                          layer_types=["full_attention",
                                       "sliding_attention"] * 2,
                          rope_theta=10000.0),
    "qwen3moe": model("Qwen3Moe", 64, 3, 8, 2, 96, head_dim=16,
                      num_experts=8, num_experts_per_tok=3,
                      moe_intermediate_size=32, norm_topk_prob=True,
                      rope_theta=10000.0),
    # layer 0 is no multiple of the step, layer 3 is excepted; weights as they
    # come; all layers slide
    "qwen3moe-mixed": model("Qwen3Moe", 96, 4, 9, 3, 64, head_dim=32,
                            dtype="bfloat16", num_experts=6,
                            num_experts_per_tok=2, moe_intermediate_size=64,
                            norm_topk_prob=False, decoder_sparse_step=2,
                            mlp_only_layers=[3], tie_word_embeddings=True,
                            use_sliding_window=True, sliding_window=11,
                            rope_theta=10000.0),
    "mistral": model("Mistral", 64, 2, 8, 2, 96, sliding_window=9,
                     rope_theta=10000.0),
    # 24 of 64 elements of a head turn (transformers heeds the factor in scaled
    # ropes alone); the feed-forward has biases
    "llama-partial": model("Llama", 128, 2, 2, 1, 96, mlp_bias=True,
                           head_dim=64, rope_parameters={
                               "rope_type": "linear", "factor": 2.0,
                               "rope_theta": 10000.0,
                               "partial_rotary_factor": 0.375}),
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


def expert_weights(name, param, seed, dtype):
    """Files have a matrix for each expert and projection; transformers stacks
    them when it loads: gate above up, [experts, 2 f, n], and down."""
    base, kind = name.rsplit(".", 1)
    parts = ["gate_proj", "up_proj"] if kind == "gate_up_proj" else ["down_proj"]
    count, rows, cols = param.shape
    return {f"{base}.{e}.{p}.weight": weight(
        f"{base}.{e}.{p}.weight", (rows // len(parts), cols), seed, dtype)
        for e in range(count) for p in parts}


def fused(tensors):
    out = {n: t for n, t in tensors.items() if ".mlp.experts." not in n}
    layers = sorted({n.split(".mlp.experts.")[0] for n in tensors
                     if ".mlp.experts." in n})
    for layer in layers:
        def of(part):
            found, e = [], 0
            while (n := f"{layer}.mlp.experts.{e}.{part}.weight") in tensors:
                found.append(tensors[n])
                e += 1
            return found
        out[layer + ".mlp.experts.gate_up_proj"] = torch.stack(
            [torch.cat(p) for p in zip(of("gate_proj"), of("up_proj"))])
        out[layer + ".mlp.experts.down_proj"] = torch.stack(of("down_proj"))
    return out


def partial_rotary(q, k, cos, sin, unsqueeze_dim=1):
    """The rotation of transformers' Phi and StableLM: of the first elements
    of a head. Its Llama takes the factor but fails to apply it."""
    n = cos.shape[-1]
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    half = modeling_llama.rotate_half
    return tuple(torch.cat((x[..., :n] * cos + half(x[..., :n]) * sin,
                            x[..., n:]), dim=-1) for x in (q, k))


def build(config, seed):
    dtype = getattr(torch, config["torch_dtype"])
    kind = config["architectures"][0].replace("ForCausalLM", "")
    modeling_llama.apply_rotary_pos_emb = partial_rotary
    # float32 arithmetic, whatever the weights were rounded to
    settings = getattr(transformers, kind + "Config")(**{
        k: v for k, v in config.items()
        if k not in ("architectures", "torch_dtype")},
        attn_implementation="eager")
    net = getattr(transformers, kind + "ForCausalLM")(settings).float().eval()
    tensors = {}
    for n, p in net.state_dict().items():
        if n == "lm_head.weight" and net.config.tie_word_embeddings:
            continue
        if n.endswith("mlp.experts.gate_up_proj") or n.endswith(
                "mlp.experts.down_proj"):
            tensors.update(expert_weights(n, p, seed, dtype))
        else:
            tensors[n] = weight(n, tuple(p.shape), seed, dtype)
    missing = net.load_state_dict(
        fused({n: t.float() for n, t in tensors.items()}),
        strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"]), missing
    net.tie_weights()
    return net, tensors


def round_inputs(linear):
    """torch's linear, of an input rounded to bfloat16."""
    return lambda x, *more: linear(x.to(torch.bfloat16).float(), *more)


def write_golden(name, config, seed):
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.integers(0, VOCAB, 48)]
    net, _ = build(config, seed)
    linear = torch.nn.functional.linear
    if config["torch_dtype"] == "bfloat16":
        torch.nn.functional.linear = round_inputs(linear)
    with torch.no_grad():
        logits = net(torch.tensor([ids])).logits[0].numpy()
    torch.nn.functional.linear = linear
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
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            write_golden(name, config, 1 + i)
