"""Servers that join a router by themselves, and leave it."""
from concurrent.futures import ThreadPoolExecutor

from cluster import *

KEY = {"Authorization": "Bearer k"}


class Join(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.model = make_model(self.folder.name + "/m")
        self.bootstrap, self.port = free_ports(2)
        self.url = "http://127.0.0.1:%d" % self.port
        self.running = []

    def tearDown(self):
        try:
            for p in self.running:
                p.stop()
        finally:
            self.folder.cleanup()

    def router(self):
        p = Process("router", [
            "launch_router", "--pd-disaggregation", "--host", "127.0.0.1",
            "--port", self.port, "--api-key", "k"])
        self.running.insert(0, p)
        return p

    def server(self, mode, *more):
        p = Server(mode, self.model, "--disaggregation-mode", mode,
                   "--api-key", "k", "--pdlb-url", self.url, "--page-size",
                   "16", *more)
        self.running.append(p)
        return p

    def workers(self):
        try:
            return json.loads(http("GET", self.url + "/workers",
                                   headers=KEY)[1])["workers"]
        except urllib.error.URLError:
            return [] # the router is not there yet

    def until(self, urls):
        """These, and no others, are there and healthy."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            now = self.workers()
            if sorted(w["url"] for w in now) == sorted(urls) and all(
                    w["is_healthy"] for w in now):
                return
            time.sleep(0.02)
        raise AssertionError("wanted %s, there are %s" % (urls, now))

    def generate(self, ids):
        status, raw, _ = http("POST", self.url + "/generate", {
            "input_ids": ids, "sampling_params": {
                "temperature": 0, "max_new_tokens": 12, "ignore_eos": True}},
            headers=KEY)
        self.assertEqual(status, 200, raw)
        return json.loads(raw)["output_ids"]

    def test_servers_come_and_go(self):
        # The servers are first: they go on until the router is there.
        prefill = self.server("prefill", "--disaggregation-bootstrap-port",
                              self.bootstrap)
        decodes = [self.server(
            "decode", "--disaggregation-decode-enable-radix-cache")
            for _ in range(2)]
        all_ = [s.url for s in (prefill, *decodes)]
        prefill.wait_line("trying on")
        router = self.router()
        self.until(all_)
        ids = [[7 * c + i * i % 200 for i in range(150)] for c in range(4)]
        want = [self.generate(i) for i in ids]
        with ThreadPoolExecutor(8) as pool: # while one leaves
            answers = [pool.submit(self.generate, ids[i % 4])
                       for i in range(40)]
            decodes[1].stop()
            self.running.remove(decodes[1])
            for i, answer in enumerate(answers):
                self.assertEqual(answer.result(), want[i % 4])
        self.until(all_[:2])
        router.stop()
        self.running.remove(router)
        self.router()
        self.until(all_[:2]) # they say it again
        self.assertEqual(self.generate(ids[0]), want[0])


if __name__ == "__main__":
    main()
