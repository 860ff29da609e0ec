"""Pins: the snapshots that jobs started from, kept as long as the jobs.

    <own>/snapshots/<hex>.json     the entries of a pinned snapshot
    <own>/pins/<job id>            one line: the hex digest of its snapshot

`<own>` is the machine's folder, `<home>/hosts/<machine-id>`: each agent writes and removes only
what is there, so none has to know what another one is about to do, and whoever tidies the store
that they share reads them all.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator

from rdev.agent.workspace.index import entry_row, row_entry
from rdev.protocol.errors import SnapshotNotFound
from rdev.protocol.ids import JOB_ID, require
from rdev.protocol.snapshot import Entry, Snapshot
from rdev.wire.blocks import read_file, write_file

# Snapshots that can still be pinned after newer ones were committed. They share what they have in
# common, so that one costs little more than the directories that changed.
RECENT = 64

_HEX = re.compile(r"[0-9a-f]{64}")


class Pins:
    """The pinned snapshots of one home; safe from any thread."""

    def __init__(self, own: str, *, others: str | None = None) -> None:
        """Opens the pins in a folder, which are made if need be.

        Args:
            own: The machine's folder.
            others: Holds a folder for each machine of the home; None if there are no others.
        """
        self._others = others
        self._snapshots = os.path.join(own, "snapshots")
        self._pins = os.path.join(own, "pins")
        for path in (self._snapshots, self._pins):
            os.makedirs(path, mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, Snapshot] = OrderedDict()

    def remember(self, snapshot: Snapshot) -> None:
        """Notes a snapshot that was committed, so that it can be pinned."""
        key = snapshot.digest.hex()
        with self._lock:
            self._recent[key] = snapshot
            self._recent.move_to_end(key)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps a snapshot until `unpin` of that job.

        Args:
            snapshot: Hex digest.
            job_id: The job that starts from it.

        Raises:
            SnapshotNotFound: No workspace was lately in that state.
            InvalidRequest: The job's id may not be part of a path.
        """
        require(JOB_ID, job_id, "job id")
        require(_HEX, snapshot, "snapshot")
        manifest = self._manifest(snapshot)
        with self._lock:
            known = self._recent.get(snapshot)
            if known is None and not os.path.exists(manifest):
                raise SnapshotNotFound(f"keep the snapshot {snapshot[:12]}", "it is not known here")
            if known is not None and not os.path.exists(manifest):
                write_file(manifest, {"entries": [entry_row(entry) for entry in known]})
            _replace(os.path.join(self._pins, job_id), snapshot + "\n")

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot; nothing happens if it has none."""
        require(JOB_ID, job_id, "job id")
        path = os.path.join(self._pins, job_id)
        with self._lock, contextlib.suppress(FileNotFoundError):
            with open(path) as file:
                snapshot = file.read().strip()
            os.unlink(path)
            if snapshot not in self._pinned():
                os.unlink(self._manifest(snapshot))

    def entries(self, snapshot: str) -> tuple[Entry, ...]:
        """Entries of a pinned snapshot.

        Raises:
            SnapshotNotFound: It is not pinned.
            FilesError: What was written of it is damaged.
        """
        try:
            return _entries(self._manifest(require(_HEX, snapshot, "snapshot")))
        except FileNotFoundError:
            raise SnapshotNotFound(
                f"read the snapshot {snapshot[:12]}", "no job keeps it"
            ) from None

    def digests(self) -> set[bytes]:
        """Digests of all contents that pinned snapshots of all machines, and recent ones, need.

        Raises:
            FilesError: A snapshot's record is damaged, so nobody knows what it needs.
        """
        needed = self.pinned()
        with self._lock:
            recent = list(self._recent.values())
        for each in recent:
            needed.update(entry.digest for entry in each)
        return needed

    def pinned(self) -> set[bytes]:
        """Digests of all contents that pinned snapshots of all machines need.

        Raises:
            FilesError: A snapshot's record is damaged, so nobody knows what it needs.
        """
        needed: set[bytes] = set()
        for folder in {self._snapshots, *self._others_snapshots()}:
            for name in _names(folder):
                # One that is being written is a recent one; one that has just gone needs nothing.
                if name.endswith(".json"):
                    with contextlib.suppress(FileNotFoundError):
                        entries = _entries(os.path.join(folder, name))
                        needed.update(entry.digest for entry in entries)
        return needed

    def _others_snapshots(self) -> Iterator[str]:
        for machine in _names(self._others) if self._others is not None else ():
            yield os.path.join(str(self._others), machine, "snapshots")

    def _manifest(self, snapshot: str) -> str:
        return os.path.join(self._snapshots, f"{snapshot}.json")

    def _pinned(self) -> set[str]:
        pinned = set()
        for name in os.listdir(self._pins):
            with open(os.path.join(self._pins, name)) as file:
                pinned.add(file.read().strip())
        return pinned


def _entries(manifest: str) -> tuple[Entry, ...]:
    return tuple(row_entry(row) for row in read_file(manifest)["entries"])


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # a machine that left, or never kept any
        return []


def _replace(path: str, text: str) -> None:
    temporary = f"{path}.new"
    with open(temporary, "w") as file:
        file.write(text)
    os.replace(temporary, path)
