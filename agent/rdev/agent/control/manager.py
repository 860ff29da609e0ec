"""Asks the loops of a job for something, in every rank after the same step.

members --none--> the live probe is armed --> members
   | one, or all paused                       | several
   v                                          v
control at the next boundary        meet, then control at the largest step + 1
   '---------------------> outcomes, from the event record <---------'
                              | patience ends, or whoever asked has gone
                              v
               withdrawn from all; if a rank has begun to serve it, asked of all again

What is asked again under the same id is served once: a rank knows what it has served, and of a job
that has ended the event record does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rdev.agent.control import members as runs
from rdev.agent.control.looking import explain
from rdev.agent.control.members import ASK_SECONDS, Member
from rdev.agent.control.why import Account
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

# After a supervisor was replaced its job's processes dial again within a second.
_DIAL_AGAIN = 3.0

# Ranks that are about to be held are, at the end of a step that is nearly made.
_SETTLING = 1.0

# What a rank has begun to serve it has served within milliseconds; a checkpoint takes seconds.
_BEGUN_SECONDS = 10.0

_HINT = "`rdev ctl JOB why` says what holds it up; `--patience` waits longer"

# What a verb does to a job, where that is not its own word.
_DOES = {
    Verb.STEP: "step on with",
    Verb.CHECKPOINT: "write a checkpoint of",
    Verb.SET: "set a value in",
    Verb.RELOAD: "reload code in",
    Verb.STATE: "read the state of",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks of a job.

    Attributes:
        request_id: Makes it idempotent.
        by: Who asks, as `user@laptop`.
        patience: Seconds until it is withdrawn.
        job_name: For errors; the manager finds it.
    """

    job_id: str
    request_id: str
    verb: Verb
    args: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    patience: float = PATIENCE
    job_name: str = ""

    @property
    def action(self) -> str:
        """For errors."""
        return f"{_DOES.get(self.verb, self.verb.value)} the job {self.job_name!r}"


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
        self._meetings: dict[str, asyncio.Lock] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def control(self, order: Order) -> Sequence[Outcome]:
        """Asks all ranks and waits for what comes of it; cancelled, it is taken back.

        Returns:
            An outcome for each rank, by rank.

        Raises:
            JobConflict: No run is under way, and none can be watched; or somebody else is at it.
            JobNotRunning: The job has ended, or ended before it was served.
            TimedOut: A rank reached no boundary in time; the cause says what is served later.
        """
        async with self._turn(order.request_id):
            job = await self._jobs.get(order.job_id)
            order = replace(order, job_name=job.name)
            try:
                _check_running(job, order.action)
            except JobNotRunning:
                # Asked again after an agent was killed: it may have been served.
                if outcomes := await asyncio.to_thread(self._recorded, order):
                    return outcomes
                raise
            found = await self._found(job, order)
            outcomes = await self._served(job, order, found)
            if _gave_way(found, outcomes):  # to a run of the script's own, which has just begun
                outcomes = await self._served(job, order, await self._found(job, order))
            return outcomes

    @contextlib.asynccontextmanager
    async def _turn(self, request_id: str) -> AsyncIterator[None]:
        """Whoever asks the same again waits until the first asking is over, or taken back."""
        lock = self._turns.setdefault(request_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._turns.pop(request_id, None)

    def _recorded(self, order: Order) -> Sequence[Outcome]:
        try:
            reader = EventReader(self._jobs.record(order.job_id).files, 0, kinds=(CONTROLLED,))
        except FileNotFoundError:
            return []
        outcomes = {}
        with reader:
            while batch := reader.read():
                for event in map(_event, batch):
                    if event.fields.get("id") == order.request_id:
                        member = Member(event.rank, event.pid, {})
                        outcomes[event.pid] = _outcome(member, event.fields)
        return sorted(outcomes.values(), key=lambda outcome: outcome.rank)

    async def _found(self, job: Job, order: Order) -> list[Member]:
        """The ranks to be asked: all, for one that is held alone holds up the others."""
        found, missing = await runs.gathered(self._jobs, job, order.action, patience=0)
        if not found:
            await self._watch(job, order)
        if missing:
            found, missing = await runs.gathered(
                self._jobs, job, order.action, patience=order.patience
            )
        if not found:
            cause = "its steps are watched now, and nothing has come of that yet"
            raise TimedOut(order.action, cause, hint=_HINT)
        if missing and order.verb is not Verb.STATE:
            cause = f"rank {min(missing)} has begun no run, and waits would not end without it"
            raise TimedOut(order.action, cause, hint=_HINT)
        return await self._settled(job, order, found)

    async def _settled(self, job: Job, order: Order, found: list[Member]) -> list[Member]:
        """All ranks, once they are held or go on together."""
        until = time.monotonic() + _SETTLING
        while (held := _held(found)) and len(held) < len(found):
            if time.monotonic() < until:
                await asyncio.sleep(_LOOK_AGAIN)
                found = await runs.members(self._jobs, job, order.action) or found
            elif order.verb is Verb.STATE:
                return held
            elif order.verb in (Verb.RESUME, Verb.STEP, Verb.STOP):
                return found
            else:
                reason = held[0].where.get("reason") or "it is paused"
                raise JobConflict(
                    order.action,
                    f"rank {held[0].rank} alone is held ({reason}), and others wait for it",
                    hint="`rdev ctl JOB resume` lets it go on",
                )
        return found

    async def _served(self, job: Job, order: Order, found: Sequence[Member]) -> Sequence[Outcome]:
        _check(order, found)
        offset = await asyncio.to_thread(end_of, self._jobs.record(job.id).files)
        asked: dict[str, Any] = {}
        try:
            async with asyncio.timeout(order.patience):
                # One meeting at a time; whoever waits for his steps keeps nobody from pausing them.
                async with self._meetings.setdefault(order.job_id, asyncio.Lock()):
                    done = await self._ask(order, found, asked)
                return await self._outcomes(job, order, found, offset, done)
        except TimeoutError:
            return await self._belated(job, order, found, offset, asked)
        except (asyncio.CancelledError, RdevError):
            begun = await self._withdraw(order, found)
            await self._ask_rest(order, found, begun, asked)
            raise

    async def _belated(
        self,
        job: Job,
        order: Order,
        found: Sequence[Member],
        offset: int,
        asked: Mapping[str, Any],
    ) -> Sequence[Outcome]:
        """Takes it back after its patience; what a rank has begun to serve, all serve."""
        begun = await self._withdraw(order, found)
        if not begun:
            raise TimedOut(order.action, _late(order, found), hint=_HINT)
        await self._ask_rest(order, found, begun, asked)
        if order.verb is Verb.STEP:
            cause = f"not all steps are made within {order.patience:g} s; it pauses when they are"
            raise TimedOut(order.action, cause, hint="`rdev ctl JOB pause` holds it before that")
        try:
            async with asyncio.timeout(_BEGUN_SECONDS):
                return await self._outcomes(job, order, found, offset, {})
        except TimeoutError:
            cause = f"rank {begun[0].rank} has begun to, and the others will after the same step"
            raise TimedOut(order.action, cause, hint=_HINT) from None

    async def _ask_rest(
        self,
        order: Order,
        found: Sequence[Member],
        begun: Sequence[Member],
        asked: Mapping[str, Any],
    ) -> None:
        rest = [member for member in found if member not in begun] if begun and asked else []
        for member in rest:
            with contextlib.suppress(RdevError):
                await self._send(order, member, "control", asked)

    async def set_probe(self, job_id: str, *, armed: bool) -> Sequence[int]:
        """Arms or disarms the live probe; returns the ranks.

        Raises:
            JobConflict: It cannot be armed; says why.
        """
        job = await self._jobs.get(job_id)
        action = f"{'watch' if armed else 'unwatch'} the job {job.name!r}"
        _check_running(job, action)
        if not armed:
            return await runs.disarm(self._jobs, job)
        return await runs.arm(self._jobs, job, action, patience=PATIENCE)

    async def explain(self, job_id: str) -> tuple[str, Sequence[Account]]:
        """What a job does, or what holds it up.

        Raises:
            JobNotFound: There is no such job.
        """
        return await explain(self._jobs, await self._jobs.get(job_id))

    async def _watch(self, job: Job, order: Order) -> None:
        """Arms the live probe, unless a run of the script's own comes first."""
        began = time.monotonic()
        while True:
            try:
                await runs.arm(self._jobs, job, order.action, patience=order.patience)
            except JobConflict:
                # It may still import: what comes first, a run of its own or an optimizer, serves.
                is_young = time.time() - job.started < _YOUNG_SECONDS
                took = time.monotonic() - began
                is_dialing = took < _DIAL_AGAIN and not await self._jobs.peers(job.id)
                if not (is_young or is_dialing) or took > order.patience:
                    raise
            else:
                return
            await asyncio.sleep(_LOOK_AGAIN)
            if await runs.members(self._jobs, job, order.action):
                return

    async def _ask(
        self, order: Order, found: Sequence[Member], request: dict[str, Any]
    ) -> dict[int, Mapping[str, Any]]:
        """Asks all; returns by process what was served before, under the same id.

        Args:
            order: What.
            found: Whom.
            request: Is filled with what is asked once it is known.
        """
        place: dict[str, Any] = {}
        # Ranks that are held are served at once, wherever they are.
        if len(found) > 1 and not all(member.is_paused for member in found):
            place = {"at": await self._met(order, found), "meeting": order.request_id}
        request |= {
            "id": order.request_id,
            "verb": order.verb.value,
            "args": dict(order.args),
            "by": order.by,
            **place,
        }
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
        await asyncio.gather(*(self._quietly(order, member, "part") for member in found))

    async def _send(
        self, order: Order, member: Member, name: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Sends a command, which may come twice; again if the supervisor is just replaced."""
        until = time.monotonic() + ASK_SECONDS * 5
        while True:
            try:
                return await self._jobs.command(
                    order.job_id,
                    "loop",
                    member.rank,
                    name,
                    args,
                    pid=member.pid,
                    timeout=ASK_SECONDS * 5,
                )
            except (JobConflict, JobNotRunning) as error:
                if not _is_passing(error) or time.monotonic() > until:
                    raise
            await asyncio.sleep(_LOOK_AGAIN)
            _check_running(await self._jobs.get(order.job_id), order.action)

    async def _quietly(self, order: Order, member: Member, name: str) -> Mapping[str, Any]:
        """Sends what takes something back; a rank that does not answer now hears of it later."""
        args, rank, pid = {"id": order.request_id}, member.rank, member.pid
        with contextlib.suppress(RdevError):
            return await self._jobs.command(
                order.job_id, "loop", rank, name, args, pid=pid, timeout=ASK_SECONDS
            )
        return {}

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

    async def _withdraw(self, order: Order, found: Sequence[Member]) -> list[Member]:
        """Takes it back; returns the ranks that have served it, or begun to."""
        answers = await asyncio.gather(
            *(self._quietly(order, member, "withdraw") for member in found)
        )
        await self._part(order, found)
        pairs = zip(found, answers, strict=True)
        return [member for member, answer in pairs if answer.get("begun") is True]


def _check_running(job: Job, action: str) -> None:
    if job.state is not JobState.RUNNING:
        state = job.state.value
        raise JobNotRunning(
            action, f"it has ended ({state})" if job.state.is_final else f"it is {state}"
        )


def _held(found: Sequence[Member]) -> list[Member]:
    return [member for member in found if member.is_paused]


def _is_passing(error: RdevError) -> bool:
    # The supervisor was replaced, or the process has not dialed the new one yet.
    return isinstance(error, JobNotRunning) or str(error).endswith(" is connected")


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
