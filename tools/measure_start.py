"""Times how long a server takes to its first token, and what memory it then has.

usage: python tools/measure_start.py --baton NAME=build/release/baton ... [--rounds 5] [--threads 2] [--kv-tokens 2048]
                                     MODEL[,OPTION ...] ...

A MODEL is what `baton launch_server --model-path` takes, options of it may follow:
"folder,--quantization int8,--weight-cache /tmp/cache" (a cache is filled before the first round). For each model,
every round starts every program once, one after the other, and asks for one token as soon as the server says where it
listens. Before each start the model's files are read, so that they are in the page cache. Printed are the best and the
median over the rounds, in seconds:

  up     what the server itself says it took
  token  from its exec to the body of the answer

with --give-memory also

  give   how long all threads together take to touch three times as much memory as the weights are, before each start:
         where a hypervisor hands memory to its guest as it is touched, that is part of a start, and is so no longer

and of the last round in MB, beside what the weights are and the KV of a prompt that fills --kv-tokens tokens:

  peak   resident set at most, up to the first token (VmHWM: pages of files that it maps count, as its own until they are
         packed)
  rss    resident set after the first token, without KV
  full   resident set after the long prompt and once all weights are packed, and the share it has of shared pages (PSS);
         their excess over weights + KV
"""
import argparse
import concurrent.futures
import contextlib
import ctypes
import glob
import json
import mmap
import os
import re
import shlex
import statistics
import subprocess
import time
import urllib.request

UP = re.compile(r"(http://\S+:\d+), up after ([0-9.]+) s")


def field(pid, file, name):
    with open(f"/proc/{pid}/{file}") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name))


def ask(url, tokens):
    body = {"input_ids": tokens, "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    request = urllib.request.Request(url + "/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


@contextlib.contextmanager
def serving(a, program, model, options):
    """A server that listens, its URL, and the seconds that it says it took."""
    command = [program, "launch_server", "--model-path", model, "--port", "0", "--threads", str(a.threads),
               "--skip-server-warmup", "--max-total-tokens", str(a.kv_tokens), *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        log = []
        for line in server.stderr:
            log.append(line)
            if m := UP.search(line):
                break
        else:
            raise SystemExit("".join(log))
        yield server, m[1], float(m[2])
    finally:
        server.terminate()
        server.communicate()


def maps_files_of(pid, model):
    with open(f"/proc/{pid}/maps") as maps:
        return os.path.realpath(model) in maps.read()


def fill_cache(a, program, model, options):
    with serving(a, program, model, options) as (server, _, _):
        with open(f"/proc/{server.pid}/maps") as maps:
            if ".weights" in maps.read():
                return
        path = next(line.split()[-1] for line in server.stderr if "writing the weight cache" in line)
        while not os.path.exists(path):
            time.sleep(0.1)


def give(size, threads):
    """Seconds until so many bytes of memory were touched, which are free again behind it."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    step = 32 << 20
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda at: ctypes.memset(first + at, 1, min(step, size - at)), range(0, size, step)))
    return time.perf_counter() - began


def warm(model):
    room = bytearray(16 << 20)
    for path in glob.glob(model + "/*") if os.path.isdir(model) else [model]:
        with open(path, "rb", buffering=0) as f:
            while f.readinto(room):
                pass


def start(a, program, model, options, last, weights):
    given = {"give": give(3 * weights, a.threads)} if a.give_memory else {}
    warm(model)
    began = time.perf_counter()
    with serving(a, program, model, options) as (server, url, up):
        ask(url, [1])
        r = {"up": up, "token": time.perf_counter() - began}
        r |= given | {"peak": field(server.pid, "status", "VmHWM"), "rss": field(server.pid, "status", "VmRSS")}
        if last:
            ask(url, [i % 1000 for i in range(a.kv_tokens - 64)])
            while maps_files_of(server.pid, model):
                time.sleep(0.02)
            r |= {"full": field(server.pid, "smaps_rollup", "Rss"), "pss": field(server.pid, "smaps_rollup", "Pss")}
        return r


def sizes(a, program, model, options):
    quantization = [text for i, text in enumerate(options) if "--quantization" in options[max(i - 1, 0):i + 1]]
    out = subprocess.run([program, "inspect", model, "--json", *quantization], check=True, stdout=subprocess.PIPE)
    survey = json.loads(out.stdout)
    return survey["weight_bytes"], survey["kv_bytes_per_token"] * a.kv_tokens


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--baton", action="append", required=True, metavar="NAME=FILE")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--kv-tokens", type=int, default=2048)
    p.add_argument("--give-memory", action="store_true")
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    programs = dict(text.split("=", 1) for text in a.baton)
    for text in a.models:
        model, *rest = text.split(",")
        options = [word for part in rest for word in shlex.split(part)]
        got = {name: [] for name in programs}
        for program in programs.values():
            if "--weight-cache" in options:
                fill_cache(a, program, model, options)
        weights, kv = sizes(a, next(iter(programs.values())), model, options)
        for n in range(a.rounds):
            for name, program in programs.items():
                got[name].append(start(a, program, model, options, n == a.rounds - 1, weights))
        print(text)
        for name in programs:
            report(name, got[name], weights, kv)


def report(name, runs, weights, kv):
    last = runs[-1]
    mb = {k: last[k] / 1e6 for k in ("peak", "rss", "full", "pss")}
    times = "  ".join(f"{k} {min(r[k] for r in runs):.2f} {statistics.median(r[k] for r in runs):.2f}"
                      for k in ("give", "up", "token") if k in last)
    over = 100 * (last["full"] / (weights + kv) - 1)
    print(f"  {name:8} {times} | weights {weights / 1e6:.0f} KV {kv / 1e6:.0f} peak {mb['peak']:.0f} rss {mb['rss']:.0f}"
          f" full {mb['full']:.0f} (pss {mb['pss']:.0f}), {over:+.1f} %", flush=True)


if __name__ == "__main__":
    main()
