#!/usr/bin/env python3
"""Does vllm-ascend's own Mooncake connector run on our mooncake.engine?

A prefill process and a decode process, each with MooncakeConnectorWorker of the
vllm-ascend package from PyPI, unchanged: it opens the engine, registers the KV
caches, asks the other side for its addresses over its own ZeroMQ channel, and
the decode side reads the blocks of a request and says that it has them.

vllm-ascend is installed without its dependencies; torch, torch_npu, vllm and an
NPU are stood in for (a cache is numpy memory), since the connector only asks
them for addresses, shapes and ranks. `make interop` runs it; it needs the
network once, so it is no part of `make test`."""
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import os
import subprocess
import sys
import time
import types
import venv

from stock_peer import Any, StandIn

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = ROOT + "/build/interop-vllm-ascend"
PYTHON = HOME + "/bin/python"
PIP = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
# From 0.19 on the connector asks vLLM for the layout of each cache group.
VERSIONS = ["0.11.0", "0.13.0", "0.18.0"]
BLOCKS, HEADS, LAYERS = 24, 4, 3


def source(version):
    """The folder of that version's package, installed once."""
    folder = HOME + "/vllm-ascend-" + version
    if not os.path.exists(PYTHON):
        venv.create(HOME, with_pip=True)
        subprocess.run([*PIP, "numpy", "pyzmq", "msgspec"], check=True)
    if not os.path.exists(folder + "/.done"):
        print("fetching vllm-ascend " + version, flush=True)
        subprocess.run([*PIP, "--no-deps", "--target", folder,
                        "vllm-ascend==" + version], check=True)
        open(folder + "/.done", "w").close()
    return folder


def zmq_socket(ctx, path, socket_type, bind=None, **_):
    sock = ctx.socket(socket_type)
    (sock.bind if bind else sock.connect)(path)
    return sock


class Config(types.SimpleNamespace):
    """What is not named is off."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return False


class Group(types.SimpleNamespace):
    rank_in_group, world_size, rank = 0, 1, 0


NETWORK = dict(
    get_ip=lambda: "127.0.0.1", make_zmq_socket=zmq_socket,
    make_zmq_path=lambda scheme, host, port=None: "%s://%s:%s" % (
        scheme, host, port),
    logger=logging.getLogger("vllm"))
GROUPS = dict(
    {"get_%s_group" % name: Group for name in ("tp", "pp", "dcp", "pcp")},
    **{"get_%s_%s" % (name, what): lambda value=value: value
       for name in ("tensor_model_parallel", "decode_context_model_parallel",
                    "pcp", "dcp", "decode_context_parallel",
                    "prefill_context_model_parallel")
       for what, value in (("rank", 0), ("world_size", 1))})
MEMBERS = {
    "vllm.utils": NETWORK, "vllm.utils.network_utils": NETWORK,
    "vllm.logger": dict(NETWORK, init_logger=logging.getLogger),
    "vllm.distributed.utils": dict(
        get_pp_indices=lambda layers, rank, size: (0, layers)),
    "vllm.distributed": GROUPS, "vllm.distributed.parallel_state": GROUPS,
    "vllm.distributed.kv_transfer.kv_connector.v1.base": dict(
        KVConnectorBase_V1=type("KVConnectorBase_V1", (), {}),
        KVConnectorMetadata=type("KVConnectorMetadata", (), {}),
        SupportsHMA=type("SupportsHMA", (), {})),
    "vllm_ascend.ascend_config": dict(get_ascend_config=Config),
    "vllm_ascend.envs": dict(
        PHYSICAL_DEVICES=None, VLLM_ASCEND_FUSION_OP_TRANSPOSE_KV_CACHE_BY_BLOCK=False),
}
OTHERS = {"torch", "torch_npu", "vllm", "vllm_ascend"}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """vllm-ascend's transfer code is its own; all else of OTHERS a stand-in."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] not in OTHERS:
            return None
        parts = os.path.join(os.environ["VLLM_ASCEND"], *name.split("."))
        if "mooncake" in name.split(".")[-1] or name in (
                "vllm_ascend.distributed.utils",
                "vllm_ascend.distributed.mooncake.transfer_engine",
                "vllm_ascend.distributed.kv_transfer.utils.utils"):
            if os.path.exists(parts + ".py"):
                return importlib.util.spec_from_file_location(name, parts + ".py")
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        if os.path.isdir(parts):
            spec.submodule_search_locations = [parts]
        return spec

    def create_module(self, spec):
        module = StandIn(spec.name)
        module.__dict__.update(MEMBERS.get(spec.name, {}))
        return module

    def exec_module(self, module):
        pass


def load():
    """The connector's module, wherever that version has it."""
    sys.meta_path.insert(0, Finder())
    top = os.environ["VLLM_ASCEND"]
    for folder, _, names in os.walk(top + "/vllm_ascend/distributed"):
        if "mooncake_connector.py" in names:
            name = os.path.relpath(folder, top).replace(os.sep, ".")
            return importlib.import_module(name + ".mooncake_connector")
    raise SystemExit("no mooncake_connector.py")


