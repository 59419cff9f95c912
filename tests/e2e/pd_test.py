"""Disaggregated output equals colocated output, token by token.

One colocated server and one prefill/decode pair serve the same small random
model; every request goes to both and the answers must be the same."""
from concurrent.futures import ThreadPoolExecutor

from cluster import *

WORDS = ("the pages of a prompt travel once and the words that follow "
         "are made elsewhere one by one 0123456789 ").split()


def prompt(n, seed):
    """n bytes of text, the same for the same seed."""
    out, x = "", seed * 2654435761 % 2**32
    while len(out) < n:
        x = (x * 1103515245 + 12345) % 2**31
        out += WORDS[(x >> 8) % len(WORDS)] + " "
    return out[:n]


def generate(url, text, **sampling):
    body = {"text": text, "sampling_params": sampling}
    status, answer, _ = http("POST", url + "/generate", body)
    assert status == 200, answer
    return json.loads(answer)


GREEDY = dict(temperature=0, max_new_tokens=24, ignore_eos=True)
SEEDED = dict(temperature=0.9, top_p=0.95, top_k=40, sampling_seed=11,
              max_new_tokens=24, ignore_eos=True)


class Equality(unittest.TestCase):
    parsers = ("--reasoning-parser", "deepseek-r1", "--tool-call-parser",
               "qwen25")
    flags = ("--page-size", "16", "--chunked-prefill-size", "48", *parsers)
    arch = "qwen3"
    pair_flags = ()
    transport = "memfd"

    @classmethod
    def pair_env(cls):
        return {}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        model = make_model(cls.folder.name + "/model", cls.arch)
        cls.alone = Server("alone", model, *cls.flags)
        cls.pair = Pair(model, *cls.flags, *cls.pair_flags,
                        env=cls.pair_env())
        cls.alone.ready()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.pair.stop()
            cls.alone.stop()
        finally:
            cls.folder.cleanup()

    def same(self, text, **sampling):
        a = generate(self.alone.url, text, **sampling)
        b = generate(self.pair.url, text, **sampling)
        many = a if isinstance(a, list) else [a]
        other = b if isinstance(b, list) else [b]
        self.assertEqual([r["output_ids"] for r in many],
                         [r["output_ids"] for r in other])
        self.assertEqual([r["text"] for r in many], [r["text"] for r in other])
        for r, q in zip(many, other):
            for key in ("prompt_tokens", "completion_tokens", "finish_reason"):
                self.assertEqual(r["meta_info"][key], q["meta_info"][key])
        return a, b

    def test_single_greedy_and_seeded(self):
        for n in (1, 15, 16, 17, 47, 48, 49, 200, 500):
            self.same(prompt(n, n), **GREEDY)
            self.same(prompt(n, n + 1), **SEEDED)

    def moved(self):
        raw = http("GET", self.pair.prefill.url + "/get_server_info")[1]
        return json.loads(raw)["disaggregation"]

    def test_kv_really_moves(self):
        before = self.moved()["kv_bytes"]
        self.same(prompt(300, 40), **GREEDY)
        after = self.moved()
        self.assertGreater(after["kv_bytes"] - before, 300 * 256)
        self.assertIn(self.transport, after["transport"])

    def test_prefix_hit(self):
        shared = prompt(160, 3)
        self.same(shared + prompt(20, 4), **GREEDY)
        _, b = self.same(shared + prompt(33, 5), **GREEDY)
        self.assertGreaterEqual(b["meta_info"]["cached_tokens"], 128)
        self.same(shared + prompt(33, 5), **SEEDED)

    def test_batch_and_n(self):
        self.same([prompt(40, 6), prompt(90, 7), prompt(5, 8)], **GREEDY)
        self.same([prompt(40, 6), prompt(90, 7)], **SEEDED)
        a, _ = self.same(prompt(70, 9), n=3, **SEEDED)
        self.assertEqual(len(a), 3)

    def test_concurrent(self):
        texts = [prompt(10 + 37 * i, 100 + i) for i in range(12)]
        kinds = [GREEDY if i % 2 else SEEDED for i in range(12)]
        want = [generate(self.alone.url, t, **k) for t, k in zip(texts, kinds)]
        with ThreadPoolExecutor(12) as pool:
            got = list(pool.map(
                lambda tk: generate(self.pair.url, tk[0], **tk[1]),
                zip(texts, kinds)))
        for w, g in zip(want, got):
            self.assertEqual(w["output_ids"], g["output_ids"])
            self.assertEqual(w["text"], g["text"])

    def test_one_token_and_stops(self):
        self.same(prompt(30, 20), temperature=0, max_new_tokens=1)
        a, _ = self.same(prompt(30, 21), **GREEDY)
        ids = a["output_ids"]
        self.same(prompt(30, 21), temperature=0, max_new_tokens=24,
                  stop_token_ids=[ids[5]])
        self.same(prompt(30, 21), temperature=0, max_new_tokens=24,
                  stop_token_ids=[ids[0]])

    SCHEMA = {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]},
                 "maxItems": 3}}, "required": ["name", "age"]}

    def test_grammars(self):
        """A model of random weights cannot but answer in the form asked for."""
        for kind in (GREEDY, SEEDED):
            kind = dict(kind, max_new_tokens=250, min_new_tokens=4)
            _, b = self.same(prompt(60, 24), **kind,
                             json_schema=json.dumps(self.SCHEMA))
            value = json.loads(b["text"])
            self.assertLessEqual(set(value), {"name", "age", "tags"})
            self.assertIn(value["age"], range(151))
            self.assertEqual(b["meta_info"]["finish_reason"]["type"], "stop")
            _, b = self.same(prompt(60, 25), **kind,
                             regex="(red|green){2}, [0-9]{3}")
            self.assertRegex(b["text"], "^(red|green){2}, [0-9]{3}$")
            _, b = self.same(prompt(60, 23), **kind, ebnf=(
                'root ::= "<" (one ("," one){0,3}) ">"\none ::= [a-c]{1,3} ws\n'
                'ws ::= " "?'))
            self.assertRegex(b["text"], "^<[a-c]{1,3} ?(,[a-c]{1,3} ?){0,3}>$")
            tag = {"type": "tag", "begin": "<f>", "end": "</f>", "content": {
                "type": "json_schema", "json_schema": self.SCHEMA}}
            _, b = self.same(prompt(60, 27), **kind,
                             structural_tag=json.dumps({"format": tag}))
            self.assertEqual((b["text"][:3], b["text"][-4:]), ("<f>", "</f>"))
            self.assertIn(json.loads(b["text"][3:-4])["age"], range(151))
        chat = {"model": "m", "temperature": 0, "max_tokens": 250,
                "response_format": {"type": "json_schema", "json_schema": {
                    "name": "person", "schema": self.SCHEMA}},
                "messages": [{"role": "user", "content": prompt(50, 26)}]}
        answers = []
        for url in (self.alone.url, self.pair.url):
            status, raw, _ = http("POST", url + "/v1/completions", {
                **{k: chat[k] for k in chat if k != "messages"},
                "prompt": "x"})
            self.assertEqual(status, 200, raw)
            answers.append(json.loads(raw)["choices"][0]["text"])
        self.assertEqual(answers[0], answers[1])
        self.assertIn("age", json.loads(answers[0]))
        # A chat of this server thinks first (deepseek-r1): without an end of
        # that the grammar does not begin; the server is asked for it all the
        # same and both say so alike.
        for url in (self.alone.url, self.pair.url):
            status, raw, _ = http("POST", url + "/v1/chat/completions", chat)
            self.assertEqual(status, 200, raw)

    def test_penalties_and_bias(self):
        self.same(prompt(60, 22), frequency_penalty=0.5, presence_penalty=0.3,
                  repetition_penalty=1.2, min_p=0.01, min_new_tokens=4,
                  logit_bias={"65": 2.5}, **SEEDED)

    def test_stream_is_the_same_text(self):
        body = {"text": prompt(120, 30), "stream": True,
                "sampling_params": GREEDY}
        for url in (self.alone.url, self.pair.url):
            status, raw, headers = http("POST", url + "/generate", body)
            self.assertEqual(status, 200)
            self.assertIn("text/event-stream", headers["Content-Type"])
            data = events(raw)
            self.assertEqual(data[-1], "[DONE]")
            last = json.loads(data[-2])
            self.assertEqual(last["text"], generate(
                self.alone.url, prompt(120, 30), **GREEDY)["text"])
            self.assertEqual(last["meta_info"]["finish_reason"]["type"],
                             "length")

    def test_logprobs_merge(self):
        body = {"text": prompt(40, 31), "return_logprob": True,
                "logprob_start_len": 0, "top_logprobs_num": 2,
                "sampling_params": dict(GREEDY, max_new_tokens=4)}
        answers = []
        for url in (self.alone.url, self.pair.url):
            status, raw, _ = http("POST", url + "/generate", body)
            self.assertEqual(status, 200, raw)
            answers.append(json.loads(raw)["meta_info"])
        for key in ("input_token_logprobs", "output_token_logprobs",
                    "output_top_logprobs"):
            self.assertEqual(answers[0][key], answers[1][key], key)
        self.assertGreater(len(answers[0]["input_token_logprobs"]), 30)

    def test_chat_and_completions(self):
        chat = {"model": "m", "temperature": 0, "max_tokens": 12,
                "messages": [{"role": "user", "content": prompt(50, 33)}]}
        text = {"model": "m", "temperature": 0, "max_tokens": 12,
                "prompt": prompt(50, 34)}
        for path, body in (("/v1/chat/completions", chat),
                           ("/v1/completions", text)):
            answers = []
            for url in (self.alone.url, self.pair.url):
                status, raw, _ = http("POST", url + path, body)
                self.assertEqual(status, 200, raw)
                a = json.loads(raw)
                answers.append((a["choices"], a["usage"]))
            self.assertEqual(answers[0], answers[1])


    def test_reasoning(self):
        """The decode side takes answers apart; whole and streamed agree."""
        body = {"temperature": 0, "max_tokens": 12,
                "messages": [{"role": "user", "content": prompt(40, 35)}]}
        reasoning, content, calls = self.chat_thrice(body)
        self.assertTrue(reasoning)
        self.assertFalse(content)
        self.assertEqual(calls, [])

    def chat_thrice(self, body):
        """Alone, by the pair, and streamed: what each of them must say."""
        answers, path = [], "/v1/chat/completions"
        for url in (self.alone.url, self.pair.url):
            status, raw, _ = http("POST", url + path, body)
            self.assertEqual(status, 200, raw)
            m = json.loads(raw)["choices"][0]["message"]
            for c in m["tool_calls"] or []:
                self.assertRegex(c["id"], "^call_[0-9a-f]{24}$")
            answers.append((m["reasoning_content"] or "", m["content"] or "", [
                (c["function"]["name"], c["function"]["arguments"])
                for c in m["tool_calls"] or []]))
        status, raw, _ = http("POST", self.pair.url + path, dict(body, stream=True))
        self.assertEqual(status, 200, raw)
        reasoning, content, calls = "", "", {}
        for event in events(raw)[:-1]:
            delta = json.loads(event)["choices"][0]["delta"]
            reasoning += delta["reasoning_content"] or ""
            content += delta["content"] or ""
            for c in delta["tool_calls"] or []:
                name, arguments = calls.get(c["index"], ("", ""))
                calls[c["index"]] = (name + (c["function"]["name"] or ""),
                                     arguments + c["function"]["arguments"])
        answers.append((reasoning, content, [calls[i] for i in sorted(calls)]))
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        return answers[0]

    def test_calls(self):
        """A model of random weights cannot but call as its tools say."""
        def tool(name, **more):
            return {"type": "function", "function": dict(
                name=name, parameters=self.SCHEMA, **more)}
        both = [tool("person"), tool("animal")]
        one = {"type": "function", "function": {"name": "animal"}}
        count = 0
        for i, asked in enumerate((
                dict(tools=both, tool_choice="required"),
                dict(tools=both, tool_choice="required", temperature=0.8, seed=3,
                     parallel_tool_calls=False),
                dict(tools=both, tool_choice=one, parallel_tool_calls=False),
                dict(tools=[tool("person", strict=True)], temperature=0.9,
                     seed=4))):
            body = {"temperature": 0, "max_tokens": 500, "separate_reasoning": False,
                    "messages": [{"role": "user", "content": prompt(40, 36 + i)}]}
            _, content, calls = self.chat_thrice(dict(body, **asked))
            must = "tool_choice" in asked
            self.assertTrue(calls or not must)
            self.assertFalse(content and must)
            if not asked.get("parallel_tool_calls", True):
                self.assertEqual(len(calls), 1)
            for name, arguments in calls:
                if len(calls) == 1:  # else the last may be cut
                    value = json.loads(arguments)
                    self.assertLessEqual(set(value), {"name", "age", "tags"})
                    self.assertIn(value["age"], range(151))
                self.assertIn(name, ["animal"] if i == 2 else ["person", "animal"])
            count += len(calls)
        self.assertGreaterEqual(count, 3)

