"""Creates jobs: what was asked for is resolved, named, pinned and written to disk.

asked for --> environment there --> resolved --> snapshot pinned --> directory whole: accepted
                  '------------ refused -'-- no space ----'--> nothing is left behind
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection
from typing import Protocol

from rdev.agent.jobs.resolve import Ground, Surroundings, login_ground, resolve
from rdev.agent.jobs.store import JobStore
from rdev.protocol.errors import JobConflict, WorkspaceNotFound, os_failure
from rdev.protocol.ids import JOB_NAME, WORKSPACE_ID, job_name_from, new_job_id, require
from rdev.wire.home import boot_id
from rdev.wire.job import CommandKind, JobSpec
from rdev.wire.records import Accepted, Launch


class Snapshots(Protocol):
    """Keeps what jobs were started from; the workspace manager does. Its methods block."""

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps the contents of a snapshot until `unpin`; raises SnapshotNotFound, OSError."""

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot; nothing happens if it has none."""


class Environments(Protocol):
    """Finds what jobs run in; the environment manager does."""

    async def prepare(self, spec: JobSpec, folder: str) -> Ground:
        """What a new job in that folder stands on.

        Raises EnvironmentNotFound and EnvironmentFailed; it may be cancelled.
        """


class Creation:
    """Makes the directories of new jobs.

    Args:
        store: Where they are made.
        surroundings: What all jobs have.
        workspaces: Gives the folder of a workspace by its id; None if there is no such workspace.
        snapshots: Keeps the snapshots that jobs start from; None keeps none.
        environments: Finds what jobs run in; None leaves them what the login has.
    """

    def __init__(
        self,
        store: JobStore,
        surroundings: Surroundings,
        *,
        workspaces: Callable[[str], str | None],
        snapshots: Snapshots | None,
        environments: Environments | None = None,
    ) -> None:
        self._store = store
        self._surroundings = surroundings
        self._workspaces = workspaces
        self._snapshots = snapshots
        self._environments = environments

    async def prepare(self, spec: JobSpec) -> Ground:
        """What a job is going to stand on; a prelude, or uv, may take its time.

        Raises:
            WorkspaceNotFound: There is no such workspace.
            EnvironmentNotFound: The host does not have what was named.
            EnvironmentFailed: It cannot be activated or made.
        """
        folder = self._folder(spec)
        if self._environments is None:
            return login_ground(spec, self._surroundings, folder)
        return await self._environments.prepare(spec, folder)

    async def accept(
        self, request_id: str, spec: JobSpec, ground: Ground, *, taken: Collection[str]
    ) -> Accepted:
        """Makes a job that only has to be launched; one at a time, for the sake of the names.

        Args:
            request_id: The request it is made for.
            spec: What was asked for.
            ground: What it stands on, see `prepare`.
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
            ground=ground,
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
            interpreter="" if spec.kind is CommandKind.PROGRAM else ground.interpreter,
            env=ground.words,
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
