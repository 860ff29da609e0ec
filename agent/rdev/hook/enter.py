"""Arms the hook in a process that is under way and that rdev did not start.

The agent has the process run this file, by its path and on a thread of its own: the main thread may
be in the middle of an import, and a Ctrl-C belongs to the program. Nothing is added to `sys.path`
or to the environment, and `breakpoint()` stays what it is there.
"""

from __future__ import annotations

import os
import sys

# Read by the agent, beside the socket.
FAILED = "failed"


def enter(socket: str) -> None:
    """Arms the hook; leaves why it could not in a file beside the socket.

    Args:
        socket: Path of the socket to dial.
    """
    try:
        _enter(socket)
    except BaseException as error:  # noqa: BLE001 - it must not show in the program's output
        with open(os.path.join(os.path.dirname(socket), FAILED), "w", encoding="utf-8") as file:
            file.write(f"{type(error).__name__}: {error}")


def _enter(socket: str) -> None:
    armed = sys.modules.get("rdev.hook.arm")
    if armed is None:
        from importlib.util import module_from_spec, spec_from_file_location

        folder = os.path.dirname(os.path.abspath(__file__))
        spec = spec_from_file_location("rdev.hook.reach", os.path.join(folder, "reach.py"))
        if spec is None or spec.loader is None:
            raise ImportError("the debug hook is gone")
        reach = sys.modules["rdev.hook.reach"] = module_from_spec(spec)
        spec.loader.exec_module(reach)
        reach.start(os.path.dirname(folder), socket)
    else:
        armed.arm(socket)
    found = sys.modules["rdev.hook.arm"].armed_with()
    if found != socket:
        raise RuntimeError(f"it has the hook of another agent, or of its parent: it dials {found}")
