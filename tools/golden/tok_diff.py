#!/usr/bin/env python3
"""Where Baton's ids differ from Hugging Face's, text by text.

    BATON_TEST_DATA=DIR tools/golden/tok_diff.py NAME [FIRST [COUNT]]

NAME is one of tests/golden/tokenizer/*.hashes; FIRST and COUNT choose texts of tok_texts.py
(all of them without). Runs build/release/tests/encode-ids; needs the pip package tokenizers.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys

import tok_golden
import tok_models
import tok_texts
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    name = sys.argv[1]
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    count = int(sys.argv[3]) if len(sys.argv) > 3 else tok_texts.TEXTS + tok_texts.DOCUMENTS - first
    path = tok_texts.OUT / f"{name}.json"
    if not path.exists():
        path = pathlib.Path(os.environ.get("BATON_TEST_DATA", "/nowhere"), name, "tokenizer.json")
    plain = []
    if name in tok_models.MADE and not path.exists():
        path, tokenizer = tok_texts.OUT / name, tok_models.MADE[name](tok_golden.CORPUS)
        plain = ["plain"] * isinstance(tokenizer, tok_models.Own)
    elif name == "smollm2":
        path, tokenizer = tok_golden.smollm2_path(), tok_golden.smollm2()
    else:
        tokenizer = Tokenizer.from_file(str(path))
    raw = [tok_texts.text(i) for i in range(first, first + count)]
    lines = subprocess.run(
        [ROOT / "build/release/tests/encode-ids", path, *plain], check=True, stdout=subprocess.PIPE,
        input=b"".join(struct.pack("<I", len(t)) + t for t in raw)).stdout.decode().split("\n")
    different = 0
    for i, text in enumerate(raw):
        text = text.decode(errors="replace")
        want = tokenizer.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode_batch([want], skip_special_tokens=False)[0]
        got, got_back = [int(x) for x in lines[2 * i].split()], json.loads(lines[2 * i + 1])
        if got == want and got_back == back:
            continue
        different += 1
        if different > 10:
            continue
        at = next((k for k, (a, b) in enumerate(zip(got, want)) if a != b),
                  min(len(got), len(want)))
        print(f"text {first + i}: {text[:200]!r}\n  at id {at} of {len(want)}"
              f"\n  got  {got[at:at + 10]} {tokenizer.decode_batch([got[at:at + 10]])[0][:80]!r}"
              f"\n  want {want[at:at + 10]} {tokenizer.decode_batch([want[at:at + 10]])[0][:80]!r}")
        if got == want:
            k = next((k for k, (a, b) in enumerate(zip(got_back, back)) if a != b),
                     min(len(got_back), len(back)))
            print(f"  decoded, got {got_back[k:k + 30]!r} want {back[k:k + 30]!r}")
    print(f"{name}: {different} of {len(raw)} texts differ")
    return different > 0


sys.exit(main())
