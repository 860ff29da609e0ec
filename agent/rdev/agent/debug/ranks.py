"""Stopping one rank of many: every rank's timeouts are raised before the first stop can happen.

    idle --join--> arming --every operation that was in flight is over--> armed --last leave--> idle
                     '--- a rank or a group that cannot be armed: refused, unless unsafe ---------'

Raising a timeout changes nothing for a collective that has begun. One that is in flight when the
timeouts are raised is over once every rank of its group has issued it too: the transport's own
threads do the rest, whether Python is stopped or not. The sequence numbers of the groups tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdev.agent.debug.target import Jobs
from rdev.protocol.errors import DebuggerUnavailable, RdevError
from rdev.wire.job import Job

_log = logging.getLogger(__name__)

# What the timeouts are raised to. A collective that begins meanwhile keeps it, and one that hangs
# is ended by torch no sooner, so it is no day; it is also the longest that one stop may last.
ARMED_SECONDS = 7200.0

# A process restores its timeouts by itself when nobody has renewed them for so long: the agent is
# gone, and with it the adapters, so nothing is stopped any more.
DEAD_MAN_SECONDS = 60.0
RENEW_SECONDS = 15.0

# How often the job is looked at while its ranks are armed: half of what a person notices.
TICK = 0.25

# While somebody waits for the attach.
LOOK_SECONDS = 0.05

# A process answers within milliseconds, unless its interpreter is kept busy by one long C call.
ANSWER_SECONDS = 10.0

# Told only if it takes noticeably long.
PATIENCE_SECONDS = 1.5

# An unarmed stop goes on so long before the shortest timeout.
MARGIN_SECONDS = 1.0

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the job, as its hook described it when it was armed.

    Attributes:
        rank: Its rank in the process group, else `job_rank`.
        pid: Its process id.
        job_rank: Its rank in the job, by which it is reached.
        size: Ranks of its default process group; 0 if it has none.
        groups: Names of the groups whose timeout was raised.
        refused: What could not be raised, each with its cause.
        shortest: The shortest timeout of its groups before they were raised, in seconds.
        longest: The longest one.
        armed: The shortest timeout read back, in seconds.
    """

    rank: int
    pid: int
    job_rank: int
    size: int = 0
    groups: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    shortest: float | None = None
    longest: float | None = None
    armed: float | None = None


def member_of(pid: int, job_rank: int, answer: Mapping[str, Any]) -> Member:
    """Reads a hook's answer to `arm`."""
    own = answer.get("rank")
    return Member(
        rank=own if isinstance(own, int) else job_rank,
        pid=pid,
        job_rank=job_rank,
        size=int(answer.get("size") or 0),
        groups=tuple(map(str, answer.get("groups") or ())),
        refused=tuple(map(str, answer.get("refused") or ())),
        shortest=_seconds(answer.get("shortest")),
        longest=_seconds(answer.get("longest")),
        armed=_seconds(answer.get("armed")),
    )


def hindrances(members: Sequence[Member]) -> list[str]:
    """Why a stop of one rank could end the others; empty if it cannot."""
    found = [f"rank {member.rank}: {what}" for member in members for what in member.refused]
    size = max((member.size for member in members), default=0)
    missing = sorted(set(range(size)) - {member.rank for member in members if member.size})
    if missing:
        found.append(f"{_ranks(missing)} of its process group cannot be reached")
    return found


def behind(goals: Mapping[str, int], sequences: Mapping[int, Mapping[str, int]]) -> list[int]:
    """The ranks that have yet to issue a collective which another rank had begun.

    Args:
        goals: Of each group, the highest number that any rank had issued once all were armed.
        sequences: Of each rank, the numbers of its groups now.
    """
    return sorted(
        rank
        for rank, numbers in sequences.items()
        if any(number < goals.get(group, 0) for group, number in numbers.items())
    )


@dataclass(frozen=True, slots=True)
class Arming:
    """What a session may rely on.

    Attributes:
        warnings: For the person, a line each, before the first stop.
        is_distributed: Whether the job has process groups at all, as far as is known.
    """

    warnings: tuple[str, ...] = ()
    is_distributed: bool = False


