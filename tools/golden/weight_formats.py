"""Writes tests/golden/model/formats/model.safetensors and formats.gguf: one
small matrix in every form that src/model/matrix.h reads, packed by the
packages that write such files, and beside it the floats that it stands for
(NAME.expected, by the same packages where they can).

    awq           AutoAWQ's WQLinear_GEMM and dequantize_gemm
    gptq*         AutoGPTQ's QuantLinear.pack (v1: stored zeros are one less)
    packed*       compressed-tensors' pack_to_int32
    fp8*          torch.float8_e4m3fn, scales by block, row and tensor
    int8*, slim   one int8 scale a row; msmodelslim's static form by its formula
    GGUF          gguf-py's quantize and dequantize; random bytes for K types

usage: python tools/golden/weight_formats.py
needs: tools/golden/requirements.txt
"""
import importlib.util
import os
import sys
import types

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(__file__), "../../tests/golden/model")
ROWS, COLS = 32, 64  # AutoAWQ packs no fewer rows


def module(name, path):
    """A module of a package whose __init__ would ask for a GPU."""
    site = next(p for p in sys.path if os.path.isdir(os.path.join(p, "torch")))
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = types.ModuleType(".".join(parts[:i]))
        package.__path__ = [os.path.join(site, *parts[:i])]
        sys.modules.setdefault(package.__name__, package)
    spec = importlib.util.spec_from_file_location(name, os.path.join(site, path))
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def integers(rng, group):
    """q, z in 4 bits, s in float16: [rows, cols], [rows, groups] twice."""
    shape = (ROWS, COLS // group)
    return (torch.tensor(rng.integers(0, 16, (ROWS, COLS))),
            torch.tensor(rng.integers(1, 16, shape)),
            torch.tensor(rng.uniform(0.002, 0.03, shape)).half())


def spread(x, group):
    return x.repeat_interleave(group, dim=1).float()


def linear(q, z, s, group):
    layer = torch.nn.Linear(COLS, ROWS, bias=False).half()
    layer.weight.data = (s.repeat_interleave(group, 1).float() *
                         (q - z.repeat_interleave(group, 1)).float()).half()
    return layer


def add_awq(out, rng, group=32):
    util = module("awq.utils.packing_utils", "awq/utils/packing_utils.py")
    gemm = module("awq.modules.linear.gemm", "awq/modules/linear/gemm.py")
    q, z, s = integers(rng, group)
    packed = gemm.WQLinear_GEMM.from_linear(
        linear(q, z, s, group), 4, group, scales=s.t().contiguous(),
        zeros=z.t().contiguous().float())
    out["awq.qweight"], out["awq.qzeros"] = packed.qweight, packed.qzeros
    out["awq.scales"] = packed.scales
    want = util.dequantize_gemm(packed.qweight, packed.qzeros,
                                packed.scales.float(), 4, group).t()
    assert torch.equal(want, spread(s, group) * (q - spread(z, group)))
    out["awq.expected"] = want


def add_gptq(out, rng, name, group, scattered=False):
    old = module("auto_gptq.nn_modules.qlinear.qlinear_cuda" +
                 ("" if scattered else "_old"),
                 "auto_gptq/nn_modules/qlinear/qlinear_cuda" +
                 (".py" if scattered else "_old.py"))
    q, z, s = integers(rng, group)
    order = torch.arange(COLS, dtype=torch.int32) // group
    if scattered:
        order = order[torch.tensor(rng.permutation(COLS))]
    at = order.long()
    layer = torch.nn.Linear(COLS, ROWS, bias=False)
    want = s[:, at].float() * (q - z[:, at]).float()
    layer.weight.data = want.clone()
    packed = old.QuantLinear(4, group, COLS, ROWS, False)
    packed.pack(layer, s.float().clone(), z.float().clone(), order)
    for part in ("qweight", "qzeros"):
        out[f"{name}.{part}"] = getattr(packed, part)
    out[name + ".scales"] = packed.scales.half()
    out[name + ".g_idx"] = order
    out[name + ".expected"] = want


def add_packed(out, rng, name, group, bits=4, zeros=False, cols=COLS):
    half = 1 << (bits - 1)
    q = torch.tensor(rng.integers(-half, half, (ROWS, cols)), dtype=torch.int8)
    shape = (ROWS, cols // group)
    z = torch.tensor(rng.integers(-half, half, shape), dtype=torch.int8)
    s = torch.tensor(rng.uniform(0.002, 0.03, shape)).bfloat16()
    out[name + ".weight_packed"] = pack_to_int32(q, bits)
    out[name + ".weight_scale"] = s
    out[name + ".weight_shape"] = torch.tensor([ROWS, cols])
    if zeros:
        out[name + ".weight_zero_point"] = pack_to_int32(
            z, bits, packed_dim=0).contiguous()
    else:
        z = torch.zeros_like(z)
    out[name + ".expected"] = spread(s, group) * (q.float() - spread(z, group))


def add_fp8(out, rng, name, rows, cols, part):
    w = torch.tensor(rng.normal(0, 30, (ROWS, COLS))).to(torch.float8_e4m3fn)
    shape = (-(-ROWS // rows), -(-COLS // cols))
    s = torch.tensor(rng.uniform(1e-4, 1e-3, shape)).float()
    full = s.repeat_interleave(rows, 0)[:ROWS].repeat_interleave(cols, 1)
    out[name + ".weight"] = w
    out[f"{name}.{part}"] = s if shape != (1, 1) else s[0]
    out[name + ".expected"] = w.float() * full[:, :COLS]


def add_int8(out, rng):
    q = torch.tensor(rng.integers(-128, 128, (ROWS, COLS)), dtype=torch.int8)
    s = torch.tensor(rng.uniform(1e-4, 1e-3, (ROWS, 1))).float()
    out["int8.weight"], out["int8.weight_scale"] = q, s
    out["int8.expected"] = q.float() * s


def add_slim(out, rng):
    """W8A8 of msmodelslim: out = deq (sum of (x / xs + xo) q + quant_bias)."""
    q = torch.tensor(rng.integers(-128, 128, (ROWS, COLS)), dtype=torch.int8)
    s = torch.tensor(rng.uniform(1e-4, 1e-3, (ROWS, 1))).float()
    bias = torch.tensor(rng.normal(0, 0.5, ROWS)).float()
    scale, offset = torch.tensor([0.03]), torch.tensor([-7.0])
    deq = scale * s[:, 0]
    out["slim.weight"], out["slim.weight_scale"] = q, s
    out["slim.weight_offset"] = torch.zeros(ROWS, 1)
    out["slim.input_scale"], out["slim.input_offset"] = scale, offset
    out["slim.deq_scale"] = deq
    out["slim.quant_bias"] = (torch.round(bias / deq) - offset *
                              q.float().sum(1)).to(torch.int32)
    out["slim.expected"] = q.float() * s
    out["slim.expected_bias"] = torch.round(bias / deq) * deq


def write_gguf(rng):
    writer = gguf.GGUFWriter(os.path.join(OUT, "formats.gguf"), "none")
    types = gguf.GGMLQuantizationType
    for name in ("Q5_0", "Q5_1", "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS"):
        kind = types[name]
        elems, size = gguf.GGML_QUANT_SIZES[kind]
        rows, cols = (3, 64) if elems == 32 else (2, 256)
        if name in ("Q5_0", "Q5_1"):
            x = rng.normal(0, 1, (rows, cols)).astype(np.float32)
            data = gguf.quants.quantize(x, kind)
        else:
            data = rng.integers(0, 256, (rows, cols // elems * size),
                                dtype=np.uint8)
            d = np.float16(0.013).tobytes()
            at = {"Q2_K": 80, "Q3_K": 108}.get(name, 0)
            for block in range(0, data.shape[1], size):
                data[:, block + at:block + at + 2] = np.frombuffer(d, np.uint8)
                if name == "Q2_K":
                    data[:, block + 82:block + 84] = np.frombuffer(d, np.uint8)
        low = name.lower()
        writer.add_tensor(low + ".weight", data, raw_dtype=kind)
        writer.add_tensor(low + ".expected", gguf.quants.dequantize(data, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    torch.manual_seed(0)
    rng = np.random.default_rng(7)
    out = {}
    add_awq(out, rng)
    add_gptq(out, rng, "gptq", 32)
    add_gptq(out, rng, "gptq_order", 32, scattered=True)
    add_packed(out, rng, "packed", 32)
    add_packed(out, rng, "packed_zeros", 64, zeros=True)
    add_packed(out, rng, "packed8", 128, bits=8, cols=128)
    add_fp8(out, rng, "fp8_blocks", 5, 48, "weight_scale_inv")
    add_fp8(out, rng, "fp8_rows", 1, COLS, "weight_scale")
    add_fp8(out, rng, "fp8_one", ROWS, COLS, "weight_scale")
    add_int8(out, rng)
    add_slim(out, rng)
    os.makedirs(os.path.join(OUT, "formats"), exist_ok=True)
    save_file({n: t.contiguous() for n, t in out.items()},
              os.path.join(OUT, "formats", "model.safetensors"))
    write_gguf(rng)
