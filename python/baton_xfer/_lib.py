"""libbaton-xfer by ctypes: the functions of xfer/binding.h. Each call gives the
GIL up. The library is $BATON_XFER_LIB, or the one of this package, or the
system's."""
import array
import ctypes
import os
from ctypes import (
    CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_int, c_size_t,
    c_uint, c_uint64, c_void_p,
)

INVALID, NOMEM, FORMAT, AGAIN, PEER, IO, TIMEOUT, CANCELED, UNSUPPORTED, \
    NOT_FOUND, RANGE, AUTH, STALE, EXISTS = range(-1, -15, -1)
WRITE, READ = 0, 1
BATON, MEMFABRIC, MOONCAKE = 0, 1, 2
NOTE_MAX = 4096


class Why(Structure):
    _fields_ = [("code", c_int), ("text", c_char * 512)]


class Done(Structure):
    _fields_ = [("tag", c_uint64), ("rc", c_int), ("bytes", c_uint64),
                ("text", c_char * 200)]


class Note(Structure):
    _fields_ = [("name", c_char_p), ("msg", c_char_p)]


SINK = CFUNCTYPE(None, c_int, c_char_p)


def _load():
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib",
                          "libbaton-xfer.so.0")
    named = os.environ.get("BATON_XFER_LIB")
    return ctypes.CDLL(named or (beside if os.path.exists(beside)
                                 else "libbaton-xfer.so.0"))


lib = _load()

_LISTS = [c_void_p, c_char_p, c_int, c_size_t, c_void_p, c_void_p, c_void_p,
          POINTER(Note)]
_CALLS = {
    "xfer_binding_open": (c_int, [POINTER(c_void_p), c_int, c_char_p,
                                  POINTER(Why)]),
    "xfer_binding_close": (None, [c_void_p]),
    "xfer_binding_name": (None, [c_void_p, c_char_p, c_size_t]),
    "xfer_binding_port": (c_int, [c_void_p]),
    "xfer_binding_join": (c_int, [c_void_p, c_char_p, c_char_p, c_int,
                                  POINTER(Why)]),
    "xfer_binding_register": (c_int, [c_void_p, c_void_p, c_void_p, c_size_t,
                                      c_char_p, c_uint, POINTER(Why)]),
    "xfer_binding_unregister": (c_int, [c_void_p, c_void_p, c_size_t,
                                        POINTER(Why)]),
    "xfer_binding_alloc": (c_void_p, [c_void_p, c_size_t, POINTER(Why)]),
    "xfer_binding_free": (c_int, [c_void_p, c_void_p, POINTER(Why)]),
    "xfer_binding_transfer": (c_int, _LISTS + [c_int, POINTER(Why)]),
    "xfer_binding_submit": (c_int, _LISTS + [POINTER(c_uint64), POINTER(Why)]),
    "xfer_binding_finish": (c_int, [c_void_p, c_uint64, c_int, POINTER(Done)]),
    "xfer_binding_cancel": (None, [c_void_p, c_uint64]),
    "xfer_binding_note_take": (c_int, [c_void_p, c_char_p, POINTER(c_size_t)]),
    "xfer_binding_probe": (c_int, [c_void_p, c_char_p, c_int, POINTER(Why)]),
    "xfer_binding_first": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_uint64),
                                   POINTER(Why)]),
    "xfer_binding_explain": (c_int, [c_void_p, c_char_p, c_char_p, c_size_t,
                                     POINTER(Why)]),
    "xfer_binding_serve_store": (c_int, [c_char_p, POINTER(Why)]),
    "xfer_binding_store_tls": (c_int, [c_char_p, c_size_t, POINTER(Why)]),
    "xfer_binding_store_tls_key": (c_int, [c_char_p, c_size_t, c_char_p,
                                           c_size_t, POINTER(Why)]),
    "xfer_log_level": (c_int, [c_int]),
    "xfer_log_sink": (None, [SINK]),
    "xfer_log": (None, [c_int, c_char_p, c_char_p]),
    "xfer_version": (c_char_p, []),
}
for _name, (_result, _arguments) in _CALLS.items():
    _function = getattr(lib, _name)
    _function.restype, _function.argtypes = _result, _arguments


def version():
    return lib.xfer_version().decode()


def log(level, subject, text):
    """level: 0 debug, 1 info, 2 warn, 3 error."""
    lib.xfer_log(level, subject.encode(), text.encode())


def text_of(why):
    return why.text.decode(errors="replace")


def numbers(values):
    """Any list of ints, or a buffer of 64-bit ones, as an array of u64."""
    if isinstance(values, array.array) and values.typecode == "Q":
        return values
    out = array.array("Q")
    try:
        view = memoryview(values)
    except TypeError:
        out.extend(values)
        return out
    if view.itemsize != 8 or view.ndim != 1 or view.format not in (
            "q", "Q", "l", "L", "n", "N"):
        out.extend(view.tolist())
        return out
    out.frombytes(view.tobytes())
    return out


def address(numbers_):
    return numbers_.buffer_info()[0]
