"""Asks the loops of a job for something, in every rank after the same step.

members --none--> the live probe is armed --> members
   | one, or all paused                       | several
   v                                          v
control at the next boundary        meet, then control at the largest step + 1
   '---------------------> outcomes, from the event record <---------'
                              | patience ends: withdrawn
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdev.agent.control import members as runs
from rdev.agent.control.members import ASK_SECONDS, Member
from rdev.agent.control.why import Account, Verdict, explain
from rdev.agent.jobs.manager import JobManager
from rdev.agent.logs.events import EventReader, end_of
from rdev.agent.logs.follow import follow
from rdev.agent.logs.inotify import Inotify
from rdev.protocol.errors import JobConflict, JobNotRunning, RdevError, TimedOut
from rdev.wire.control import MEETING_SECONDS, RUN_OVER, Verb
from rdev.wire.events import CONTROLLED, Event
from rdev.wire.job import Job, JobState

# A step of a large model takes seconds; who knows better says so.
PATIENCE = 30.0

# Importing torch takes some seconds, from a network home up to a minute.
_YOUNG_SECONDS = 60.0
_LOOK_AGAIN = 0.2

_HINT = "`rdev ctl JOB why` says what holds it up; `--patience` waits longer"


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks of a job.

    Attributes:
        request_id: Makes it idempotent.
        by: Who asks, as `user@laptop`.
        patience: Seconds until it is withdrawn.
    """

    job_id: str
    request_id: str
    verb: Verb
    args: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    patience: float = PATIENCE

    @property
    def action(self) -> str:
        """For errors."""
        return f"{self.verb.value} job {self.job_id}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it in one rank; `cause` if it was refused."""

    rank: int
    pid: int
    step: int
    epoch: int
    phase: str
    answer: Mapping[str, Any]
    cause: str


