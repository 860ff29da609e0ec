"""Waits until a job is about to begin a step, for whoever wants breakpoints from there on.

    told --all ranks are held before the step--> attach --> the others are let go, and the rank
      |                                                     begins once its breakpoints are set
      |--the step is past--> said, attach at once
      '--Ctrl-C, it ends--> taken back

Nothing is attached meanwhile, so the wait costs the job nothing. Of several ranks all are held,
also for a breakpoint in one of them: whoever is held before the step is in no collective operation
that has the timeout of before the attach.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from rdev.client.connection import Connection
from rdev.client.debug.expecting import (
    Arrival,
    Expected,
    ask,
    ask_all,
    asking,
    held,
    tell_silent,
)
from rdev.client.jobs import Jobs
from rdev.protocol.errors import DebuggerUnavailable, JobNotRunning, TimedOut
from rdev.v1 import debug_pb2 as pb
from rdev.wire.job import Job

# How often a job that says nothing is asked whether the step is past: a debugger of somebody else's
# may have been in it just then, for which no step waits. Each asking takes it a millisecond.
_LOOK_SECONDS = 10.0

# Ranks that train together come to a step within one step of each other; those that do not would
# be waited for in vain.
_OTHERS_SECONDS = 3.0


class Gate:
    """One wait for a step.

    Args:
        connection: Where the job is.
        job: The job.
        expected: From which step on, see `from_step`; a rank of None means all of them.
        tell: Shows a line to the person.
    """

    def __init__(
        self, connection: Connection, job: Job, expected: Expected, tell: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._job = job
        self._wanted = expected
        self._all = replace(expected, rank=None)
        self._tell = tell
        self._token = ""
        self._step = expected.stops.from_step
        self._action = f"wait for step {self._step} in {job.name}"

    async def arrive(self) -> Arrival:
        """Returns when the step waits for a debugger, or is past; else it is taken back.

        Raises:
            DebuggerBusy: Somebody is attached.
            DebuggerUnavailable: Nobody counts steps in it, or no process has the hook.
            JobNotRunning: It ended before.
            TimedOut: The step did not come in time.
        """
        async with asking(self._connection, self._job) as self._token:
            arrival = Arrival(self._connection, self._job, self._token, self._wanted.rank)
            if not await self._arrive():
                await arrival.leave()
            return arrival

    async def _arrive(self) -> bool:
        """False if the step is past, and nothing waits."""
        answer = await ask_all(
            self._connection, self._job, self._all, token=self._token, tell=self._tell
        )
        self._require_counted(answer)
        if self._is_past(answer):
            self._tell(self._past(answer))
            return False
        tell_silent(answer, self._tell)
        waiting = f"waiting for step {self._step} in {self._job.name}, attached to nothing"
        self._tell(f"{waiting}; Ctrl-C takes it back")
        try:
            async with asyncio.timeout(self._wanted.timeout):
                return await self._until_held()
        except TimeoutError as error:
            cause = f"it did not come within {self._wanted.timeout:g} s"
            hint = "give it more time with --timeout"
            raise TimedOut(self._action, cause, hint=hint) from error

    async def _ask(self) -> pb.SetStopsResponse:
        return await ask(self._connection, self._job, self._all, token=self._token)

    async def _until_held(self) -> bool:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._watch(self._wanted)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_OTHERS_SECONDS):
                        await self._watch(self._all)
                return True
            if self._is_past(await self._ask()):
                return False

    async def _watch(self, expected: Expected) -> None:
        """Waits until the ranks are held before the step."""
        wanted = self._job.ranks if expected.rank is None else 1
        async for now in Jobs(self._connection).watch(self._job.id):
            if now.state.is_final:
                raise JobNotRunning(self._action, f"it has ended ({now.state.value})")
            if len(set(held(now, expected))) >= wanted:
                return
        raise JobNotRunning(self._action, "it has ended")

    def _is_past(self, answer: pb.SetStopsResponse) -> bool:
        """Whether the step has begun already, in each rank that is wanted."""
        return min(self._reached(answer), default=0) >= self._step

    def _past(self, answer: pb.SetStopsResponse) -> str:
        reached = min(self._reached(answer), default=0)
        return f"step {self._step} is past, {self._job.name} is at {reached}: set at once"

    def _reached(self, answer: pb.SetStopsResponse) -> list[int]:
        """The steps that have begun last in the ranks that are wanted."""
        steps = dict(zip(answer.ranks, answer.steps, strict=True))
        rank = self._wanted.rank
        return list(steps.values()) if rank is None else [steps.get(rank, 0)]

    def _require_counted(self, answer: pb.SetStopsResponse) -> None:
        uncounted = [r for r in answer.uncounted if self._wanted.rank in (None, r)]
        if not uncounted:
            return
        ranks = ", ".join(map(str, uncounted))
        where = f" in rank {ranks}" if self._job.ranks > 1 else " in it"
        hint = (
            "a loop or track of rdev.loop does; of a torch training that runs already"
            f" `rdev ctl {self._job.name} watch` does, from then on"
        )
        raise DebuggerUnavailable(self._action, f"nobody counts steps{where}", hint=hint)
