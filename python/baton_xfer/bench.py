"""python3 -m baton_xfer.bench: what the Python packages cost, between two
processes of this host, through mooncake.engine (its wheel is needed). Medians;
the bytes are compared."""
import array
import ctypes
import json
import subprocess
import sys
import time
from statistics import median

from mooncake.engine import TransferEngine

SIZE = 64 << 20
BLOCKS, BLOCK = 15000, 4096


def engine_open(buffer):
    engine = TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert engine.register_memory(ctypes.addressof(buffer), SIZE) == 0
    return engine


def target():
    buffer = ctypes.create_string_buffer(SIZE)
    engine = engine_open(buffer)
    print(json.dumps([f"127.0.0.1:{engine.get_rpc_port()}",
                      ctypes.addressof(buffer)]), flush=True)
    sys.stdin.readline()
    print(json.dumps(sum(buffer.raw[:BLOCKS * BLOCK:BLOCK])), flush=True)


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def batches(engine, peer, lists, kind):
    submits, wholes = [], []
    for _ in range(20):
        submit, number = timed(
            lambda: engine.batch_transfer_async_write(peer, *lists))
        rest, rc = timed(lambda: engine.get_batch_transfer_status([number]))
        assert rc == 0
        submits.append(submit)
        wholes.append(submit + rest)
    rate = BLOCKS * BLOCK / median(wholes) / 1e9
    print(f"{BLOCKS} x {BLOCK} B as {kind}: submitted in "
          f"{median(submits) * 1e3:.2f} ms, done in {median(wholes) * 1e3:.2f} "
          f"ms, {rate:.2f} GB/s")


def main():
    child = subprocess.Popen(
        [sys.executable, "-m", "baton_xfer.bench", "target"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    peer, theirs = json.loads(child.stdout.readline())
    buffer = ctypes.create_string_buffer(SIZE)
    mine = ctypes.addressof(buffer)
    start = time.perf_counter()
    engine = engine_open(buffer)
    assert engine.transfer_sync_write(peer, mine, theirs, BLOCK) == 0
    print(f"initialize, register, first transfer: "
          f"{(time.perf_counter() - start) * 1e3:.2f} ms")
    times = sorted(timed(lambda: engine.transfer_sync_write(
        peer, mine, theirs, BLOCK))[0] for _ in range(5000))
    print(f"{BLOCK} B, one at a time: p50 {times[2500] * 1e6:.1f} us, p99 "
          f"{times[4950] * 1e6:.1f} us")
    for i in range(BLOCKS):
        buffer[i * BLOCK] = i % 251
    at = range(0, BLOCKS * BLOCK, BLOCK)
    lists = ([mine + i for i in at], [theirs + i for i in at],
             [BLOCK] * BLOCKS)
    batches(engine, peer, lists, "lists")
    batches(engine, peer, [array.array("Q", x) for x in lists], "arrays")
    print(file=child.stdin, flush=True)
    assert json.loads(child.stdout.readline()) == sum(
        i % 251 for i in range(BLOCKS))
    child.wait()


if __name__ == "__main__":
    target() if len(sys.argv) > 1 else main()