class ControlManager:
    """Controls the jobs of one manager; requests to the same job wait for one another.

    Args:
        jobs: The jobs.
        inotify: The agent's.
    """

    def __init__(self, jobs: JobManager, inotify: Inotify) -> None:
        self._jobs = jobs
        self._inotify = inotify
        self._locks: dict[str, asyncio.Lock] = {}

    async def control(self, order: Order) -> Sequence[Outcome]:
        """Asks all ranks and waits for what comes of it.

        Returns:
            An outcome for each rank, by rank.

        Raises:
            JobConflict: No run is under way, and none can be watched; or somebody else is at it.
            JobNotRunning: The job has ended, or ended before it was served.
            TimedOut: A rank reached no boundary in time; nothing will be served later.
        """
        lock = self._locks.setdefault(order.job_id, asyncio.Lock())
        async with lock:
            job = await self._running(order.job_id, order.action)
            found = await self._found(job, order)
            outcomes = await self._served(job, order, found)
            if _gave_way(found, outcomes):  # to a run of the script's own, which has just begun
                outcomes = await self._served(job, order, await self._found(job, order))
            return outcomes

    async def _found(self, job: Job, order: Order) -> list[Member]:
        found = await runs.members(self._jobs, job, order.action)
        return found or await self._watched(job, order)

    async def _served(self, job: Job, order: Order, found: Sequence[Member]) -> Sequence[Outcome]:
        _check(order, found)
        offset = await asyncio.to_thread(end_of, self._jobs.record(job.id).files)
        try:
            async with asyncio.timeout(order.patience):
                done = await self._ask(order, found)
                return await self._outcomes(job, order, found, offset, done)
        except TimeoutError:
            await self._withdraw(order, found)
            raise TimedOut(order.action, _late(order, found), hint=_HINT) from None

    async def set_probe(self, job_id: str, *, armed: bool) -> Sequence[int]:
        """Arms or disarms the live probe; returns the ranks.

        Raises:
            JobConflict: It cannot be armed; says why.
        """
        action = f"{'watch' if armed else 'unwatch'} job {job_id}"
        job = await self._running(job_id, action)
        if not armed:
            return await runs.disarm(self._jobs, job)
        return await runs.arm(self._jobs, job, action, patience=PATIENCE)

    async def explain(self, job_id: str) -> tuple[Verdict, Sequence[Account]]:
        """What a job does, or what holds it up.

        Raises:
            JobNotFound: There is no such job.
        """
        return await explain(self._jobs, await self._jobs.get(job_id))

    async def _running(self, job_id: str, action: str) -> Job:
        job = await self._jobs.get(job_id)
        if job.state is not JobState.RUNNING:
            state = job.state.value
            raise JobNotRunning(
                action, f"it has ended ({state})" if job.state.is_final else f"it is {state}"
            )
        return job

    async def _watched(self, job: Job, order: Order) -> list[Member]:
        until = asyncio.get_running_loop().time() + order.patience
        while True:
            try:
                await runs.arm(self._jobs, job, order.action, patience=order.patience)
                break
            except JobConflict:
                # It may still import: what comes first, a run of its own or an optimizer, serves.
                is_young = time.time() - job.started < _YOUNG_SECONDS
                if not is_young or asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(_LOOK_AGAIN)
            if found := await runs.members(self._jobs, job, order.action):
                return found
        # A probe begins a run at once, and its process dials within milliseconds.
        try:
            async with asyncio.timeout(order.patience):
                return await runs.arrived(self._jobs, job, order.action)
        except TimeoutError:
            cause = "its steps are watched now, and nothing has come of that yet"
            raise TimedOut(order.action, cause, hint=_HINT) from None

    async def _ask(self, order: Order, found: Sequence[Member]) -> dict[int, Mapping[str, Any]]:
        """Asks all; returns by process what was served before, under the same id."""
        request: dict[str, Any] = {
            "id": order.request_id,
            "verb": order.verb.value,
            "args": dict(order.args),
            "by": order.by,
        }
        # Ranks that are held are served at once, wherever they are.
        if len(found) > 1 and not all(member.is_paused for member in found):
            request |= {"at": await self._met(order, found), "meeting": order.request_id}
        answers = await asyncio.gather(
            *(self._send(order, member, "control", request) for member in found)
        )
        done = {m.pid: answer.get("done") for m, answer in zip(found, answers, strict=True)}
        return {pid: fields for pid, fields in done.items() if isinstance(fields, Mapping)}

    async def _met(self, order: Order, found: Sequence[Member]) -> int:
        """Has all ranks hold at their steps' ends; the step that none of them is beyond."""
        meeting = {"id": order.request_id, "seconds": MEETING_SECONDS}
        met = await asyncio.gather(
            *(self._send(order, member, "meet", meeting) for member in found),
            return_exceptions=True,
        )
        for failure in met:
            if isinstance(failure, BaseException):
                await self._part(order, found)
                raise failure
        return max(int(where["step"]) for where in met if isinstance(where, Mapping)) + 1

    async def _part(self, order: Order, found: Sequence[Member]) -> None:
        for member in found:
            with contextlib.suppress(RdevError):
                await self._send(order, member, "part", {"id": order.request_id})

    async def _send(
        self, order: Order, member: Member, name: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        rank, pid = member.rank, member.pid
        return await self._jobs.command(
            order.job_id, "loop", rank, name, args, pid=pid, timeout=ASK_SECONDS * 5
        )

    async def _outcomes(
        self,
        job: Job,
        order: Order,
        found: Sequence[Member],
        offset: int,
        done: dict[int, Mapping[str, Any]],
    ) -> Sequence[Outcome]:
        outcomes = {m.pid: _outcome(m, done[m.pid]) for m in found if m.pid in done}
        missing = {member.pid: member for member in found if member.pid not in done}
        files = self._jobs.record(job.id).files
        with EventReader(files, offset, kinds=(CONTROLLED,)) as reader:
            batches = follow(reader, files, self._inotify, path=files.events, is_endless=True)
            while missing and (batch := await anext(batches, None)) is not None:
                for event in map(_event, batch):
                    if event.fields.get("id") == order.request_id and event.pid in missing:
                        member = missing.pop(event.pid)
                        outcomes[member.pid] = _outcome(member, event.fields)
        if missing:
            raise JobNotRunning(order.action, "it ended before it was served")
        return [outcomes[member.pid] for member in found]

    async def _withdraw(self, order: Order, found: Sequence[Member]) -> None:
        await self._part(order, found)
        for member in found:
            with contextlib.suppress(RdevError):
                await self._send(order, member, "withdraw", {"id": order.request_id})


def _check(order: Order, found: Sequence[Member]) -> None:
    if order.verb is Verb.PAUSE and order.args.get("when") and len(found) > 1:
        raise JobConflict(
            order.action,
            "a condition holds one rank alone, and the others would wait for it in vain",
            hint="`rdev ctl JOB pause` holds all ranks after the same step",
        )


def _gave_way(found: Sequence[Member], outcomes: Sequence[Outcome]) -> bool:
    kinds = {member.where.get("kind") for member in found}
    return kinds == {"probe"} and any(outcome.cause == RUN_OVER for outcome in outcomes)


def _late(order: Order, found: Sequence[Member]) -> str:
    steps = sorted({int(member.where.get("step", 0)) for member in found})
    at = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else f"{steps[0]}" if steps else "?"
    return f"it reached no boundary within {order.patience:g} s; it was at step {at}"


def _event(recorded: Any) -> Event:  # noqa: ANN401  # what a reader yields
    return Event.from_json(recorded.line)


def _outcome(member: Member, fields: Mapping[str, Any]) -> Outcome:
    answer = fields.get("answer")
    return Outcome(
        rank=member.rank,
        pid=member.pid,
        step=int(fields.get("step") or 0),
        epoch=int(fields.get("epoch") or 0),
        phase=str(fields.get("phase") or ""),
        answer=answer if isinstance(answer, Mapping) else {},
        cause=str(fields.get("cause") or ""),
    )
