"""The calls that MemFabric's and Mooncake's TransferEngine do not share: each
package's class has both sets. A failed call returns what the original returns,
and the log says why."""
import ctypes
import enum
import json

from baton_xfer import _lib
from baton_xfer.core import Engine, TransferError


class TransferOpcode(enum.IntEnum):
    Read = 0
    Write = 1


class TransferNotify:
    def __init__(self, name="", msg=""):
        self.name, self.msg = name, msg

    def __eq__(self, other):
        return (isinstance(other, TransferNotify) and
                (self.name, self.msg) == (other.name, other.msg))

    def __repr__(self):
        return f"TransferNotify(name={self.name!r}, msg={self.msg!r})"


def _kind(opcode):
    return _lib.READ if int(opcode) == TransferOpcode.Read else _lib.WRITE


def _pair(notify):
    return None if notify is None else (notify.name, notify.msg)


def _refuse(text):
    raise TransferError(_lib.INVALID, text)


_explained = set()


def _explain_once(text):
    if text not in _explained:
        _explained.add(text)
        _lib.log(1, "mooncake", text)


class Base:
    """Holds the engine once there is one."""

    _LIMIT_MS = 30000

    def __init__(self):
        self._engine = None

    def _code(self, error):
        """The number that stands for it in this interface."""
        raise NotImplementedError

    def _need(self):
        if self._engine is None:
            raise TransferError(_lib.INVALID, "initialize comes first")
        return self._engine

    def _try(self, call, *args):
        """0, or the code of what went wrong, which is logged."""
        try:
            call(*args)
            return 0
        except (TransferError, TypeError, ValueError, OverflowError) as e:
            _lib.log(2, type(self).__module__, str(e))
            code = e.code if isinstance(e, TransferError) else _lib.INVALID
            return self._code(code)

    def _move(self, peer, kind, local, remote, sizes, **kw):
        return self._try(lambda: self._need().transfer(
            peer, kind, local, remote, sizes, **kw))

    def _close(self):
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        return 0

    def __del__(self):
        self._close()


