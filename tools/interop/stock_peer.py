#!/usr/bin/env python3
"""Does SGLang's own KV transfer code hand KV to and from Baton?

A request goes through a relay of three:

    Baton prefill  ->  SGLang decode side, SGLang prefill side  ->  Baton decode
                       (this process: KV lands in its memory, and leaves it)

In the middle run SGLang's AscendKVReceiver, AscendKVSender, managers and
bootstrap server, unchanged, from the sglang package of PyPI, over our
memfabric_hybrid in place of MemFabric's. Baton's decode must then answer what
a colocated Baton answers, token by token: every message, route, address, page
and aux row was understood on both ways.

sglang is installed without its dependencies: what its transfer code imports
besides (torch, distributed groups, server arguments) is stood in for, since
no tensor is touched. `make interop` runs it; it needs the network once."""
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import logging
import os
import random
import subprocess
import sys
import types
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = ROOT + "/build/interop-peer"
PYTHON = HOME + "/bin/python"
PIP = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
NEEDS = ["numpy", "pyzmq", "aiohttp", "requests", "psutil", "httpx",
         "msgspec"]
# One of each generation of the handshake.
VERSIONS = ["0.5.6.post2", "0.5.8.post1", "0.5.10.post1", "0.5.14", "0.5.23"]


def source(version):
    """The folder of that version's package, installed once."""
    folder = HOME + "/sglang-" + version
    if not os.path.exists(PYTHON):
        venv.create(HOME, with_pip=True)
        subprocess.run([*PIP, *NEEDS], check=True)
    if not os.path.exists(folder + "/.done"):
        print("fetching sglang " + version, flush=True)
        subprocess.run([*PIP, "--no-deps", "--target", folder,
                        "sglang==" + version], check=True)
        open(folder + "/.done", "w").close()
    return folder


class Any(type):
    """A class of which only the name matters: its members are such classes, a
    call of it decorates, or makes one more."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Any(name, (), {})

    def __call__(cls, *args, **more):
        if len(args) == 1 and callable(args[0]) and not more:
            return args[0]
        return Any(cls.__name__, (), {})

    def __getitem__(cls, key):
        return cls

    def __or__(cls, other):
        return cls

    __ror__ = __or__


class StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Any(name, (), {})


# What is SGLang's own here; packages of these names come without their __init__.
REAL = ["sglang", "sglang.srt", "sglang.srt.disaggregation",
        "sglang.srt.disaggregation.base", "sglang.srt.disaggregation.common",
        "sglang.srt.disaggregation.mooncake", "sglang.srt.disaggregation.ascend",
        "sglang.srt.distributed", "sglang.srt.distributed.device_communicators",
        "sglang.srt.utils"]
REAL_FILES = ["sglang.srt.environ", "sglang.srt.utils.network",
              "sglang.srt.utils.common", "sglang.srt.disaggregation.utils",
              "sglang.srt.distributed.device_communicators.mooncake_transfer_engine"]
# Of other projects.
OTHERS = {"torch", "triton", "transformers", "pybase64", "PIL", "torchvision",
          "huggingface_hub", "fastapi", "starlette", "IPython", "packaging",
          "decorator", "orjson", "setproctitle", "pydantic",
          "prometheus_client", "uvloop", "cloudpickle"}
one, zero = lambda *_: 1, lambda *_: 0


class Off(types.SimpleNamespace):
    """What is not named is off."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return False


# What later versions ask of the process: their own, of one rank, and the
# bootstrap port of the manager that is made next.
FIRST = Off(is_first_rank=True, is_last_rank=True, rank_in_group=0, world_size=1)
DISAGG = Off(disaggregation_bootstrap_port=0, disaggregation_transfer_backend="ascend",
             disaggregation_decode_allocation_policy="early")
