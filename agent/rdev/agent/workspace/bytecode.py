"""The stale bytecode rule: a fresh source must never run as its old `.pyc`.

CPython trusts a cached `.pyc` while its recorded source size and whole-second mtime match the
source. An edit that keeps the size, made within the second of the one before, is thus run in its
old version. Two measures: the module's cached bytecode goes when the module changes, and a version
of the same size never has a whole-second mtime that an earlier version may have had, because a
running process may write its `.pyc` after ours was deleted.
"""

from __future__ import annotations

import contextlib
import os
import stat

from rdev.agent.workspace.beneath import Root
from rdev.protocol.snapshot import Entry

_SECOND = 1_000_000_000


def fresh_mtime(entry: Entry, replaced: os.stat_result | None) -> int:
    """The mtime in nanoseconds with which `entry` is to be applied.

    It is the entry's own, except over a file of the same size whose whole second is the same or
    later: then one second after that one.
    """
    if replaced is None or not stat.S_ISREG(replaced.st_mode) or replaced.st_size != entry.size:
        return entry.mtime_ns
    if replaced.st_mtime_ns // _SECOND < entry.mtime_ns // _SECOND:
        return entry.mtime_ns
    if not entry.path.endswith(".py"):
        return entry.mtime_ns
    return replaced.st_mtime_ns + _SECOND


def drop_bytecode(root: Root, path: str) -> None:
    """Deletes the cached bytecode of the module at `path`, if it is one."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(".py"):
        return
    cache = f"{folder}/__pycache__" if folder else "__pycache__"
    if root.status(cache) is None:
        return
    module = name[: -len("py")]
    for cached in root.names(cache):
        if cached.startswith(module) and cached.endswith(".pyc"):
            with contextlib.suppress(OSError):
                root.remove(f"{cache}/{cached}")
