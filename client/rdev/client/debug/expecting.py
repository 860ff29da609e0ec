"""Waits until a running job stops by itself for a debugger: at an exception, a step, or a NaN.

    told --a rank waits--> attach --> the others go on
      |--Ctrl-C, the time is up--> taken back
      '--the job ends--> said

Nothing is attached meanwhile, so the wait costs the job nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from rdev.client.connection import UNARY_DEADLINE, Connection, translating
from rdev.client.jobs import Jobs
from rdev.protocol.convert_job import start_to_proto
from rdev.protocol.errors import JobNotRunning, RdevError, TimedOut
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc
from rdev.wire.job import DebugStart, Job

# Each rank's hook answers at once, unless its process sits in C code: the agent waits 10 s then.
_TOLD_SECONDS = 2 * UNARY_DEADLINE

# Who is killed takes nothing back, and a laptop may sleep: what is not asked for again in that time
# is not waited for, and costs the job nothing any more.
_KEPT_SECONDS = 180
_AGAIN_SECONDS = 30.0
# How often ranks that have yet to begin are looked for.
_COMING_SECONDS = 0.2

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
        what += ["a number that is not finite"] if self.stops.on_nan else []
        steps = self.stops.step or self.stops.from_step
        what += [f"step {steps}"] if steps else []
        return " or ".join(what)

    @property
    def reasons(self) -> list[str]:
        """The reasons of the stops that it comes to, as the hook words them."""
        what = ["exception"] if self.stops.on_exception else []
        what += ["nan"] if self.stops.on_nan else []
        return what + [f"step {n}" for n in (self.stops.step, self.stops.from_step) if n]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that has come to what was waited for.

    Attributes:
        connection: Where the job is.
        job: The job.
        token: Under which it was waited for.
        rank: The rank that waits for a debugger; None if all of them do.
    """

    connection: Connection
    job: Job
    token: str
    rank: int | None

    async def let_others_go(self) -> None:
        """The rank is attached to, and the timeouts are raised: the others go on."""
        if self.rank is None:
            return
        for rank in range(self.job.ranks):
            if rank != self.rank:
                await take_back(self.connection, self.job, rank, self.token)

    async def leave(self) -> None:
        """No rank waits for us any more, as when the attach has failed."""
        await take_back(self.connection, self.job, None, self.token)


async def until_it_waits(
    connection: Connection, job: Job, expected: Expected, tell: Callable[[str], None]
) -> Arrival:
    """Returns when a rank has stopped and waits for a debugger; else all is taken back.

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
    async with asking(connection, job) as token:
        answer = await ask_all(connection, job, expected, token=token, tell=tell)
        if expected.stops.step and answer.uncounted:
            tell(_uncounted(job, list(answer.uncounted)))
        for cause in sorted(set(answer.blind.values())):
            tell(f"nothing is seen in {job.name} yet: {cause}")
        tell_silent(answer, tell)
        tell(f"waiting for {expected.words} in {job.name}; Ctrl-C takes it back")
        try:
            async with asyncio.timeout(expected.timeout):
                async with asked_again(connection, job, expected, token):
                    rank = await _until_held(connection, job, expected, action)
            if job.ranks > 1 and expected.rank is None:
                tell(f"rank {rank} came first: going there; the others go on")
            return Arrival(connection, job, token, rank)
        except TimeoutError as error:
            cause = f"it did not come within {expected.timeout:g} s"
            raise TimedOut(action, cause, hint="give it more time with --timeout") from error


@asynccontextmanager
async def asked_again(
    connection: Connection, job: Job, expected: Expected, token: str
) -> AsyncIterator[None]:
    """Renews what is waited for while the block runs; whoever did not answer is told, too."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(RdevError):  # the host is away, or the job has ended
                await ask(connection, job, expected, token=token)

    failure: RdevError | None = None
    async with asyncio.TaskGroup() as group:
        renewing = group.create_task(renew())
        try:
            yield
        except RdevError as error:  # a group would wrap it
            failure = error
        finally:
            renewing.cancel()
    if failure is not None:
        raise failure


