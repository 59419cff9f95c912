"""Streams whose decode server dies, hangs, or is shut down, in the middle:
another decode goes on, and the client sees the stream it would have seen."""
from cluster import *

LONG = 600 if SLOW else 3000


def request(path, **more):
    """A stream that is long enough to be killed in; the same each time."""
    body = {"stream": True, **more}
    if path == "/generate":
        body.update(text="a b c", sampling_params={
            "max_new_tokens": LONG // 3, "ignore_eos": True, "temperature": 0})
        return body
    body.update(max_tokens=LONG, ignore_eos=True, temperature=0.8, seed=7,
                stream_options={"include_usage": True})
    if path == "/v1/completions":
        body.update(prompt="a b c")
    else:
        body.update(messages=[{"role": "user", "content": "a b c"}])
    return body


class Stream:
    """A stream read event by event."""

    def __init__(self, url, path, body):
        req = urllib.request.Request(
            url + path, method="POST", data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.answer = opener.open(req, timeout=LIMIT)
        self.events = []

    def read(self, count=None):
        """That many events more; None: all that come."""
        while count is None or count > 0:
            line = self.answer.readline()
            if not line:
                break
            if line == b"\n":
                continue
            assert line.startswith(b"data: "), line
            self.events.append(line[6:].decode().strip())
            count = None if count is None else count - 1
        return self


def plain(events):
    """What two runs of one request have in common: all but times."""
    out = []
    for text in events:
        if text == "[DONE]":
            out.append(text)
            continue
        e = json.loads(text)
        for key in ("created", "id"):
            e.pop(key, None)
        for key in ("id", "e2e_latency", "response_sent_to_client_ts",
                    "cached_tokens"):
            e.get("meta_info", {}).pop(key, None)
        out.append(e)
    return out


def names(events):
    """The ids and times of creation that a stream names: one each."""
    found = set()
    for text in events[:-1]:
        e = json.loads(text)
        found.add((e.get("id") or e["meta_info"]["id"], e.get("created")))
    return found


def joined(events):
    """The text, tokens and end of a stream, however it was cut in events."""
    text, ids, end, usage = "", [], None, None
    for e in plain(events):
        if e == "[DONE]":
            return text, ids, end, usage, "done"
        if "error" in e:
            raise AssertionError(e)
        if "text" in e:
            text, ids, end = (e["text"], e["output_ids"],
                              e["meta_info"]["finish_reason"])
            usage = e["meta_info"]["completion_tokens"]
            continue
        usage = e.get("usage") or usage
        for c in e["choices"]:
            text += c.get("text") or c.get("delta", {}).get("content") or ""
            end = c["finish_reason"] or end
    return text, ids, end, usage, "cut"


class Resume(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        model = make_model(cls.folder.name + "/m")
        cls.pair = Pair(model, decode=[
            "--disaggregation-decode-enable-radix-cache"])
        cls.decodes = [cls.pair.decode, cls.pair.start("decode").ready()]
        # Two decodes: a router that knows both.
        cls.pair.router.stop()
        cls.pair.router = Process("router", [
            "launch_router", "--pd-disaggregation", "--policy", "round_robin",
            "--prefill", cls.pair.prefill.url, cls.pair.bootstrap, "--decode",
            cls.decodes[0].url, "--decode", cls.decodes[1].url, "--host",
            "127.0.0.1", "--port", cls.pair.router_port, "--silent-ms", "500",
            "--health-check-timeout-secs", "1"], cls.pair.env)
        cls.pair.wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.pair.decode = cls.decodes[0]
        try:
            cls.decodes[1].stop()
        finally:
            cls.pair.stop()
            cls.folder.cleanup()

    def running(self, decode):
        text = http("GET", decode.url + "/metrics")[1].decode()
        return sum(float(l.split()[-1]) for l in text.splitlines()
                   if l.startswith("sglang:num_running_reqs"))

    def resumed(self):
        text = http("GET", self.pair.url + "/metrics")[1].decode()
        return int(next(l.split()[-1] for l in text.splitlines()
                        if l.startswith("sgl_router_streams_resumed_total")))

    def lose(self, how):
        """Does that to the decode that serves; which it was, None: none."""
        for i, d in enumerate(self.decodes):
            if self.running(d):
                d.p.send_signal(how)
                return i
        return None

    def start_again(self, i, how):
        if how == signal.SIGTERM:
            self.decodes[i].p.wait(LIMIT)
        else:
            how = signal.SIGKILL
        self.decodes[i].stop(how)
        self.decodes[i] = self.pair.start("decode", self.decodes[i].port)
        self.decodes[i].ready()
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            workers = json.loads(http("GET", self.pair.url + "/workers")[1])
            if all(w["is_healthy"] for w in workers["workers"]):
                return
            time.sleep(0.02)
        raise AssertionError(workers)

    def check(self, path, how):
        want = Stream(self.pair.url, path, request(path)).read().events
        before = self.resumed()
        for _ in range(20): # a fast one may end before it is lost
            s = Stream(self.pair.url, path, request(path)).read(20)
            i = self.lose(how)
            if i is None:
                continue
            try:
                self.assertEqual(joined(s.read().events), joined(want))
                self.assertEqual(joined(want)[-1], "done")
                self.assertEqual(len(names(s.events)), 1)
                self.assertNotEqual(names(s.events), names(want))
            finally:
                self.start_again(i, how)
            # One that is shut down may end its stream first.
            if how == signal.SIGTERM or self.resumed() > before:
                return
        self.fail("no stream lived when its decode was lost")

    def test_killed_generate(self):
        self.check("/generate", signal.SIGKILL)

    def test_killed_completion(self):
        self.check("/v1/completions", signal.SIGKILL)

    def test_killed_chat(self):
        self.check("/v1/chat/completions", signal.SIGKILL)

    def test_hung_completion(self):
        self.check("/v1/completions", signal.SIGSTOP)

    def test_shut_down_chat(self):
        self.check("/v1/chat/completions", signal.SIGTERM)


if __name__ == "__main__":
    main()
