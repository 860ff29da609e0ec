"""Waits until a running job stops by itself for a debugger: at an exception, or before a step.

    told --a rank waits--> that rank        told --Ctrl-C, the time is up--> taken back
                                               '--- the job ends --> said

Nothing is attached meanwhile, so the wait costs the job nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rdev.client.connection import UNARY_DEADLINE, Connection, translating
from rdev.client.jobs import Jobs
from rdev.protocol.convert_job import start_to_proto
from rdev.protocol.errors import JobNotRunning, RdevError, TimedOut
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc
from rdev.wire.job import DebugStart, Job

# Each rank's hook answers at once, unless its process sits in C code: the agent waits 10 s then.
_TOLD_SECONDS = 2 * UNARY_DEADLINE

# Taking stops back must not keep who leaves.
_TAKEN_BACK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a job is to stop at.

    Attributes:
        stops: When.
        rank: Only this rank; None means whichever comes first.
        timeout: Seconds to wait; None waits for ever.
    """

    stops: DebugStart
    rank: int | None = None
    timeout: float | None = None

    @property
    def words(self) -> str:
        """What is waited for, as a person reads it."""
        what = ["an exception"] if self.stops.on_exception else []
        what += [f"step {self.stops.step}"] if self.stops.step else []
        return " or ".join(what)


async def until_it_waits(
    connection: Connection, job: Job, expected: Expected, tell: Callable[[str], None]
) -> int:
    """The rank that stopped and waits for a debugger; the stops of the others are taken back.

    Args:
        connection: Where the job is.
        job: The job.
        expected: What to wait for.
        tell: Shows a line to the person.

    Raises:
        JobNotRunning: It ended before.
        TimedOut: Nothing of it happened in time.
        DebuggerUnavailable: No process has the hook.
    """
    action = f"wait for {expected.words} in {job.name}"
    async with _told(connection, job, expected) as uncounted:
        if uncounted:
            tell(_uncounted(job, uncounted))
        tell(f"waiting for {expected.words} in {job.name}; Ctrl-C takes it back")
        try:
            async with asyncio.timeout(expected.timeout):
                async for now in Jobs(connection).watch(job.id):
                    for stop in now.stops:
                        if stop.unattended and expected.rank in (None, stop.rank):
                            return stop.rank
                    if now.state.is_final:
                        raise JobNotRunning(action, f"it has ended ({now.state.value})")
        except TimeoutError as error:
            cause = f"it did not come within {expected.timeout:g} s"
            raise TimedOut(action, cause, hint="give it more time with --timeout") from error
    raise JobNotRunning(action, "it has ended")


@asynccontextmanager
async def _told(connection: Connection, job: Job, expected: Expected) -> AsyncIterator[list[int]]:
    """The hooks wait for it inside the block; gives the ranks in which nobody counts steps."""
    try:
        yield await _set(connection, job, expected.stops, expected.rank, _TOLD_SECONDS)
    finally:
        # What the job was started with goes on to count; a step of it may be over.
        rest = DebugStart(on_exception=job.spec.debug.on_exception)
        with contextlib.suppress(RdevError):  # it has ended, or the host is away
            await _set(connection, job, rest, expected.rank, _TAKEN_BACK_SECONDS)


async def _set(
    connection: Connection, job: Job, stops: DebugStart, rank: int | None, seconds: float
) -> list[int]:
    request = pb.SetStopsRequest(job_id=job.id, rank=rank, stops=start_to_proto(stops))
    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    with translating(f"let {job.name} wait for a debugger"):
        response = await stub.SetStops(request, timeout=seconds)
    return list(response.uncounted)


def _uncounted(job: Job, ranks: list[int]) -> str:
    where = f"in {job.name}" if job.ranks <= 1 else f"in rank {', '.join(map(str, ranks))}"
    return f"nobody counts steps {where}: a step is noticed only where rdev.loop or track runs"
