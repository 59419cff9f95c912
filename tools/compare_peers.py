"""Compares `baton bench engine` with llama.cpp and ik_llama.cpp on the same files, in turns of some steps.

usage: python tools/compare_peers.py --baton build/release/baton --peer NAME=BUILD ... [--seconds 60] [--threads 2]
                                     [--figures prefill:512@4,decode,depth:2048,batch:4,batch:16] MODEL ...

BUILD is where cmake built the peer. MODEL is one file for all, or BATON=PEERS[=QUANTIZATION] where Baton reads another
one or rounds its weights (tools/make_shape.py writes them).

  prefill:N  a prompt of N tokens
  decode     one sequence from the start
  depth:N    one sequence behind a prompt of N tokens
  batch:N    N sequences behind prompts of 64 tokens, their tokens together
  FIGURE@X   besides, what X times the best peer's rate would be of what this machine can do

All programs have the model open at once and take turns: one step untimed and four timed, or a prompt. Who is not in
turn is stopped, since threads that watch for work would take the cores. Before each turn some memory is read, which
says what the machine gave in this round; of prompts and batches it is measured once a round what it can compute.

A host whose other guests come and go changes within seconds, and every rate with it. So rounds are short, ratios and
shares are those of a round, and printed are their medians: of all rounds, and of those in which the machine read so
much. The spread is what the middle 80 % of the rates span, over their median.

Both peers come as sources of PyPI packages:
  pip download --no-binary :all: --no-deps llama-cpp-python      # or ik-llama-cpp-python
  tar xf llama_cpp_python-*.tar.gz
  cmake -S llama_cpp_python-*/vendor/llama.cpp -B peer -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON
  cmake --build peer --target llama
"""
import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 4  # of a turn
GEN = 40  # positions behind the prompt that steps go through, again and again
PACE = 5  # GB/s: rounds that read so much alike stand in one line
FEWEST = 8  # rounds that make a line


class Gone(Exception):
    """A program that ended by itself."""

    def __init__(self, program):
        super().__init__(f"{program.name} ended with {program.process.wait()}")
        self.program = program


