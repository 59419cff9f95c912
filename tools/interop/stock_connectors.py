#!/usr/bin/env python3
"""Do SGLang's own transfer classes run on our Python packages?

Installs the sglang package from PyPI into build/interop-sglang (once, without
what it needs), and runs its AscendTransferEngine (over memfabric_hybrid) and
MooncakeTransferEngine (over mooncake.engine) unchanged, a prefill process and
a decode process each. Modules that have nothing to do with the transfer and
are not installed (torch, zmq, ...) or would pull in the whole server are
stand-ins; the list is printed. `make interop` runs it; it needs the network
once, so it is no part of `make test`, whose tests/package/calls.py has the same
calls."""
import ctypes
import enum
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import types
import venv
from unittest.mock import MagicMock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
SGLANG = "sglang==0.5.23"
HOME = ROOT + "/build/interop-sglang"
PYTHON = HOME + "/bin/python"
SIZE = 1 << 16


def install():
    if not os.path.exists(HOME + "/.done"):
        print("installing %s into build/interop-sglang" % SGLANG, flush=True)
        venv.create(HOME, with_pip=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--no-deps",
                        "--disable-pip-version-check", SGLANG], check=True)
        open(HOME + "/.done", "w").close()
    wheels = ROOT + "/build/interop-wheels"
    subprocess.run([ROOT + "/tools/make-wheel", wheels,
                    ROOT + "/build/release/lib"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--no-index",
                    "--disable-pip-version-check", "--force-reinstall",
                    "--find-links", wheels, "memfabric_hybrid",
                    "mooncake-transfer-engine"], check=True)


class StandIn(types.ModuleType):
    """A module all of whose names exist."""
    __path__ = []
    made = set()

    def __init__(self, name):
        super().__init__(name)
        self.made.add(name if name.startswith("sglang") else
                      name.split(".")[0])

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = MagicMock(name=name)
        setattr(self, name, value)
        return value


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last in line: for what is not installed."""
    OURS = ("sglang", "mooncake", "memfabric_hybrid", "baton_xfer")

    def find_spec(self, name, path, target=None):
        root = name.split(".")[0]
        if root in self.OURS or root in sys.stdlib_module_names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def stand_in():
    """Only the modules of the transfer classes are run."""
    sys.meta_path.append(StandInFinder())
    (site,) = [p for p in sys.path if p.startswith(HOME)
               and p.endswith("site-packages")]
    for name in ("sglang", "sglang.srt", "sglang.srt.utils",
                 "sglang.srt.disaggregation", "sglang.srt.disaggregation.ascend",
                 "sglang.srt.distributed",
                 "sglang.srt.distributed.device_communicators"):
        package = types.ModuleType(name)
        package.__path__ = [site + "/" + name.replace(".", "/")]
        sys.modules[name] = package
    for name, values in (
            ("sglang.srt.utils.common",
             {"run_with_deadline": lambda call, timeout_s, what: call()}),
            ("sglang.srt.runtime_context", {}),
            ("sglang.srt.disaggregation.utils",
             {"DisaggregationMode": enum.Enum("DisaggregationMode", {
                 "NULL": "null", "PREFILL": "prefill",
                 "DECODE": "decode"})})):
        module = sys.modules[name] = StandIn(name)
        for key, value in values.items():
            setattr(module, key, value)


def engine_of(backend, role):
    if backend == "ascend":
        from sglang.srt.disaggregation.ascend.transfer_engine import (
            AscendTransferEngine)
        from sglang.srt.disaggregation.utils import DisaggregationMode
        return AscendTransferEngine("127.0.0.1", 0,
                                    getattr(DisaggregationMode, role))
    from sglang.srt.distributed.device_communicators import (
        mooncake_transfer_engine)
    return mooncake_transfer_engine.MooncakeTransferEngine("127.0.0.1")


def side(backend, role):
    """In the environment: one process of the pair."""
    stand_in()
    layers = [ctypes.create_string_buffer(SIZE) for _ in range(3)]
    addresses = [ctypes.addressof(b) for b in layers]
    if (backend, role) == ("ascend", "PREFILL"):
        import memfabric_hybrid
        memfabric_hybrid.set_conf_store_tls(False, "")
        memfabric_hybrid.create_config_store(os.environ["ASCEND_MF_STORE_URL"])
    engine = engine_of(backend, role)
    engine.batch_register(addresses, [SIZE] * 3)
    if role == "DECODE":
        print(json.dumps([engine.get_session_id(), addresses]), flush=True)
        sys.stdin.readline()
        print(json.dumps([sum(bytes(b)) for b in layers]), flush=True)
        return
    for number, layer in enumerate(layers):
        ctypes.memset(layer, number + 1, SIZE)
    decode = subprocess.Popen(
        [sys.executable, __file__, backend, "DECODE"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    session, theirs = json.loads(decode.stdout.readline())
    assert engine.send_probe(session) == 0
    assert engine.batch_transfer_sync(session, addresses, theirs,
                                      [SIZE] * 3) == 0
    assert engine.transfer_sync(session, addresses[0], theirs[1], 10) == 0
    print(file=decode.stdin, flush=True)
    got = json.loads(decode.stdout.readline())
    assert got == [SIZE, 2 * SIZE - 10, 3 * SIZE], got
    assert decode.wait(30) == 0
    assert engine.batch_transfer_sync(session, addresses, theirs,
                                      [SIZE] * 3) < 0
    print("%s: the decode process has the prefill's bytes; stand-ins: %s"
          % (type(engine).__name__, ", ".join(sorted(StandIn.made))))


def main():
    install()
    env = dict(os.environ, ASCEND_MF_STORE_URL="tcp://127.0.0.1:%d"
               % (20000 + os.getpid() % 10000))
    env.pop("PYTHONPATH", None)
    for backend in ("ascend", "mooncake"):
        subprocess.run([PYTHON, __file__, backend, "PREFILL"], check=True,
                       env=env, timeout=120)
    print("2 passed, 0 failed")


if __name__ == "__main__":
    side(*sys.argv[1:]) if len(sys.argv) > 1 else main()
