"""baton bench engine: one run's figures, and turns that stdin asks for."""
from cluster import *


class Engine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = cls.folder.name + "/model"
        make_model(cls.model)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def bench(self, *args, asks=""):
        """(exit status, lines of stdout, stderr)"""
        r = subprocess.run(
            [BATON, "bench", "engine", "--model", self.model, "--threads", "2",
             "--prompt", "20", "--gen", "6", "--batch", "3", *args],
            input=asks.encode(), timeout=LIMIT, capture_output=True)
        return r.returncode, r.stdout.decode().splitlines(), r.stderr.decode()

    def test_a_run(self):
        hashes = set()
        for chunk in "20", "7":
            code, lines, text = self.bench("--repeat", "1", "--json",
                                           "--chunk", chunk)
            self.assertEqual(code, 0, text)
            told = json.loads("".join(lines))
            self.assertGreater(told["decode_tokens_per_s"], 0)
            self.assertGreater(told["int8_gops"], 0)
            hashes.add(told["logits_hash"])
        self.assertEqual(len(hashes), 1, "chunks change the logits")

    def test_turns(self):
        """Steps go through the same positions again and again; each turn is
        answered before the next is asked, so a line each."""
        asks = ["steps 5", "read", "steps 2", "steps 2", "prompt", "limits",
                "steps 5"]
        code, lines, text = self.bench("--turns",
                                       asks="\n".join(asks) + "\n")
        self.assertEqual((code, text), (0, ""))
        hello = json.loads(lines.pop(0))
        for name in "step_bytes", "step_ops", "prompt_ops":
            self.assertGreater(hello[name], 0, name)
        self.assertEqual(len(lines), len(asks))
        for ask, line in zip(asks, lines):
            rates = [float(word) for word in line.split()]
            self.assertEqual(len(rates), 2 if ask == "limits" else 1, ask)
            self.assertGreater(rates[0], 0, ask)

    def test_turns_that_are_none(self):
        for ask, says in (("steps 6", "1 to 5 steps"), ("steps 0", "1 to 5"),
                          ("step", "a turn is"), ("prompts", "a turn is")):
            code, lines, text = self.bench("--turns", asks=ask + "\nread\n")
            self.assertEqual(code, 1, ask)
            self.assertEqual(len(lines), 1, ask)
            self.assertIn(says, text)
        code, _, text = self.bench("--turns", "--trace")
        self.assertEqual(code, 2)
        self.assertIn("--trace", text)


if __name__ == "__main__":
    main()
