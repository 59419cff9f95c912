"""Hands SGLang's command lines over to the baton program.

With PYTHONPATH pointing at this folder,

    python3 -m sglang.launch_server ARGS
    python3 -m sglang_router.launch_router ARGS

become `baton launch_server ARGS` and `baton launch_router ARGS`. The program
is $BATON_BIN, or build/release/baton beside this folder, or baton on PATH.
"""
import os
import shutil
import sys


def find():
    named = os.environ.get("BATON_BIN")
    if named:
        return named
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    built = os.path.join(root, "build", "release", "baton")
    return built if os.access(built, os.X_OK) else shutil.which("baton")


def hand_over(command, *arguments):
    """Becomes the program: same process, same arguments. Does not return."""
    program = find()
    if not program:
        sys.exit(
            "baton: program not found: run `make` beside python/, put baton "
            "on PATH, or set BATON_BIN"
        )
    try:
        os.execv(program, [program, command, *arguments, *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"baton: {program}: {error.strerror}")
