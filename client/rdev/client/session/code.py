"""Whether the code on disk is still what this process has imported.

An upgrade, or an edit in a checkout, must show at the next command. Every file of ours that it may
import is looked at, which takes less than a millisecond, and of others' packages the folder that
they are installed in.
"""

from __future__ import annotations

import itertools
import os
import sys

# The parts that commands consist of; an agent is a program of its own.
_PARTS = ("client", "protocol", "v1", "wire")

_Look = tuple[int, int]


class Code:
    """What there was when it was made."""

    def __init__(self) -> None:
        self._seen = {path: _look(path) for path in _paths()}

    @property
    def is_current(self) -> bool:
        """Whether all is as it was."""
        return all(_look(path) == seen for path, seen in self._seen.items())


def _look(path: str) -> _Look | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _paths() -> list[str]:
    import rdev  # a namespace, of several folders

    found = [sys.executable, os.path.join(sys.prefix, "pyvenv.cfg")]
    found += [path for path in sys.path if os.path.isdir(path)]
    for root, part in itertools.product(rdev.__path__, _PARTS):
        # Not the times of folders: the first import of all makes one for bytecode in each.
        for folder, _, names in os.walk(os.path.join(root, part)):
            found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return found
