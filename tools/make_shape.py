"""Writes a model of a real model's shape with random weights, for speed.

usage: python tools/make_shape.py SHAPE OUT [TYPE] [--tokenizer FOLDER]

OUT that ends in .gguf: one file, matrices as TYPE f32, f16, bf16 (the
default), q8_0 or q4_0, which llama.cpp loads as well. Otherwise a Hugging Face
folder with TYPE bf16 (the default), f16, f32, or int8 as compressed-tensors
writes it (one scale a row, activations rounded per token). The same seed gives
the same weights in every form, up to their rounding. Vocabularies are numbered
tokens; --tokenizer copies a real tokenizer.json into the folder.
needs: numpy
"""
import argparse
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np

SHAPES = {
    "qwen3-0.6b": dict(arch="qwen3", layers=28, hidden=1024, ffn=3072, heads=16, kv_heads=8, head_dim=128,
                       vocab=151936, theta=1e6, eps=1e-6, context=40960),
    "qwen3-1.7b": dict(arch="qwen3", layers=28, hidden=2048, ffn=6144, heads=16, kv_heads=8, head_dim=128,
                       vocab=151936, theta=1e6, eps=1e-6, context=40960),
    "smollm2-135m": dict(arch="llama", layers=30, hidden=576, ffn=1536, heads=9, kv_heads=3, head_dim=64,
                         vocab=49152, theta=1e5, eps=1e-5, context=8192),
    "tiny": dict(arch="qwen3", layers=2, hidden=128, ffn=256, heads=4, kv_heads=2, head_dim=32, vocab=512,
                 theta=1e6, eps=1e-6, context=4096),
}


