"""The agent's jobs: creates, finds, watches and stops them; survives its own death by re-reading.

A job belongs to its keeper and supervisor. The manager keeps a connection to each live one, brings
a keeper where one is missing, and writes a status itself only for a job of an earlier boot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from rdev.agent.jobs.link import Link
from rdev.agent.jobs.lookup import find, newest_first
from rdev.agent.jobs.record import JobRecord
from rdev.agent.jobs.resolve import Surroundings, resolve
from rdev.agent.jobs.store import JobStore
from rdev.agent.jobs.zygote import Zygote
from rdev.protocol.errors import (
    JobConflict,
    JobNotFound,
    JobNotRunning,
    RdevError,
    WorkspaceNotFound,
    os_failure,
)
from rdev.protocol.ids import (
    JOB_NAME,
    REQUEST_ID,
    WORKSPACE_ID,
    job_name_from,
    new_job_id,
    require,
)
from rdev.wire.files import Accepted, Launch, Status, read_status
from rdev.wire.home import boot_id
from rdev.wire.job import Job, JobSpec, JobState, Reason

_log = logging.getLogger(__name__)

# A supervisor that has just been started listens within some milliseconds; one that does not is
# asked ever less often. Re-adoption has to be done within a second.
_FIRST_PAUSE = 0.003
_LONGEST_PAUSE = 0.5

# A supervisor answers within a millisecond; a process at a breakpoint may take a while.
_PATIENCE = 10.0

_REBOOTED = "the machine was rebooted while it ran"
_REMOVED = "its directory was removed while it ran"


class Snapshots(Protocol):
    """Keeps what jobs were started from; the workspace manager does. Its methods block."""

    def pin(self, snapshot: str, job_id: str) -> None:
        """Keeps the contents of a snapshot until `unpin`; raises SnapshotNotFound, OSError."""

    def unpin(self, job_id: str) -> None:
        """Lets go of a job's snapshot; nothing happens if it has none."""


