"""SGLang's module names for baton's commands; see baton_shim.py."""
