"""What lies on the host at the paths we applied: the tree as it really is, not as we left it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.index import Applied
from rdev.protocol.digest import SIZE, descriptor_digest
from rdev.protocol.paths import target_fault
from rdev.protocol.snapshot import Entry, Kind, Snapshot
from rdev.protocol.stamp import Stamp

# Stands for something that cannot be in a snapshot, such as a FIFO: equal to no content.
UNKNOWN = bytes(SIZE)


@dataclass(frozen=True, slots=True)
class Held:
    """The tracked part of a folder as it is.

    Attributes:
        snapshot: What lies at the tracked paths.
        drifted: Entries that are not what we applied, by path; None where nothing is any more.
        restamped: Files that are what we applied, and whose stamp had to be taken anew.
    """

    snapshot: Snapshot
    drifted: dict[str, Entry | None]
    restamped: tuple[Applied, ...]


def look(root: Root, index: Iterable[Applied]) -> Held:
    """Compares the folder with the index: one lstat a path, a read only where that is no proof."""
    entries: list[Entry] = []
    drifted: dict[str, Entry | None] = {}
    restamped: list[Applied] = []
    directories = {""}
    root.forget()
    for applied in sorted(index, key=lambda each: each.entry.path):
        entry = applied.entry
        found, stamp = find(root, applied) if entry.parent in directories else (None, None)
        if found is None or not found.same_as(entry):
            drifted[entry.path] = found
        elif stamp is not None:
            restamped.append(Applied(entry, stamp))
        if found is not None:
            entries.append(found)
            if found.kind is Kind.DIRECTORY:
                directories.add(entry.path)
    return Held(Snapshot.of(entries), drifted, tuple(restamped))


def find(root: Root, applied: Applied) -> tuple[Entry | None, Stamp | None]:
    """What lies at the path of an entry, or None, and a stamp if the file was read."""
    entry = applied.entry
    taken = time.time_ns()
    status = root.status(entry.path)
    if status is None:
        return None, None
    if stat.S_ISDIR(status.st_mode):
        return Entry(entry.path, Kind.DIRECTORY), None
    if stat.S_ISLNK(status.st_mode):
        return _link(root, entry.path), None
    if not stat.S_ISREG(status.st_mode):
        return Entry(entry.path, Kind.FILE, digest=UNKNOWN), None
    executable = bool(status.st_mode & stat.S_IXUSR)
    if entry.kind is Kind.FILE and applied.stamp is not None and applied.stamp.proves(status):
        same = executable == entry.executable
        return (entry if same else replace(entry, executable=executable)), None
    found = Entry(
        entry.path,
        Kind.FILE,
        digest=_digest(root, entry.path),
        size=status.st_size,
        executable=executable,
        mtime_ns=status.st_mtime_ns,
    )
    return found, Stamp.of(status, taken)


def _link(root: Root, path: str) -> Entry:
    try:
        target = root.link_target(path)
    except OSError:
        target = ""
    if target_fault(path, target):
        return Entry(path, Kind.FILE, digest=UNKNOWN)
    return Entry(path, Kind.SYMLINK, target=target)


def _digest(root: Root, path: str) -> bytes:
    try:
        with root.reading(path) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return descriptor_digest(descriptor)
    except OSError:
        return UNKNOWN