PARALLEL = Off(
    dist_init_addr=None, nnodes=1, load_balance_method="round_robin",
    pp_group=FIRST, world_group=FIRST,
    **{"%s_size" % name: 1 for name in ("attn_tp", "attn_cp", "attn_dcp", "attn_dp",
                                        "tp", "dp", "pp", "launch_world")},
    **{"%s_rank" % name: 0 for name in ("attn_tp", "attn_cp", "attn_dcp", "attn_dp",
                                        "tp", "dp", "pp")}, num_dp_ranks=1)
MEMBERS = {
    "sglang.srt.distributed": dict(get_pp_group=lambda: types.SimpleNamespace(
        is_first_rank=True, is_last_rank=True)),
    "sglang.srt.distributed.parallel_state": dict(
        get_world_group=lambda: None, get_world_size=one),
    "sglang.srt.layers.dp_attention": {
        "get_attention_%s_%s" % (group, what): value for group in ("tp", "cp", "dp")
        for what, value in (("size", one), ("rank", zero))},
    "sglang.srt.runtime_context": dict(
        {"get_" + name: lambda: Off() for name in (
            "device", "memory", "observability", "schedule", "flags", "model", "exec")},
        get_parallel=lambda: PARALLEL, get_disagg=lambda: DISAGG,
        get_serving=lambda: Off(host="127.0.0.1", port=0),
        get_spec=lambda: Off(speculative_algorithm=None), linear_attn_tp_size=one),
    # A text in some version's utils is compared with a version of torch.
    "torch": dict(__version__="2.9.0"),
}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """First in line for sglang's modules, last for everybody else's."""

    def __init__(self, ours):
        self.ours = ours

    def find_spec(self, name, path, target=None):
        top = name.split(".")[0]
        if (top == "sglang") != self.ours:
            return None
        if self.ours:
            parts = [os.environ["SGLANG_SOURCE"], *name.split(".")]
            parent = name.rpartition(".")[0]
            file = os.path.join(*parts) + ".py"
            if os.path.exists(file) and (name in REAL_FILES or
                                         parent.startswith(REAL[2])):
                return importlib.util.spec_from_file_location(name, file)
        elif top not in OTHERS:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        if name in REAL:
            spec.submodule_search_locations = [os.path.join(*parts)]
        return spec

    def create_module(self, spec):
        module = StandIn(spec.name)
        module.__dict__.update(MEMBERS.get(spec.name, {}))
        if spec.name == "sglang.srt.utils":
            module.__dict__["__getattr__"] = self.utils
        return module

    def exec_module(self, module):
        pass

    @staticmethod
    def utils(name):
        """Older versions have the network's helpers here."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("sglang.srt.utils.common"), name)


def load_sglang():
    sys.meta_path.insert(0, Finder(True))
    sys.meta_path.append(Finder(False))
    return importlib.import_module("sglang.srt.disaggregation.ascend.conn")


class Relay:
    """KV memory and aux rows of one model, known to both of SGLang's sides."""
    PAGES, ROWS, PAGE = 96, 8, 128
    # SGLang's aux items, by bytes of a row.
    AUX = [64, 64, 64, 64, 512, 512, 64, 128, 64, 64]

    def __init__(self, layers, kv_heads, head_dim, element):
        import numpy as np
        self.np = np
        self.item = self.PAGE * kv_heads * head_dim * element
        self.kv = np.zeros((2 * layers, self.PAGES * self.item), np.uint8)
        self.aux = [np.zeros((self.ROWS, n), np.uint8) for n in self.AUX]

    def args(self, heads, items):
        kind = sys.modules["sglang.srt.disaggregation.base.conn"].KVArgs
        kind.__getattr__ = lambda self, name: None  # what some version adds
        a = kind()
        a.engine_rank = a.pp_rank = a.gpu_id = a.system_dp_rank = 0
        a.prefill_start_layer = 0
        a.kv_data_ptrs = [int(k.ctypes.data) for k in self.kv]
        a.kv_data_lens = [k.nbytes for k in self.kv]
        a.kv_item_lens = [self.item] * len(self.kv)
        a.aux_data_ptrs = [int(x.ctypes.data) for x in self.aux[:items]]
        a.aux_data_lens = [x.nbytes for x in self.aux[:items]]
        a.aux_item_lens = self.AUX[:items]
        a.state_data_ptrs = a.state_data_lens = a.state_item_lens = []
        a.state_dim_per_tensor = []
        a.state_type = "none"
        a.state_types = a.state_layer_ids = a.kv_layer_ids = []
        a.kv_cache_dtype_str = "auto"
        a.ib_device = a.ib_traffic_class = None
        a.kv_head_num = a.total_kv_head_num = heads
        a.page_size = self.PAGE
        return a


