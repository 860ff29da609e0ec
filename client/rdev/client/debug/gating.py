"""Waits until a job is about to begin a step, for whoever wants breakpoints from there on.

    told --each rank is held before the step--> attach: it begins once the breakpoints are set
      '--the step is past--> said, attach at once      '--Ctrl-C, it ends--> taken back

Nothing is attached meanwhile, so the wait costs the job nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from rdev.client.connection import Connection
from rdev.client.debug.expecting import Expected, Telling, held, told
from rdev.client.jobs import Jobs
from rdev.protocol.errors import DebuggerUnavailable, JobNotRunning, TimedOut
from rdev.v1 import debug_pb2 as pb
from rdev.wire.job import Job

# How often a job that says nothing is asked whether the step is past: a debugger of somebody else's
# may have been in it just then, for which no step waits. Each asking takes it a millisecond.
_LOOK_SECONDS = 10.0


async def until_step(
    connection: Connection,
    job: Job,
    expected: Expected,
    tell: Callable[[str], None],
) -> None:
    """Returns when the step waits for a debugger, or is past.

    Args:
        connection: Where the job is.
        job: The job.
        expected: From which step on, see `from_step`; a rank of None means all of them.
        tell: Shows a line to the person.

    Raises:
        DebuggerBusy: Somebody is attached.
        DebuggerUnavailable: Nobody counts steps in it, or no process has the hook.
        JobNotRunning: It ended before.
        TimedOut: The step did not come in time.
    """
    step = expected.stops.from_step
    action = f"wait for step {step} in {job.name}"
    async with told(connection, job, expected) as (ask, answer):
        _require_counted(action, job, answer)
        if _is_past(answer, step):
            tell(f"step {step} is past, {job.name} is at {max(answer.steps)}: set at once")
            return
        tell(f"waiting for step {step} in {job.name}, attached to nothing; Ctrl-C takes it back")
        try:
            async with asyncio.timeout(expected.timeout):
                await _arrive(connection, job, expected, ask=ask, action=action)
        except TimeoutError as error:
            cause = f"it did not come within {expected.timeout:g} s"
            raise TimedOut(action, cause, hint="give it more time with --timeout") from error


async def _arrive(
    connection: Connection, job: Job, expected: Expected, *, ask: Telling, action: str
) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await _until_held(connection, job, expected, action)
            return
        if _is_past(await ask(), expected.stops.from_step):
            return


async def _until_held(connection: Connection, job: Job, expected: Expected, action: str) -> None:
    """Waits until all of the ranks are held before the step."""
    wanted = job.ranks if expected.rank is None else 1
    async for now in Jobs(connection).watch(job.id):
        if now.state.is_final:
            raise JobNotRunning(action, f"it has ended ({now.state.value})")
        if len(set(held(now, expected))) >= wanted:
            return
    raise JobNotRunning(action, "it has ended")


def _is_past(answer: pb.SetStopsResponse, step: int) -> bool:
    """Whether the step has begun already, in each rank that was asked."""
    return bool(answer.steps) and min(answer.steps) >= step


def _require_counted(action: str, job: Job, answer: pb.SetStopsResponse) -> None:
    if not answer.uncounted:
        return
    ranks = ", ".join(map(str, answer.uncounted))
    where = f" in rank {ranks}" if job.ranks > 1 else " in it"
    hint = (
        "a loop or track of rdev.loop does; of a torch training that runs already"
        f" `rdev ctl {job.name} watch` does, from then on"
    )
    raise DebuggerUnavailable(action, f"nobody counts steps{where}", hint=hint)
