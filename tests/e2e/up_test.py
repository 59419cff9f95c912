"""baton up: the recipe's cluster from one command, shown off and supervised."""
from cluster import *


class Up(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.model = make_model(self.folder.name + "/m.gguf", "llama")
        names = ("prefill", "decode", "port", "bootstrap", "store")
        self.ports = dict(zip(names, free_ports(5)))

    def command(self, *more):
        args = [BATON, "up", "--model-path", self.model, "--threads", "1"]
        for name, port in self.ports.items():
            args += ["--" + name + ("" if name == "port" else "-port"),
                     str(port)]
        return args + list(more)

    def test_demo_once(self):
        r = subprocess.run(self.command("--demo", "--once"), timeout=LIMIT * 2,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = r.stdout.decode(errors="replace")
        self.assertEqual(r.returncode, 0, text)
        self.assertEqual(text.count("TTFT"), 2, text)
        self.assertIn("KV moved", text)
        self.assertIn("memfd", text)
        self.assert_all_closed()

    def test_model_that_fails_is_a_reason(self):
        with open(self.model, "r+b") as f:
            f.truncate(100)
        r = subprocess.run(self.command("--demo", "--once"), timeout=LIMIT * 2,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = r.stdout.decode(errors="replace")
        self.assertEqual(r.returncode, 1, text)
        self.assertIn(self.model, text)
        self.assert_all_closed()

    def test_a_dead_server_is_started_again(self):
        up = subprocess.Popen(self.command(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        lines = []
        # Reading has no limit of its own.
        limit = threading.Timer(LIMIT * 2, up.kill)
        limit.start()

        def until(text):
            for raw in up.stdout:
                lines.append(raw.decode(errors="replace"))
                if text in lines[-1]:
                    return
            self.fail("up ended:\n" + "".join(lines))

        try:
            until("until Ctrl-C")
            victim = self.child_with("--disaggregation-mode", "decode")
            os.kill(victim, signal.SIGKILL)
            until("starting it again")
            until(READY)
            url = "http://127.0.0.1:%d/generate" % self.ports["port"]
            body = {"text": "a b c", "sampling_params": {"max_new_tokens": 3}}
            end = time.monotonic() + LIMIT
            while http("POST", url, body)[0] != 200:
                self.assertLess(time.monotonic(), end, "never served again")
                time.sleep(0.05)
            self.assertNotEqual(
                victim, self.child_with("--disaggregation-mode", "decode"))
        finally:
            limit.cancel()
            up.send_signal(signal.SIGINT)
            rest = up.communicate(timeout=LIMIT)[0].decode(errors="replace")
        self.assertEqual(up.returncode, 0, "".join(lines) + rest)
        self.assert_all_closed()

    def child_with(self, *words):
        """The pid of the baton on our decode port."""
        port = str(self.ports["decode"])
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    args = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "launch_server" in args and port in args:
                self.assertIn(words[1], args)
                return int(pid)
        self.fail("no such child")

    def assert_all_closed(self):
        for port in self.ports.values():
            with socket.socket() as s:
                self.assertNotEqual(s.connect_ex(("127.0.0.1", port)), 0)


if __name__ == "__main__":
    main()
