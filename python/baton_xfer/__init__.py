"""Baton's transfer engine: one-sided transfers between the memories of
processes, over shared memory on one host and TCP between hosts.

baton_xfer.core.Engine is the engine; the packages mf_adapter, memfabric_hybrid
and mooncake put the interfaces of MemFabric and Mooncake over it.
"""
from baton_xfer._lib import version
from baton_xfer.core import Engine, TransferError

__version__ = version()
__all__ = ["Engine", "TransferError", "__version__"]
