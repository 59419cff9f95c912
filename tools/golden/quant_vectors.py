#!/usr/bin/env python3
"""Golden vectors of the GGUF block formats: tests/golden/tensor/NAME.bin.

Needs the pip packages gguf and numpy (made with gguf 0.19.0, numpy 2.4.6). A file
is: u32 blocks; the blocks' bytes, random but with sane float16 scales; their
float32 values by gguf's dequantize. For q8_0, q4_0 and q4_1 then follow: u32
n; n float32 values; the bytes that gguf's quantize makes of them.
"""
import os
import sys

import gguf
import numpy as np

BLOCKS = {"q8_0": 4, "q4_0": 4, "q4_1": 4, "q4_k": 2, "q5_k": 2, "q6_k": 2}
F16_AT = {"q8_0": [0], "q4_0": [0], "q4_1": [0, 2], "q4_k": [0, 2],
          "q5_k": [0, 2], "q6_k": [208]}
ENCODED = {"q8_0", "q4_0", "q4_1"}


def main(folder):
    rng = np.random.default_rng(20240229)
    for name, blocks in BLOCKS.items():
        kind = gguf.GGMLQuantizationType[name.upper()]
        elems, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for at in F16_AT[name]:
            scales = rng.normal(0, 0.01, (blocks, 1)).astype("<f2")
            raw[:, at:at + 2] = scales.view(np.uint8)
        values = gguf.quants.dequantize(raw.reshape(1, -1), kind)
        with open(os.path.join(folder, name + ".bin"), "wb") as out:
            out.write(np.uint32(blocks).tobytes())
            out.write(raw.tobytes())
            out.write(values.astype("<f4").tobytes())
            if name in ENCODED:
                x = rng.normal(0, 1, (1, elems * 8)).astype("<f4")
                x[0, :elems] = 0
                x[0, elems:2 * elems] = np.linspace(-1, 1, elems)
                out.write(np.uint32(x.size).tobytes())
                out.write(x.tobytes())
                out.write(gguf.quants.quantize(x, kind).tobytes())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/tensor")
