"""What a server holds beside its weights and its KV: no second copy of the
weights, and activations once.

The same program with a tiny model is the measure of what libraries and the
server itself take here, so that only what grows with a model is bounded."""
from cluster import *

TOKENS = 2048
CHUNK = 512
SHAPE = {"hidden_size": 1024, "intermediate_size": 3072,
         "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128}


def resident(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f
                    if line.startswith("Rss:"))


def served(model):
    """Bytes resident after a prompt that fills the KV cache."""
    server = Server("server", model, "--chunked-prefill-size", CHUNK,
                    "--max-total-tokens", TOKENS, "--skip-server-warmup")
    try:
        server.wait_line(", up after")
        status, answer, _ = http("POST", server.url + "/generate", {
            "input_ids": [i % 256 for i in range(TOKENS - 64)],
            "sampling_params": {"max_new_tokens": 2, "temperature": 0}})
        assert status == 200, answer
        return resident(server.p.pid)
    finally:
        server.stop()


@unittest.skipIf(SLOW, "a sanitizer's own memory is most of it")
class Memory(unittest.TestCase):
    def test_weights_kv_and_a_chunk(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny = served(make_model(folder + "/tiny"))
            for kind in "q8_0", "q4_k":
                self.check(folder + "/big.gguf", kind, tiny)

    def check(self, path, kind, tiny):
        make_model(path, "qwen3", 5, 4, kind, **SHAPE)
        told = json.loads(subprocess.run(
            [BATON, "inspect", path, "--json"], check=True,
            stdout=subprocess.PIPE).stdout)
        weights = told["weight_bytes"]
        kv = told["kv_bytes_per_token"] * TOKENS
        self.assertGreater(weights, 34e6)
        # A row of a chunk: x and its norm, then what attention needs or what
        # the feed-forward part does, and once more what a product reads.
        n, f = told["hidden"], told["feed_forward"]
        q = told["heads"] * told["head_dim"]
        k = told["kv_heads"] * told["head_dim"]
        row = 4 * (2 * n + max(2 * q + 2 * k, 2 * f) + max(n, q, f))
        # K formats are packed with scales of whole bytes; the last huge page
        # of weights and of a chunk is not full.
        allowed = weights * 1.03 + kv + CHUNK * row + 4 * (2 << 20)
        took = served(path) - tiny
        self.assertLess(took, allowed, "%s: weights %d, KV %d, tiny %d" %
                        (kind, weights, kv, tiny))

    def test_alone_it_loads_no_client(self):
        with tempfile.TemporaryDirectory() as folder:
            server = Server("server", make_model(folder + "/tiny"))
            try:
                server.wait_line(", up after")
                with open("/proc/%d/maps" % server.p.pid) as f:
                    self.assertNotIn("libcurl", f.read())
            finally:
                server.stop()


if __name__ == "__main__":
    main()
