"""The agent's jobs: creates, finds, watches and stops them; survives its own death by re-reading.

A job belongs to its keeper and supervisor; see `rdev.agent.jobs.creation` for how it comes to be,
and `rdev.agent.jobs.following` for how it is kept in sight.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rdev.agent.jobs.creation import Creation, Environments, Snapshots
from rdev.agent.jobs.following import Following
from rdev.agent.jobs.input import Inputs, Writer
from rdev.agent.jobs.lookup import find, newest_first
from rdev.agent.jobs.once import Once
from rdev.agent.jobs.queue import GpuQueue
from rdev.agent.jobs.record import JobRecord
from rdev.agent.jobs.resolve import Surroundings
from rdev.agent.jobs.retention import Ended, Keep, to_remove
from rdev.agent.jobs.store import JobStore
from rdev.agent.jobs.zygote import Zygote
from rdev.protocol.errors import InvalidRequest, JobConflict, JobNotFound, JobNotRunning
from rdev.protocol.ids import REQUEST_ID, require
from rdev.wire.job import Job, JobSpec, JobState, Window
from rdev.wire.records import Accepted, Status

# A supervisor answers within a millisecond; a process at a breakpoint may take a while.
_PATIENCE = 10.0

# Between two tries of a command that must arrive: a supervisor is back in a fraction of a second.
_PAUSE = 0.02

# What ends a process that does nothing about it, and is sent to mean that.
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL})


class JobManager:
    """All jobs of one agent. Use as a context manager, in one task.

    Args:
        jobs_dir: Holds the job directories.
        workspaces: Gives the folder of a workspace by its id; None if there is no such workspace.
        surroundings: What all jobs have; by default what this process has.
        descriptors: The login's soft limit of descriptors, which keepers and supervisors get; None
            gives them ours.
        snapshots: Keeps the snapshots that jobs start from; None keeps none.
        environments: Finds what jobs run in; None leaves them what the login has.
        ledger: Where live jobs are noted, if their directories may vanish.
        most: How many may live at a time, further ones wait; None is no limit.
    """

    def __init__(
        self,
        jobs_dir: str,
        workspaces: Callable[[str], str | None],
        *,
        surroundings: Surroundings | None = None,
        descriptors: int | None = None,
        snapshots: Snapshots | None = None,
        environments: Environments | None = None,
        ledger: str | None = None,
        most: int | None = None,
    ) -> None:
        around = surroundings or Surroundings(dict(os.environ), 0o022, None)
        self._most = most
        self._store = JobStore(jobs_dir, ledger=ledger)
        self._creation = Creation(
            self._store,
            around,
            workspaces=workspaces,
            snapshots=snapshots,
            environments=environments,
        )
        self._zygote = Zygote(descriptors)
        self._records: dict[str, JobRecord] = {}
        self._following = Following(
            self._store,
            self._zygote,
            on_end=lambda: self._queue.look_again(),  # noqa: PLW0108  # not there yet
        )
        self._queue = GpuQueue(
            self._store,
            around.environment,
            records=self._records.values,
            launch=self._launch,
            most=most,
        )
        self._inputs = Inputs(lambda record: self._following.tell(record, "input"))
        self._requests: dict[str, str] = {}
        self._started: Once[JobRecord] = Once()
        self._accepting = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            # What is being started is started to its end before following ends.
            for part in (self._zygote, self._following, self._queue, self._started):
                await stack.enter_async_context(part)
            for accepted, status in await asyncio.to_thread(self._store.load):
                if not status.state.is_final:
                    await self._adopt(accepted, status)
                else:
                    self._add(accepted, status)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # --- creation

    async def create(self, request_id: str, spec: JobSpec) -> Job:
        """Starts a job; a repeated request returns the job that the first one made.

        Whoever asks may be cancelled: a job that is being started is started to its end.

        Raises:
            JobConflict: A live job has that name.
            WorkspaceNotFound: There is no such workspace.
            SnapshotNotFound: The snapshot is not known any more; a sync makes it known.
            InvalidRequest: An id, a name or a path breaks a rule.
            DiskFull: There is no space for the job's directory; nothing was started.
        """
        require(REQUEST_ID, request_id, "request id")
        return await self._job(
            await self._started.do(request_id, lambda: self._start(request_id, spec))
        )

    async def check(self, spec: JobSpec) -> None:
        """Returns if the machine can have such a job, as far as is known before a sync.

        Raises:
            InvalidRequest: It never can.
        """
        await self._queue.check(spec)

    async def _start(self, request_id: str, spec: JobSpec) -> JobRecord:
        if request_id in self._requests:
            return self._records[self._requests[request_id]]
        spec = await self._queue.settle(spec)
        ground = await self._creation.prepare(spec)
        async with self._accepting:
            live = {r.accepted.name for r in self._records.values() if not r.status.state.is_final}
            accepted = await self._creation.accept(request_id, spec, ground, taken=live)
            record = self._add(accepted, Status())
        must_join = self._queue.must_join(record)
        await (self._queue.join(record) if must_join else self._launch(record))
        return record

    async def _launch(self, record: JobRecord) -> None:
        await self._following.launch(record)
        if record.status.state is JobState.PENDING:
            record.status = replace(record.status, state=JobState.STARTING)

    async def _adopt(self, accepted: Accepted, status: Status) -> None:
        """Goes on with a job of an agent before this one."""
        is_begun = status.state is not JobState.PENDING or await asyncio.to_thread(
            self._store.has_begun, accepted.id
        )
        if is_begun or (accepted.spec.gpus is None and self._most is None):
            self._following.adopt(self._add(accepted, status))
            return
        if not status.gpus:
            # Without a claim it was not started, whatever has happened to the machine since.
            accepted = await asyncio.to_thread(self._store.renew, accepted)
        self._queue.rejoin(self._add(accepted, status))

    def _add(self, accepted: Accepted, status: Status) -> JobRecord:
        record = JobRecord(accepted, status, self._store.files(accepted.id))
        self._records[accepted.id] = record
        self._requests[accepted.request_id] = accepted.id
        return record

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
        return newest_first(await asyncio.to_thread(self._jobs, wanted))

    async def watch(self, job_id: str, since_revision: int = 0) -> AsyncIterator[Job]:
        """Yields the job as it stands, then each change, and ends after the final one.

        Changes that follow one another faster than they are taken are skipped.

        Args:
            job_id: Full id.
            since_revision: What the caller already has; nothing is yielded until it is later. A
                job that has ended is yielded once in any case.

        Raises:
            JobNotFound: There is no such job.
        """
        # One that is deleted meanwhile has ended: the record still says how.
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

    def has_live(self) -> bool:
        """True if a job has not ended."""
        return any(not record.status.state.is_final for record in self._records.values())

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

    async def stop(self, job_id: str, *, now: bool = False, is_all: bool = False) -> Job:
        """Asks for the end of all of a job's processes; returns at once, again is harmless.

        Args:
            job_id: Full id.
            now: KILL without TERM and grace first.
            is_all: Spare nothing, no multiplexer and no agent that was started in it either.
        """
        record = self.record(job_id)
        await self._insist(record, "stop", {"now": now, "all": is_all})
        return await self._job(record)

    async def signal(self, job_id: str, number: int) -> None:
        """Sends a signal to the job's process group; a job that waits is ended by one that ends.

        A supervisor that is killed before it answers may have sent it; the next one sends it then.

        Raises:
            InvalidRequest: There is no such signal.
            JobNotRunning: It has ended.
        """
        if number not in signal.valid_signals():
            cause, hint = "the host has no such signal", "`kill -l` lists them"
            raise InvalidRequest(f"send the signal {number}", cause, hint=hint)
        if number in _ENDING and await self._queue.cancel(self.record(job_id)):
            return
        record = self._live(job_id, "signal")
        if await self._insist(record, "signal", {"signal": number}) is None:
            raise JobNotRunning(f"signal the job {record.accepted.name!r}", "it has just ended")

    def write_input(
        self, job_id: str, writer_id: str
    ) -> contextlib.AbstractAsyncContextManager[Writer]:
        """Opens a job's input for one writer, see `rdev.agent.jobs.input.Inputs.open`.

        Raises:
            JobNotFound: There is no such job.
        """
        return self._inputs.open(self.record(job_id), writer_id)

    async def resize(self, job_id: str, window: Window) -> None:
        """Tells a job's terminal the size of its window; again makes programs redraw.

        Raises:
            JobConflict: It has no terminal.
            JobNotRunning: It has ended, or has not begun.
        """
        record = self._live(job_id, "resize the terminal of")
        action = f"resize the terminal of the job {record.accepted.name!r}"
        if record.accepted.spec.terminal is None:
            raise JobConflict(action, "it has none", hint="start it with `rdev run -t`")
        if record.status.state is JobState.PENDING:
            raise JobNotRunning(action, "it has not begun")
        size = {"rows": window.rows, "columns": window.columns}
        await self._insist(record, "resize", size)

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
        return await self._following.command(record, "route", routed, patience=timeout)

    async def peers(self, job_id: str) -> Sequence[dict[str, Any]]:
        """The hooks and loops connected to a job: role, rank, pid, script, python.

        In the order in which they connected.
        """
        record = self._live(job_id, "ask")
        answer = await self._insist(record, "peers", {})
        return tuple(answer["peers"]) if answer is not None else ()

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
        self._following.forget(job_id)  # it knows the end and is about to finish
        record.wake()
        await asyncio.to_thread(self._creation.remove, job_id)

    async def retire(self, keep: Keep) -> tuple[str, ...]:
        """Removes ended jobs that nobody has to keep any more; returns their ids."""
        final = [r for r in self._records.values() if r.status.state.is_final]
        if len(final) <= keep.newest:
            return ()
        ended = await asyncio.to_thread(self._ended, final)
        removed = to_remove(ended, keep, now=time.time())
        for job_id in removed:
            await self.delete(job_id)
        return removed

    async def _insist(
        self, record: JobRecord, name: str, args: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Sends a command that may be repeated until it is answered; None if the job has ended."""
        while not record.status.state.is_final:
            # A job that waits has nobody to tell. It may have got its keeper since the last try.
            if name == "stop" and await self._queue.cancel(record):
                break
            # The job may end by itself meanwhile; or its supervisor was killed before it answered,
            # and the next one is asked.
            with contextlib.suppress(JobNotRunning):
                return await self._following.command(record, name, args, patience=_PATIENCE)
            if not await self._following.refresh(record):
                await asyncio.sleep(_PAUSE)
        return None

    def _live(self, job_id: str, verb: str) -> JobRecord:
        record = self.record(job_id)
        if record.status.state.is_final:
            raise JobNotRunning(f"{verb} the job {record.accepted.name!r}", "it has ended")
        if self._queue.holds(record):
            raise JobNotRunning(f"{verb} the job {record.accepted.name!r}", "it has not begun")
        return record

    async def _job(self, record: JobRecord) -> Job:
        (job,) = await asyncio.to_thread(self._jobs, (record,))
        return job

    def _jobs(self, records: Iterable[JobRecord]) -> tuple[Job, ...]:
        return tuple(r.job(self._store.streams(r.accepted.id)) for r in records)

    def _ended(self, records: Iterable[JobRecord]) -> tuple[Ended, ...]:
        jobs = [record.job() for record in records]
        return tuple(Ended(j.id, j.ended or j.created, self._store.size(j.id)) for j in jobs)
