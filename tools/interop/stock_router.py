#!/usr/bin/env python3
"""Do SGLang's own routers drive a Baton pair?

Installs sglang-router from PyPI into build/interop (once), puts its Rust
router and its mini load balancer in front of a Baton prefill and decode
server, and compares what a client gets with a colocated Baton server, to the
byte of the texts and ids. `make interop` runs it; it needs the network once,
so it is no part of `make test`."""
import os
import subprocess
import sys
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("BATON", ROOT + "/build/release/baton")
sys.path.insert(0, ROOT + "/tests/e2e")
from cluster import *  # noqa: E402: the processes of the end-to-end tests

ROUTER = "sglang-router==0.3.2"
# What its wheel does not name as a need and mini_lb imports.
NEEDS = ["fastapi", "uvicorn", "aiohttp", "orjson", "setproctitle", "requests",
         "httpx"]
HOME = ROOT + "/build/interop"
PYTHON = HOME + "/bin/python"


def install():
    if os.path.exists(HOME + "/.done"):
        return
    print("installing %s into build/interop" % ROUTER, flush=True)
    venv.create(HOME, with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q",
                    "--disable-pip-version-check", ROUTER, *NEEDS], check=True)
    open(HOME + "/.done", "w").close()


def model():
    return subprocess.run([ROOT + "/tools/fetch-model"], check=True,
                          stdout=subprocess.PIPE).stdout.decode().strip()


class StockRouter(unittest.TestCase):
    """One class a router; `flags` are all they differ in."""
    flags = None

    @classmethod
    def setUpClass(cls):
        if cls is StockRouter:
            raise unittest.SkipTest("the base of the two below")
        cls.pair = Pair(model())
        cls.pair.router.stop()
        port, metrics = free_ports(2)
        cls.url = "http://127.0.0.1:%d" % port
        cls.router = subprocess.Popen(
            [PYTHON, "-m", "sglang_router.launch_router",
             "--pd-disaggregation", *cls.flags, "--prefill",
             cls.pair.prefill.url, str(cls.pair.bootstrap), "--decode",
             cls.pair.decode.url, "--host", "127.0.0.1", "--port", str(port),
             "--prometheus-port", str(metrics)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.alone = Server("colocated", cls.pair.model, "--page-size", "128").ready()
        end = time.monotonic() + LIMIT
        while True:
            try:
                if http("GET", cls.url + "/v1/models")[0] == 200:
                    return
            except OSError:
                pass
            assert cls.router.poll() is None, "the router ended"
            assert time.monotonic() < end, "the router never answered"
            time.sleep(0.1)

    @classmethod
    def tearDownClass(cls):
        cls.router.terminate()
        cls.router.wait()
        cls.alone.stop()
        for p in (cls.pair.decode, cls.pair.prefill):
            p.stop()

    def both(self, path, body):
        for url in (self.url, self.alone.url):
            status, raw, _ = http("POST", url + path, body)
            self.assertEqual(status, 200, raw)
            yield raw

    def test_generate(self):
        for more in ({}, {"temperature": 0.9, "sampling_seed": 7}):
            params = dict({"temperature": 0, "max_new_tokens": 48}, **more)
            a, b = map(json.loads, self.both("/generate", {
                "text": "The capital of France is", "return_logprob": True,
                "sampling_params": params}))
            self.assertEqual(a["text"], b["text"])
            self.assertEqual(a["output_ids"], b["output_ids"])
            self.assertEqual(a["meta_info"]["output_token_logprobs"],
                             b["meta_info"]["output_token_logprobs"])

    def test_generate_stream(self):
        a, b = (events(raw) for raw in self.both("/generate", {
            "text": "Once upon a time", "stream": True,
            "sampling_params": {"temperature": 0, "max_new_tokens": 48}}))
        self.assertEqual(a[-1], "[DONE]")
        self.assertEqual(json.loads(a[-2])["text"], json.loads(b[-2])["text"])

    def test_long_prompt(self):
        a, b = map(json.loads, self.both("/generate", {
            "text": "the quick brown fox jumps over the lazy dog. " * 120,
            "sampling_params": {"temperature": 0, "max_new_tokens": 24}}))
        self.assertEqual(a["output_ids"], b["output_ids"])

    def test_chat(self):
        a, b = map(json.loads, self.both("/v1/chat/completions", {
            "model": "default", "temperature": 0, "max_tokens": 32,
            "messages": [{"role": "user", "content": "Name three rivers."}]}))
        self.assertEqual(a["choices"][0]["message"],
                         b["choices"][0]["message"])
        self.assertEqual(a["usage"], b["usage"])

    def test_completions_stream(self):
        def text(raw):
            return "".join(json.loads(e)["choices"][0]["text"]
                           for e in events(raw)[:-1] if json.loads(e)["choices"])
        a, b = map(text, self.both("/v1/completions", {
            "model": "default", "prompt": "One, two, three,", "temperature": 0,
            "max_tokens": 32, "stream": True}))
        self.assertEqual(a, b)

    def test_many_at_once(self):
        want, got = {}, {}

        def ask(url, out, i):
            out[i] = json.loads(http("POST", url + "/generate", {
                "text": "Count from %d:" % i,
                "sampling_params": {"temperature": 0, "max_new_tokens": 24}})[1])
        for url, out in ((self.alone.url, want), (self.url, got)):
            threads = [threading.Thread(target=ask, args=(url, out, i))
                       for i in range(16)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        for i in range(16):
            self.assertEqual(want[i]["output_ids"], got[i]["output_ids"])


class MiniLoadBalancer(StockRouter):
    flags = ("--mini-lb",)


class RustRouter(StockRouter):
    flags = ()


if __name__ == "__main__":
    install()
    unittest.main(verbosity=2)
