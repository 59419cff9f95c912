"""MemFabric's Python interface; mf_adapter and memfabric_hybrid are its names.

What differs on purpose: nothing sleeps, unregister_memory unregisters, TLS is
TLS, and host memory is moved without an NPU.
"""
import ctypes
import enum
import os
import random
import signal
import socket

from baton_xfer import _lib
from baton_xfer.core import Engine, TransferError, serve_store
from baton_xfer.dropin import MemfabricCalls, MooncakeCalls
from baton_xfer.dropin import TransferOpcode as _TransferOpcode


class TransDataOpType(enum.IntEnum):
    SDMA = 1
    HOST_RDMA = 2
    HOST_TCP = 4
    DEVICE_RDMA = 8
    HOST_URMA = 16


TransferOpcode = _TransferOpcode

# As dropin/smem_trans_def.h has them.
_CODES = {
    _lib.INVALID: -2000, _lib.NOMEM: -2001, _lib.TIMEOUT: -2004,
    _lib.EXISTS: -2006, _lib.AGAIN: -2009, _lib.NOT_FOUND: -2100,
    _lib.RANGE: -2101, _lib.PEER: -2102, _lib.STALE: -2102,
    _lib.CANCELED: -2103, _lib.AUTH: -2104, _lib.UNSUPPORTED: -2105,
}


def create_config_store(store_url):
    """Serves the config store in this process. 0, or a negative number."""
    try:
        serve_store(store_url)
        return 0
    except TransferError as e:
        _lib.log(2, "store", str(e))
        return _CODES.get(e.code, -1)


def set_log_level(level):
    """0 debug, 1 info, 2 warn, 3 error."""
    return _CODES[_lib.INVALID] if _lib.lib.xfer_log_level(level) else 0


def _store_tls(call, *arguments):
    why = _lib.Why()
    rc = call(*arguments, ctypes.byref(why))
    if rc:
        _lib.log(3, "store", _lib.text_of(why))
    return _CODES.get(rc, -1) if rc else 0


def set_conf_store_tls(enable, tls_info):
    """TLS 1.3 for stores that are served or joined from now on. tls_info is
    "tlsCert: FILE; tlsPk: FILE; tlsCaPath: FOLDER; tlsCaFile: NAME, NAME", all
    PEM. 0, or a negative number; then stores fail, and are never plain text."""
    info = tls_info.encode() if enable else None
    return _store_tls(_lib.lib.xfer_binding_store_tls, info, len(info or b""))


def set_conf_store_tls_key(tls_pk, tls_pk_pw="", py_decrypt_func=None):
    """The PEM text of the key, in place of tlsPk, and its password, which the
    function, if there is one, decrypts during the call."""
    if py_decrypt_func and tls_pk_pw:
        tls_pk_pw = py_decrypt_func(tls_pk_pw)
    key, password = tls_pk.encode(), tls_pk_pw.encode()
    return _store_tls(_lib.lib.xfer_binding_store_tls_key, key, len(key),
                      password, len(password))


def launch_store():
    """The console script launch_ascend_mf_store."""
    url = os.environ.get("ASCEND_MF_STORE_URL")
    if not url:
        raise SystemExit("launch_ascend_mf_store: set ASCEND_MF_STORE_URL")
    for name in ("ASCEND_MF_LOG_LEVEL", "SHMEM_LOG_LEVEL"):
        if os.environ.get(name, "").isdigit():
            set_log_level(int(os.environ[name]))
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    if create_config_store(url):
        raise SystemExit(f"launch_ascend_mf_store: cannot serve {url}")
    signal.sigwait(ends)


class TransferEngine(MemfabricCalls, MooncakeCalls):
    TransferOpcode = _TransferOpcode
    TransDataOpType = TransDataOpType

    def __init__(self):
        super().__init__()
        self._reserved = None

    def _code(self, error):
        return _CODES.get(error, -1)

    def get_rpc_port(self):
        """A port that is kept for initialize, or the engine's; 0: none."""
        if self._engine is not None:
            return self._engine.port
        if self._reserved is None:
            self._reserved = _reserve()
        return self._reserved.getsockname()[1] if self._reserved else 0

    def initialize(self, store_url, session_id=None, role=None, device_id=0,
                   data_op_type=None, *, unique_id=None,
                   store_server_role=None):
        """The fifth argument is an operation type (1.0) or the role whose
        engine serves the store (1.2, where it is "Prefill" if not given)."""
        session_id = session_id if session_id is not None else unique_id
        if isinstance(data_op_type, str):
            store_server_role = data_op_type
        elif data_op_type is None and store_server_role is None:
            store_server_role = "Prefill"
        if role not in ("Prefill", "Decode") or session_id is None:
            _lib.log(2, __name__, f"role {role!r} is not Prefill or Decode, or "
                     "there is no session id")
            return -1
        if self._engine is not None:
            _lib.log(2, __name__, "initialized before")
            return -2005
        return self._try(self._open, store_url, session_id,
                         role == store_server_role)

    def _open(self, store_url, session_id, serve):
        engine = Engine(session_id, _lib.MEMFABRIC)
        try:
            if store_url:
                if serve:
                    create_config_store(store_url)
                engine.join(store_url, session_id)
        except BaseException:
            engine.close()
            raise
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self._engine = engine

    def register_memory(self, buffer_addr, capacity):
        return self._try(lambda: self._need().register([buffer_addr],
                                                       [capacity]))

    def unregister_memory(self, buffer_addr):
        return self._try(lambda: self._need().unregister([buffer_addr]))

    def batch_register_memory(self, buffer_addrs, capacities):
        if len(buffer_addrs) != len(capacities):
            return -1
        return self._try(lambda: self._need().register(buffer_addrs,
                                                       capacities))

    def transfer_sync_write(self, dest_session, buffer, peer_buffer, length,
                            flags=0):
        return self._move(dest_session, _lib.WRITE, [buffer], [peer_buffer],
                          [length])

    def transfer_sync_read(self, dest_session, buffer, peer_buffer, length,
                           flags=0):
        return self._move(dest_session, _lib.READ, [buffer], [peer_buffer],
                          [length])

    def batch_transfer_sync_write(self, dest_session, buffers, peer_buffers,
                                  lengths, flags=0):
        return self._batch(dest_session, _lib.WRITE, buffers, peer_buffers,
                           lengths)

    def batch_transfer_sync_read(self, dest_session, buffers, peer_buffers,
                                 lengths, flags=0):
        return self._batch(dest_session, _lib.READ, buffers, peer_buffers,
                           lengths)

    def _batch(self, peer, kind, local, remote, sizes):
        if not len(local) == len(remote) == len(sizes):
            return -1
        return self._move(peer, kind, local, remote, sizes)


def _reserve():
    """A socket bound to a free port of 15000 to 25000, in which no one else
    can bind it but an engine of this machine that listens there."""
    for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        for _ in range(1000):
            try:
                s = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                break
            try:
                s.bind((host, random.randint(15000, 25000)))
                # From here on a listener of ours may share it.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                return s
            except OSError:
                s.close()
    return None


__all__ = ["TransDataOpType", "TransferEngine", "TransferOpcode",
           "create_config_store", "set_conf_store_tls",
           "set_conf_store_tls_key", "set_log_level"]
