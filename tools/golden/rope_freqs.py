"""Prints tests/golden/model/rope_freqs.inc: rotary frequencies as transformers
computes them, for tests/model/config_test.c.

usage: python tools/golden/rope_freqs.py > tests/golden/model/rope_freqs.inc
needs: torch, transformers (made with 5.23.0)
"""
import json

from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

CASES = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
     "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 128},
    {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
     "original_max_position_embeddings": 128},
    {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
     "beta_fast": 16, "beta_slow": 2,
     "original_max_position_embeddings": 4096},
]

print("/* Made by tools/golden/rope_freqs.py; clang-format off */")
for rope in CASES:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=16,
                         max_position_embeddings=512, rope_parameters=rope)
    freqs = LlamaRotaryEmbedding(config).inv_freq
    text = json.dumps(rope).replace('"', '\\"')
    numbers = ", ".join(f"{float(f):.9e}f" for f in freqs)
    print(f'{{"{text}",\n {{{numbers}}}}},')
