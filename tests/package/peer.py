"""The other process of a connector test, run by the Python that has the
wheels: a decode server's side of SGLang or vllm-ascend. It prints one line of
JSON, {session, addresses, sizes}, then answers commands, one line each."""
import ctypes
import importlib
import json
import sys

SIZE = 1 << 16


def memfabric(package, store_url, role):
    module = importlib.import_module(package)
    engine = module.TransferEngine()
    port = engine.get_rpc_port()
    session = f"127.0.0.1:{port}"
    op = module.TransferEngine.TransDataOpType.SDMA
    rc = engine.initialize(store_url, session, role, 0, op)
    assert rc == 0, rc
    assert engine.get_rpc_port() == port
    return engine, session


def memfabric_1_2(package, store_url, role):
    module = importlib.import_module(package)
    engine = module.TransferEngine()
    session = f"127.0.0.1:{engine.get_rpc_port()}"
    rc = engine.initialize(store_url=store_url, unique_id=session, role=role,
                           device_id=0, store_server_role="Prefill")
    assert rc == 0, rc
    return engine, session


def mooncake(package, store_url, role):
    from mooncake.engine import TransferEngine
    engine = TransferEngine()
    rc = engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "")
    assert rc == 0, rc
    return engine, f"127.0.0.1:{engine.get_rpc_port()}"


def main(make, package, store_url, role):
    engine, session = globals()[make](package, store_url, role)
    layers = [ctypes.create_string_buffer(SIZE) for _ in range(4)]
    aux = ctypes.create_string_buffer(64)
    addresses = [ctypes.addressof(b) for b in layers]
    assert engine.batch_register_memory(addresses, [SIZE] * 4) == 0
    assert engine.batch_register_memory([ctypes.addressof(aux)], [64]) == 0
    print(json.dumps({"session": session, "layers": addresses,
                      "aux": ctypes.addressof(aux)}), flush=True)
    for line in sys.stdin:
        command = line.split()
        answer = None
        if command[0] == "read":
            answer = ctypes.string_at(int(command[1]), int(command[2])).hex()
        elif command[0] == "fill":
            ctypes.memset(int(command[1]), int(command[3]), int(command[2]))
        elif command[0] == "notifies":
            while not answer:
                answer = [[n.name, n.msg] for n in engine.get_notifies()]
        print(json.dumps(answer), flush=True)
    engine.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
