"""Many requests at once, some of whose clients leave: nothing is lost, nothing
stays behind."""
import random
from concurrent.futures import ThreadPoolExecutor

from cluster import *

COUNT = 120 if SLOW else 400


class Load(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        model = make_model(self.folder.name + "/m", "qwen3")
        # A small pool and few running sequences: requests wait and some are
        # retracted.
        self.pair = Pair(model, "--page-size", "16", "--chunked-prefill-size",
                         "64", "--max-running-requests", "16",
                         "--num-reserved-decode-tokens", "16")
        self.addCleanup(self.pair.stop)

    def one(self, i):
        r = random.Random(i)
        n = r.randrange(1, 900)
        body = {"text": "x" * n if r.random() < 0.5 else
                "".join(r.choice("abcdef gh") for _ in range(n)),
                "stream": r.random() < 0.5,
                "sampling_params": {"temperature": r.choice([0, 0.8]),
                                    "max_new_tokens": r.randrange(1, 160),
                                    "ignore_eos": True}}
        if r.random() < 0.7:
            status, raw, _ = http("POST", self.pair.url + "/generate", body)
            return status if status == 200 else raw
        data = json.dumps(body)
        with socket.create_connection(
                ("127.0.0.1", self.pair.router_port)) as s:
            s.sendall(("POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: %d\r\n\r\n%s" %
                       (len(data), data)).encode())
            s.settimeout(r.random() * 0.3)
            try:
                s.recv(100)
            except OSError:
                pass  # it leaves before an answer
        return "left"

    def test_all_are_answered_and_nothing_stays(self):
        with ThreadPoolExecutor(48) as pool:
            results = list(pool.map(self.one, range(COUNT)))
        odd = [r for r in results if r not in (200, "left")]
        self.assertEqual(odd, [])
        for s in (self.pair.prefill, self.pair.decode):
            self.assert_empty(s)

    def assert_empty(self, server):
        end = time.monotonic() + LIMIT
        names = ("sglang:num_running_reqs", "sglang:num_queue_reqs",
                 "sglang:num_used_tokens", "baton:kv_quarantined_pages")
        while True:
            text = http("GET", server.url + "/metrics")[1].decode()
            left = {l.split("{")[0]: float(l.split()[-1])
                    for l in text.splitlines() if l.startswith(names)}
            if len(left) == len(names) and not any(left.values()):
                break
            self.assertLess(time.monotonic(), end, (server.name, left))
            time.sleep(0.02)
        self.assertEqual(http("POST", server.url + "/flush_cache")[0], 200)


if __name__ == "__main__":
    main()