def server_args(port):
    DISAGG.disaggregation_bootstrap_port = port
    return Off(
        host="127.0.0.1", disaggregation_bootstrap_port=port,
        dist_init_addr=None, dp_size=1, pp_size=1, tp_size=1,
        enable_dp_attention=False, kv_cache_dtype="auto",
        load_balance_method="round_robin", enable_hisparse=False)


def main():
    sys.path.insert(0, ROOT + "/tests/e2e")
    os.environ.setdefault("BATON", ROOT + "/build/release/baton")
    os.environ.setdefault("BATON_XFER_LIB",
                          ROOT + "/build/release/lib/libbaton-xfer.so.0")
    os.environ.update(SGLANG_HOST_IP="127.0.0.1",
                      ASCEND_MF_TRANSFER_PROTOCOL="sdma")
    sys.path.append(ROOT + "/python")
    from cluster import Server, free_ports, http
    conn = load_sglang()
    import json
    import threading
    import time

    import numpy as np
    utils = sys.modules["sglang.srt.disaggregation.utils"]
    poll = sys.modules["sglang.srt.disaggregation.base.conn"].KVPoll

    store, bootstrap, ours = free_ports(3)
    env = {"ASCEND_MF_STORE_URL": "tcp://127.0.0.1:%d" % store}
    os.environ.update(env)
    model = subprocess.run([ROOT + "/tools/fetch-model"], check=True,
                           stdout=subprocess.PIPE).stdout.decode().strip()
    flags = ["--page-size", str(Relay.PAGE), "--chunked-prefill-size", "256"]
    alone = Server("colocated", model, *flags)
    backend = ["--disaggregation-transfer-backend", "ascend"]
    prefill = Server("prefill", model, *flags, *backend,
                     "--disaggregation-mode", "prefill",
                     "--disaggregation-bootstrap-port", bootstrap, env=env)
    decode = Server("decode", model, *flags, *backend,
                    "--disaggregation-mode", "decode", env=env)
    for s in (alone, prefill, decode):
        s.ready()

    layers, heads, dim, element = 30, 3, 64, 2  # SmolLM2-135M, f16
    relay = Relay(layers, heads, dim, element)
    # Until 0.5.6 rows did not name their room, receivers asked by themselves.
    old = not hasattr(conn.AscendKVManager, "try_ensure_parallel_info")
    items = 9 if old else 10
    bootstrap_server = conn.AscendKVBootstrapServer("127.0.0.1", ours)
    receiver_side = conn.AscendKVManager(
        relay.args(heads, items), utils.DisaggregationMode.DECODE,
        server_args(bootstrap))
    end = time.monotonic() + 10
    while True:
        try:
            if http("GET", "http://127.0.0.1:%d/health" % ours)[0] == 200:
                break
        except OSError:
            assert time.monotonic() < end, "SGLang's bootstrap server"
            time.sleep(0.02)
    sender_side = conn.AscendKVManager(
        relay.args(heads, items), utils.DisaggregationMode.PREFILL,
        server_args(ours))

    def wait(what, state):
        end = time.monotonic() + 30
        while True:
            got = what.poll()
            if got == state:
                return
            if got == poll.Failed:
                what.failure_exception()
            assert time.monotonic() < end, "%s stays at %s" % (what, got)
            time.sleep(0.001)

    def leg(server, body, answers):
        t = threading.Thread(target=lambda: answers.append(
            http("POST", server.url + "/generate", body)))
        t.start()
        return t

    def pass_on(text, params, row):
        """The relay; Baton decode's answer."""
        count = json.loads(http("POST", alone.url + "/generate", {
            "text": text, "sampling_params": {"max_new_tokens": 1}})[1])
        tokens = count["meta_info"]["prompt_tokens"]
        pages = np.array(random.sample(range(1, Relay.PAGES),
                                       -(-tokens // Relay.PAGE)), np.int32)
        room1, room2 = random.randrange(1 << 62), random.randrange(1 << 62)
        body = {"text": text, "sampling_params": params}
        first, second = [], []

        r = conn.AscendKVReceiver(receiver_side, "127.0.0.1:%d" % bootstrap, room1)
        if old:
            r.init(pages, row)
        else:
            assert receiver_side.try_ensure_parallel_info(r.bootstrap_addr)
            r.init(0)
            r.send_metadata(pages, row)
        t1 = leg(prefill, dict(body, bootstrap_host="127.0.0.1",
                               bootstrap_port=bootstrap, bootstrap_room=room1), first)
        wait(r, poll.Success)
        t1.join()
        assert first[0][0] == 200, first
        named = relay.aux[9][row].view(np.uint64)[0]
        assert old or named == room1, "aux row of room %d, not %d" % (named, room1)

        # Later versions find the decode's ranks by themselves.
        ranks = "dest_tp_ranks" in inspect.signature(
            conn.AscendKVSender.__init__).parameters
        s = conn.AscendKVSender(sender_side, "127.0.0.1:%d" % ours, room2,
                                *([[0], 0] if ranks else []))
        t2 = leg(decode, dict(body, bootstrap_host="127.0.0.1",
                              bootstrap_port=ours, bootstrap_room=room2), second)
        wait(s, poll.WaitingForInput)
        relay.aux[9][row].view(np.uint64)[0] = room2
        s.init(len(pages), row)
        half = len(pages) // 2
        if half:
            s.send(pages[:half])
        s.send(pages[half:])
        wait(s, poll.Success)
        t2.join()
        assert second[0][0] == 200, second
        return json.loads(second[0][1])

    texts = ["The capital of France is", "Once upon a time, " * 20,
             "the quick brown fox jumps over the lazy dog. " * 120]
    try:
        for i, text in enumerate(texts):
            for more in ({"temperature": 0}, {"temperature": 0.8, "sampling_seed": 5}):
                params = dict(more, max_new_tokens=40, ignore_eos=True)
                want = json.loads(http("POST", alone.url + "/generate", {
                    "text": text, "sampling_params": params})[1])
                got = pass_on(text, params, i % Relay.ROWS)
                assert got["output_ids"] == want["output_ids"], (got, want)
                print("ok: %d prompt tokens, %s: %d tokens alike" % (
                    want["meta_info"]["prompt_tokens"],
                    "greedy" if more["temperature"] == 0 else "seeded",
                    len(want["output_ids"])), flush=True)
    except BaseException:
        print(prefill.tail(), decode.tail(), sep="\n", file=sys.stderr)
        raise
    finally:
        for s in (decode, prefill, alone):
            s.stop()
    print("Baton -> SGLang -> Baton: every answer equals the colocated one")
    sys.stdout.flush()
    os._exit(0)  # SGLang's threads have no end of their own


if __name__ == "__main__":
    if "SGLANG_SOURCE" in os.environ:
        logging.basicConfig(level=logging.WARNING)
        main()
    failed = []
    for version in sys.argv[1:] or VERSIONS:
        env = dict(os.environ, SGLANG_SOURCE=source(version))
        print("--- sglang " + version, flush=True)
        if subprocess.run([PYTHON, sys.argv[0]], env=env).returncode:
            failed.append(version)
    sys.exit("failed with sglang " + ", ".join(failed) if failed else 0)
