"""Run by the Python that has the wheels: what SGLang's and vllm-ascend's
connectors call, in their order, and every method with its keywords."""
import array
import ctypes
import inspect
import json
import os
import random
import socket
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE = 1 << 16


def free_url():
    while True:
        with socket.socket() as s:
            port = random.randrange(16000, 32000)
            try:
                s.bind(("127.0.0.1", port))
                return f"tcp://127.0.0.1:{port}"
            except OSError:
                pass


class Peer:
    def __init__(self, make, package, store_url, role="Decode"):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "peer.py"), make, package,
             store_url, role],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hello = json.loads(self.process.stdout.readline())
        self.session, self.layers = hello["session"], hello["layers"]
        self.aux = hello["aux"]

    def ask(self, *command):
        print(*command, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def read(self, address, size):
        return bytes.fromhex(self.ask("read", address, size))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0


class Pages:
    """Four layers of KV and an aux row, filled with what can be told apart."""

    def __init__(self):
        self.layers = [ctypes.create_string_buffer(
            bytes((i * 37 + layer) % 251 for i in range(SIZE)), SIZE)
            for layer in range(4)]
        self.aux = ctypes.create_string_buffer(b"aux row of room 7", 64)
        self.addresses = [ctypes.addressof(b) for b in self.layers]


class SglangAscend(unittest.TestCase):
    """Prefill pushes; the store is the prefill's main process's."""

    def run_with(self, package):
        module = __import__(package)
        url, pages = free_url(), Pages()
        self.assertEqual(module.set_conf_store_tls(False, ""), 0)
        self.assertEqual(module.create_config_store(url), 0)
        engine = module.TransferEngine()
        session = f"127.0.0.1:{engine.get_rpc_port()}"
        self.assertEqual(engine.initialize(
            url, session, "Prefill", 0,
            module.TransferEngine.TransDataOpType.SDMA), 0)
        self.assertEqual(engine.batch_register_memory(pages.addresses,
                                                      [SIZE] * 4), 0)
        self.assertEqual(engine.batch_register_memory(
            [ctypes.addressof(pages.aux)], [64]), 0)
        with Peer("memfabric", package, url) as peer:
            # A chunk: runs of pages of all layers, in one call.
            src, dst, sizes = [], [], []
            for mine, theirs in zip(pages.addresses, peer.layers):
                for start, n, to in ((0, 4096, 8192), (16384, 12288, 0)):
                    src.append(mine + start)
                    dst.append(theirs + 16384 + to)
                    sizes.append(n)
            self.assertEqual(engine.batch_transfer_sync_write(
                peer.session, src, dst, sizes), 0)
            self.assertEqual(engine.transfer_sync_write(
                peer.session, ctypes.addressof(pages.aux), peer.aux, 64), 0)
            for layer, theirs in enumerate(peer.layers):
                kept = bytes(pages.layers[layer])
                self.assertEqual(peer.read(theirs + 16384, 12288),
                                 kept[16384:16384 + 12288])
            self.assertEqual(peer.read(peer.aux, 17), b"aux row of room 7")
            self.assertLess(engine.batch_transfer_sync_write(
                "127.0.0.1:1", src, dst, sizes), 0)
            self.assertEqual(engine.batch_transfer_sync_write(
                peer.session, src, dst, sizes[1:]), -1)
            self.assertEqual(engine.transfer_sync_write(
                peer.session, src[0], 4096, 16), -2101)
        self.assertEqual(engine.destroy(), 0)
        self.assertLess(engine.transfer_sync_write(session, 1, 1, 1), 0)

    def test_old_name(self):
        self.run_with("mf_adapter")

    def test_new_name(self):
        self.run_with("memfabric_hybrid")

    def test_wrong_role_and_tls(self):
        import mf_adapter
        engine = mf_adapter.TransferEngine()
        self.assertEqual(engine.initialize("tcp://127.0.0.1:1", "127.0.0.1:0",
                                           "prefill", 0), -1)
        self.assertLess(mf_adapter.set_conf_store_tls(True, "x"), 0)
        self.assertLess(mf_adapter.create_config_store(free_url()), 0)
        self.assertEqual(mf_adapter.set_conf_store_tls(False, ""), 0)
        self.assertLess(mf_adapter.set_log_level(9), 0)
        self.assertEqual(mf_adapter.set_log_level(1), 0)
        self.assertLess(engine.register_memory(1, 1), 0)

    def test_without_a_store(self):
        import memfabric_hybrid
        engine = memfabric_hybrid.TransferEngine()
        with Peer("memfabric", "memfabric_hybrid", "") as peer:
            self.assertEqual(engine.initialize(None, "127.0.0.1:0", "Prefill",
                                               0), 0)
            self.assertEqual(engine.send_probe(peer.session), 0)


class VllmAscend(unittest.TestCase):
    """Decode pulls; initialize of 1.2, whose engine starts the store."""

    def test_pull(self):
        import memfabric_hybrid
        url, pages = free_url(), Pages()
        with Peer("memfabric_1_2", "memfabric_hybrid", url,
                  "Prefill") as peer:
            engine = memfabric_hybrid.TransferEngine()
            session = f"127.0.0.1:{engine.get_rpc_port()}"
            self.assertEqual(engine.initialize(url, session, "Decode", 0,
                                               "Prefill"), 0)
            self.assertGreater(engine.get_rpc_port(), 0)
            for address in pages.addresses:
                self.assertEqual(engine.register_memory(address, SIZE), 0)
            peer.ask("fill", peer.layers[2], SIZE, 77)
            # Arrays are taken as they are.
            self.assertEqual(engine.batch_transfer_sync_read(
                peer.session, array.array("Q", pages.addresses[:2]),
                array.array("q", [peer.layers[2], peer.layers[2] + 100]),
                [SIZE, 1000]), 0)
            self.assertEqual(bytes(pages.layers[0]), b"\x4d" * SIZE)
            self.assertEqual(engine.unregister_memory(pages.addresses[0]), 0)
            self.assertLess(engine.unregister_memory(pages.addresses[0]), 0)
            self.assertEqual(engine.batch_transfer_async_read_submit(
                peer.session, pages.addresses[1:2], peer.layers[2:3], [10],
                None), 0)
            self.assertEqual(engine.transfer_async_write_submit(
                peer.session, pages.addresses[1], peer.layers[2], 10, 12345),
                -2105)
            engine.unInitialize()


class SglangMooncake(unittest.TestCase):
    def setUp(self):
        from mooncake.engine import TransferEngine
        self.pages = Pages()
        self.engine = TransferEngine()
        self.assertEqual(self.engine.initialize("127.0.0.1", "P2PHANDSHAKE",
                                                "rdma", ""), 0)
        self.assertEqual(self.engine.batch_register_memory(
            self.pages.addresses, [SIZE] * 4), 0)

    def test_push(self):
        with Peer("mooncake", "-", "-") as peer:
            self.assertEqual(self.engine.send_probe(peer.session), 0)
            self.assertEqual(self.engine.batch_transfer_sync_write(
                peer.session, self.pages.addresses, peer.layers, [SIZE] * 4),
                0)
            self.assertEqual(peer.read(peer.layers[3], SIZE),
                             bytes(self.pages.layers[3]))
            self.assertEqual(self.engine.batch_unregister_memory(
                self.pages.addresses), 0)
            self.assertLess(self.engine.batch_transfer_sync_write(
                peer.session, self.pages.addresses, peer.layers, [SIZE] * 4),
                0)
        self.assertLess(self.engine.send_probe("127.0.0.1:1"), 0)

    def test_asynchronous(self):
        mine = self.pages.addresses
        with Peer("mooncake", "-", "-") as peer:
            ids = [self.engine.batch_transfer_async_write(
                peer.session, [a], [b], [SIZE])
                for a, b in zip(mine, peer.layers)]
            self.assertNotIn(0, ids)
            self.assertEqual(self.engine.get_batch_transfer_status(ids), 0)
            number = self.engine.transfer_submit_write(peer.session, mine[0],
                                                       peer.layers[0], 100)
            state = 0
            while state == 0:
                state = self.engine.transfer_check_status(number)
            self.assertEqual(state, 1)
            bad = self.engine.transfer_submit_write(peer.session, mine[0], 1, 9)
            while (state := self.engine.transfer_check_status(bad)) == 0:
                pass
            self.assertEqual(state, -1)

    def test_notifies_and_buffers(self):
        from mooncake.engine import TransferNotify, TransferOpcode
        with Peer("mooncake", "-", "-") as peer:
            self.assertEqual(self.engine.get_first_buffer_address(peer.session),
                             peer.layers[0])
            buffer = self.engine.allocate_managed_buffer(10000)
            self.assertEqual(self.engine.write_bytes_to_buffer(
                buffer, b"managed", 7), 0)
            self.assertEqual(self.engine.transfer_sync(
                peer.session, buffer, peer.aux, 7, TransferOpcode.Write,
                notify=TransferNotify("room", "7")), 0)
            self.assertEqual(peer.ask("notifies"), [["room", "7"]])
            self.assertEqual(peer.read(peer.aux, 7), b"managed")
            self.assertEqual(self.engine.transfer_sync(
                peer.session, buffer + 100, peer.aux, 7,
                TransferOpcode.Read), 0)
            self.assertEqual(self.engine.read_bytes_from_buffer(
                buffer + 100, 7), b"managed")
            self.assertEqual(self.engine.free_managed_buffer(buffer, 10000), 0)
            self.assertNotEqual(self.engine.free_managed_buffer(buffer, 1), 0)
            self.assertEqual(self.engine.get_notifies(), [])
            self.engine.transfer_write_on_cuda(
                peer.session, self.pages.addresses[0], peer.layers[0], 10)
            with self.assertRaises(NotImplementedError):
                self.engine.transfer_write_on_cuda(
                    peer.session, self.pages.addresses[0], peer.layers[0], 10,
                    stream_ptr=4096)
        json.loads(self.engine.get_local_topology())
        self.assertGreater(self.engine.get_engine_ptr(), 0)
        self.assertIn("capsule object", repr(self.engine.get_engine()))

    def test_a_forked_child_ends(self):
        """It has the engine's memory, and none of its threads."""
        child = os.fork()
        if child == 0:
            rc = self.engine.send_probe("127.0.0.1:1")
            self.engine.destroy()
            os._exit(0 if rc < 0 else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        with Peer("mooncake", "-", "-") as peer:
            self.assertEqual(self.engine.send_probe(peer.session), 0)

    def test_second_engine_takes_another_port(self):
        from mooncake.engine import TransferEngine
        name = f"127.0.0.1:{self.engine.get_rpc_port()}"
        other = TransferEngine()
        self.assertEqual(other.initialize(name, "etcd://none", "tcp", ""), 0)
        self.assertNotEqual(other.get_rpc_port(), self.engine.get_rpc_port())


MEMFABRIC = {
    "get_rpc_port": "", "destroy": "", "unInitialize": "",
    "transfer_sync_write": "dest_session buffer peer_buffer length flags",
    "transfer_sync_read": "dest_session buffer peer_buffer length flags",
    "batch_transfer_sync_write":
        "dest_session buffers peer_buffers lengths flags",
    "batch_transfer_sync_read":
        "dest_session buffers peer_buffers lengths flags",
    "transfer_async_write_submit":
        "dest_session buffer peer_buffer length stream flags",
    "transfer_async_read_submit":
        "dest_session buffer peer_buffer length stream flags",
    "batch_transfer_async_write_submit":
        "dest_session buffers peer_buffers lengths stream flags",
    "batch_transfer_async_read_submit":
        "dest_session buffers peer_buffers lengths stream flags",
    "register_memory": "buffer_addr capacity",
    "unregister_memory": "buffer_addr",
    "batch_register_memory": "buffer_addrs capacities",
}
_ONE = "target_hostname buffer peer_buffer_address length"
_MANY = "target_hostname buffers peer_buffer_addresses lengths"
MOONCAKE = {
    "initialize": "local_hostname metadata_server protocol device_name",
    "initialize_ext":
        "local_hostname metadata_server protocol device_name metadata_type",
    "get_rpc_port": "", "get_notifies": "", "get_engine": "",
    "get_engine_ptr": "",
    "allocate_managed_buffer": "length", "free_managed_buffer": "addr length",
    "transfer_sync_write": _ONE + " transport_hint",
    "transfer_sync_read": _ONE + " transport_hint",
    "batch_transfer_sync_write": _MANY + " transport_hint",
    "batch_transfer_sync_read": _MANY + " transport_hint",
    "batch_transfer_async_write": _MANY + " transport_hint",
    "batch_transfer_async_read": _MANY + " transport_hint",
    "transfer_sync": _ONE + " opcode notify transport_hint",
    "batch_transfer_sync": _MANY + " opcode notify transport_hint",
    "batch_transfer_async": _MANY + " opcode transport_hint",
    "get_batch_transfer_status": "batch_ids",
    "transfer_submit_write": _ONE + " transport_hint",
    "transfer_check_status": "batch_id",
    "transfer_write_on_cuda": _ONE + " stream_ptr transport_hint",
    "transfer_read_on_cuda": _ONE + " stream_ptr transport_hint",
    "batch_transfer_write_on_cuda": _MANY + " stream_ptr transport_hint",
    "batch_transfer_read_on_cuda": _MANY + " stream_ptr transport_hint",
    "write_bytes_to_buffer": "dest bytes length",
    "read_bytes_from_buffer": "src length",
    "register_memory": "buffer_addr capacity location",
    "unregister_memory": "buffer_addr",
    "batch_register_memory": "buffer_addresses capacities location",
    "batch_unregister_memory": "buffer_addresses",
    "get_local_topology": "device_name",
    "get_first_buffer_address": "segment_name",
    "warmup_efa_segment": None, "send_probe": "peer_server_name",
}


class Surface(unittest.TestCase):
    def keywords(self, cls, name):
        return " ".join(list(
            inspect.signature(getattr(cls, name)).parameters)[1:])

    def test_every_method_with_its_keywords(self):
        import mf_adapter
        import mooncake.engine
        for cls, own, other in (
                (mf_adapter.TransferEngine, MEMFABRIC, MOONCAKE),
                (mooncake.engine.TransferEngine, MOONCAKE, MEMFABRIC)):
            for name, keywords in own.items():
                if keywords is not None:
                    self.assertEqual(self.keywords(cls, name), keywords, name)
            for name in other:  # each class has the union
                self.assertTrue(callable(getattr(cls, name)), name)

    def test_constants(self):
        import mf_adapter
        import mooncake.engine as m
        T = mf_adapter.TransferEngine
        self.assertEqual((T.TransferOpcode.Read, T.TransferOpcode.Write),
                         (0, 1))
        self.assertEqual((T.TransDataOpType.SDMA,
                          T.TransDataOpType.DEVICE_RDMA), (1, 8))
        self.assertEqual((m.TransferOpcode.Read, m.TransferOpcode.Write),
                         (0, 1))
        self.assertIs(m.SUPPORT_CUDA, False)
        self.assertIs(mf_adapter.TransDataOpType, T.TransDataOpType)


if __name__ == "__main__":
    unittest.main(verbosity=2)
