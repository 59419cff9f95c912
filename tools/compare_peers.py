"""Compares `baton bench engine` with llama.cpp and ik_llama.cpp on the same files, in turn.

usage: python tools/compare_peers.py --baton build/release/baton --peer NAME=FOLDER ... [--rounds 5] [--threads 2]
                                     [--figures prefill:512@4,decode,depth:2048,batch:4,batch:16] [--gen 48] MODEL ...

FOLDER has llama-bench and llama-batched-bench; flags for the first, then behind a | for the second, may follow it:
"ik=FOLDER -rtr 1 | -rtr -fa off". MODEL is one file for all, or
BATON=PEERS[=QUANTIZATION] where Baton reads another one or rounds its weights (tools/make_shape.py writes them).

  prefill:N  a prompt of N tokens
  decode     one sequence from the start
  depth:N    one sequence behind a prompt of N tokens
  batch:N    N sequences behind prompts of 64 tokens, their tokens together
  FIGURE@X   besides, what X times the best peer's rate would be of what this machine can do

A share of read is given twice: of what was read between the steps, on average, and of the best rate before and after
the run, which a host whose other guests come and go may have for a part of it only.

Each round runs every program once, one after the other; printed are medians over the rounds, the spread (max - min) /
median, which is the noise, and the median of the rounds' ratios to each peer. A peer that fails says so and is left
out of that line. Both peers come as sources of PyPI packages:
  pip download --no-binary :all: --no-deps llama-cpp-python      # or ik-llama-cpp-python
  tar xf llama_cpp_python-*.tar.gz
  cmake -S llama_cpp_python-*/vendor/llama.cpp -B peer -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON
  cmake --build peer --target llama-bench llama-batched-bench
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile


def run(command, errors=subprocess.DEVNULL, cwd=None):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=cwd).stdout


def baton(a, model, quantization, kind, n):
    command = [a.baton, "bench", "engine", "--json", "--repeat", "1", "--model", model, "--threads", str(a.threads)]
    command += {"prefill": ["--prompt", str(n), "--gen", "1"],
                "decode": ["--prompt", "1", "--gen", str(a.gen)],
                "depth": ["--prompt", str(n), "--gen", str(a.gen)],
                "batch": ["--prompt", "64", "--gen", str(a.gen), "--batch", str(n)]}[kind]
    if quantization:
        command += ["--quantization", quantization]
    r = json.loads(run(command))
    if kind == "prefill":
        limit = "bf16" if r["weights"] == "bf16" and r["bf16_gflops"] else "int8"
        return r["prefill_tokens_per_s"], r["prefill_fraction_of_" + limit], None, limit
    return (r["decode_tokens_per_s"], r["decode_fraction_of_read_between_steps"], r["decode_fraction_of_read"],
            "read between steps")


def peer(a, spec, model, kind, n):
    alone, _, batched = spec.partition("|")
    folder, *flags = alone.split()
    folder, model = os.path.abspath(folder), os.path.abspath(model)
    if kind == "batch":
        flags = batched.split()
        table = run([folder + "/llama-batched-bench", "-m", model, "-t", str(a.threads), "-c", str(n * (64 + a.gen)),
                     "-npp", "64", "-ntg", str(a.gen), "-npl", str(n), *flags], subprocess.STDOUT,
                    cwd=tempfile.gettempdir())  # it leaves a log where it runs
        return float([row for row in table.splitlines() if row.startswith("|")][-1].split("|")[8])
    bench = folder + "/llama-bench"
    gen = str(a.gen)
    what = {"prefill": ["-p", str(n), "-n", "0"], "decode": ["-p", "0", "-n", gen],
            "depth": ["-p", "0", "-n", gen, "-d", str(n)]}[kind]
    if kind == "depth" and "--n-depth" not in run([bench, "--help"]):  # ik_llama.cpp's word for it
        what = ["-p", "0", "-n", "0", "-gp", "%d,%s" % (n, gen)]
    out = run([bench, "-m", model, "-t", str(a.threads), "-r", "1", "-o", "json", *what, *flags])
    return float(re.search(r'"avg_ts": ([0-9.]+)', out)[1])  # warnings stand between the lines of JSON


def spread(values):
    return 100 * (max(values) - min(values)) / statistics.median(values)


def compare(a, model, peers, figure):
    figure, _, asked = figure.partition("@")
    kind, n = figure.split(":") if ":" in figure else (figure, "0")
    ours_path, theirs_path, quantization = (model.split("=") + [None, None])[:3]
    ours, fractions, best_fractions, theirs = [], [], [], {name: [] for name in peers}
    for _ in range(a.rounds):
        rate, fraction, of_best, limit = baton(a, ours_path, quantization, kind, int(n))
        ours.append(rate)
        fractions.append(fraction)
        best_fractions.append(of_best)
        for name, spec in peers.items():
            if theirs[name] is None:
                continue
            try:
                theirs[name].append(peer(a, spec, theirs_path or ours_path, kind, int(n)))
            except subprocess.CalledProcessError as e:
                print(f"  {figure}: {name} ended with {e.returncode}", flush=True)
                theirs[name] = None
    line = f"  {figure:13} {statistics.median(ours):8.1f} tok/s, {100 * statistics.median(fractions):.0f} % of {limit}"
    if best_fractions[0] is not None:
        line += f" ({100 * statistics.median(best_fractions):.0f} % of read at best)"
    line += f" (spread {spread(ours):.0f} %)"
    for name, rates in theirs.items():
        if rates:
            ratio = statistics.median(x / y for x, y in zip(ours, rates))
            line += f"; {name} {statistics.median(rates):.1f} ({spread(rates):.0f} %): {ratio:.2f}x"
    best = max((statistics.median(rates) for rates in theirs.values() if rates), default=None)
    if asked and best:
        rate = float(asked) * best
        share = statistics.median(f / r for f, r in zip(fractions, ours)) * rate
        line += f"; {asked}x is {rate:.1f}: {100 * share:.0f} % of {limit}"
    print(line, flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--baton", required=True)
    p.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER[ FLAGS]")
    p.add_argument("--figures", default="prefill:512,decode,depth:2048,batch:4,batch:16")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--gen", type=int, default=48)
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    peers = dict(text.split("=", 1) for text in a.peer)
    for model in a.models:
        print(f"{model}, {a.threads} threads, {a.rounds} rounds", flush=True)
        for figure in a.figures.split(","):
            compare(a, model, peers, figure)


if __name__ == "__main__":
    main()
