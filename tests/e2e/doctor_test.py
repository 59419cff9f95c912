"""baton doctor: what it says of this machine, and of what is wrong."""
from cluster import *


class Doctor(unittest.TestCase):
    def ask(self, *args, env=None, cores=None, status=0):
        """{what: check} of the report."""
        keep = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        r = subprocess.run([BATON, "doctor", "--json", *map(str, args)],
                           timeout=LIMIT, capture_output=True, preexec_fn=keep,
                           env=dict(os.environ, **(env or {})))
        self.assertEqual(r.returncode, status, r.stdout + r.stderr)
        told = json.loads(r.stdout)
        wrong = [c for c in told["checks"] if c["state"] == "problem"]
        self.assertEqual(told["problems"], len(wrong))
        for c in told["checks"]:
            self.assertIn(c["state"], ("ok", "note", "problem"))
            if c["state"] == "ok":
                self.assertIsNone(c["do"], c)
        return {c["what"]: c for c in told["checks"]}

    def test_a_machine_that_serves(self):
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(folder + "/m.gguf")
            port, store = free_ports(2)
            url = "tcp://127.0.0.1:%d" % store
            keeper = Process("store", ["store", "--url", url])
            keeper.wait_line("config store at")
            core = min(os.sched_getaffinity(0))
            said = self.ask("--model-path", model, "--port", port,
                            "--store-url", url, cores={core})
            keeper.stop()
        self.assertEqual(said["model"]["state"], "ok")
        self.assertIn("qwen3, 2 layers", said["model"]["found"])
        self.assertIn("272 tokens", said["tokenizer"]["found"])
        self.assertIn("page cache", said["model's files"]["found"])
        self.assertEqual(said["port %d" % port]["state"], "ok")
        self.assertEqual(said["config store"]["state"], "ok")
        self.assertTrue(said["cores"]["found"].startswith("1 compute worker"))
        for what in ("processor", "memory", "shared memory", "loopback",
                     "transfer engine", "huge pages", "huge pages, shared",
                     "open files"):
            self.assertIn(what, said)

    def test_what_is_wrong_is_a_problem(self):
        held = socket.socket()
        self.addCleanup(held.close)
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        said = self.ask("--port", port, "--model-path", "/nonexistent/m.gguf",
                        env={"BATON_TLS_CERT": "/nonexistent/cert.pem"},
                        status=1)
        for what, word in (("port %d" % port, str(port)),
                           ("model", "/nonexistent/m.gguf"),
                           ("transfer engine", "TLS needs")):
            self.assertEqual(said[what]["state"], "problem", said[what])
            self.assertIn(word, said[what]["found"])

    def test_libraries_that_are_missing_are_notes(self):
        said = self.ask(env={"BATON_UCX_LIBRARY": "/nonexistent/ucp.so",
                             "BATON_RDMA_LIBRARY": "/nonexistent/verbs.so"})
        for what in "UCX", "RDMA":
            self.assertEqual(said[what]["state"], "note")
            self.assertIn("/nonexistent/", said[what]["found"])
            self.assertIn("TCP", said[what]["do"])

    def test_a_store_that_is_away(self):
        (port,) = free_ports(1)
        said = self.ask(env={"ASCEND_MF_STORE_URL":
                             "tcp://127.0.0.1:%d" % port})
        self.assertEqual(said["config store"]["state"], "note")
        self.assertIn("baton store", said["config store"]["do"])

    def test_lines(self):
        r = subprocess.run([BATON, "doctor"], timeout=LIMIT,
                           capture_output=True)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        text = r.stdout.decode()
        self.assertIn("ok       HTTP client", text)
        self.assertIn("ok       loopback", text)
        self.assertTrue(text.endswith("no problems\n"), text)


if __name__ == "__main__":
    main()
