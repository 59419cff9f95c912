"""Model folders from the command line: inspect, quantize, and a pair that
serves a mixture of experts with rounded weights."""
from cluster import *


def baton(*args):
    """(exit status, stdout, stderr) of a command."""
    r = subprocess.run([BATON, *args], timeout=LIMIT, capture_output=True)
    return r.returncode, r.stdout.decode(), r.stderr.decode()


def tokens(url, text):
    status, answer, _ = http("POST", url + "/generate", {
        "text": text, "sampling_params": {
            "temperature": 0, "max_new_tokens": 16, "ignore_eos": True}})
    assert status == 200, answer
    return json.loads(answer)["output_ids"]


class Models(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = cls.folder.name + "/model"
        cls.rounded = cls.folder.name + "/rounded"
        subprocess.run([MAKE_MODEL, "tests/golden/model/qwen3moe.json",
                        cls.model, "2"], check=True)
        code, _, text = baton("quantize", cls.model, cls.rounded,
                              "--quantization", "w8a8_int8")
        assert code == 0, text

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_inspect(self):
        code, text, _ = baton("inspect", self.rounded, "--json")
        self.assertEqual(code, 0, text)
        told = json.loads(text)
        self.assertEqual(told["architecture"], "qwen3_moe")
        self.assertEqual(told["experts"], {"count": 8, "used": 3,
                                           "feed_forward": 32, "layers": 3})
        self.assertEqual(told["types"]["int8"]["count"], 3 * (4 + 3 * 8))
        self.assertEqual(told["kv_bytes_per_token"], 3 * 2 * 2 * 16 * 4)
        self.assertIsNone(told["refused"])
        code, plain, _ = baton("inspect", self.model, "--quantization",
                               "w8a8_int8")
        self.assertEqual(code, 0, plain)
        self.assertIn("8, 3 a token", plain)
        code, asked, _ = baton("inspect", self.model, "--quantization",
                               "w8a8_int8", "--json")
        self.assertEqual(json.loads(asked)["weight_bytes"],
                         told["weight_bytes"])

    def test_inspect_names_the_tokenizer(self):
        spm = os.path.abspath("tests/golden/tokenizer/spm_own/tokenizer.model")
        folder = self.folder.name + "/spm"
        os.makedirs(folder)
        for name in ("config.json", "model.safetensors"):
            os.symlink(os.path.join(self.model, name),
                       os.path.join(folder, name))
        told = json.loads(baton("inspect", folder, "--json")[1])
        self.assertIn("no tokenizer.json", told["tokenizer"]["refused"])
        os.symlink(spm, folder + "/tokenizer.model")
        told = json.loads(baton("inspect", folder, "--json")[1])
        self.assertEqual(told["tokenizer"], {
            "source": "tokenizer.model", "tokens": 1000,
            "chat_template": False, "refused": None})
        self.assertIn("tokenizer.model, 1000 tokens, no chat template",
                      baton("inspect", folder)[1])

    def test_what_is_refused_is_said(self):
        folder = self.folder.name + "/broken"
        os.makedirs(folder)
        for name in os.listdir(self.model):
            os.symlink(os.path.join(self.model, name),
                       os.path.join(folder, name))
        with open(self.model + "/config.json") as f:
            config = json.load(f)
        os.remove(folder + "/config.json")
        for change, word in (({"num_experts": 9}, "mlp.gate.weight"),
                             ({"moe_intermediate_size": 48}, "gate_proj"),
                             ({"hidden_act": "gelu"}, "hidden_act")):
            with open(folder + "/config.json", "w") as f:
                json.dump({**config, **change}, f)
            code, text, _ = baton("inspect", folder)
            self.assertEqual(code, 1)
            self.assertIn("refused", text)
            self.assertIn(word, text)
        code, _, text = baton("quantize", self.rounded, folder + "/x")
        self.assertEqual(code, 1)
        self.assertIn("quantized already", text)
        code, _, text = baton("inspect")
        self.assertEqual(code, 2)

    def test_a_pair_serves_rounded_experts(self):
        """Rounded on load or before, together or apart: the same tokens."""
        alone = Server("alone", self.model, "--quantization", "w8a8_int8")
        pair = Pair(self.rounded)
        try:
            alone.ready()
            for text in ("the pages of a prompt", "one by one " * 9):
                self.assertEqual(tokens(alone.url, text),
                                 tokens(pair.url, text))
        finally:
            pair.stop()
            alone.stop()


if __name__ == "__main__":
    main()
