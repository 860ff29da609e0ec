"""Follows live jobs: keeps a connection to each supervisor, brings a keeper where one is missing.

looking --connected--> taking in states --lost--> looking       a final status on disk ends it
   '--nobody listens, no keeper--> (another boot: LOST) or a new keeper --> looking
   '--trouble with its files or its supervisor--> (complained of, a pause) looking
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rdev.agent.jobs.link import Link
from rdev.agent.jobs.record import JobRecord
from rdev.agent.jobs.store import JobStore
from rdev.agent.jobs.zygote import Zygote
from rdev.protocol.errors import JobNotRunning
from rdev.wire.files import read_status
from rdev.wire.home import boot_id
from rdev.wire.job import JobState, Reason
from rdev.wire.records import Status

_log = logging.getLogger(__name__)

# A supervisor that has just been started listens within some milliseconds; one that does not is
# asked ever less often. Re-adoption has to be done within a second.
_FIRST_PAUSE = 0.003
_LONGEST_PAUSE = 0.5

_REBOOTED = "the machine was rebooted while it ran"
_REMOVED = "its directory was removed while it ran"


class Following:
    """The live jobs of one agent. Use as a context manager, in one task.

    Args:
        store: Where the jobs are.
        zygote: Brings keepers.
        on_end: Called when a job has ended.
    """

    def __init__(self, store: JobStore, zygote: Zygote, *, on_end: Callable[[], None]) -> None:
        self._store = store
        self._zygote = zygote
        self._on_end = on_end
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def launch(self, record: JobRecord) -> None:
        """Starts a new job and follows it; if starting it fails, following goes on with that.

        Raises:
            InternalError: It failed.
            OSError: So it did.
        """
        self._links[record.accepted.id] = Link(record.files, record.update)
        try:
            await self._zygote.launch(record.files.directory)
        finally:
            self._begin(record)

    def adopt(self, record: JobRecord) -> None:
        """Follows a job that was there before this agent."""
        self._links[record.accepted.id] = Link(record.files, record.update)
        self._begin(record)

    def forget(self, job_id: str) -> None:
        """Follows a job no longer; nothing happens if it is not followed."""
        if job_id in self._tasks:
            self._tasks[job_id].cancel()

    async def command(
        self, record: JobRecord, name: str, args: Mapping[str, Any], *, patience: float
    ) -> dict[str, Any]:
        """Sends a command to a job's supervisor, see `Link.command`.

        Raises:
            JobNotRunning: The job has ended.
        """
        link = self._links.get(record.accepted.id)
        if link is None:
            raise JobNotRunning(f"{name} the job {record.accepted.name!r}", "it has ended")
        return await link.command(name, args, patience=patience)

    def tell(self, record: JobRecord, name: str) -> None:
        """Tells a job's supervisor that there is something new, see `Link.tell`."""
        link = self._links.get(record.accepted.id)
        if link is not None:
            link.tell(name)

    async def refresh(self, record: JobRecord) -> bool:
        """Reads a job's status from disk; True if it is final."""
        try:
            record.update(await asyncio.to_thread(read_status, record.files))
        except FileNotFoundError:
            record.update(_lost(record.status, reason=Reason.KEEPER_LOST, message=_REMOVED))
        return record.status.state.is_final

    def _begin(self, record: JobRecord) -> None:
        job_id = record.accepted.id
        self._tasks[job_id] = self._group.create_task(self._follow(record), name=f"job {job_id}")

    async def _follow(self, record: JobRecord) -> None:
        """Keeps a job connected until its status is final."""
        job_id = record.accepted.id
        pause, complaint = _FIRST_PAUSE, ""
        try:
            while not record.status.state.is_final:
                was_connected = False
                try:
                    was_connected = await self._attend(record)
                except Exception as error:  # noqa: BLE001  # one job's, never the others'
                    if complaint != repr(error):  # once for as long as it lasts
                        complaint = repr(error)
                        _log.warning("job %s: %s", job_id, complaint)
                pause = _FIRST_PAUSE if was_connected else min(2 * pause, _LONGEST_PAUSE)
                await asyncio.sleep(pause)
            await asyncio.to_thread(self._store.note_end, job_id)
        finally:
            self._links.pop(job_id).finish()
            del self._tasks[job_id]
            self._on_end()

    async def _attend(self, record: JobRecord) -> bool:
        """Is connected while that lasts, or brings a keeper; True if a supervisor was there."""
        if await self.refresh(record):
            return False
        try:
            await self._links[record.accepted.id].serve()
        except (ConnectionRefusedError, FileNotFoundError):
            await self._bring_keeper(record)
            return False
        return True

    async def _bring_keeper(self, record: JobRecord) -> None:
        """Nobody listens for the job. If it has no keeper, it gets one, or it is LOST."""
        job_id = record.accepted.id
        if await asyncio.to_thread(self._store.has_keeper, job_id) or await self.refresh(record):
            return
        if record.accepted.boot_id == boot_id():
            await self._zygote.launch(record.files.directory)
            return
        lost = _lost(record.status, reason=Reason.REBOOTED, message=_REBOOTED)
        await asyncio.to_thread(self._store.write_status, job_id, lost)
        record.update(lost)


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
