"""Private folders for sockets, whose paths may not be long: of shared connections and shortcuts."""

from __future__ import annotations

import os

from rdev.client.known import state_folder
from rdev.wire.home import make_private


def private_folder(*, room: int) -> str:
    """The first folder that only we may enter and whose path is short enough; empty for none.

    Args:
        room: The most bytes that its path may have.
    """
    for folder in _folders():
        if len(os.fsencode(folder)) <= room and _is_private(folder):
            return folder
    return ""


def _folders() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    state = os.path.join(state_folder(), "run")
    return [os.path.join(runtime, "rdev"), state] if runtime else [state]


def _is_private(folder: str) -> bool:
    try:
        make_private(folder)
    except OSError:
        return False
    return True
