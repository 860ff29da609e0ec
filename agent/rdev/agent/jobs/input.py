"""The inputs of live jobs: who writes into which, one write after the other.

opened (told how much of the writer's is there) --write--> committed, the supervisor is told
   '--the same writer opens again--> refused     --end, or the job is over--> ended
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

from rdev.agent.jobs.record import JobRecord
from rdev.agent.threads import to_its_end
from rdev.protocol.errors import JobConflict, os_failure
from rdev.protocol.ids import WRITER_ID, require
from rdev.wire.input import Spool

# An agent that is being replaced ends its writers' streams at once.
_PATIENCE = 10.0
_PAUSE = 0.02


class Inputs:
    """The inputs of all jobs of one agent.

    Args:
        tell: Tells a job's supervisor that there is more input; returns at once.
    """

    def __init__(self, tell: Callable[[JobRecord], None]) -> None:
        self._tell = tell
        self._inputs: dict[str, _Input] = {}

    @contextlib.asynccontextmanager
    async def open(self, record: JobRecord, writer_id: str) -> AsyncIterator[Writer]:
        """Opens a job's input for one writer; what it opened before is refused from now on.

        Args:
            record: The job.
            writer_id: Made by the client; the same one goes on where it was.

        Raises:
            JobConflict: The job takes no input, or another agent of this home has it open.
            InvalidRequest: The id breaks a rule.
        """
        identity = bytes.fromhex(require(WRITER_ID, writer_id, "writer id"))
        _require_input(record)
        job_id = record.accepted.id
        shared = self._inputs.setdefault(job_id, _Input(record))
        shared.users += 1
        try:
            yield await shared.join(identity, partial(self._tell, record))
        finally:
            shared.users -= 1
            if not shared.users:
                del self._inputs[job_id]
                shared.close()


class Writer:
    """One client's way into one job's input."""

    def __init__(
        self, shared: _Input, spool: Spool, identity: bytes, tell: Callable[[], None]
    ) -> None:
        self._shared = shared
        self._spool = spool
        self._identity = identity
        self._tell = tell

    @property
    def accepted(self) -> int:
        """Bytes of this writer that are recorded, those of a write that was cancelled too."""
        return self._spool.accepted(self._identity)

    @property
    def has_ended(self) -> bool:
        """Nothing more is taken: the input, or the job, has ended."""
        return self._spool.has_ended or self._shared.record.status.state.is_final

    async def write(self, data: bytes) -> None:
        """Records all of `data`, unless the input has ended.

        Raises:
            DiskFull: There is no space; nothing of `data` is recorded.
            JobConflict: The same writer has opened the input anew.
        """
        await self._commit(lambda: self._spool.write(self._identity, data))

    async def end(self) -> None:
        """Ends the input; that of a terminal has no end.

        Raises:
            DiskFull: There is no space; the input has not ended.
            JobConflict: The same writer has opened the input anew.
        """
        if self._shared.record.accepted.spec.terminal is None:
            await self._commit(lambda: self._spool.finish(self._identity))

    async def _commit(self, work: Callable[[], None]) -> None:
        shared = self._shared
        action = f"write the input of the job {shared.record.accepted.name!r}"
        async with shared.lock:
            if shared.writers.get(self._identity) is not self:
                raise JobConflict(action, "the same client has gone on in another connection")
            if self.has_ended:
                return
            try:
                await to_its_end(work)
            except OSError as error:
                raise os_failure(action, error) from error
            finally:
                # Cancelled or not, it may have been recorded.
                self._tell()


class _Input:
    """What the writers of one job share."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.users = 0
        self.lock = asyncio.Lock()
        self.writers: dict[bytes, Writer] = {}
        self._spool: Spool | None = None

    async def join(self, identity: bytes, tell: Callable[[], None]) -> Writer:
        async with self.lock:
            if self._spool is None:
                self._spool = await self._open()
            writer = self.writers[identity] = Writer(self, self._spool, identity, tell)
            return writer

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    async def _open(self) -> Spool:
        action = f"write the input of the job {self.record.accepted.name!r}"
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        return await self._open_once()
                    await asyncio.sleep(_PAUSE)
        except TimeoutError as error:
            raise JobConflict(action, "another agent has it open") from error
        except OSError as error:
            raise os_failure(action, error) from error

    async def _open_once(self) -> Spool:
        """Opens the spool; one that is open by the time of a cancellation is closed again."""
        opened: list[Spool] = []
        try:
            await to_its_end(lambda: opened.append(Spool(self.record.files)))
        except asyncio.CancelledError:
            for spool in opened:
                spool.close()
            raise
        return opened[0]


def _require_input(record: JobRecord) -> None:
    if record.accepted.spec.takes_input:
        return
    action = f"write the input of the job {record.accepted.name!r}"
    hint = "start it with `rdev run -i`, or in a terminal with `rdev run -t`"
    raise JobConflict(action, "it takes no input", hint=hint)