class MooncakeCalls(Base):
    """What only Mooncake's class has."""

    def initialize_ext(self, local_hostname, metadata_server, protocol,
                       device_name, metadata_type):
        if self._engine is not None:
            return self._try(lambda: _refuse("initialized before"))
        if protocol not in ("", "tcp"):
            _explain_once(f"protocol {protocol!r} is a hint: the engine takes "
                          "the best way to each peer, and RDMA only where "
                          "BATON_TRANSFER_VIA has it")
        return self._try(self._open_mooncake, local_hostname, metadata_server)

    def _open_mooncake(self, local_hostname, metadata_server):
        try:
            engine = Engine(local_hostname, _lib.MOONCAKE)
        except TransferError as e:
            host = local_hostname.split(":npu_")[0].rsplit(":", 1)[0]
            if e.code != _lib.EXISTS:
                raise
            engine = Engine(host, _lib.MOONCAKE)  # get_rpc_port tells which
        if metadata_server and metadata_server.startswith("tcp://"):
            try:
                engine.join(metadata_server, local_hostname)
            except TransferError:
                engine.close()
                raise
        elif metadata_server not in (None, "", "P2PHANDSHAKE"):
            _explain_once(f"{metadata_server} is not asked: peers are dialled "
                          "by their names")
        self._engine = engine

    def batch_unregister_memory(self, buffer_addresses):
        return self._try(lambda: self._need().unregister(buffer_addresses))

    def send_probe(self, peer_server_name):
        return self._try(lambda: self._need().probe(peer_server_name))

    warmup_efa_segment = send_probe

    def get_first_buffer_address(self, segment_name):
        try:
            return self._need().first(segment_name)
        except TransferError as e:
            _lib.log(2, type(self).__module__, str(e))
            return 0

    def get_engine_ptr(self):
        return self._engine.handle if self._engine else 0

    def get_engine(self):
        """A capsule with the struct xfer_binding of xfer/binding.h."""
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(self._need().handle, None, None)

    def get_local_topology(self, device_name=None):
        return json.dumps({"cpu:0": [[], []]})

    # ---- one or many, blocking ----

    def transfer_sync(self, target_hostname, buffer, peer_buffer_address,
                      length, opcode, notify=None, transport_hint=""):
        return self.batch_transfer_sync(
            target_hostname, [buffer], [peer_buffer_address], [length], opcode,
            notify, transport_hint)

    def batch_transfer_sync(self, target_hostname, buffers,
                            peer_buffer_addresses, lengths, opcode,
                            notify=None, transport_hint=""):
        return self._move(target_hostname, _kind(opcode), buffers,
                          peer_buffer_addresses, lengths, note=_pair(notify))

    # ---- not blocking ----

    def _submit(self, peer, kind, local, remote, sizes):
        try:
            return self._need().submit(peer, kind, local, remote, sizes)
        except (TransferError, TypeError, ValueError, OverflowError) as e:
            _lib.log(2, type(self).__module__, str(e))
            return 0

    def batch_transfer_async(self, target_hostname, buffers,
                             peer_buffer_addresses, lengths, opcode,
                             transport_hint=""):
        return self._submit(target_hostname, _kind(opcode), buffers,
                            peer_buffer_addresses, lengths)

    def batch_transfer_async_write(self, target_hostname, buffers,
                                   peer_buffer_addresses, lengths,
                                   transport_hint=""):
        return self._submit(target_hostname, _lib.WRITE, buffers,
                            peer_buffer_addresses, lengths)

    def batch_transfer_async_read(self, target_hostname, buffers,
                                  peer_buffer_addresses, lengths,
                                  transport_hint=""):
        return self._submit(target_hostname, _lib.READ, buffers,
                            peer_buffer_addresses, lengths)

    def transfer_submit_write(self, target_hostname, buffer,
                              peer_buffer_address, length, transport_hint=""):
        return self._submit(target_hostname, _lib.WRITE, [buffer],
                            [peer_buffer_address], [length])

    def transfer_check_status(self, batch_id):
        """1 done, 0 running, -1 failed, -2 timed out."""
        try:
            return int(self._need().finish(batch_id))
        except TransferError as e:
            _lib.log(2, type(self).__module__, str(e))
            return -2 if e.code == _lib.TIMEOUT else -1

    def get_batch_transfer_status(self, batch_ids):
        """Waits for all; 0, or -1 when one failed."""
        result = 0
        for number in batch_ids:
            try:
                if not self._need().finish(number, self._LIMIT_MS):
                    self._engine.cancel(number)
                    self._engine.finish(number, -1)
            except TransferError as e:
                _lib.log(2, type(self).__module__, str(e))
                result = -1
        return result

    # ---- on a CUDA stream: host memory has none ----

    def _on_cuda(self, target, kind, local, remote, sizes, stream_ptr):
        if stream_ptr:
            raise NotImplementedError(
                "no CUDA streams in this build; call it without stream_ptr, "
                "or the call without _on_cuda")
        if self._move(target, kind, local, remote, sizes):
            raise RuntimeError(f"transfer with {target} failed; see the log")

    def transfer_write_on_cuda(self, target_hostname, buffer,
                               peer_buffer_address, length, stream_ptr=0,
                               transport_hint=""):
        self._on_cuda(target_hostname, _lib.WRITE, [buffer],
                      [peer_buffer_address], [length], stream_ptr)

    def transfer_read_on_cuda(self, target_hostname, buffer,
                              peer_buffer_address, length, stream_ptr=0,
                              transport_hint=""):
        self._on_cuda(target_hostname, _lib.READ, [buffer],
                      [peer_buffer_address], [length], stream_ptr)

    def batch_transfer_write_on_cuda(self, target_hostname, buffers,
                                     peer_buffer_addresses, lengths,
                                     stream_ptr=0, transport_hint=""):
        self._on_cuda(target_hostname, _lib.WRITE, buffers,
                      peer_buffer_addresses, lengths, stream_ptr)

    def batch_transfer_read_on_cuda(self, target_hostname, buffers,
                                    peer_buffer_addresses, lengths,
                                    stream_ptr=0, transport_hint=""):
        self._on_cuda(target_hostname, _lib.READ, buffers,
                      peer_buffer_addresses, lengths, stream_ptr)

    # ---- buffers and messages ----

    def allocate_managed_buffer(self, length):
        try:
            return self._need().alloc(length)
        except TransferError as e:
            _lib.log(2, type(self).__module__, str(e))
            return 0

    def free_managed_buffer(self, addr, length):
        return self._try(lambda: self._need().free(addr))

    def write_bytes_to_buffer(self, dest, bytes, length):
        ctypes.memmove(dest, bytes, min(length, len(bytes)))
        return 0

    def read_bytes_from_buffer(self, src, length):
        return ctypes.string_at(src, length)

    def get_notifies(self):
        if self._engine is None:
            return []
        return [TransferNotify(*pair) for pair in self._engine.notes()]


class MemfabricCalls(Base):
    """What only MemFabric's class has."""

    def _on_stream(self, dest_session, kind, local, remote, sizes, stream):
        if stream:
            _lib.log(2, type(self).__module__, "no ACL streams in this build; "
                     "use the calls without one")
            return self._code(_lib.UNSUPPORTED)
        return self._move(dest_session, kind, local, remote, sizes)

    def transfer_async_write_submit(self, dest_session, buffer, peer_buffer,
                                    length, stream, flags=0):
        return self._on_stream(dest_session, _lib.WRITE, [buffer],
                               [peer_buffer], [length], stream)

    def transfer_async_read_submit(self, dest_session, buffer, peer_buffer,
                                   length, stream, flags=0):
        return self._on_stream(dest_session, _lib.READ, [buffer],
                               [peer_buffer], [length], stream)

    def batch_transfer_async_write_submit(self, dest_session, buffers,
                                          peer_buffers, lengths, stream,
                                          flags=0):
        return self._on_stream(dest_session, _lib.WRITE, buffers, peer_buffers,
                               lengths, stream)

    def batch_transfer_async_read_submit(self, dest_session, buffers,
                                         peer_buffers, lengths, stream,
                                         flags=0):
        return self._on_stream(dest_session, _lib.READ, buffers, peer_buffers,
                               lengths, stream)

    def destroy(self):
        return self._close()

    def unInitialize(self):
        return self._close()
