"""Compares greedy text of Baton with llama.cpp's, on one GGUF file.

For each of 20 prompts llama.cpp generates COUNT tokens, and so does Baton.
Where the two part, llama.cpp's logits tell how near a tie the choice was (its
best logit minus that of Baton's choice); Baton then continues after
llama.cpp's token, so that every token is compared. The two programs round
activations differently, so the gaps between best and second best differ a
little everywhere: "noise" is the rms of that difference where both chose
alike. A parting within 4 times the noise is a near-tie; one beyond it fails.

usage: python tools/golden/compare_llamacpp.py MODEL.gguf --program PATH
       python tools/golden/compare_llamacpp.py MODEL.gguf --url http://HOST:PORT
PATH is build/MODE/tests/model-greedy. With --exact, transformers computes the
same texts in float32 from the decoded weights, and the noise of either program
is told apart: rms of its gap minus the exact one. With --url the server's /generate is
asked with input_ids, and noise is not known: the limit is --tie (0.5).
needs: llama-cpp-python, numpy (run with 0.3.36, 2.4.6); for --exact torch,
transformers, gguf (2.15.0, 5.23.0, 0.19.0)
"""
import argparse
import ctypes
import json
import subprocess
import sys
import urllib.request

import llama_cpp
import numpy as np

PROMPTS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a child.",
    "List three uses of copper.",
    "Translate 'good morning' into Spanish.",
    "What is 12 times 12?",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "Summarize what a computer does in one sentence.",
    "Write a Python function that adds two numbers.",
    "What are the primary colors?",
    "Describe a sunset.",
    "How do airplanes fly?",
    "Name five animals that live in the forest.",
    "What is the difference between weather and climate?",
    "Write an email asking for a day off.",
    "Tell me a fact about the Moon.",
    "What should I pack for a trip to the mountains?",
    "Once upon a time there was a lighthouse keeper who",
]


