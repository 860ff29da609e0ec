"""Whether the code on disk is still what this process has imported.

An upgrade, or an edit in a checkout, must show at the next command. What an installer has put there
shows in the times of folders; of a checkout every file is looked at, which takes a millisecond.
"""

from __future__ import annotations

import os
import sys

# Where installers put packages, by the names that Python and Debian have for it.
_INSTALLED = frozenset(("site-packages", "dist-packages"))

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

    installed = {path for path in sys.path if os.path.isdir(path)}
    found = [sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"), *installed]
    for root in rdev.__path__:
        is_installed = os.path.basename(os.path.dirname(root)) in _INSTALLED
        for folder, _, names in os.walk(root):
            # A new file shows in the time of its folder; a cache of bytecode is no code of ours.
            if os.path.basename(folder) == "__pycache__":
                continue
            found.append(folder)
            if not is_installed:
                found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return found
