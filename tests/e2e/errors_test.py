"""What goes wrong is a clear error, and the servers stay healthy."""
import struct

from cluster import *


def run(args, env=None, limit=LIMIT):
    """(exit status, stderr) of a baton that should end by itself."""
    r = subprocess.run([BATON] + [str(a) for a in args], timeout=limit,
                       env=dict(os.environ, **(env or {})),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return r.returncode, r.stderr.decode(errors="replace")


class CommandLine(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def refused(self, *args, says, status=1):
        code, text = run(["launch_server", *args])
        self.assertEqual(code, status, text)
        for word in says:
            self.assertIn(word, text)
        self.assertNotIn("AddressSanitizer", text)

    def test_unknown_and_bad_flags(self):
        self.refused("--model-paht", "x", says=["did you mean --model-path"],
                     status=2)
        self.refused("--model-path", "x", "--port", "99999",
                     says=["--port 99999", "65535"], status=2)
        self.refused("--model-path", "x", "--speculative-algorithm", "EAGLE",
                     says=["--speculative-algorithm", "not done"], status=2)
        self.refused(says=["--model-path is required"], status=2)
        code, text = run(["launch_router", "--port", "1"])
        self.assertNotEqual(code, 0)
        code, text = run(["lanch_server"])
        self.assertEqual(code, 2)
        self.assertIn("unknown command", text)

    def test_every_command_says_how(self):
        """--help on stdout and 0; what is not understood is named on stderr,
        and 2."""
        needs = {"launch_server": "--model-path", "up": "--model-path",
                 "launch_router": "--pd-disaggregation",
                 "bench engine": "--model", "bench tokenizer": "--model",
                 "inspect": "MODEL", "quantize": "IN OUT", "store": "--url"}
        env = {"ASCEND_MF_STORE_URL": ""}
        for command in ("", "bench", "bench attention", "bench xfer",
                        "bench roofline", "doctor", *needs):
            words = command.split()
            name = " ".join(["baton"] + words)
            for ask in "--help", "-h":
                r = subprocess.run([BATON, *words, ask], timeout=LIMIT,
                                   capture_output=True)
                self.assertEqual(r.returncode, 0, name)
                self.assertIn(b"usage: " + name.encode(), r.stdout)
                self.assertEqual(r.stderr, b"")
            wrong = [["--no-such-thing"], ["-x"]]
            if command in needs:
                wrong.append([])
            for more in wrong:
                code, text = run(words + more, env)
                self.assertEqual(code, 2, (name, more, text))
                self.assertIn(name + ":", text)
                self.assertIn(more[0].strip("-") if more else needs[command],
                              text)
        for args, says in ((["bench", "roofline", "2"], "unexpected"),
                           (["bench", "roofline", "--threads"], "a value"),
                           (["bench", "roofline", "--threads", "x"], "number"),
                           (["bench", "attention", "--depth", "0"], "--depth"),
                           (["inspect", "a", "b"], '"b"'),
                           (["quantize", "a"], "IN OUT"),
                           (["launch_server", "--model-path", "--port", "1"],
                            "--model-path needs a value")):
            code, text = run(args)
            self.assertEqual(code, 2, (args, text))
            self.assertIn(says, text)

    def test_a_bench_of_the_machine(self):
        r = subprocess.run([BATON, "bench", "roofline", "--threads", "1",
                            "--cpu-isa", "generic", "--json"], timeout=LIMIT,
                           capture_output=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        (one,) = json.loads(r.stdout)
        self.assertEqual((one["threads"], one["isa"]), (1, "generic"))
        self.assertGreater(one["read_gb_per_s"], 0)

    def test_models_that_are_none(self):
        self.refused("--model-path", "/nonexistent/model.gguf",
                     says=["/nonexistent/model.gguf"])
        self.refused("--model-path", self.folder.name,
                     says=[self.folder.name, "config.json"])
        for name, data in (("empty.gguf", b""), ("text.gguf", b"hello" * 99),
                           ("head.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1, 1)),
                           ("huge.gguf", b"GGUF" + struct.pack(
                               "<IQQ", 3, 2**60, 2**60))):
            path = os.path.join(self.folder.name, name)
            with open(path, "wb") as f:
                f.write(data)
            self.refused("--model-path", path, says=[path])

    def test_truncated_models(self):
        for name in ("m.gguf", "m"):
            model = make_model(os.path.join(self.folder.name, name), "llama")
            weights = model
            if os.path.isdir(model):
                names = sorted(n for n in os.listdir(model)
                               if n.endswith(".safetensors"))
                weights = os.path.join(model, names[-1])
            os.truncate(weights, os.path.getsize(weights) - 1000)
            self.refused("--model-path", model, says=[os.path.basename(weights)])

    def test_more_kv_than_memory(self):
        model = make_model(self.folder.name + "/m", "llama")
        self.refused("--model-path", model, "--max-total-tokens", 10**12,
                     says=["--max-total-tokens", "GB"])

    def test_context_beyond_the_model(self):
        model = make_model(self.folder.name + "/m", "llama")
        self.refused("--model-path", model, "--context-length", "99999",
                     says=["--context-length 99999", "32768"])

    def test_port_in_use(self):
        """Said before the weights are read, for every port that we need."""
        model = make_model(self.folder.name + "/m", "llama")
        (other,) = free_ports(1)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            for args in (("--port", port),
                         ("--disaggregation-mode", "prefill", "--port", other,
                          "--disaggregation-bootstrap-port", port)):
                code, text = run(["launch_server", "--model-path", model, *args])
                self.assertEqual(code, 1, text)
                self.assertIn("port %d: Address already in use" % port, text)
                self.assertNotIn("device", text)


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        model = make_model(cls.folder.name + "/m", "qwen3")
        cls.server = Server("server", model, "--context-length", "512",
                            "--trust-remote-code", "--model-impl", "mindspore")
        cls.server.ready()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.server.stop()
        finally:
            cls.folder.cleanup()

    def post(self, path, body):
        status, raw, _ = http("POST", self.server.url + path, body)
        return status, json.loads(raw)

    def tearDown(self):
        status, answer = self.post("/generate", {
            "text": "a", "sampling_params": {"max_new_tokens": 2}})
        self.assertEqual(status, 200, answer)

    def test_ignored_flags_are_explained_once(self):
        said = [l for l in self.server.lines if "--trust-remote-code" in l]
        self.assertEqual(len(said), 1, said)
        self.assertIn("no effect", said[0])

    def test_bad_bodies(self):
        for body in ("{", "[]", "null", "{\"text\": 3}", "{\"text\": null}",
                     "{}", b"\xff\xfe{}", "{\"text\": \"\xff\"",
                     {"text": ["a", 3]}, {"input_ids": []},
                     {"input_ids": ["x"]}, {"input_ids": [10**9]},
                     {"input_ids": [-1]}, {"text": "a", "stream": "yes"}):
            status, answer = self.post("/generate", body)
            self.assertEqual(status, 400, (body, answer))
        for bad in ({"temperature": -1}, {"top_p": 2.0}, {"top_k": 0},
                    {"max_new_tokens": -1}, {"max_new_tokens": "x"},
                    {"stop": 3}, {"tempersture": 1}, {"n": 0},
                    {"logit_bias": {"999999999": 1}}, {"json_schema": "{"},
                    {"regex": "("}, {"ebnf": "root ::= x"}):
            status, answer = self.post(
                "/generate", {"text": "a", "sampling_params": bad})
            self.assertEqual(status, 400, (bad, answer))
        for body in ("{", {}, {"messages": []}, {"messages": "x"},
                     {"messages": [{"role": 3}]}):
            status, answer = self.post("/v1/chat/completions", body)
            self.assertEqual(status, 400, (body, answer))
            self.assertEqual(answer["object"], "error")

    def test_too_long(self):
        status, answer = self.post("/generate", {"text": "word " * 500})
        self.assertEqual(status, 400, answer)
        self.assertIn("longer than the model's context length",
                      json.dumps(answer))
        status, answer = self.post("/generate", {
            "text": "word", "sampling_params": {"max_new_tokens": 600}})
        self.assertEqual(status, 400, answer)

    def test_unknown_paths_and_methods(self):
        self.assertEqual(http("GET", self.server.url + "/nope")[0], 404)
        self.assertEqual(http("DELETE", self.server.url + "/generate")[0], 405)

    def test_no_bootstrap_room_is_fine_here(self):
        self.assertEqual(http("GET", self.server.url + "/health")[0], 200)


class Failures(unittest.TestCase):
    """The death of a part is an error for its requests, and passes."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.model = make_model(self.folder.name + "/m", "qwen3")
        self.pair = None

    def tearDown(self):
        if self.pair:
            self.pair.stop()

    def ask(self, n=8, **more):
        body = {"text": "one two three " * 10, "sampling_params": {
            "temperature": 0, "max_new_tokens": n, "ignore_eos": True}}
        body.update(more)
        status, raw, _ = http("POST", self.pair.url + "/generate", body)
        return status, raw

    def wait_ok(self):
        """After a restart the router needs a probe to see the worker."""
        end = time.monotonic() + LIMIT
        while True:
            status, raw = self.ask()
            if status == 200 or time.monotonic() > end:
                self.assertEqual(status, 200, raw)
                return
            time.sleep(0.05)

    def test_killed_prefill_and_decode_come_back(self):
        self.pair = pair = Pair(self.model)
        self.assertEqual(self.ask()[0], 200)
        pair.prefill.stop(signal.SIGKILL)
        status, raw = self.ask()
        self.assertIn(status, (500, 502, 503), raw)
        pair.prefill = pair.start("prefill", pair.prefill.port).ready()
        self.wait_ok()
        pair.decode.stop(signal.SIGKILL)
        status, raw = self.ask()
        self.assertIn(status, (500, 502, 503), raw)
        pair.decode = pair.start("decode", pair.decode.port).ready()
        self.wait_ok()

    def test_killed_while_streaming(self):
        self.pair = pair = Pair(self.model)
        req = urllib.request.Request(
            pair.url + "/generate", method="POST", data=json.dumps({
                "text": "a b c", "stream": True, "sampling_params": {
                    "max_new_tokens": 12000, "ignore_eos": True}}).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(req, timeout=LIMIT) as r:
            self.assertTrue(r.readline().startswith(b"data: "))
            pair.decode.stop(signal.SIGKILL)
            try:
                rest = r.read()
            except Exception:
                rest = b""  # a cut connection tells it too
            self.assertNotIn(b"[DONE]", rest.split(b"error")[0])
        pair.decode = pair.start("decode", pair.decode.port).ready()
        self.wait_ok()

    def test_client_that_leaves_frees_everything(self):
        self.pair = pair = Pair(self.model)
        with socket.create_connection(("127.0.0.1", pair.router_port)) as s:
            body = json.dumps({"text": "a b c", "stream": True,
                               "sampling_params": {"max_new_tokens": 12000,
                                                   "ignore_eos": True}})
            s.sendall(("POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: %d\r\n\r\n%s" %
                       (len(body), body)).encode())
            self.assertIn(b"200", s.recv(64))
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            text = http("GET", pair.decode.url + "/metrics")[1].decode()
            running = [l for l in text.splitlines()
                       if l.startswith("sglang:num_running_reqs")]
            if running and float(running[0].split()[-1]) == 0:
                break
            time.sleep(0.02)
        else:
            self.fail("still running: " + str(running))
        self.wait_ok()

    def mismatch(self, decode, words):
        self.pair = Pair(self.model, decode=decode)
        status, raw = self.ask()
        self.assertGreaterEqual(status, 400)
        for w in words:
            self.assertIn(w, raw.decode())
        for s in (self.pair.prefill, self.pair.decode):
            self.assertEqual(http("GET", s.url + "/health")[0], 200)

    def test_other_page_size(self):
        self.mismatch(["--page-size", "32"], ["page", "16", "32"])

    def test_other_kv_dtype(self):
        self.mismatch(["--kv-cache-dtype", "bf16"], ["bf16"])

    def test_other_model(self):
        other = make_model(self.folder.name + "/other", "qwen3", 6)
        self.mismatch(["--model-path", other], ["model"])

    def test_other_depth(self):
        other = make_model(self.folder.name + "/deep", "qwen3", 5, 3)
        self.mismatch(["--model-path", other], ["layers"])

    def test_listening_on_all_addresses(self):
        """A server in a container: peers must be told an address of ours."""
        for mode in ("prefill", "decode"):
            s = Server(mode, self.model, "--disaggregation-mode", mode,
                       "--disaggregation-bootstrap-port", free_ports(1)[0],
                       "--host", "0.0.0.0")
            s.ready()
            line = [l for l in s.lines if "session " in l][0]
            self.assertNotIn("0.0.0.0", line)
            s.stop()

    def test_wrong_bootstrap_port(self):
        self.pair = pair = Pair(self.model)
        (nobody, port) = free_ports(2)
        router = Process("router", [
            "launch_router", "--pd-disaggregation", "--mini-lb",
            "--disable-retries", "--prefill", pair.prefill.url, nobody,
            "--decode", pair.decode.url, "--port", port])
        router.wait_line("listening")
        started = time.monotonic()
        status, raw, _ = http("POST", "http://127.0.0.1:%d/generate" % port,
                              {"text": "a b c"})
        router.stop()
        self.assertGreaterEqual(status, 500)
        self.assertIn(str(nobody), raw.decode())
        self.assertLess(time.monotonic() - started, LIMIT)
        self.assertEqual(self.ask()[0], 200)

    def test_device_that_is_not_there(self):
        for device in ("cuda", "ascend"):
            code, text = run(["launch_server", "--model-path", self.model,
                              "--device", device])
            self.assertEqual(code, 1)
            self.assertIn(device, text)

    def test_store_that_is_not_there(self):
        (port,) = free_ports(1)
        env = {"ASCEND_MF_STORE_URL": "tcp://127.0.0.1:%d" % port}
        s = Server("decode", self.model, "--disaggregation-mode", "decode",
                   "--disaggregation-transfer-backend", "ascend", env=env)
        s.ready()
        self.assertTrue(any(str(port) in l and "warn" in l for l in s.lines),
                        s.tail())
        s.stop()


if __name__ == "__main__":
    main()
