"""Which processes of a job have a run under way, and how one is watched that nobody prepared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdev.agent.debug.target import Jobs, choose, hooks_of, parent_of
from rdev.protocol.errors import JobConflict, RdevError, TimedOut
from rdev.wire.control import Where
from rdev.wire.job import Job

# A channel's thread answers within milliseconds, unless C code holds the interpreter.
ASK_SECONDS = 2.0

# A probe that is armed dials within as much; the ranks' numbers agree some steps later.
_TICK = 0.05

_PREPARE = "docs/loop.md says how a script is prepared, and what the live probe watches"


@dataclass(frozen=True, slots=True)
class Member:
    """A process with a run, and where that is."""

    rank: int
    pid: int
    where: Where

    @property
    def is_paused(self) -> bool:
        """Whether it is held by a pause."""
        return self.where.get("stage") == "paused"


async def members(jobs: Jobs, job: Job, action: str) -> list[Member]:
    """One for each rank that has a run under way, by rank; may be empty.

    Raises:
        JobConflict: There are runs, and all are over.
    """
    return _running(await _asked(jobs, job), action)


async def gathered(
    jobs: Jobs, job: Job, action: str, *, patience: float
) -> tuple[list[Member], set[int]]:
    """As `members`, but waits so many seconds for ranks that have begun no run.

    Returns:
        The ranks with a run under way, and the numbers of those that have begun none.

    Raises:
        JobConflict: There are runs, and all are over.
    """
    until = time.monotonic() + patience
    while True:
        asked = await _asked(jobs, job)
        begun = _begun(asked)
        missing = set(range(max(1, job.ranks))) - begun
        if not missing or time.monotonic() >= until:
            return _running(asked, action), missing
        await asyncio.sleep(_TICK)


async def looked_at(jobs: Jobs, job: Job, *, timeout: float) -> list[Member]:  # noqa: ASYNC109  # of each
    """One for each rank that has begun a run, be it over or not, by rank; who is silent is not."""
    begun = [m for m in await _asked(jobs, job, timeout) if m.where.get("stage") != "none"]
    return _one_each([m for m in begun if m.where.get("stage") != "over"] or begun)


async def _asked(jobs: Jobs, job: Job, timeout: float = ASK_SECONDS) -> list[Member]:  # noqa: ASYNC109  # of each
    peers = [peer for peer in await jobs.peers(job.id) if peer.get("role") == "loop"]
    asked = await asyncio.gather(
        *(
            _where(jobs, job.id, int(peer.get("rank") or 0), int(peer["pid"]), timeout)
            for peer in peers
        )
    )
    return [member for member in asked if member is not None]


def _begun(asked: Sequence[Member]) -> set[int]:
    """The ranks that have begun a run.

    One that is only watched, while others have a run of their own, has not: it will begin that too.
    """
    kinds = {one.rank: one.where.get("kind") for one in asked if one.where.get("stage") != "none"}
    are_own = any(kind != "probe" for kind in kinds.values())
    return {rank for rank, kind in kinds.items() if kind != "probe" or not are_own}


def _running(found: Sequence[Member], action: str) -> list[Member]:
    running = [one for one in found if one.where.get("stage") not in ("none", "over")]
    if not running and any(one.where.get("stage") == "over" for one in found):
        cause = "its run is over; the process is still there"
        raise JobConflict(action, cause, hint="`rdev logs JOB -f` shows what it does")
    return _one_each(running)


def _one_each(running: Sequence[Member]) -> list[Member]:
    by_rank: dict[int, list[Member]] = {}
    for member in running:
        by_rank.setdefault(member.rank, []).append(member)
    return [_training(by_rank[rank]) for rank in sorted(by_rank)]


async def _where(jobs: Jobs, job_id: str, rank: int, pid: int, timeout: float) -> Member | None:  # noqa: ASYNC109  # of each
    try:
        answer = await jobs.command(job_id, "loop", rank, "where", pid=pid, timeout=timeout)
    except (RdevError, TimeoutError):
        return None
    return Member(rank, pid, answer)  # type: ignore[arg-type]  # a peer may say anything


def _training(found: Sequence[Member]) -> Member:
    pid = choose([member.pid for member in found], parent_of).pid
    return next(member for member in found if member.pid == pid)


async def arm(jobs: Jobs, job: Job, action: str, *, patience: float) -> list[int]:
    """Arms the live probe in every rank and waits until all count their steps alike.

    Returns:
        The ranks.

    Raises:
        JobConflict: A rank cannot be watched; says why.
        TimedOut: The ranks' steps could not be numbered alike.
    """
    hooks = await hooks_of(jobs, job.id, None)
    if not hooks:
        cause = "nothing in it counts steps, and it has no hook through which that could be changed"
        raise JobConflict(action, cause, hint=_PREPARE)
    by_rank: dict[int, list[int]] = {}
    for rank, pid in hooks:
        by_rank.setdefault(rank, []).append(pid)
    processes = {rank: choose(pids, parent_of).pid for rank, pids in sorted(by_rank.items())}
    answers = {r: await _probe(jobs, job, r, pid, {"armed": True}) for r, pid in processes.items()}
    for rank, answer in answers.items():
        if not answer.get("armed"):
            where = f"rank {rank}: " if len(processes) > 1 else ""
            cause = f"{where}{answer.get('refused') or 'the live probe cannot be armed there'}"
            raise JobConflict(action, cause, hint=_PREPARE)
    if len(processes) > 1:
        await _align(jobs, job, processes, until=time.monotonic() + patience)
    return list(processes)


async def disarm(jobs: Jobs, job: Job) -> list[int]:
    """Disarms the live probe wherever it is; returns the ranks that were asked."""
    hooks = await hooks_of(jobs, job.id, None)
    for rank, pid in hooks:
        try:
            await _probe(jobs, job, rank, pid, {"armed": False})
        except (RdevError, TimeoutError):
            continue  # it has gone meanwhile, and the probe with it
    return sorted({rank for rank, _ in hooks})


async def _align(jobs: Jobs, job: Job, processes: Mapping[int, int], *, until: float) -> None:
    """Has all ranks count as the first does, from a step whose mark all have seen.

    Raises:
        TimedOut: They do not agree: unaligned, they would be held after different steps.
    """
    first = min(processes)
    while time.monotonic() < until:
        told = await _probe(jobs, job, first, processes[first], {"armed": True})
        mark, step = told.get("mark"), told.get("step")
        aim = {} if mark is None or step is None else {"mark": mark, "step": step}
        answers = [
            await _probe(jobs, job, rank, pid, {"armed": True, **aim})
            for rank, pid in processes.items()
        ]
        if any(not answer.get("armed") for answer in answers):
            return  # A run of the script's own has begun, whose ranks count alike.
        if all(answer.get("numbers") in ("aligned", "alone") for answer in answers):
            return
        await asyncio.sleep(_TICK)
    cause = "the ranks' steps are watched, and could not be numbered alike in time"
    raise TimedOut(
        f"watch the job {job.name!r}", cause, hint="`rdev ctl JOB why` says where each rank is"
    )


async def _probe(
    jobs: Jobs, job: Job, rank: int, pid: int, args: Mapping[str, Any]
) -> Mapping[str, Any]:
    return await jobs.command(job.id, "hook", rank, "probe", args, pid=pid, timeout=10.0)
