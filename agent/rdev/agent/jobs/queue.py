"""The jobs that wait for their turn or for GPUs, and the claims of those that have them.

    joined --enough are free, and no earlier job wants them--> claimed (durable) --> launched
       |--not now: PENDING, the message says who holds them--> looked at again when a job ends,
       |                                                       and every few seconds
       |--as many live as the site allows: PENDING--> looked at again, the same
       '--stopped--> CANCELLED

A claim is recorded in the job's status before its keeper is asked for, so a job is never started
twice, and no two jobs of this agent have one GPU. A job that has its claim and no keeper still
waits, and can be stopped. While nobody waits, nothing here runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from rdev.agent.jobs.gpus import (
    VISIBLE_VARIABLE,
    Device,
    GpusUnknownError,
    Nvml,
    allowed,
    candidates,
    choose,
    settled,
    wants_gpus,
)
from rdev.agent.jobs.once import Once
from rdev.agent.jobs.record import JobRecord
from rdev.agent.jobs.store import JobStore
from rdev.agent.threads import in_daemon, to_its_end
from rdev.protocol.errors import InvalidRequest, RdevError
from rdev.wire.job import Gpu, GpuRequest, JobSpec, JobState, Reason
from rdev.wire.records import Status

_log = logging.getLogger(__name__)

# A process that is none of ours may let go of a GPU at any time, and nothing tells.
_LOOK = 3.0

# A sync of what was edited is over sooner; after a longer one the driver is opened again.
_OPEN_FOR = 30.0

# A driver that has to set up many GPUs takes some seconds; one that is broken never answers.
_PATIENCE = 30.0


class GpuQueue:
    """First come, first served. Use as a context manager, in one task.

    Args:
        store: Where the jobs are.
        environment: The login's, whose CUDA_VISIBLE_DEVICES is honoured.
        records: All jobs of the agent.
        launch: Starts a job that has its GPUs.
        most: How many jobs may live at a time, those beside the work not counted; None is no limit.
    """

    def __init__(
        self,
        store: JobStore,
        environment: Mapping[str, str],
        *,
        records: Callable[[], Iterable[JobRecord]],
        launch: Callable[[JobRecord], Awaitable[None]],
        most: int | None = None,
    ) -> None:
        self._store = store
        self._most = most
        self._visible = environment.get(VISIBLE_VARIABLE)
        self._records = records
        self._launch = launch
        self._nvml = Nvml()
        self._looking: asyncio.Future[tuple[Device, ...]] | None = None
        self._waiting: list[JobRecord] = []
        # Held by whoever asks the driver, and by whoever settles what becomes of one job: a driver
        # that hangs keeps nobody from stopping a job.
        self._busy = asyncio.Lock()
        self._deciding = asyncio.Lock()
        self._cancelled: Once[bool] = Once()
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._cancelled.__aenter__()
        self._task = self._group.create_task(self._serve(), name="GPU queue")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._cancelled.__aexit__(kind, error, trace)
        await self._group.__aexit__(kind, error, trace)
        await self._close()

    async def settle(self, spec: JobSpec) -> JobSpec:
        """The specification with the GPUs that it can have at best.

        Raises:
            InvalidRequest: The machine does not have them, or does not tell.
        """
        if not wants_gpus(spec):
            return spec
        async with self._busy:
            try:
                # The driver stays open: the job that comes of this joins in a moment.
                return settled(spec, await self._devices(), self._visible)
            except GpusUnknownError as error:
                raise InvalidRequest("give the job GPUs", error.cause, hint=error.hint) from error
            except InvalidRequest:
                await self._rest()
                raise

    async def check(self, spec: JobSpec) -> None:
        """Returns if a job could have its GPUs at best.

        Raises:
            InvalidRequest: See `settle`.
        """
        await self.settle(spec)
        # Whoever asks syncs now and joins then; if not, the driver must not stay open for ever.
        asyncio.get_running_loop().call_later(_OPEN_FOR, self._changed.set)

    def must_join(self, record: JobRecord) -> bool:
        """True if a job that has not begun may have to wait."""
        spec = record.accepted.spec
        if wants_gpus(spec) or spec.aside or self._most is None:
            return wants_gpus(spec)
        # Behind those that wait already, though a turn may just have come.
        return bool(self._waiting) or not self._has_turn(record)

    def _has_turn(self, record: JobRecord) -> bool:
        """True if the site lets one more job live. What runs beside the work is never kept out."""
        if self._most is None or record.accepted.spec.aside:
            return True
        begun = (
            other
            for other in self._records()
            if other is not record
            and not other.status.state.is_final
            and not other.accepted.spec.aside
            and other not in self._waiting
        )
        return sum(1 for _ in begun) < self._most

    async def join(self, record: JobRecord) -> None:
        """Starts a new job now, or as soon as it has its turn and its GPUs."""
        self.rejoin(record)
        await self._look()

    def rejoin(self, record: JobRecord) -> None:
        """Takes in a job that was waiting, or had just been given its GPUs, when an agent ended."""
        self._waiting.append(record)
        self._waiting.sort(key=lambda waiting: waiting.accepted.created)
        self._changed.set()

    def look_again(self) -> None:
        """A job has ended: perhaps its GPUs are free."""
        if self._waiting:
            self._changed.set()

    def holds(self, record: JobRecord) -> bool:
        """True while that job waits."""
        return record in self._waiting

    async def cancel(self, record: JobRecord) -> bool:
        """Ends a job that waits; False if it does not wait (any more), or has a keeper.

        Whoever asks may be cancelled: what is on disk and what is known here stay the same.
        """
        if record not in self._waiting:
            return False
        return await self._cancelled.do(record.accepted.id, lambda: self._cancel(record))

    async def _cancel(self, record: JobRecord) -> bool:
        async with self._deciding:
            if record not in self._waiting:
                return False
            over = replace(
                record.status,
                state=JobState.CANCELLED,
                reason=Reason.STOPPED,
                gpus=(),
                message="",
                ended=time.time(),
                revision=record.status.revision + 1,
            )
            if not await to_its_end(lambda: self._store.end_unstarted(record.accepted.id, over)):
                return False
            self._waiting.remove(record)
            record.update(over)
        self._changed.set()
        return True

    async def _serve(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK if self._waiting else None):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._look()
            except Exception:  # noqa: BLE001  # the next look may do better
                _log.exception("the jobs that wait for GPUs were not looked at")

    async def _look(self) -> None:
        async with self._busy:
            if self._waiting:
                await self._serve_waiting()
            await self._rest()

    async def _rest(self) -> None:
        if not self._waiting:
            await self._close()

    async def _close(self) -> None:
        # Not while a look hangs: the library is in there.
        if self._looking is None or self._looking.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await in_daemon(self._nvml.close)

    async def _devices(self) -> tuple[Device, ...]:
        """All GPUs of the machine.

        Raises:
            GpusUnknownError: The driver does not tell, or not in time.
        """
        if self._looking is None or self._looking.done():
            self._looking = in_daemon(self._nvml.look)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._looking)
        except TimeoutError as error:
            raise GpusUnknownError("the NVIDIA driver does not answer") from error

    async def _serve_waiting(self) -> None:
        usable: tuple[Device, ...] = ()
        trouble = ""
        if any(wants_gpus(record.accepted.spec) for record in self._waiting):
            try:
                usable = allowed(await self._devices(), self._visible)
            except GpusUnknownError as error:
                trouble = f"waits for GPUs: {error.cause}"
        taken = self._claims()
        for record in list(self._waiting):
            async with self._deciding:
                if record not in self._waiting:  # stopped meanwhile
                    continue
                try:
                    found = self._found(record, usable, taken, trouble=trouble)
                    await self._serve_one(record, found)
                except (OSError, RdevError) as error:  # one job's, never the others'
                    _log.warning("job %s waits: %s", record.accepted.id, error)
                taken |= self._wants(record, usable, but=taken)

    def _found(
        self,
        record: JobRecord,
        usable: Sequence[Device],
        taken: Mapping[str, str],
        *,
        trouble: str,
    ) -> tuple[Gpu, ...] | str:
        """What a job can have now, or why it waits."""
        if record.status.gpus:  # it was about to be launched when something went wrong
            return record.status.gpus
        if not self._has_turn(record):
            return f"waits for its turn: the site lets each user have {self._most} live here"
        if not wants_gpus(record.accepted.spec):
            return ()
        return trouble or choose(_request(record), usable, taken)

    def _wants(
        self, record: JobRecord, usable: Sequence[Device], *, but: Mapping[str, str]
    ) -> dict[str, str]:
        """By UUID, what a job has claimed by now, or keeps later ones from as long as it waits."""
        name = record.accepted.name
        if not wants_gpus(record.accepted.spec):
            return {}
        if record not in self._waiting:
            return {gpu.uuid: f"is held by the job {name}" for gpu in record.status.gpus}
        wanted = f"is wanted by the job {name}, which came first"
        found = candidates(_request(record), usable)
        return {device.gpu.uuid: wanted for device in found if device.gpu.uuid not in but}

    def _claims(self) -> dict[str, str]:
        """By UUID, the claims of live jobs."""
        return {
            gpu.uuid: f"is held by the job {record.accepted.name}"
            for record in self._records()
            if not record.status.state.is_final
            for gpu in record.status.gpus
        }

    async def _serve_one(self, record: JobRecord, found: tuple[Gpu, ...] | str) -> None:
        """Launches a job that can have these GPUs, or says why it waits."""
        if isinstance(found, str):
            if record.status.message != found:
                await self._write(record, replace(record.status, message=found))
            return
        if record.status.gpus != found or record.status.message:
            await self._write(record, replace(record.status, gpus=found, message=""))
        if found:
            await to_its_end(lambda: self._store.give_gpus(record.accepted.id, found))
        self._waiting.remove(record)
        await self._launch(record)

    async def _write(self, record: JobRecord, status: Status) -> None:
        status = replace(status, revision=record.status.revision + 1)
        await to_its_end(lambda: self._store.write_status(record.accepted.id, status))
        record.update(status)


def _request(record: JobRecord) -> GpuRequest:
    return record.accepted.spec.gpus or GpuRequest()
