"""What jobs left in a workspace's folder: files that no laptop has, and files they changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from rdev.agent.workspace.apply import CONFLICTS
from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.drift import look
from rdev.agent.workspace.index import Index

# Python makes them again; nobody misses one.
_MADE_AGAIN = frozenset({"__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache"})

# Our own folder in each workspace.
_OWN = ".rdev"


@dataclass(frozen=True, slots=True)
class Output:
    """A file on the host that no laptop has as it is: its path in the workspace, and its size."""

    path: str
    size: int


def outputs_of(folder: str) -> Iterator[Output]:
    """The outputs in a workspace's folder, in the order of their paths.

    Raises:
        OSError: The folder cannot be read.
    """
    with Root(folder) as root:
        index = Index(root)
        tracked = {applied.entry.path for applied in index}
        changed = {path for path, entry in look(root, index).drifted.items() if entry is not None}
    for path, size in _files(folder):
        if path not in tracked or path in changed:
            yield Output(path, size)
    yield from old_versions(folder)


def old_versions(folder: str) -> Iterator[Output]:
    """What was on the host before the laptop's version took its place, and was kept."""
    for path, size in _below(os.path.join(folder, CONFLICTS), folder):
        yield Output(path, size)


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Regular files and, as what it cannot be seen not to hold, each folder that cannot be read."""
    return _below(folder, folder)


def _below(top: str, folder: str) -> Iterator[tuple[str, int]]:
    barred: list[str] = []
    for place, names, files in os.walk(top, onerror=lambda error: barred.append(error.filename)):
        names[:] = sorted(name for name in names if name not in _MADE_AGAIN)
        if place == folder and _OWN in names:
            names.remove(_OWN)
        for name in sorted(files):
            path = os.path.join(place, name)
            with contextlib.suppress(FileNotFoundError):  # whoever writes there still does
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):  # a link is none, and sync makes links too
                    yield os.path.relpath(path, folder), status.st_size
    yield from ((os.path.relpath(path, folder), 0) for path in barred if os.path.lexists(path))
