"""All workspaces of one home.

<home>/workspaces/<name>-<id>/      the folders, which are the jobs' working directories
<home>/store/                       contents and pinned snapshots
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
from types import TracebackType
from typing import Self

from rdev.agent.workspace.apply import Seam, no_seam
from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.folder import Folder, read_marker, write_marker
from rdev.agent.workspace.index import Index
from rdev.agent.workspace.pins import Pins
from rdev.agent.workspace.session import SyncSession
from rdev.agent.workspace.store import Store
from rdev.protocol.errors import LimitExceeded, NotFound, SyncFailed, os_failure
from rdev.protocol.ids import WORKSPACE_ID, require
from rdev.protocol.snapshot import Kind

_log = logging.getLogger(__name__)

# Of the name in a folder's name: enough to recognise it, and a path of a job stays short.
MAX_NAME = 40

# Nobody writes sources longer than this; anything else is not read this way.
_MAX_READ = 2 << 20


class WorkspaceManager:
    """Finds, makes and keeps the workspaces of one home. Its methods block, from any thread."""

    def __init__(self, home: str, *, seam: Seam = no_seam) -> None:
        """Opens the workspaces of `home`.

        Args:
            home: The agent's state folder.
            seam: Called between the steps of a transaction; tests raise from it.

        Raises:
            OSError: The folders cannot be made.
        """
        self._folder = os.path.join(home, "workspaces")
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self.store = Store(os.path.join(home, "store"))
        self._pins = Pins(self.store.folder)
        self._seam = seam
        self._lock = threading.Lock()
        self._open: dict[str, Folder] = {}
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
        with self._lock:
            known = self._open.get(workspace_id)
        return known.path if known is not None else self._find(workspace_id)

    def session(self) -> SyncSession:
        """A conversation with one client."""
        return SyncSession(self.store, self._folder_for)

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps the contents of a snapshot as long as a job; see `Pins.pin`."""
        self._pins.pin(snapshot, job_id)

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot."""
        self._pins.unpin(job_id)

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
        for path in self._folders():
            with Root(path) as root:
                needed.update(applied.entry.digest for applied in Index(root))
        return self.store.collect(needed.__contains__)

    def _folder_for(self, workspace_id: str, name: str) -> Folder:
        require(WORKSPACE_ID, workspace_id, "workspace id")
        with self._lock:
            known = self._open.get(workspace_id)
            if known is None:
                path = self._find(workspace_id) or self._make(workspace_id, name)
                committed = self._pins.remember
                known = Folder(path, self.store, committed=committed, seam=self._seam)
                self._open[workspace_id] = known
            elif not os.path.exists(known.path):
                _make_folder(known.path, workspace_id, name)
            return known

    def _find(self, workspace_id: str) -> str | None:
        for path in self._folders():
            if path.endswith(f"-{workspace_id}") and read_marker(path) == workspace_id:
                return path
        return None

    def _folders(self) -> list[str]:
        names = sorted(os.listdir(self._folder))
        paths = [os.path.join(self._folder, name) for name in names]
        return [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]

    def _make(self, workspace_id: str, name: str) -> str:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MAX_NAME] or "workspace"
        path = os.path.join(self._folder, f"{safe}-{workspace_id}")
        _make_folder(path, workspace_id, name)
        return path


def _make_folder(path: str, workspace_id: str, name: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        write_marker(path, workspace_id, name)
    except OSError as error:
        raise os_failure("make the workspace's folder", error, otherwise=SyncFailed) from error
