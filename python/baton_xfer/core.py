"""The engine, with Python's types: what the packages over it share."""
import ctypes
from ctypes import byref, c_size_t, c_uint64, c_void_p

from baton_xfer import _lib
from baton_xfer._lib import Done, Note, Why, lib, text_of


class TransferError(Exception):
    """code: a number of base/err.h (baton_xfer._lib has their names)."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def _check(rc, why):
    if rc < 0:
        raise TransferError(rc, text_of(why) or f"error {rc}")
    return rc


def _note(note):
    """None, or (name, msg) as the library takes it."""
    if note is None:
        return None
    name, msg = note
    return byref(Note(name.encode(), msg.encode()))


class Engine:
    """An engine that others reach as its name, "host:port". Lists of addresses
    and sizes are lists of ints, or arrays of 64-bit ints (array, numpy), which
    spares converting them one by one. Any thread; calls of a closed engine
    raise TransferError."""

    def __init__(self, name="127.0.0.1", world=_lib.BATON):
        self._handle = c_void_p()
        why, handle = Why(), c_void_p()
        _check(lib.xfer_binding_open(byref(handle), world, name.encode(),
                                     byref(why)), why)
        self._handle = handle

    def close(self):
        handle, self._handle = self._handle, c_void_p()
        lib.xfer_binding_close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    @property
    def handle(self):
        """The struct xfer_binding, as an int."""
        return self._handle.value

    @property
    def name(self):
        out = ctypes.create_string_buffer(300)
        lib.xfer_binding_name(self._handle, out, len(out))
        return out.value.decode()

    @property
    def port(self):
        return lib.xfer_binding_port(self._handle)

    def join(self, url, name, wait_ms=200):
        """Announces itself as name in the config store, which may come later:
        False when it is not there yet."""
        why = Why()
        rc = lib.xfer_binding_join(self._handle, url.encode(), name.encode(),
                                   wait_ms, byref(why))
        if rc == _lib.PEER:
            _lib.log(2, "store", text_of(why) +
                     "; going on, peers are dialled by their addresses")
            return False
        _check(rc, why)
        return True

    # ---- memory ----

    def register(self, addresses, sizes, location=None):
        addresses, sizes = _lib.numbers(addresses), _lib.numbers(sizes)
        if len(addresses) != len(sizes):
            raise TransferError(_lib.INVALID, "lists of different lengths")
        why = Why()
        _check(lib.xfer_binding_register(
            self._handle, _lib.address(addresses), _lib.address(sizes),
            len(sizes), location.encode() if location else None, 0,
            byref(why)), why)

    def unregister(self, addresses):
        addresses, why = _lib.numbers(addresses), Why()
        _check(lib.xfer_binding_unregister(
            self._handle, _lib.address(addresses), len(addresses),
            byref(why)), why)

    def alloc(self, size):
        why = Why()
        at = lib.xfer_binding_alloc(self._handle, size, byref(why))
        if not at:
            raise TransferError(why.code, text_of(why))
        return at

    def free(self, address):
        why = Why()
        _check(lib.xfer_binding_free(self._handle, address, byref(why)), why)

    # ---- transfers ----

    def _lists(self, local, remote, sizes):
        lists = [_lib.numbers(x) for x in (local, remote, sizes)]
        if len({len(x) for x in lists}) != 1:
            raise TransferError(_lib.INVALID, "lists of different lengths")
        return lists

    def transfer(self, peer, kind, local, remote, sizes, note=None,
                 timeout_ms=-1):
        """Waits until the bytes are in place."""
        lists, why = self._lists(local, remote, sizes), Why()
        _check(lib.xfer_binding_transfer(
            self._handle, peer.encode(), kind, len(lists[0]),
            *(_lib.address(x) for x in lists), _note(note), timeout_ms,
            byref(why)), why)

    def submit(self, peer, kind, local, remote, sizes, note=None):
        """The number of an unfinished batch, for finish."""
        lists, why, number = self._lists(local, remote, sizes), Why(), c_uint64()
        _check(lib.xfer_binding_submit(
            self._handle, peer.encode(), kind, len(lists[0]),
            *(_lib.address(x) for x in lists), _note(note), byref(number),
            byref(why)), why)
        return number.value

    def finish(self, number, timeout_ms=0):
        """True when the batch is over and well, False while it runs."""
        done = Done()
        rc = lib.xfer_binding_finish(self._handle, number, timeout_ms,
                                     byref(done))
        if rc == _lib.TIMEOUT:
            return False
        if rc:
            raise TransferError(rc, f"no unfinished batch {number}")
        if done.rc:
            raise TransferError(done.rc, text_of(done))
        return True

    def cancel(self, number):
        lib.xfer_binding_cancel(self._handle, number)

    def notes(self):
        """The (name, msg) pairs that came since."""
        out, n, notes = ctypes.create_string_buffer(_lib.NOTE_MAX), c_size_t(), []
        while lib.xfer_binding_note_take(self._handle, out, byref(n)) > 0:
            name = out.raw[:n.value].decode(errors="replace")
            msg = ctypes.string_at(ctypes.addressof(out) + n.value + 1)
            notes.append((name, msg.decode(errors="replace")))
        return notes

    def probe(self, peer, timeout_ms=5000):
        why = Why()
        _check(lib.xfer_binding_probe(self._handle, peer.encode(), timeout_ms,
                                      byref(why)), why)

    def first(self, peer, timeout_ms=5000):
        """The address of what the peer registered first."""
        why, at = Why(), c_uint64()
        _check(lib.xfer_binding_first(self._handle, peer.encode(), timeout_ms,
                                      byref(at), byref(why)), why)
        return at.value

    def explain(self, peer):
        """Which way leads to the peer, and why."""
        out, why = ctypes.create_string_buffer(300), Why()
        _check(lib.xfer_binding_explain(self._handle, peer.encode(), out,
                                        len(out), byref(why)), why)
        return out.value.decode()


def serve_store(url):
    """A config store in this process; also when one is there already."""
    why = Why()
    _check(lib.xfer_binding_serve_store(url.encode(), byref(why)), why)
