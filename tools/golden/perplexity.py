"""What each quantization costs: the perplexity of SmolLM2-135M-Instruct on
tests/golden/model/prose.txt, for docs/models/weights.md.

The model comes as a GGUF file (tools/fetch-model). Its decoded weights are
written as a float32 folder, which is the reference; every other row stores or
rounds these same weights in another way. "apart" is the mean distance of ln p
of the text's tokens from the reference's.

usage: python tools/golden/perplexity.py [BUILD_DIR] [SCRATCH_DIR]
needs: tools/golden/requirements.txt; BUILD_DIR (build/release) with baton and
       tests/model-perplexity; 2 GB in SCRATCH_DIR
"""
import json
import os
import subprocess
import sys
import tempfile

import gguf
import gguf_model
import numpy as np
import torch
from safetensors.torch import save_file

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
TEXT = os.path.join(ROOT, "tests/golden/model/prose.txt")
def write_folder(folder, tensors, config):
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    return folder


def as_fp8(tensors):
    """DeepSeek's form: blocks of 128 x 128 scaled to the range of E4M3."""
    out = {}
    for name, w in tensors.items():
        if not name.endswith("_proj.weight"):
            out[name] = w
            continue
        rows, cols = w.shape
        full = torch.nn.functional.pad(w, (0, -cols % 128, 0, -rows % 128))
        blocks = full.reshape(full.shape[0] // 128, 128, -1, 128)
        scale = blocks.abs().amax((1, 3)) / 448
        q = (blocks / scale[:, None, :, None]).reshape(full.shape)[:rows, :cols]
        out[name] = q.contiguous().to(torch.float8_e4m3fn)
        out[name + "_scale_inv"] = scale
    return out


def write_gguf(path, tensors, config, kind):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    back = {v: k for k, v in gguf_model.NAMES.items()}
    for name, w in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        block = f"blk.{parts[2]}." if parts[1] == "layers" else ""
        part = back[".".join(parts[3:] if block else parts)]
        w = w.numpy()
        if part in ("attn_q", "attn_k"):
            heads = config["num_attention_heads" if part == "attn_q"
                           else "num_key_value_heads"]
            w = w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2)
            w = np.ascontiguousarray(w.reshape(-1, w.shape[3]))
        if block and w.ndim == 2:
            writer.add_tensor(f"{block}{part}.weight",
                              gguf.quants.quantize(w, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{block}{part}.weight", w)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        ROOT, "build/release")
    scratch = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    source = subprocess.run([os.path.join(ROOT, "tools/fetch-model")],
                            check=True, capture_output=True,
                            text=True).stdout.strip()
    tensors, config = gguf_model.read(source)
    reference = os.path.join(scratch, "logprobs")
    if os.path.exists(reference):
        os.remove(reference)
    print("| weights | MB | perplexity | apart |\n|---|---|---|---|", flush=True)

    def row(label, model, quantization="none", kv="f32"):
        run = subprocess.run(
            [os.path.join(build, "tests/model-perplexity"), model, source, TEXT,
             "cpu", quantization, kv], capture_output=True, text=True,
            env={**os.environ, "BATON_LOGPROBS": reference})
        if run.returncode:
            print(f"| {label} | {run.stderr.strip()} | | |", flush=True)
            return
        size = run.stderr.split(",")[1].split()[0]
        value, *apart = run.stdout.split()
        print(f"| {label} | {size} | {value} | {apart[0] if apart else 0} |",
              flush=True)

    plain = write_folder(os.path.join(scratch, "f32"), tensors, config)
    row("f32 (reference)", plain)
    row("f32, KV in f16", plain, kv="f16")
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).split(".")[1]
        row(name, write_folder(os.path.join(scratch, name), {
            n: t.to(dtype) for n, t in tensors.items()}, config))
    row("F8_E4M3 in blocks (held as bf16)", write_folder(
        os.path.join(scratch, "fp8"), as_fp8(tensors), {
            **config, "quantization_config": {
                "quant_method": "fp8", "weight_block_size": [128, 128]}}))
    for kind in ("w8a8_int8", "int8", "int4"):
        row("--quantization " + kind, plain, kind)
        folder = os.path.join(scratch, "q-" + kind)
        if kind == "int8":
            continue  # 576 columns are no whole groups of 128
        subprocess.run(["rm", "-rf", folder], check=True)
        subprocess.run([os.path.join(build, "baton"), "quantize", plain, folder,
                        "--quantization", kind], check=True,
                       capture_output=True)
        row("baton quantize, " + kind, folder)
    for kind in ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"):
        path = os.path.join(scratch, kind + ".gguf")
        row("GGUF " + kind.lower(), write_gguf(
            path, tensors, config, gguf.GGMLQuantizationType[kind]))
    row("GGUF as fetched (q4_1, q8_0)", source)


if __name__ == "__main__":
    main()