class Program:
    """One that has the model open, stopped outside its turns."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = None  # its first line, when it is ready

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Gone(self)
        return line

    def ask(self, what):
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says it
        line = self.answer()
        self.rest()
        return [float(word) for word in line.split()]

    def rest(self):
        self.process.send_signal(signal.SIGSTOP)

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def build_driver(build, folder, name):
    """tools/peer_turn.c for the peer that was built there."""
    build = Path(build).resolve()
    cache = (build / "CMakeCache.txt").read_text()
    source = Path(re.search(r"CMAKE_HOME_DIRECTORY:INTERNAL=(.*)", cache)[1])
    headers = [source / "include", source / "ggml/include"]
    libraries = {path.parent for path in build.rglob("lib*.so") if path.stem in ("libllama", "libggml", "libggml-base")}
    flags = ["-DHAS_REPACK"] if "repack_tensors" in (source / "include/llama.h").read_text() else []
    driver = Path(folder) / f"peer_turn-{name}"
    command = [os.environ.get("CC", "cc"), "-O2", *flags, str(Path(__file__).with_name("peer_turn.c")), "-o", str(driver)]
    command += [f"-I{path}" for path in headers]
    command += [f"-{what}{path}" for path in sorted(libraries) for what in ("L", "Wl,-rpath,")]
    subprocess.run([*command, "-lllama"], check=True)
    return str(driver)


def open_all(a, stack, drivers, model, kind, n):
    def start(name, command):
        program = Program(name, command)
        stack.callback(program.close)
        program.hello = program.answer()
        program.rest()
        return program

    ours, theirs, quantization = (model.split("=") + [None, None])[:3]
    prompt = {"decode": 1, "batch": 64}.get(kind, n)
    batch = n if kind == "batch" else 1
    command = [a.baton, "bench", "engine", "--turns", "--model", ours, "--threads", str(a.threads), "--prompt", str(prompt),
               "--gen", str(GEN), "--batch", str(batch), *(["--quantization", quantization] if quantization else [])]
    programs = [start("baton", command)]
    for name, driver in drivers.items():
        numbers = [str(x) for x in (a.threads, batch, prompt, GEN)]
        try:
            programs.append(start(name, [driver, theirs or ours, *numbers]))
        except Gone as gone:
            print(f"  {gone}", flush=True)
    return programs, batch * STEPS if kind != "prefill" else prompt


def take_rounds(a, programs, kind):
    """Of each round: what was read, GB/s; the rates of int8 and bf16, if asked for; each program's seconds."""
    baton, rounds = programs[0], []
    turn = "prompt" if kind == "prefill" else f"steps {STEPS}"
    for program in programs:
        program.ask(turn)
    end, said = time.monotonic() + a.seconds, time.monotonic()
    while time.monotonic() < end or len(rounds) < 3:
        reads, took = [], {}
        first = len(rounds) % len(programs)
        for program in programs[first:] + programs[:first]:
            reads.append(baton.ask("read")[0])
            took[program.name] = program.ask(turn)[0]
        reads.append(baton.ask("read")[0])
        limits = baton.ask("limits") if kind in ("prefill", "batch") else None
        rounds.append((statistics.harmonic_mean(reads), limits, took))
        if sys.stderr.isatty() and time.monotonic() > said + 1:
            said = time.monotonic()
            print(f"\r  {len(rounds)} rounds, {end - said:.0f} s left ", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return rounds


def rounds_of_all(a, programs, kind):
    """Begins again without a peer that ends."""
    while True:
        try:
            return take_rounds(a, programs, kind)
        except Gone as gone:
            if gone.program is programs[0]:
                raise
            print(f"  {gone}", flush=True)
            programs.remove(gone.program)


def shares_of(hello, kind, a_round):
    """Of what the machine could do in that round, what Baton made of it, by limit."""
    read, limits, took = a_round
    shares = {}
    if kind != "prefill":
        shares["read"] = hello["step_bytes"] * STEPS / took["baton"] / (read * 1e9)
    if limits:
        int8, bf16 = limits
        ops = hello["prompt_ops"] if kind == "prefill" else hello["step_ops"] * STEPS
        name, limit = ("bf16", bf16) if hello["weights"] == "bf16" and bf16 else ("int8", int8)
        shares[name] = ops / took["baton"] / (limit * 1e9)
    return shares


def summary(rounds, hello, kind, tokens, names, asked):
    middle = statistics.median
    rates = sorted(tokens / took["baton"] for _, _, took in rounds)
    tenth = len(rates) // 10
    spread = (rates[-1 - tenth] - rates[tenth]) / middle(rates)
    by_round = [shares_of(hello, kind, r) for r in rounds]
    shares = {limit: middle(s[limit] for s in by_round) for limit in by_round[0]}

    def of_limits(times):
        return " and ".join(f"{100 * share * times:.0f} % of {limit}" for limit, share in shares.items())

    line = f"{len(rounds):4} rounds {middle(rates):8.1f} tok/s (spread {100 * spread:.0f} %), {of_limits(1)}"
    ratios = {name: middle(took[name] / took["baton"] for _, _, took in rounds) for name in names}
    for name, ratio in ratios.items():
        line += f"; {name} {middle(tokens / took[name] for _, _, took in rounds):.1f}: {ratio:.2f}x"
    if asked and ratios:
        line += f"; {asked}x would be {of_limits(float(asked) / min(ratios.values()))}"
    return line


def compare(a, model, drivers, figure):
    figure, _, asked = figure.partition("@")
    kind, n = figure.split(":") if ":" in figure else (figure, "0")
    with contextlib.ExitStack() as stack:  # whatever happens, nobody stays stopped
        programs, tokens = open_all(a, stack, drivers, model, kind, int(n))
        rounds = rounds_of_all(a, programs, kind)
    hello, names = json.loads(programs[0].hello), [program.name for program in programs[1:]]
    machine = f"read {statistics.median(r[0] for r in rounds):.1f} GB/s"
    for i, name in enumerate(("int8", "bf16") if rounds[0][1] else ()):
        machine += f", {name} {statistics.median(r[1][i] for r in rounds):.0f} GOP/s"
    print(f"  {figure}: {machine}")
    print("    all        " + summary(rounds, hello, kind, tokens, names, asked), flush=True)
    by_pace = {}
    for a_round in rounds:
        by_pace.setdefault(int(a_round[0] // PACE) * PACE, []).append(a_round)
    for pace, some in sorted(by_pace.items()):
        if len(by_pace) > 1 and len(some) >= FEWEST:
            print(f"    {pace:3} to {pace + PACE:3} " + summary(some, hello, kind, tokens, names, asked), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--baton", required=True)
    p.add_argument("--peer", action="append", default=[], metavar="NAME=BUILD")
    p.add_argument("--figures", default="prefill:512,decode,depth:2048,batch:4,batch:16")
    p.add_argument("--seconds", type=float, default=60, help="of each figure")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        peers = (text.split("=", 1) for text in a.peer)
        drivers = {name: build_driver(build, folder, name) for name, build in peers}
        for model in a.models:
            print(f"{model}, {a.threads} threads", flush=True)
            for figure in a.figures.split(","):
                try:
                    compare(a, model, drivers, figure)
                except Gone as gone:
                    sys.exit(str(gone))


if __name__ == "__main__":
    main()