async def _until_held(connection: Connection, job: Job, expected: Expected, action: str) -> int:
    async for now in Jobs(connection).watch(job.id):
        if here := held(now, expected):
            return here[0]
        if now.state.is_final:
            raise JobNotRunning(action, f"it has ended ({now.state.value})")
    raise JobNotRunning(action, "it has ended")


def held(job: Job, expected: Expected) -> list[int]:
    """The ranks that are held for what is waited for, and by nothing else."""
    return [
        stop.rank
        for stop in job.stops
        if stop.unattended
        and expected.rank in (None, stop.rank)
        and stop.reason in expected.reasons
    ]


@asynccontextmanager
async def asking(connection: Connection, job: Job) -> AsyncIterator[str]:
    """Gives a token; what is asked for under it is taken back if the block fails."""
    token = secrets.token_hex(8)
    try:
        yield token
    except BaseException:
        await take_back(connection, job, None, token)
        raise


async def take_back(connection: Connection, job: Job, rank: int | None, token: str) -> None:
    """Nothing is waited for any more under that token; None of the ranks means all of them.

    What the job was started with, and what others wait for, goes on to count.
    """
    nothing = Expected(DebugStart(), rank)
    with contextlib.suppress(RdevError, TimeoutError):  # it has ended, or the host is away
        async with asyncio.timeout(_TAKEN_BACK_SECONDS):
            await ask(connection, job, nothing, token=token)


async def ask(
    connection: Connection, job: Job, expected: Expected, *, token: str
) -> pb.SetStopsResponse:
    """Tells the hooks what is waited for under that token; they answer what they know of it.

    Again and again, or they forget it; what has come by then does not count a second time.
    """
    request = pb.SetStopsRequest(
        job_id=job.id,
        rank=expected.rank,
        stops=start_to_proto(expected.stops),
        token=token,
        kept=Duration(seconds=_KEPT_SECONDS),
    )
    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    with translating(f"let {job.name} wait for a debugger"):
        response: pb.SetStopsResponse = await stub.SetStops(request, timeout=_TOLD_SECONDS)
    return response


def tell_silent(answer: pb.SetStopsResponse, tell: Callable[[str], None]) -> None:
    """Says which ranks do not know what is waited for; one that answers too late does."""
    for rank, cause in sorted(answer.silent.items()):
        tell(f"rank {rank} is not told yet: {cause}")


async def ask_all(
    connection: Connection,
    job: Job,
    expected: Expected,
    *,
    token: str,
    tell: Callable[[str], None],
) -> pb.SetStopsResponse:
    """The same, once every rank that is wanted has begun; `tell` says for which it is waited."""
    is_told = job.ranks <= 1
    while (answer := await ask(connection, job, expected, token=token)).coming:
        if not is_told:
            tell(f"waiting for {ranks_words(answer.coming)} to begin")
            is_told = True
        await asyncio.sleep(_COMING_SECONDS)
    return answer


def rank_that_waits(job: Job) -> int | None:
    """The lowest rank that has stopped by itself and waits for a debugger; None if none does."""
    return min((stop.rank for stop in job.stops if stop.unattended), default=None)


def going_where_it_waits(job: Job) -> str:
    """What is said of going to `rank_that_waits` unasked; empty if there is no choice."""
    waiting = sorted({stop.rank for stop in job.stops if stop.unattended})
    if job.ranks <= 1 or not waiting:
        return ""
    verb = "waits" if len(waiting) == 1 else "wait"
    return f"{ranks_words(waiting)} {verb} for a debugger: going to rank {waiting[0]}"


def ranks_words(ranks: Sequence[int]) -> str:
    """Ranks as a person reads them."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _uncounted(job: Job, ranks: list[int]) -> str:
    where = f"in {job.name}" if job.ranks <= 1 else f"in rank {', '.join(map(str, ranks))}"
    return f"nobody counts steps {where}: a step is noticed only where rdev.loop or track runs"