@dataclass(slots=True)
class _Armed:
    """The state of one job."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sessions: int = 0
    members: tuple[Member, ...] = ()
    arming: Arming = Arming()
    armed_at: float = 0.0
    goals: dict[str, int] | None = None
    is_settled: bool = False
    is_held: bool = False
    held_since: float | None = None
    pending_since: float | None = None  # What may be in flight began then, at the latest.
    keeper: asyncio.Task[None] | None = None


class Ranks:
    """Arms the ranks of jobs for as long as anybody debugs one of them.

    Args:
        jobs: Where the jobs are.
        start: Starts a coroutine in the owner's task group; it ends with the last `leave`.
    """

    def __init__(self, jobs: Jobs, start: Callable[[Any], asyncio.Task[None]]) -> None:
        self._jobs = jobs
        self._start = start
        self._armed: dict[str, _Armed] = {}

    async def join(
        self, job_id: str, *, unsafe: bool = False, notice: Notice = lambda _line: None
    ) -> Arming:
        """A session begins; returns once a stop of any rank endangers no other.

        Whoever joined leaves once, also if this raises nothing and the attach fails afterwards.
        If this raises or is cancelled, nothing has to be undone.

        Args:
            job_id: Full id.
            unsafe: Attach though a rank or a group cannot be armed, and do not wait.
            notice: Told, as lines for the person, what the attach waits for.

        Raises:
            DebuggerUnavailable: A group's timeout cannot be raised, or a rank cannot be reached.
        """
        state = self._armed.setdefault(job_id, _Armed())
        async with state.lock:
            state.sessions += 1
            if state.sessions > 1:
                return state.arming
            try:
                state.arming = await self._arm(job_id, state, unsafe=unsafe, notice=notice)
            except BaseException:
                await asyncio.shield(self._start(self._release(job_id, state)))
                raise
            state.keeper = self._start(self._keep(job_id, state))
            return state.arming

    async def leave(self, job_id: str) -> None:
        """A session has ended; the last one restores every rank's timeouts."""
        state = self._armed.get(job_id)
        if state is None:
            return
        async with state.lock:
            await self._release(job_id, state)

    def lease(self, job_id: str, asked: float, *, held: float = 0.0) -> float:
        """How long a stop may last from now.

        Args:
            job_id: Full id.
            asked: What the client would like, in seconds.
            held: How long this stop has lasted already.
        """
        state = self._armed.get(job_id)
        if state is None:
            return asked
        now = time.time()
        if state.held_since is not None:
            held = max(held, now - state.held_since)
        pending = None if state.is_settled else now - (state.pending_since or now)
        return lease_of(state.members, asked, held=held, pending=pending)

    async def _arm(self, job_id: str, state: _Armed, *, unsafe: bool, notice: Notice) -> Arming:
        state.members = await self._arm_all(job_id)
        state.armed_at = time.monotonic()
        state.goals, state.is_settled, state.pending_since = None, False, None
        found = hindrances(state.members)
        if found and not unsafe:
            raise DebuggerUnavailable(
                "stop one rank of the job",
                "; ".join(found),
                hint="`--unsafe` attaches all the same: a stop that lasts longer than the shortest"
                " timeout of its process groups would end the job",
            )
        warnings = [f"not armed: {what}" for what in found]
        if not await self._settle(job_id, state, unsafe=unsafe or bool(found), notice=notice):
            warnings.append(_limit(state.members))
        return Arming(tuple(warnings), is_distributed=any(m.size for m in state.members))

    async def _settle(self, job_id: str, state: _Armed, *, unsafe: bool, notice: Notice) -> bool:
        """Waits until no collective with an old timeout is in flight; False if it did not."""
        began, told = time.monotonic(), 0.0
        while not state.is_settled:
            waiting = await self._look(job_id, state)
            if state.is_settled:
                break
            state.held_since = _held_since(await self._jobs.get(job_id))
            if unsafe or state.held_since is not None:
                # Stops that follow, as at the next line, are of no concern to it.
                state.pending_since = state.held_since or time.time()
                return False  # Whoever is held issues nothing, and waiting would only cost time.
            waited = time.monotonic() - began
            if waited > PATIENCE_SECONDS and waited > 2 * told:
                notice(f"waiting for a step boundary on {_ranks(waiting)} since {waited:.0f} s")
                told = waited
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def _look(self, job_id: str, state: _Armed) -> list[int]:
        """Whether the job is settled now; returns the ranks that it waits for."""
        members = [member for member in state.members if member.size]
        longest = max((member.longest or 0.0 for member in members), default=0.0)
        if time.monotonic() - state.armed_at > longest + MARGIN_SECONDS or len(members) < 2:
            state.is_settled = True
            return []
        answers = await self._ask(job_id, members, "progress", {})
        if None in answers:
            await self._miss(job_id, members)
        sequences = {
            member.rank: _numbers(answer.get("sequence"))
            for member, answer in zip(members, answers, strict=True)
            if answer is not None
        }
        if state.goals is None:
            state.goals = _highest(sequences.values())
        waiting = behind(state.goals, sequences)
        state.is_settled = not waiting
        return waiting

    async def _miss(self, job_id: str, before: Sequence[Member]) -> None:
        """A rank did not answer: raises if it has gone, and with it what was waited for.

        Raises:
            DebuggerUnavailable: It has.
            JobNotRunning: So has the job.
        """
        alive = {peer["pid"] for peer in await self._jobs.peers(job_id)}
        gone = sorted(member.rank for member in before if member.pid not in alive)
        if gone:
            cause = f"{_ranks(gone)} ended meanwhile"
            raise DebuggerUnavailable("stop one rank of the job", cause)

    async def _keep(self, job_id: str, state: _Armed) -> None:
        """Renews, tells the ranks when one of them is held, and arms those that come later."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            try:
                job = await self._jobs.get(job_id)
                if job.state.is_final:
                    return
                state.held_since = _held_since(job)
                is_held = state.held_since is not None
                if is_held != state.is_held:
                    state.is_held = is_held
                    await self._ask_all(job_id, "hold", {"held": is_held})
                if time.monotonic() - renewed > RENEW_SECONDS:
                    renewed = time.monotonic()
                    await self._renew(job_id, state)
                if not state.is_settled:  # whoever steps may step over what it waits for
                    await self._look(job_id, state)
            except RdevError as error:
                _log.info("the ranks of job %s do not answer: %s", job_id, error)

    async def _renew(self, job_id: str, state: _Armed) -> None:
        before = {member.pid: member for member in state.members}
        members = await self._arm_all(job_id)
        # The hook answers with the timeouts of before the first arming, and knows them best.
        before.update((member.pid, member) for member in members)
        alive = {member.pid for member in members}
        state.members = tuple(m for pid, m in before.items() if pid in alive)

    async def _release(self, job_id: str, state: _Armed) -> None:
        state.sessions -= 1
        if state.sessions:
            return
        if state.keeper is not None:
            state.keeper.cancel()
            state.keeper = None
        state.is_held, state.held_since = False, None
        with contextlib.suppress(RdevError):
            await self._ask_all(job_id, "disarm", {})

    async def _arm_all(self, job_id: str) -> tuple[Member, ...]:
        order = {"seconds": ARMED_SECONDS, "renew": DEAD_MAN_SECONDS}
        answers = await self._ask_all(job_id, "arm", order)
        return tuple(
            member_of(peer.pid, peer.job_rank, answer)
            for peer, answer in answers
            if answer is not None
        )

    async def _ask_all(
        self, job_id: str, name: str, args: Mapping[str, Any]
    ) -> list[tuple[Member, Mapping[str, Any] | None]]:
        peers = [p for p in await self._jobs.peers(job_id) if p.get("role") == "hook"]
        members = [member_of(int(p["pid"]), int(p.get("rank") or 0), {}) for p in peers]
        return list(zip(members, await self._ask(job_id, members, name, args), strict=True))

    async def _ask(
        self, job_id: str, members: Sequence[Member], name: str, args: Mapping[str, Any]
    ) -> list[Mapping[str, Any] | None]:
        """One answer for each; None from a process that has gone."""

        async def ask(member: Member) -> Mapping[str, Any] | None:
            try:
                return await self._jobs.command(
                    job_id,
                    "hook",
                    member.job_rank,
                    name,
                    args,
                    pid=member.pid,
                    timeout=ANSWER_SECONDS,
                )
            except RdevError as error:
                _log.info("process %d did not answer %s: %s", member.pid, name, error)
                return None

        calls: list[Awaitable[Mapping[str, Any] | None]] = [ask(member) for member in members]
        return list(await asyncio.gather(*calls))


def lease_of(
    members: Sequence[Member], asked: float, *, held: float, pending: float | None
) -> float:
    """The lease of a stop, in seconds from now; see `Ranks.lease`.

    Args:
        members: The ranks.
        asked: What the client would like.
        held: How long the stop has lasted.
        pending: How long a collective has waited that may have begun before the arming, over all
            stops since; None if there is none.
    """
    lease = asked
    for member in members:
        if member.armed is not None:
            lease = min(lease, member.armed / 2, member.armed - MARGIN_SECONDS - held)
        # An operation that began before the arming, or in a group that cannot be armed, keeps its
        # own timeout.
        if member.shortest is not None and (member.refused or pending is not None):
            waited = max(held, pending or 0.0)
            lease = min(lease, member.shortest - MARGIN_SECONDS - waited)
    if hindrances(members):
        shortest = min((m.shortest for m in members if m.shortest is not None), default=asked)
        lease = min(lease, shortest - MARGIN_SECONDS - held)
    return max(0.0, lease)


def _limit(members: Sequence[Member]) -> str:
    shortest = min((m.shortest for m in members if m.shortest is not None), default=0.0)
    return (
        f"a collective may be in flight whose timeout is {shortest:g} s: a stop goes on by itself"
        f" {MARGIN_SECONDS:g} s before that"
    )


def _held_since(job: Job) -> float | None:
    """Since when a rank of it is held, in seconds since the epoch; None if none is."""
    return min((stop.since for stop in job.stops), default=None)


def _highest(sequences: Any) -> dict[str, int]:  # noqa: ANN401 - the values of a dict
    goals: dict[str, int] = {}
    for numbers in sequences:
        for group, number in numbers.items():
            goals[group] = max(number, goals.get(group, 0))
    return goals


def _numbers(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {str(key): number for key, number in value.items() if isinstance(number, int)}


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) != 1 else ''} {', '.join(map(str, ranks))}"
