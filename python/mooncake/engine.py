"""Mooncake's Python interface to its transfer engine, on Baton's engine."""
from baton_xfer import _lib
from baton_xfer.dropin import (
    MemfabricCalls, MooncakeCalls, TransferNotify, TransferOpcode,
)


def __getattr__(name):
    """SUPPORT_CUDA and the like: what the build has beside the host."""
    if name.startswith("SUPPORT_"):
        return False
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TransferEngine(MooncakeCalls, MemfabricCalls):
    TransferOpcode = TransferOpcode

    def _code(self, error):
        return -1

    def initialize(self, local_hostname, metadata_server, protocol,
                   device_name):
        return self.initialize_ext(local_hostname, metadata_server, protocol,
                                   device_name, "")

    def get_rpc_port(self):
        return self._engine.port if self._engine else 0

    def register_memory(self, buffer_addr, capacity, location="*"):
        return self._try(lambda: self._need().register(
            [buffer_addr], [capacity], location))

    def unregister_memory(self, buffer_addr):
        return self._try(lambda: self._need().unregister([buffer_addr]))

    def batch_register_memory(self, buffer_addresses, capacities,
                              location="*"):
        return self._try(lambda: self._need().register(
            buffer_addresses, capacities, location))

    def transfer_sync_write(self, target_hostname, buffer, peer_buffer_address,
                            length, transport_hint=""):
        return self._move(target_hostname, _lib.WRITE, [buffer],
                          [peer_buffer_address], [length])

    def transfer_sync_read(self, target_hostname, buffer, peer_buffer_address,
                           length, transport_hint=""):
        return self._move(target_hostname, _lib.READ, [buffer],
                          [peer_buffer_address], [length])

    def batch_transfer_sync_write(self, target_hostname, buffers,
                                  peer_buffer_addresses, lengths,
                                  transport_hint=""):
        return self._move(target_hostname, _lib.WRITE, buffers,
                          peer_buffer_addresses, lengths)

    def batch_transfer_sync_read(self, target_hostname, buffers,
                                 peer_buffer_addresses, lengths,
                                 transport_hint=""):
        return self._move(target_hostname, _lib.READ, buffers,
                          peer_buffer_addresses, lengths)
