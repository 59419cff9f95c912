"""Prefill, decode and router on three hosts, each a network namespace on a
bridge; what a machine that vanishes without a word (no FIN, no RST: its link
is cut) does to requests. Needs root and iproute2, else skips.

The test runs itself again in a namespace of its own, which has the bridge and
stands for the client; all of it is gone with the last process."""
import ctypes

from cluster import *

NET = "10.77.0.%d"
CLIENT, PREFILL, DECODE, ROUTER = 1, 2, 3, 4


def isolate():
    """Goes on in a new network namespace; says why where that cannot be."""
    CLONE_NEWNET = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        return "no network namespaces here: " + os.strerror(ctypes.get_errno())
    try:
        ip("link", "set", "lo", "up")
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", NET % CLIENT + "/24", "dev", "br0")
        ip("link", "set", "br0", "up")
    except (OSError, subprocess.CalledProcessError) as e:
        return "no bridge here: %s" % e
    return None


def ip(*args, on=None):
    enter = ["nsenter", "-t", str(on.pid), "-n"] if on else []
    subprocess.run([*enter, "ip", *args], check=True, stderr=subprocess.PIPE)


class Host:
    """A namespace with one cable to the bridge, held by a sleeping process."""

    def __init__(self, number):
        self.number = number
        self.address = NET % number
        self.holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdout.readline()  # it is in its namespace now
        port, far = "port%d" % number, "far%d" % number
        ip("link", "add", port, "type", "veth", "peer", "name", far,
           "netns", str(self.holder.pid))
        ip("link", "set", port, "master", "br0", "up")
        ip("link", "set", "lo", "up", on=self.holder)
        ip("link", "set", far, "name", "eth0", on=self.holder)
        ip("addr", "add", self.address + "/24", "dev", "eth0", on=self.holder)
        ip("link", "set", "eth0", "up", on=self.holder)
        self.enter = ("nsenter", "-t", str(self.holder.pid), "-n")

    def cut(self):
        ip("link", "set", "port%d" % self.number, "down")

    def mend(self):
        ip("link", "set", "port%d" % self.number, "up")

    def close(self):
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait()


class Hosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = make_model(cls.folder.name + "/m", "qwen3")
        cls.host = {n: Host(n) for n in (PREFILL, DECODE, ROUTER)}
        env = {"ASCEND_MF_STORE_URL": "tcp://%s:6650" % (NET % PREFILL),
               "SGLANG_DISAGGREGATION_HEARTBEAT_INTERVAL": "0.5"}
        shared = ["--model-path", cls.model, "--port", 8000, "--threads", 1,
                  "--mem-fraction-static", 0.2, "--max-total-tokens", 16384,
                  "--attention-backend", "ascend", "--chunked-prefill-size", 64,
                  "--disaggregation-transfer-backend", "ascend"]
        cls.prefill = Process("prefill", [
            "launch_server", *shared, "--disaggregation-mode", "prefill",
            "--disaggregation-bootstrap-port", 6657, "--host", NET % PREFILL],
            env, cls.host[PREFILL].enter)
        cls.decode = Process("decode", [
            "launch_server", *shared, "--disaggregation-mode", "decode",
            "--host", NET % DECODE], env, cls.host[DECODE].enter)
        cls.alone = Server("alone", cls.model, "--page-size", 128,
                           "--threads", "1").ready()
        for p in (cls.prefill, cls.decode):
            p.wait_line(READY)
        cls.router = Process("router", [
            "launch_router", "--pd-disaggregation", "--mini-lb", "--prefill",
            "http://%s:8000" % (NET % PREFILL), 6657, "--decode",
            "http://%s:8000" % (NET % DECODE), "--host", NET % ROUTER,
            "--port", 5000], env, cls.host[ROUTER].enter)
        cls.router.wait_line("listening")
        cls.url = "http://%s:5000" % (NET % ROUTER)

    @classmethod
    def tearDownClass(cls):
        for p in (cls.router, cls.decode, cls.prefill, cls.alone):
            p.stop()
        for h in cls.host.values():
            h.close()
        cls.folder.cleanup()

    def setUp(self):
        self.until_well()

    def ask(self, url=None, text="one two three " * 40, n=16):
        status, raw, _ = http("POST", (url or self.url) + "/generate", {
            "text": text, "sampling_params": {
                "temperature": 0, "max_new_tokens": n, "ignore_eos": True}})
        return status, json.loads(raw)

    def until_well(self):
        """Everything heals by itself once the cables are in."""
        end = time.monotonic() + LIMIT
        while True:
            status, answer = self.ask()
            if status == 200:
                return answer
            self.assertLess(time.monotonic(), end, answer)
            time.sleep(0.05)

    def stream(self, text, n):
        """A streamed answer's lines; the first has come."""
        body = json.dumps({"text": text, "stream": True, "sampling_params": {
            "temperature": 0, "max_new_tokens": n, "ignore_eos": True}})
        s = urllib.request.urlopen(urllib.request.Request(
            self.url + "/generate", data=body.encode(), method="POST",
            headers={"Content-Type": "application/json"}), timeout=LIMIT)
        self.assertTrue(s.readline().startswith(b"data: "))
        return s

    def test_equal_to_one_host(self):
        for text in ("a b c", "one two three " * 40, "xyz " * 400):
            want = self.ask(self.alone.url, text)[1]
            status, got = self.ask(text=text)
            self.assertEqual(status, 200)
            self.assertEqual(got["output_ids"], want["output_ids"])
        info = json.loads(http("GET", "http://%s:8000/get_server_info" %
                               (NET % PREFILL))[1])
        self.assertIn("tcp", json.dumps(info))

    def test_prefill_vanishes(self):
        """A running answer needs it no more; new ones get an error."""
        with self.stream("a b c", 3000) as s:
            self.host[PREFILL].cut()
            try:
                rest = s.read()
                status, answer = self.ask()
            finally:
                self.host[PREFILL].mend()
        self.assertTrue(rest.rstrip().endswith(b"data: [DONE]"), rest[-300:])
        self.assertIn(status, (500, 502, 503, 504), answer)
        self.until_well()

    def test_decode_vanishes(self):
        with self.stream("a b c", 30000) as s:
            self.host[DECODE].cut()
            try:
                try:
                    rest = s.read()
                except OSError:
                    rest = b""
                status, answer = self.ask()
            finally:
                self.host[DECODE].mend()
        self.assertNotIn(b"[DONE]", rest.split(b"error")[0])
        self.assertIn(status, (500, 502, 503, 504), answer)
        self.until_well()

    def test_vanish_during_prefill(self):
        """The cable goes while chunks are under way, either side's."""
        for number in (DECODE, PREFILL):
            box = []
            t = threading.Thread(target=lambda: box.append(
                self.ask(text="long prompt " * 600, n=4)))
            t.start()
            self.host[number].cut()
            t.join(LIMIT)
            alive = t.is_alive()
            self.host[number].mend()
            self.assertFalse(alive, "the client still waits")
            self.assertIn(box[0][0], (200, 500, 502, 503, 504), box)
            self.until_well()


if __name__ == "__main__":
    reason = isolate()
    if reason:
        print("skipped: " + reason)
        print("[  PASSED  ] 0 test(s).\n[  SKIPPED ] 1 test(s).")
        sys.exit(0)
    main()
