"""Real baton processes on loopback, for the tests beside this file.

Standard library only. BATON names the program, BATON_MODE the build (its
sanitizer slows things, so limits are generous; nothing asserts on time)."""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

BATON = os.environ.get("BATON", "build/debug/baton")
MAKE_MODEL = os.environ.get("MAKE_RANDOM_MODEL", "")
SLOW = os.environ.get("BATON_MODE", "") in ("asan", "tsan")
LIMIT = 120 if SLOW else 60


claims = []  # an abstract socket for each port, until this test ends


def claim(port):
    """False: another test has it, whether it listens there yet or not."""
    s = socket.socket(socket.AF_UNIX)
    try:
        s.bind("\0baton-test-port-%d" % port)
    except OSError:
        s.close()
        return False
    claims.append(s)
    return True


def free_ports(n):
    """Ports that nobody has, for this test alone; all different. They lie below
    those that the kernel hands out by itself, which any process may get."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    held = []
    while len(held) < n:
        s, port = socket.socket(), random.randrange(low // 2, low)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            s.close()
            continue
        if claim(port):
            held.append(s)
        else:
            s.close()
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def http(method, url, body=None, headers=None, timeout=LIMIT):
    """(status, bytes, headers) of any answer, also of errors."""
    data = body
    if body is not None and not isinstance(body, (bytes, str)):
        data = json.dumps(body)
    if isinstance(data, str):
        data = data.encode()
    req = urllib.request.Request(url, data=data, method=method)
    req.add_header("Content-Type", "application/json")
    for k, v in (headers or {}).items():
        req.add_header(k, v)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(req, timeout=timeout) as r:
            return r.status, r.read(), dict(r.headers)
    except urllib.error.HTTPError as e:
        return e.code, e.read(), dict(e.headers)


def events(body):
    """The data of each SSE event; checks the framing to the byte."""
    parts = body.decode().split("\n\n")
    assert parts[-1] == "", "stream does not end behind an event: %r" % parts[-1]
    for p in parts[:-1]:
        assert p.startswith("data: "), p
    return [p[len("data: "):] for p in parts[:-1]]


class Process:
    """One baton command, behind a prefix that starts it elsewhere; its stderr
    is kept for the failure message."""

    all = []  # main ends those that a failed test left

    def __init__(self, name, args, env=None, prefix=()):
        self.name = name
        self.lines = []
        self.changed = threading.Condition()
        full = dict(os.environ, **(env or {}))
        self.p = subprocess.Popen([*prefix, BATON, *map(str, args)], env=full,
                                  stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL)
        Process.all.append(self)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for raw in self.p.stderr:
            with self.changed:
                self.lines.append(raw.decode(errors="replace").rstrip())
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(end)")
            self.changed.notify_all()

    def wait_line(self, text, limit=LIMIT, start=0):
        """Waits until a line of the log holds text; index behind it."""
        end = time.monotonic() + limit
        at = start
        with self.changed:
            while True:
                while at < len(self.lines):
                    at += 1
                    if text in self.lines[at - 1]:
                        return at
                    if self.lines[at - 1] == "(end)":
                        raise AssertionError("%s ended before %r:\n%s" % (
                            self.name, text, self.tail()))
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError("%s never said %r:\n%s" % (
                        self.name, text, self.tail()))
                self.changed.wait(left)

    def tail(self):
        return "\n".join(self.lines[-40:])

    def stop(self, how=signal.SIGTERM, limit=30):
        """Its exit status; a sanitizer's report fails the test."""
        if self.p.poll() is None:
            self.p.send_signal(how)
        try:
            status = self.p.wait(limit)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            raise AssertionError("%s did not end:\n%s" % (self.name,
                                                          self.tail()))
        self.reader.join(10)
        self.p.stderr.close()
        if how == signal.SIGTERM and status != 0:
            raise AssertionError("%s ended with %s:\n%s" % (
                self.name, status, "\n".join(self.lines[-120:])))
        return status