def tensors(s):
    """(name in safetensors, name in GGUF, rows or 0, cols)"""
    n, f, q, kv = s["hidden"], s["ffn"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    yield "model.embed_tokens.weight", "token_embd.weight", s["vocab"], n
    yield "model.norm.weight", "output_norm.weight", 0, n
    for i in range(s["layers"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        for a, b, rows, cols in [
                ("input_layernorm", "attn_norm", 0, n), ("post_attention_layernorm", "ffn_norm", 0, n),
                ("self_attn.q_proj", "attn_q", q, n), ("self_attn.k_proj", "attn_k", kv, n),
                ("self_attn.v_proj", "attn_v", kv, n), ("self_attn.o_proj", "attn_output", n, q),
                ("mlp.gate_proj", "ffn_gate", f, n), ("mlp.up_proj", "ffn_up", f, n),
                ("mlp.down_proj", "ffn_down", n, f)]:
            yield hf + a + ".weight", gg + b + ".weight", rows, cols
        if s["arch"] == "qwen3":
            for a in "qk":
                yield f"{hf}self_attn.{a}_norm.weight", f"{gg}attn_{a}_norm.weight", 0, s["head_dim"]


def values(name, rows, cols):
    if not rows:
        return np.ones(cols, np.float32)
    rng = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    return rng.standard_normal((rows, cols), np.float32) / np.float32(cols**0.5)


def bf16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def divided(x, d):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(d != 0, x / d, 0)


def q8_0(x):
    b = x.reshape(-1, 32)
    d = np.abs(b).max(1, keepdims=True) / 127
    return np.hstack([d.astype(np.float16).view(np.uint8), np.rint(divided(b, d)).astype(np.int8).view(np.uint8)])


def q4_0(x):
    b = x.reshape(-1, 32)
    d = np.take_along_axis(b, np.abs(b).argmax(1)[:, None], 1) / -8
    q = np.clip(np.floor(divided(b, d) + 8.5), 0, 15).astype(np.uint8)
    return np.hstack([d.astype(np.float16).view(np.uint8), q[:, :16] | q[:, 16:] << 4])


GGUF_TYPES = {"f32": (0, lambda x: x), "f16": (1, lambda x: x.astype(np.float16)), "bf16": (30, bf16),
              "q8_0": (8, q8_0), "q4_0": (2, q4_0)}


def gguf_bytes(x, kind):
    number, encode = GGUF_TYPES[kind if x.ndim == 2 else "f32"]
    return number, encode(x).tobytes()


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def write_gguf(s, out, kind):
    a, pad = s["arch"], 32
    keys = [
        ("general.architecture", 8, text(a)), ("general.alignment", 4, struct.pack("<I", pad)),
        (f"{a}.block_count", 4, struct.pack("<I", s["layers"])),
        (f"{a}.context_length", 4, struct.pack("<I", s["context"])),
        (f"{a}.embedding_length", 4, struct.pack("<I", s["hidden"])),
        (f"{a}.feed_forward_length", 4, struct.pack("<I", s["ffn"])),
        (f"{a}.attention.head_count", 4, struct.pack("<I", s["heads"])),
        (f"{a}.attention.head_count_kv", 4, struct.pack("<I", s["kv_heads"])),
        (f"{a}.attention.key_length", 4, struct.pack("<I", s["head_dim"])),
        (f"{a}.attention.value_length", 4, struct.pack("<I", s["head_dim"])),
        (f"{a}.rope.dimension_count", 4, struct.pack("<I", s["head_dim"])),
        (f"{a}.vocab_size", 4, struct.pack("<I", s["vocab"])),
        (f"{a}.rope.freq_base", 6, struct.pack("<f", s["theta"])),
        (f"{a}.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", s["eps"])),
        ("tokenizer.ggml.model", 8, text("gpt2")), ("tokenizer.ggml.pre", 8, text("qwen2")),
        ("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", s["vocab"] - 1)),
        ("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, 0)),
        ("tokenizer.ggml.tokens", 9,
         struct.pack("<IQ", 8, s["vocab"]) + b"".join(text(f"t{i}") for i in range(s["vocab"]))),
        ("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, s["vocab"]) + struct.pack("<i", 1) * s["vocab"]),
    ]
    infos, sizes, at, listed = b"", [], 0, list(tensors(s))
    blocks = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}
    for _, name, rows, cols in listed:
        elems, size = blocks[kind if rows else "f32"]
        dims = [cols, rows] if rows else [cols]
        infos += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        infos += struct.pack("<IQ", GGUF_TYPES[kind if rows else "f32"][0], at)
        sizes.append((rows or 1) * cols // elems * size)
        at += -(-sizes[-1] // pad) * pad
    with open(out, "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, len(listed), len(keys)))
        for key, number, value in keys:
            f.write(text(key) + struct.pack("<I", number) + value)
        f.write(infos)
        f.write(b"\0" * (-f.tell() % pad))
        for (hf, _, rows, cols), size in zip(listed, sizes):
            data = gguf_bytes(values(hf, rows, cols), kind)[1]
            assert len(data) == size
            f.write(data + b"\0" * (-size % pad))


def hf_parts(hf, x, kind):
    """(name, safetensors type, array) of one tensor."""
    if kind == "int8" and x.ndim == 2 and "embed" not in hf:
        d = np.abs(x).max(1, keepdims=True) / 127
        yield hf, "I8", np.rint(divided(x, d)).astype(np.int8)
        yield hf + "_scale", "F32", d
    elif kind in ("bf16", "int8"):
        yield hf, "BF16", bf16(x)
    else:
        yield hf, kind.upper(), x.astype({"f16": np.float16, "f32": np.float32}[kind])


def write_folder(s, out, kind, tokenizer):
    out.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM" if s["arch"] == "qwen3" else "LlamaForCausalLM"],
        "model_type": s["arch"], "hidden_size": s["hidden"], "intermediate_size": s["ffn"],
        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"],
        "head_dim": s["head_dim"], "vocab_size": s["vocab"], "rms_norm_eps": s["eps"], "rope_theta": s["theta"],
        "max_position_embeddings": s["context"], "tie_word_embeddings": True, "hidden_act": "silu",
        "attention_bias": False, "eos_token_id": s["vocab"] - 1,
        "torch_dtype": {"f32": "float32", "f16": "float16"}.get(kind, "bfloat16")}
    if kind == "int8":
        one = {"num_bits": 8, "type": "int", "symmetric": True}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"],
                                          "weights": dict(one, strategy="channel", dynamic=False),
                                          "input_activations": dict(one, strategy="token", dynamic=True)}}}
    (out / "config.json").write_text(json.dumps(config, indent=1))
    if tokenizer:
        for file in pathlib.Path(tokenizer).glob("tokenizer*.json"):
            shutil.copy(file, out / file.name)
    header, at, parts = {}, 0, []
    for hf, _, rows, cols in tensors(s):
        for name, number, array in hf_parts(hf, values(hf, rows, cols), kind):
            header[name] = {"dtype": number, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
            at += array.nbytes
            parts.append(array)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for array in parts:
            f.write(array.tobytes())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("type", nargs="?", default="bf16", choices=[*GGUF_TYPES, "int8"])
    p.add_argument("--tokenizer", help="folder with a tokenizer.json to copy")
    a = p.parse_args()
    if a.out.suffix == ".gguf":
        write_gguf(SHAPES[a.shape], a.out, a.type)
    else:
        write_folder(SHAPES[a.shape], a.out, a.type, a.tokenizer)


if __name__ == "__main__":
    main()
