#!/usr/bin/env python3
"""Baton's tokenizer beside Hugging Face's and tiktoken, one after another in the same run.

    BATON_TEST_DATA=DIR tools/golden/tok_speed.py CORPUS_DIR [ROUNDS]

CORPUS_DIR comes from tok_corpus.py. Each round times all of them once on each text, one thread
each; the medians over the rounds are printed, in MB/s of UTF-8. Needs the pip packages tokenizers
and tiktoken. tiktoken has no Qwen vocabulary of its own: it gets the one of DIR/qwen3.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tiktoken
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATON = ROOT / "build/release/baton"
QWEN = pathlib.Path(os.environ["BATON_TEST_DATA"], "qwen3")
TAKEN = 1_000_000  # of each text for the slow two


def byte_of():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


def qwen_in_tiktoken():
    spec = json.loads((QWEN / "tokenizer.json").read_text())
    letters = byte_of()
    ranks = {bytes(letters[c] for c in word): i for word, i in spec["model"]["vocab"].items()}
    pattern = spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    return tiktoken.Encoding("qwen3", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def rate(work, n):
    start = time.perf_counter()
    work()
    return n / 1e6 / (time.perf_counter() - start)


def baton(path):
    out = subprocess.run([BATON, "bench", "tokenizer", "--model", QWEN, "--text", path, "--repeat",
                          "3", "--json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["encode_mb_s"]


def main():
    corpus, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    theirs, tik = Tokenizer.from_file(str(QWEN / "tokenizer.json")), qwen_in_tiktoken()
    names = ("english", "code", "world", "mixed")
    rates = {name: {"baton": [], "tokenizers": [], "tiktoken": []} for name in names}
    for _ in range(rounds):
        for name in names:
            path = corpus / f"{name}.txt"
            text = path.read_bytes()[:TAKEN].decode(errors="ignore")
            n, r = len(text.encode()), rates[name]
            r["baton"].append(baton(path))
            r["tokenizers"].append(rate(lambda: theirs.encode(text), n))
            r["tiktoken"].append(rate(lambda: tik.encode_ordinary(text), n))
    for name in names:
        print(name, *(f"{who} {statistics.median(v):.1f}" for who, v in rates[name].items()))


main()