class Cache:
    """[blocks, tokens of a block, heads, head_dim] of two bytes each."""

    def __init__(self, fill):
        import numpy as np
        self.array = np.full((BLOCKS, 16, HEADS, 32), fill, np.uint16)
        self.shape, self.dtype = self.array.shape, "float16"

    def __getitem__(self, key):
        return self

    def size(self, axis):
        return self.shape[axis]

    def element_size(self):
        return 2

    def numel(self):
        return self.array.size

    def stride(self, axis=None):
        return [s // 2 for s in self.array.strides][axis]

    def data_ptr(self):
        return int(self.array.ctypes.data)


def config(role, port):
    one = dict(tp_size=1, dp_size=1, pp_size=1)
    return Config(
        parallel_config=Config(
            tensor_parallel_size=1, data_parallel_rank=0,
            data_parallel_size_local=1, data_parallel_size=1,
            pipeline_parallel_size=1, prefill_context_parallel_size=1,
            decode_context_parallel_size=1, data_parallel_rank_local=0,
            cp_kv_cache_interleave_size=1, data_parallel_index=0),
        model_config=Config(
            hf_config=Config(num_key_value_heads=HEADS, head_dim=32,
                             num_hidden_layers=LAYERS),
            hf_text_config=Config(num_key_value_heads=HEADS, head_dim=32,
                                  num_hidden_layers=LAYERS),
            get_total_num_kv_heads=lambda: HEADS,
            get_num_layers=lambda *_: LAYERS,
            get_total_num_hidden_layers=lambda: LAYERS),
        cache_config=Config(block_size=16), speculative_config=None,
        kv_transfer_config=Config(
            kv_role=role, kv_port=port, engine_id=role,
            get_from_extra_config=lambda key, default: dict(
                prefill=one, decode=one).get(key, default)))


def finished(worker, which):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        done = worker.get_finished()[which]
        if done:
            return done
        time.sleep(0.001)
    raise SystemExit("a request did not finish")


def side(role, port):
    """One process of the pair; lines of JSON between them."""
    connector = load()
    worker = connector.MooncakeConnectorWorker(config(role, port), role)
    fill = 7 if role == "kv_producer" else 0
    caches = {"layer.%d" % i: (Cache(fill + 2 * i), Cache(fill + 2 * i + 1))
              for i in range(LAYERS)}
    worker.register_kv_caches(caches)
    meta = connector.MooncakeConnectorMetadata()
    meta.reqs_in_batch = {"request-1"}  # as later versions have it
    if role == "kv_producer":
        worker.start_load_kv(meta)
        print(json.dumps("ready"), flush=True)
        while sys.stdin.readline():
            print(json.dumps(sorted(finished(worker, 0))), flush=True)
        return
    prefill = subprocess.Popen(
        [sys.executable, __file__, "kv_producer", str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert json.loads(prefill.stdout.readline()) == "ready"
    remote, local = [3, 4, 5, 9, 11, 12], [1, 2, 3, 8, 20, 21]
    more = {"num_external_tokens": 16 * len(local)}
    known = inspect.signature(meta.add_new_req).parameters
    meta.add_new_req(
        request_id="request-1", local_block_ids=local,
        kv_transfer_params=dict(
            remote_block_ids=remote, remote_engine_id="kv_producer",
            remote_request_id="request-1", remote_host="127.0.0.1",
            remote_port=port, num_prompt_blocks=len(remote)),
        **{name: more[name] for name in more if name in known})
    worker.start_load_kv(meta)
    assert finished(worker, 1) == {"request-1"}
    for i in range(LAYERS):
        for half, cache in enumerate(caches["layer.%d" % i]):
            for block in range(BLOCKS):
                want = 7 + 2 * i + half if block in local else 2 * i + half
                assert (cache.array[block] == want).all(), (i, half, block)
    print(file=prefill.stdin, flush=True)
    assert json.loads(prefill.stdout.readline()) == ["request-1"]
    prefill.stdin.close()
    assert prefill.wait(30) == 0
    print("MooncakeConnectorWorker: %d blocks of %d layers are the prefill's"
          % (len(local), LAYERS), flush=True)
    os._exit(0)  # its threads have no end of their own


def main():
    failed = []
    for version in sys.argv[1:] or VERSIONS:
        print("--- vllm-ascend " + version, flush=True)
        env = dict(os.environ, VLLM_ASCEND=source(version),
                   PYTHONPATH=ROOT + "/python",
                   BATON_XFER_LIB=ROOT + "/build/release/lib/libbaton-xfer.so.0")
        port = 20000 + os.getpid() % 10000
        if subprocess.run([PYTHON, __file__, "kv_consumer", str(port)],
                          env=env, timeout=120).returncode:
            failed.append(version)
    sys.exit("failed with vllm-ascend " + ", ".join(failed) if failed else 0)


if __name__ == "__main__":
    if "VLLM_ASCEND" in os.environ:
        logging.basicConfig(level=logging.WARNING)
        side(sys.argv[1], int(sys.argv[2]))
    else:
        main()