class EqualityOverTcp(Equality):
    """The same over TCP, with Ascend's page size, a llama, and a decode that
    keeps what it has."""
    flags = ("--attention-backend", "ascend", "--chunked-prefill-size", "128",
             "--reasoning-parser", "deepseek-r1", "--tool-call-parser", "llama3")
    pair_flags = ("--disaggregation-transfer-transport", "tcp",
                  "--disaggregation-decode-enable-radix-cache")
    transport = "tcp"
    arch = "llama"

    def test_a_second_turn_moves_its_new_pages_alone(self):
        ids = [7 + i * i % 200 for i in range(300)]
        moved = [self.moved()["kv_bytes"]]
        for turn in range(3):
            a, b = (json.loads(http("POST", url + "/generate", {
                "input_ids": ids, "sampling_params": GREEDY})[1])
                for url in (self.alone.url, self.pair.url))
            self.assertEqual(a["output_ids"], b["output_ids"])
            moved.append(self.moved()["kv_bytes"])
            ids += a["output_ids"] + ids[turn * 9:turn * 9 + 50]
        first, second, third = (b - a for a, b in zip(moved, moved[1:]))
        # 300 tokens; then 374 and 448, of which 256 and 384 are there
        self.assertLess(second, first / 2)
        self.assertLess(third, first / 3)


