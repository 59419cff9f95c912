"""MemFabric's transfer engine by its new name, on Baton's engine."""
from baton_xfer.memfabric import *  # noqa: F401,F403
from baton_xfer.memfabric import __all__  # noqa: F401