class JobManager:
    """All jobs of one agent. Use as a context manager, in one task.

    Args:
        jobs_dir: Holds the job directories.
        workspaces: Gives the folder of a workspace by its id; None if there is no such workspace.
        hook_dir: Put first on the PYTHONPATH of jobs that want the hook.
        environment: The login environment; by default this process's own.
        umask: The login's umask, which jobs get.
        snapshots: Keeps the snapshots that jobs start from; None keeps none.
    """

    def __init__(
        self,
        jobs_dir: str,
        workspaces: Callable[[str], str | None],
        *,
        hook_dir: str | None = None,
        environment: Mapping[str, str] | None = None,
        umask: int = 0o022,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._store = JobStore(jobs_dir)
        self._workspaces = workspaces
        login = dict(os.environ) if environment is None else environment
        self._surroundings = Surroundings(login, umask, hook_dir)
        self._snapshots = snapshots
        self._records: dict[str, JobRecord] = {}
        self._links: dict[str, Link] = {}
        self._requests: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._creating = asyncio.Lock()
        self._zygote = Zygote()
        self._group = asyncio.TaskGroup()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._zygote)
        await self._stack.enter_async_context(self._group)
        for accepted, status in await asyncio.to_thread(self._store.load):
            self._follow_soon(self._adopt(accepted, status))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self._stack.__aexit__(kind, error, trace)

    # --- creation

    async def create(self, request_id: str, spec: JobSpec) -> Job:
        """Starts a job; a repeated request returns the job that the first one made.

        Raises:
            JobConflict: A live job has that name.
            WorkspaceNotFound: There is no such workspace.
            SnapshotNotFound: The snapshot is not known any more; a sync makes it known.
            InvalidRequest: An id, a name or a path breaks a rule.
            DiskFull: There is no space for the job's directory; nothing was started.
        """
        require(REQUEST_ID, request_id, "request id")
        async with self._creating:
            known = self._requests.get(request_id)
            if known is not None:
                return await self._job(self._records[known])
            record = await self._accept(request_id, spec)
        try:
            await self._zygote.launch(record.files.directory)
        finally:
            # If that failed, following brings the keeper: the job is accepted.
            self._follow_soon(record)
        if record.status.state is JobState.PENDING:
            record.status = replace(record.status, state=JobState.STARTING)
        return await self._job(record)

    async def _accept(self, request_id: str, spec: JobSpec) -> JobRecord:
        job_id, name = new_job_id(), self._name(spec)
        files = self._store.files(job_id)
        folder = self._folder(spec)
        launch = await asyncio.to_thread(
            resolve, spec, self._surroundings, job_id=job_id, files=files, folder=folder
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
        )
        try:
            await asyncio.to_thread(self._write, accepted, launch)
        except OSError as error:
            raise os_failure(f"create the job {name!r}", error) from error
        return self._adopt(accepted, Status())

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

    def _name(self, spec: JobSpec) -> str:
        live = {r.accepted.name for r in self._records.values() if not r.status.state.is_final}
        if not spec.name:
            made = job_name_from(spec.target)
            names = (made, *(f"{made}-{number}" for number in range(2, len(live) + 3)))
            return next(name for name in names if name not in live)
        if require(JOB_NAME, spec.name, "job name") in live:
            raise JobConflict(f"create the job {spec.name!r}", "a job of that name is running")
        return spec.name

    def _folder(self, spec: JobSpec) -> str:
        if not spec.workspace_id:
            return self._surroundings.environment.get("HOME") or os.path.expanduser("~")
        folder = self._workspaces(require(WORKSPACE_ID, spec.workspace_id, "workspace id"))
        if folder is None:
            cause = f"the host has no workspace {spec.workspace_id!r}"
            raise WorkspaceNotFound("create the job", cause)
        return folder

    # --- looking

    async def get(self, reference: str, workspace_id: str = "") -> Job:
        """The job that a person means, see `rdev.agent.jobs.lookup.find`.

        Raises:
            JobNotFound: There is none.
        """
        jobs = [record.job() for record in self._records.values()]
        return await self._job(self._records[find(jobs, reference, workspace_id=workspace_id).id])

    async def list(self, workspace_id: str = "", *, ended: bool = False) -> list[Job]:
        """Jobs, newest first.

        Args:
            workspace_id: Only of this workspace; empty means of all.
            ended: Also those that have ended.
        """
        wanted = [
            record
            for record in self._records.values()
            if workspace_id in ("", record.accepted.spec.workspace_id)
            and (ended or not record.status.state.is_final)
        ]
        return newest_first([await self._job(record) for record in wanted])

    async def watch(self, job_id: str, since_revision: int = 0) -> AsyncIterator[Job]:
        """Yields the job as it stands, then each change, and ends after the final one.

        Changes that follow one another faster than they are taken are skipped.

        Args:
            job_id: Full id.
            since_revision: What the caller already has; nothing is yielded until it is later. A
                job that has ended is yielded once in any case.

        Raises:
            JobNotFound: There is no such job, or it was deleted meanwhile.
        """
        record = self.record(job_id)
        while True:
            if record.status.revision > since_revision or record.status.state.is_final:
                since_revision = record.status.revision
                is_final = record.status.state.is_final
                yield await self._job(record)
                if is_final:
                    return
            if record.status.revision <= since_revision:
                await record.changed()
            self.record(job_id)

    def record(self, job_id: str) -> JobRecord:
        """What is known of the job of that full id.

        Raises:
            JobNotFound: There is none.
        """
        try:
            return self._records[job_id]
        except KeyError:
            raise JobNotFound(f"find the job {job_id!r}", "no job has that id") from None

    # --- acting

    async def stop(self, job_id: str, *, now: bool = False) -> Job:
        """Asks for the end of all of a job's processes; returns at once, again is harmless.

        Args:
            job_id: Full id.
            now: KILL without TERM and grace first.
        """
        record = self.record(job_id)
        while not record.status.state.is_final:
            # The job may end by itself meanwhile, which is what was asked for; or its supervisor
            # was killed before it answered, and the next one is asked.
            with contextlib.suppress(JobNotRunning):
                await self._command(record, "stop", {"now": now})
                break
            await self._refresh(record)
        return await self._job(record)

    async def signal(self, job_id: str, number: int) -> None:
        """Sends a signal to the job's process group.

        Raises:
            JobNotRunning: It has ended.
        """
        await self._command(self._live(job_id, "signal"), "signal", {"signal": number})

    async def command(
        self,
        job_id: str,
        role: str,
        rank: int,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        pid: int | None = None,
        timeout: float = _PATIENCE,  # noqa: ASYNC109  # callers know how long theirs may take
    ) -> dict[str, Any]:
        """Sends a command to the hook or the loop in a process of the job.

        Args:
            job_id: Full id.
            role: `hook` or `loop`.
            rank: The rank.
            name: The command's name.
            args: Its arguments.
            pid: Which process, where a rank has several; by default the one connected first.
            timeout: Seconds to wait for the answer.

        Returns:
            What the answer says.

        Raises:
            JobConflict: Nobody of that role is connected, or it refuses; the cause says which.
            JobNotRunning: The job has ended, or ended before the answer.
            TimedOut: No answer came.
        """
        record = self._live(job_id, name)
        routed = {"role": role, "rank": rank, "name": name, "args": dict(args or {})}
        if pid is not None:
            routed["pid"] = pid
        return await self._command(record, "route", routed, patience=timeout)

    async def peers(self, job_id: str) -> Sequence[dict[str, Any]]:
        """The hooks and loops connected to a job: role, rank, pid, script, python.

        In the order in which they connected.
        """
        answer = await self._command(self._live(job_id, "ask"), "peers", {})
        return tuple(answer["peers"])

    async def delete(self, job_id: str) -> None:
        """Forgets an ended job and removes its logs; again is harmless.

        Raises:
            JobConflict: It has not ended.
        """
        record = self._records.get(job_id)
        if record is None:
            return
        if not record.status.state.is_final:
            raise JobConflict(f"delete the job {record.accepted.name!r}", "it has not ended")
        del self._records[job_id]
        self._requests.pop(record.accepted.request_id, None)
        if job_id in self._tasks:  # it knows the end and is about to finish
            self._tasks[job_id].cancel()
        record.wake()
        await asyncio.to_thread(self._store.remove, job_id)
        await asyncio.to_thread(self._unpin, job_id)

    def _live(self, job_id: str, verb: str) -> JobRecord:
        record = self.record(job_id)
        if record.status.state.is_final:
            raise JobNotRunning(f"{verb} the job {record.accepted.name!r}", "it has ended")
        return record

    async def _command(
        self,
        record: JobRecord,
        name: str,
        args: Mapping[str, Any],
        *,
        patience: float = _PATIENCE,
    ) -> dict[str, Any]:
        link = self._links.get(record.accepted.id)
        if link is None:
            raise JobNotRunning(f"{name} the job {record.accepted.name!r}", "it has ended")
        return await link.command(name, args, patience=patience)

    async def _job(self, record: JobRecord) -> Job:
        return record.job(await asyncio.to_thread(self._store.streams, record.accepted.id))

    # --- following

    def _adopt(self, accepted: Accepted, status: Status) -> JobRecord:
        record = JobRecord(accepted, status, self._store.files(accepted.id))
        self._records[accepted.id] = record
        self._requests[accepted.request_id] = accepted.id
        if not status.state.is_final:
            self._links[accepted.id] = Link(record.files, record.update)
        return record

    def _follow_soon(self, record: JobRecord) -> None:
        job_id = record.accepted.id
        if not record.status.state.is_final:
            task = self._group.create_task(self._follow(record), name=f"job {job_id}")
            self._tasks[job_id] = task

    async def _follow(self, record: JobRecord) -> None:
        """Keeps a job connected until its status is final."""
        job_id = record.accepted.id
        pause = _FIRST_PAUSE
        try:
            while not await self._refresh(record):
                was_connected = await self._attend(record)
                pause = _FIRST_PAUSE if was_connected else min(2 * pause, _LONGEST_PAUSE)
                await asyncio.sleep(pause)
        finally:
            del self._links[job_id], self._tasks[job_id]

    async def _attend(self, record: JobRecord) -> bool:
        """Is connected while that lasts, or brings a keeper; no trouble of one job is the others'.

        Returns:
            True if a supervisor was there.
        """
        try:
            await self._links[record.accepted.id].serve()
        except (ConnectionRefusedError, FileNotFoundError):
            await self._bring_keeper(record)
            return False
        except (KeyError, OSError, TypeError, ValueError) as error:
            _log.warning("job %s: trouble with its supervisor: %r", record.accepted.id, error)
            return False
        return True

    async def _refresh(self, record: JobRecord) -> bool:
        """Reads the status from disk; True if it is final."""
        try:
            record.update(await asyncio.to_thread(read_status, record.files))
        except FileNotFoundError:
            record.update(_lost(record.status, reason=Reason.KEEPER_LOST, message=_REMOVED))
        return record.status.state.is_final

    async def _bring_keeper(self, record: JobRecord) -> None:
        """Nobody listens for the job. If it has no keeper, it gets one, or it is LOST."""
        job_id = record.accepted.id
        if await asyncio.to_thread(self._store.has_keeper, job_id) or await self._refresh(record):
            return
        try:
            if record.accepted.boot_id != boot_id():
                lost = _lost(record.status, reason=Reason.REBOOTED, message=_REBOOTED)
                await asyncio.to_thread(self._store.write_status, job_id, lost)
                record.update(lost)
            else:
                await self._zygote.launch(record.files.directory)
        except (OSError, RdevError) as error:
            _log.warning("job %s has no keeper yet: %s", job_id, error)


def _lost(status: Status, *, reason: Reason, message: str) -> Status:
    return replace(
        status,
        state=JobState.LOST,
        reason=reason,
        message=message,
        ended=time.time(),
        stops=(),
        revision=status.revision + 1,
    )