# Small shapes with a context long enough to stream for a while.
SHAPES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
              "num_attention_heads": 6, "num_key_value_heads": 2},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
              "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 32},
}


def make_model(path, arch="qwen3", seed=5, layers=2, *more, **shape):
    """A small random model with a tokenizer and a chat template at path: a
    GGUF file if its name says so, else a folder. shape: of its config."""
    config = dict(vocab_size=272, hidden_size=96, intermediate_size=160,
                  num_hidden_layers=layers, max_position_embeddings=32768,
                  rms_norm_eps=1e-6, rope_theta=10000.0, hidden_act="silu",
                  tie_word_embeddings=False, torch_dtype="float32",
                  attention_bias=False, bos_token_id=None, eos_token_id=271)
    config.update(SHAPES[arch], **shape)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"seed": seed, "config": config}, f)
        f.flush()
        subprocess.run([MAKE_MODEL, f.name, path, *more], check=True)
    return path


READY = "The server is fired up and ready to roll!"


class Server(Process):
    def __init__(self, name, model, *args, env=None, port=None):
        self.port = port or free_ports(1)[0]
        self.url = "http://127.0.0.1:%d" % self.port
        super().__init__(name, ["launch_server", "--model-path", model,
                                "--host", "127.0.0.1", "--port", self.port,
                                "--mem-fraction-static", "0.2",
                                "--max-total-tokens", "16384", "--threads",
                                "2", *args], env)

    def ready(self):
        self.wait_line(READY)
        return self


class Pair:
    """Prefill, decode and router with the recipe's flags."""

    def __init__(self, model, *args, prefill=(), decode=(), router=(), env=None):
        (self.bootstrap, store, self.router_port) = free_ports(3)
        env = dict(env or {})
        env["ASCEND_MF_STORE_URL"] = "tcp://127.0.0.1:%d" % store
        self.env = env
        self.model = model
        self.args = args
        self.extra = {"prefill": prefill, "decode": decode}
        self.prefill = self.start("prefill")
        self.decode = self.start("decode")
        self.router = Process("router", [
            "launch_router", "--pd-disaggregation", "--mini-lb", "--prefill",
            self.prefill.url, self.bootstrap, "--decode", self.decode.url,
            "--host", "127.0.0.1", "--port", self.router_port, *router], env)
        self.url = "http://127.0.0.1:%d" % self.router_port
        self.prefill.ready()
        self.decode.ready()
        self.wait_ready()

    def start(self, mode, port=None):
        more = ["--disaggregation-mode", mode,
                "--disaggregation-transfer-backend", "ascend",
                *self.args, *self.extra[mode]]
        if mode == "prefill":
            more += ["--disaggregation-bootstrap-port", self.bootstrap]
        return Server(mode, self.model, *more, env=self.env, port=port)

    def wait_ready(self):
        """Until the router sees both; it asks them by itself."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                if http("GET", self.url + "/readiness")[0] == 200:
                    return
            except urllib.error.URLError:
                pass
            time.sleep(0.02)
        raise AssertionError("router not ready:\n" + self.router.tail())

    def stop(self):
        failures = []
        for p in (self.router, self.decode, self.prefill):
            try:
                p.stop()
            except AssertionError as e:
                failures.append(str(e))
        if failures:
            raise AssertionError("\n".join(failures))


def main():
    """unittest with the closing line that tools/run-tests sums."""
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    for p in Process.all:
        if p.p.poll() is None:
            p.p.kill()
    r = program.result
    # One that fails and then in its cleanup too is one; so are its subtests.
    bad = len({getattr(test, "test_case", test).id()
               for test, _ in r.failures + r.errors})
    good = r.testsRun - bad - len(r.skipped)
    sys.stderr.flush()
    print("[  PASSED  ] %d test(s)." % good)
    if bad:
        print("[  FAILED  ] %d test(s)." % bad)
    if r.skipped:
        print("[  SKIPPED ] %d test(s)." % len(r.skipped))
    sys.stdout.flush()
    os._exit(1 if bad else 0)


