"""Compares `baton bench engine` with llama.cpp on the same files, in turn.

usage: python tools/compare_peers.py --baton build/release/baton --llama-bench PATH [--rounds 5]
                                     [--threads 2] [--prompt 512] [--gen 64] MODEL ...

MODEL is one file for both, or BATON=LLAMA[=QUANTIZATION] where Baton reads
another one or rounds its weights (tools/make_shape.py writes them). Each round
runs Baton, then llama-bench, each once; printed are medians over rounds, their
ratio, and the spread (max - min) / median of either, which is the noise.
llama-bench comes from the sources of the PyPI package llama-cpp-python:
  pip download --no-binary :all: --no-deps llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
  cmake -S llama_cpp_python-*/vendor/llama.cpp -B peer -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON
  cmake --build peer --target llama-bench
"""
import argparse
import json
import statistics
import subprocess


def baton(a, model, quantization):
    command = [a.baton, "bench", "engine", "--json", "--repeat", "1", "--model", model, "--threads", str(a.threads),
               "--prompt", str(a.prompt), "--gen", str(a.gen)]
    if quantization:
        command += ["--quantization", quantization]
    r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"prefill": r["prefill_tokens_per_s"], "decode": r["decode_tokens_per_s"],
            "of int8": r["prefill_fraction_of_int8"], "of f32": r["prefill_fraction_of_f32"],
            "of read": r["decode_fraction_of_read"], "load s": r["load_s"]}


def llama(a, model):
    depth = ["-d", str(a.prompt)] if a.depth else []
    rates = {}
    for key, flags in (("prefill", ["-p", str(a.prompt), "-n", "0"]), ("decode", ["-p", "0", "-n", str(a.gen), *depth])):
        out = subprocess.run([a.llama_bench, "-m", model, "-t", str(a.threads), "-r", "1", "-o", "json", *flags],
                             check=True, capture_output=True, text=True).stdout
        rates[key] = json.loads(out)[0]["avg_ts"]
    return rates


def line(name, ours, theirs):
    m, spread = statistics.median(ours), (max(ours) - min(ours)) / statistics.median(ours)
    if not theirs:
        return f"  {name:8} {m:9.3f}  (spread {100 * spread:.0f} %)"
    t, other = statistics.median(theirs), (max(theirs) - min(theirs)) / statistics.median(theirs)
    pairs = statistics.median(x / y for x, y in zip(ours, theirs))
    return (f"  {name:8} {m:9.1f} tok/s (spread {100 * spread:.0f} %)   llama.cpp {t:9.1f} (spread {100 * other:.0f} %)"
            f"   ratio of medians {m / t:.2f}, median of ratios {pairs:.2f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--baton", required=True)
    p.add_argument("--llama-bench", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--gen", type=int, default=64)
    p.add_argument("--depth", action="store_true", help="llama.cpp too decodes behind the prompt")
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    for model in a.models:
        ours_path, theirs_path, quantization = (model.split("=") + [None, None])[:3]
        ours, theirs = [], []
        for _ in range(a.rounds):
            ours.append(baton(a, ours_path, quantization))
            theirs.append(llama(a, theirs_path or ours_path))
        print(f"{model}, {a.threads} threads, prompt {a.prompt}, {a.rounds} rounds")
        for key in ours[0]:
            print(line(key, [r[key] for r in ours], [r[key] for r in theirs if key in r]))


if __name__ == "__main__":
    main()