class Llama:
    """llama.cpp, greedy. Without weight repacking (use_extra_bufts): its AMX
    path crashes on virtual machines that announce AMX but do not grant it."""

    def __init__(self, path, threads):
        llama_cpp.llama_backend_init()
        self.log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.log, None)
        mp = llama_cpp.llama_model_default_params()
        mp.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), mp)
        cp = llama_cpp.llama_context_default_params()
        cp.n_ctx = 1024
        cp.n_threads = cp.n_threads_batch = threads
        self.ctx = llama_cpp.llama_init_from_model(self.model, cp)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokens(self, text):
        raw = text.encode()
        out = (llama_cpp.llama_token * (len(raw) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), out, len(out),
                                     False, True)
        return list(out[:n])

    def text(self, ids):
        raw = b""
        for i in ids:
            b = ctypes.create_string_buffer(256)
            n = llama_cpp.llama_token_to_piece(self.vocab, i, b, 256, 0, True)
            raw += b.raw[:n]
        return raw.decode(errors="replace")

    def generate(self, ids, count):
        """The tokens, and the logits [count, vocab] that chose them."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
        out, rows, new = [], [], ids
        for _ in range(count):
            array = (llama_cpp.llama_token * len(new))(*new)
            batch = llama_cpp.llama_batch_get_one(array, len(new))
            if llama_cpp.llama_decode(self.ctx, batch):
                sys.exit("llama_decode failed")
            p = llama_cpp.llama_get_logits_ith(self.ctx, -1)
            row = np.ctypeslib.as_array(p, (self.size,)).copy()
            rows.append(row)
            out.append(int(row.argmax()))
            new = [out[-1]]
        return out, rows


class Exact:
    """LlamaForCausalLM of transformers over the decoded weights."""

    def __init__(self, path):
        import gguf_model
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        tensors, config = gguf_model.read(path)
        self.torch = torch
        self.net = LlamaForCausalLM(LlamaConfig(**{
            k: v for k, v in config.items() if k != "architectures"})).eval()
        lost = self.net.load_state_dict(tensors, strict=False)
        assert lost.missing_keys in ([], ["lm_head.weight"]), lost
        assert not lost.unexpected_keys, lost
        self.net.tie_weights()

    def gaps(self, prompt, tokens):
        """Best logit minus second best before each token; NaN where the best
        is another token."""
        ids = self.torch.tensor([prompt + tokens[:-1]])
        with self.torch.no_grad():
            rows = self.net(ids).logits[0, len(prompt) - 1:]
        best = rows.topk(2)
        gap = (best.values[:, 0] - best.values[:, 1]).numpy()
        return np.where(best.indices[:, 0].numpy() == tokens, gap, np.nan)


class Program:
    def __init__(self, path, model, device):
        self.run = subprocess.Popen([path, model, device], text=True,
                                    stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE)

    def generate(self, ids, count):
        self.run.stdin.write(" ".join(map(str, [count, *ids])) + "\n")
        self.run.stdin.flush()
        pairs = [p.split(":") for p in self.run.stdout.readline().split()]
        return [int(i) for i, _ in pairs], [float(g) for _, g in pairs]


class Server:
    def __init__(self, url):
        self.url = url

    def generate(self, ids, count):
        body = {"input_ids": ids, "sampling_params": {
            "temperature": 0, "max_new_tokens": count, "ignore_eos": True}}
        request = urllib.request.Request(
            self.url + "/generate", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["output_ids"], None


def compare(reference, ours, prompt, count):
    """The reference's tokens; (position, gap of ours, gap of reference) of
    equal choices; partings as (position, token of reference, of ours, gap in reference, gap in ours)."""
    want, rows = reference.generate(prompt, count)
    equal, partings, at = [], [], 0
    while at < count:
        got, gaps = ours.generate(prompt + want[:at], count - at)
        for i, token in enumerate(got):
            row = rows[at + i]
            best = np.partition(row, -2)[-2:]
            if token == want[at + i]:
                if gaps:
                    equal.append((at + i, gaps[i],
                                  float(best[1] - best[0])))
                continue
            partings.append((at + i, want[at + i], token,
                             float(best[1] - row[token]),
                             gaps[i] if gaps else None))
            break
        at += i + 1
    return want, equal, partings


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model")
    args.add_argument("--program")
    args.add_argument("--url")
    args.add_argument("--device", default="cpu")
    args.add_argument("--count", type=int, default=48)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--tie", type=float, default=0.5)
    args.add_argument("--exact", action="store_true")
    args.add_argument("--verbose", action="store_true")
    args = args.parse_args()
    reference = Llama(args.model, args.threads)
    ours = (Server(args.url) if args.url
            else Program(args.program, args.model, args.device))
    exact = Exact(args.model) if args.exact else None
    equal, partings, whole, errors = [], [], 0, []
    for n, text in enumerate(PROMPTS):
        prompt = reference.tokens(f"<|im_start|>user\n{text}<|im_end|>\n"
                                  "<|im_start|>assistant\n")
        want, same, parted = compare(reference, ours, prompt, args.count)
        equal += [(own, its) for _, own, its in same]
        if exact:
            true = exact.gaps(prompt, want)
            errors += [(own - true[i], its - true[i]) for i, own, its in same
                       if not np.isnan(true[i])]
        partings += [(n, *p) for p in parted]
        whole += not parted
        if args.verbose:
            print(f"{n:2} {reference.text(want)!r}")
    if errors:
        own, its = np.sqrt(np.mean(np.square(errors), axis=0))
        print(f"noise against float32, {len(errors)} tokens: ours {own:.4f}, "
              f"llama.cpp {its:.4f}")
    total = len(PROMPTS) * args.count
    noise = (float(np.sqrt(np.mean([(a - b) ** 2 for a, b in equal])))
             if equal else None)
    limit = 4 * noise if noise else args.tie
    print(f"{total - len(partings)} of {total} tokens chosen alike, "
          f"{whole} of {len(PROMPTS)} texts whole; noise "
          f"{'unknown' if noise is None else f'{noise:.4f}'}, "
          f"near-tie up to {limit:.4f}")
    for n, at, want, got, gap, own in partings:
        print(f"prompt {n} token {at}: llama.cpp {want} "
              f"{reference.text([want])!r}, ours {got} "
              f"{reference.text([got])!r}; llama.cpp's logits {gap:.4f} apart"
              + (f", ours {own:.4f}" if own is not None else "")
              + ("" if gap <= limit else "  TOO FAR"))
    bad = [p for p in partings if p[4] > limit]
    print("near-ties explain all" if not bad else f"{len(bad)} unexplained")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
