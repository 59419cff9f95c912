"""Mooncake's transfer engine by its name, on Baton's engine. There is
mooncake.engine, and no mooncake.store."""
