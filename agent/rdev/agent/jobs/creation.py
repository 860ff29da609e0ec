"""Creates jobs: what was asked for is resolved, named, pinned and written to disk.

asked for --> resolved --> snapshot pinned --> directory there whole: accepted
                 '-- refused -'-- no space ----'--> nothing is left behind
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection
from typing import Protocol

from rdev.agent.jobs.resolve import Surroundings, resolve
from rdev.agent.jobs.store import JobStore
from rdev.protocol.errors import JobConflict, WorkspaceNotFound, os_failure
from rdev.protocol.ids import JOB_NAME, WORKSPACE_ID, job_name_from, new_job_id, require
from rdev.wire.home import boot_id
from rdev.wire.job import JobSpec
from rdev.wire.records import Accepted, Launch


class Snapshots(Protocol):
    """Keeps what jobs were started from; the workspace manager does. Its methods block."""

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps the contents of a snapshot until `unpin`; raises SnapshotNotFound, OSError."""

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot; nothing happens if it has none."""


class Creation:
    """Makes the directories of new jobs.

    Args:
        store: Where they are made.
        surroundings: What all jobs have.
        workspaces: Gives the folder of a workspace by its id; None if there is no such workspace.
        snapshots: Keeps the snapshots that jobs start from; None keeps none.
    """

    def __init__(
        self,
        store: JobStore,
        surroundings: Surroundings,
        *,
        workspaces: Callable[[str], str | None],
        snapshots: Snapshots | None,
    ) -> None:
        self._store = store
        self._surroundings = surroundings
        self._workspaces = workspaces
        self._snapshots = snapshots

    async def accept(self, request_id: str, spec: JobSpec, *, taken: Collection[str]) -> Accepted:
        """Makes a job that only has to be launched; one at a time, for the sake of the names.

        Args:
            request_id: The request it is made for.
            spec: What was asked for.
            taken: The names of live jobs.

        Raises:
            JobConflict: The name is taken.
            WorkspaceNotFound: There is no such workspace.
            SnapshotNotFound: The snapshot is not known any more.
            InvalidRequest: A name or a path breaks a rule.
            DiskFull: There is no space.
        """
        job_id, name = new_job_id(), _name(spec, taken)
        launch = await asyncio.to_thread(
            resolve,
            spec,
            self._surroundings,
            job_id=job_id,
            files=self._store.files(job_id),
            folder=self._folder(spec),
        )
        accepted = Accepted(
            id=job_id,
            name=name,
            request_id=request_id,
            created=time.time(),
            boot_id=boot_id(),
            spec=spec,
            argv=launch.argv,
            directory=launch.directory,
            ranks=launch.ranks,
        )
        try:
            await asyncio.to_thread(self._write, accepted, launch)
        except OSError as error:
            raise os_failure(f"create the job {name!r}", error) from error
        return accepted

    def remove(self, job_id: str) -> None:
        """Removes a job and all it printed, and lets go of its snapshot; again is harmless."""
        self._store.remove(job_id)
        self._unpin(job_id)

    def _write(self, accepted: Accepted, launch: Launch) -> None:
        if self._snapshots is not None and accepted.spec.snapshot:
            self._snapshots.pin(accepted.spec.snapshot, accepted.id)
        try:
            self._store.create(accepted, launch)
        except BaseException:
            self._unpin(accepted.id)
            raise

    def _unpin(self, job_id: str) -> None:
        if self._snapshots is not None:
            self._snapshots.unpin(job_id)

    def _folder(self, spec: JobSpec) -> str:
        if not spec.workspace_id:
            return self._surroundings.environment.get("HOME") or os.path.expanduser("~")
        folder = self._workspaces(require(WORKSPACE_ID, spec.workspace_id, "workspace id"))
        if folder is None:
            cause = f"the host has no workspace {spec.workspace_id!r}"
            raise WorkspaceNotFound("create the job", cause)
        return folder


def _name(spec: JobSpec, taken: Collection[str]) -> str:
    if not spec.name:
        made = job_name_from(spec.target or "shell")
        names = (made, *(f"{made}-{number}" for number in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)
    if require(JOB_NAME, spec.name, "job name") in taken:
        hint = f"choose another name, or end that one with `rdev stop {spec.name}`"
        cause = "a job of that name is running"
        raise JobConflict(f"create the job {spec.name!r}", cause, hint=hint)
    return spec.name
