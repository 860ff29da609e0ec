"""All workspaces of one home.

<home>/workspaces/<name>-<id>/      the folders, which are the jobs' working directories; or
                                    wherever a person said, see `rdev.agent.workspace.places`
<home>/store/                       contents and pinned snapshots
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from types import TracebackType
from typing import Self

from rdev.agent.workspace.apply import Seam, no_seam
from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.folder import Folder
from rdev.agent.workspace.index import Index
from rdev.agent.workspace.own import Marker, read_marker
from rdev.agent.workspace.pins import Pins
from rdev.agent.workspace.places import Place, Places
from rdev.agent.workspace.session import Found, SyncSession
from rdev.agent.workspace.store import Store
from rdev.protocol.errors import LimitExceeded, NotFound
from rdev.protocol.exchange import Opening
from rdev.protocol.ids import WORKSPACE_ID, require
from rdev.protocol.snapshot import Kind, Problem, ProblemKind

_log = logging.getLogger(__name__)

# Nobody writes sources longer than this; anything else is not read this way.
_MAX_READ = 2 << 20


class WorkspaceManager:
    """Finds, makes and keeps the workspaces of one home. Its methods block, from any thread."""

    def __init__(
        self,
        home: str,
        *,
        machine: str | None = None,
        most: int | None = None,
        seam: Seam = no_seam,
    ) -> None:
        """Opens the workspaces of `home`.

        Args:
            home: The agent's state folder.
            machine: What in it belongs to this machine alone; by default all of it does.
            most: Bytes that the store may take; None is no limit.
            seam: Called between the steps of a transaction; tests raise from it.

        Raises:
            OSError: The folders cannot be made.
        """
        self._places = Places(home, os.path.join(machine or home, "places"))
        self.store = Store(os.path.join(home, "store"), most=most, pinned=self._pinned)
        # What each machine of the home keeps lies in its own folder, side by side.
        others = os.path.dirname(machine) if machine is not None else None
        self._pins = Pins(machine or self.store.folder, others=others)
        self._seam = seam
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Folder] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._group.create_task(asyncio.to_thread(self._tidy), name="tidy")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            self.close()

    def _tidy(self) -> None:
        try:
            removed = self.collect()
        except Exception:  # noqa: BLE001  # a damaged record must not stop the agent; later, then
            _log.warning("unable to tidy the store", exc_info=True)
            return
        if removed:
            _log.info("removed %d contents that no job and no workspace needs", removed)

    def close(self) -> None:
        """Closes all folders."""
        with self._lock:
            for folder in self._open.values():
                folder.close()
            self._open.clear()

    def folder(self, workspace_id: str) -> str | None:
        """Path of the workspace's folder on this host; None if there is no such workspace."""
        place = self._places.find(workspace_id)
        if place is None:
            return None
        marker = read_marker(place.path)
        return place.path if marker is not None and marker.id == workspace_id else None

    def session(self) -> SyncSession:
        """A conversation with one client."""
        return SyncSession(self.store, self._found)

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps the contents of a snapshot as long as a job; see `Pins.pin`."""
        self._pins.pin(snapshot, job_id)

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot."""
        self._pins.unpin(job_id)

    def _pinned(self) -> set[bytes]:
        return self._pins.pinned()

    def read(self, snapshot: str, path: str) -> bytes:
        """Content of a file of a snapshot that a job keeps.

        Raises:
            SnapshotNotFound: No job keeps the snapshot.
            NotFound: It has no such file.
            LimitExceeded: The file is too long for one message.
        """
        action = f"read {path} of the snapshot {snapshot[:12]}"
        for entry in self._pins.entries(snapshot):
            if entry.path == path and entry.kind is Kind.FILE:
                if entry.size > _MAX_READ:
                    raise LimitExceeded(action, f"it is {entry.size} bytes long")
                # A file that the host wrote itself may never have come into the store.
                with (
                    contextlib.suppress(FileNotFoundError),
                    open(self.store.path(entry.digest), "rb") as file,
                ):
                    return file.read()
        raise NotFound(action, "it has no such file")

    def collect(self) -> int:
        """Removes contents that no job and no workspace needs; returns how many."""
        needed = self._pins.digests()
        for path in self._places.folders():
            # One that has just gone needs nothing.
            with contextlib.suppress(FileNotFoundError), Root(path) as root:
                needed.update(applied.entry.digest for applied in Index(root))
        return self.store.collect(needed.__contains__)

    def _found(self, opening: Opening) -> Found:
        """Where an opening leads, before anything there is touched."""
        workspace_id = require(WORKSPACE_ID, opening.workspace_id, "workspace id")
        with self._lock:
            current = self._places.find(workspace_id)
            if opening.folder or (current is not None and current.is_named):
                named = opening.folder or (current.path if current is not None else "")
                place = self._places.named(workspace_id, named)
            else:
                place = current or self._places.choose(workspace_id, opening.name)
            marker = Marker(workspace_id, opening.name, opening.owner)
            folder = self._open.get((workspace_id, place.path))
            if folder is None:
                folder = Folder(
                    place.path,
                    self.store,
                    marker=marker,
                    is_named=place.is_named,
                    committed=self._pins.remember,
                    seam=self._seam,
                )
                self._open[workspace_id, place.path] = folder
        return Found(folder, _notes(place, current), lambda: self._settle(workspace_id, place))

    def _settle(self, workspace_id: str, place: Place) -> None:
        """Notes where the workspace is from now on; who still syncs to another place is told."""
        with self._lock:
            self._places.remember(workspace_id, place)
            others = [key for key in self._open if key[0] == workspace_id and key[1] != place.path]
            for key in others:
                self._open.pop(key).close()


def _notes(place: Place, current: Place | None) -> tuple[Problem, ...]:
    """What a person should know when a workspace gets a folder."""
    if current is not None and current.path == place.path:
        return ()
    notes = []
    if place.is_named and place.asked != place.path:
        message = f"leads through a symbolic link; the workspace's folder is {place.path}"
        notes.append(Problem(place.asked, ProblemKind.FOLDER.value, message))
    if current is not None and os.path.isdir(current.path):
        message = f"was the workspace's folder, which is now {place.path}; it stays as it is"
        notes.append(Problem(current.path, ProblemKind.FOLDER.value, message))
    return tuple(notes)