class OtherWays(unittest.TestCase):
    """KV by ways that servers take only when asked to."""

    def check(self, transport, *flags, **env):
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(folder + "/model")
            flags = ("--page-size", "16", "--chunked-prefill-size", "48",
                     *flags)
            alone = Server("alone", model, *flags)
            pair = Pair(model, *flags, env=env)
            alone.ready()
            for n in (1, 48, 500):
                a, b = (generate(s.url, prompt(n, n), **GREEDY)
                        for s in (alone, pair))
                self.assertEqual(a["output_ids"], b["output_ids"])
            raw = http("GET", pair.prefill.url + "/get_server_info")[1]
            self.assertIn(transport,
                          json.loads(raw)["disaggregation"]["transport"])
            pair.stop()
            alone.stop()

    def test_tls(self):
        with tempfile.TemporaryDirectory() as d:
            cert, key = d + "/cert.pem", d + "/key.pem"
            try:
                subprocess.run(
                    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                     "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                     "-subj", "/CN=pair", "-keyout", key, "-out", cert],
                    check=True, stderr=subprocess.DEVNULL)
            except FileNotFoundError:
                self.skipTest("there is no openssl program")
            self.check("TLS 1.3", "--disaggregation-transfer-transport", "tcp",
                       BATON_TLS_CERT=cert, BATON_TLS_KEY=key,
                       BATON_TLS_CA=cert)

    def test_rdma_by_a_stand_in_of_libibverbs(self):
        library = os.environ.get("BATON_RDMA_STAND_IN")
        if not library:
            self.skipTest("BATON_RDMA_STAND_IN is not set")
        self.check("rdma", "--disaggregation-ib-device", "standin0",
                   BATON_RDMA_LIBRARY=library, BATON_TRANSFER_VIA="tcp")

    def test_a_list_of_devices_is_refused_before_the_model_is_read(self):
        s = Server("prefill", "/nowhere", "--disaggregation-mode", "prefill",
                   "--disaggregation-ib-device", "mlx5_0,mlx5_1")
        s.wait_line("one device")
        self.assertNotEqual(s.stop(how=0), 0)

    def refused(self, says, *flags, env=None):
        """Refused, and before the weights of a model that is there are read."""
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(folder + "/model")
            s = Server("prefill", model, "--disaggregation-mode", "prefill",
                       *flags, env=env)
            s.wait_line(says)
            self.assertNotEqual(s.stop(how=0), 0)
            self.assertNotIn(" layers, ", "\n".join(s.lines))

    def test_a_device_that_is_not_there_is_named(self):
        self.refused("/nowhere/libibverbs.so",
                     "--disaggregation-ib-device", "mlx5_0",
                     env={"BATON_RDMA_LIBRARY": "/nowhere/libibverbs.so"})
        library = os.environ.get("BATON_RDMA_STAND_IN")
        if library:
            self.refused("mlx5_7", "--disaggregation-ib-device", "mlx5_7",
                         env={"BATON_RDMA_LIBRARY": library})

    def test_certificates_that_are_not_there_are_named(self):
        self.refused("/nowhere/cert.pem", env={
            "BATON_TLS_CERT": "/nowhere/cert.pem",
            "BATON_TLS_KEY": "/nowhere/key.pem",
            "BATON_TLS_CA": "/nowhere/cert.pem"})
        self.refused("its key and a CA",
                     env={"BATON_TLS_CERT": "/nowhere/cert.pem"})


if __name__ == "__main__":
    main()
