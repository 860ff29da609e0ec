"""Tells the hooks of a running job when to stop by themselves and wait for a debugger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdev.agent.debug.target import Jobs, may_still_begin
from rdev.protocol.errors import DebuggerUnavailable, RdevError
from rdev.wire.job import DebugStart, Job

# A hook answers at once unless its process sits in C code that keeps the interpreter's lock.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the ranks answered.

    Attributes:
        steps: Of each that was told, the step that has begun last; 0 if none has.
        uncounted: Those in which nobody counts the steps that are waited for.
        blind: Those that see no number that is not finite, each with the cause.
        silent: The ranks that could not be told, each with the cause.
        coming: Those that could not be told, since the job is young and they have not begun.
    """

    steps: Mapping[int, int]
    uncounted: tuple[int, ...]
    blind: Mapping[int, str]
    silent: Mapping[int, str]
    coming: tuple[int, ...] = ()


async def set_stops(
    jobs: Jobs,
    job: Job,
    stops: DebugStart,
    *,
    rank: int | None,
    token: str = "",
    kept: float = 0.0,
) -> Told:
    """Tells every process with a hook; `rank` None means those of all ranks.

    Args:
        jobs: Where the jobs are.
        job: Which; it runs.
        stops: When to stop.
        rank: Which.
        token: Who waits; what others wait for stays.
        kept: For how many seconds, unless asked again under the token; 0 is for ever.

    Raises:
        DebuggerUnavailable: No process of that rank has a hook, or none answered.
    """
    args = {
        "exception": stops.on_exception,
        "step": stops.step,
        "nan": stops.on_nan,
        "from_step": stops.from_step,
        "token": token,
        "kept": kept,
    }
    wanted = range(max(1, job.ranks)) if rank is None else (rank,)
    silent = dict.fromkeys(wanted, "no process of it has the debug hook")
    told: dict[int, list[Mapping[str, Any]]] = {}
    seen: set[int] = set()
    for number, answer, failure in await _tell_all(jobs, job, rank, args):
        seen.add(number)
        if answer is None:
            silent[number] = failure
        elif (stops.from_step or stops.on_nan) and "reached" not in answer:
            silent[number] = "it was started by an earlier release of rdev, which cannot"
        else:
            told.setdefault(number, []).append(answer)
    coming = tuple(sorted(set(wanted) - seen)) if may_still_begin(job) else ()
    if not told and (seen or not coming or stops == DebugStart()):
        action = f"let the job {job.name!r} wait for a debugger"
        raise DebuggerUnavailable(action, next(iter(silent.values())))
    ranks = sorted(told)
    return Told(
        {number: max(int(a.get("reached") or 0) for a in told[number]) for number in ranks},
        tuple(number for number in ranks if not any(_counts(a, stops) for a in told[number])),
        {number: _blind(told[number]) for number in ranks if _blind(told[number])},
        {number: cause for number, cause in silent.items() if number not in told},
        coming,
    )


async def _tell_all(
    jobs: Jobs, job: Job, rank: int | None, args: Mapping[str, Any]
) -> list[tuple[int, Mapping[str, Any] | None, str]]:
    """Of each process with a hook its rank, and what it answered or why it did not."""
    peers = [
        peer
        for peer in await jobs.peers(job.id)
        if peer.get("role") == "hook" and rank in (None, peer.get("rank"))
    ]
    # All at once: one that is silent neither delays the others nor, when it is given up, spares
    # them what is taken back.
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_told(jobs, job.id, peer, args)) for peer in peers]
    return [
        (int(peer.get("rank", 0)), *one.result()) for peer, one in zip(peers, asked, strict=True)
    ]


async def _told(
    jobs: Jobs, job_id: str, peer: Mapping[str, Any], args: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str]:
    rank, pid = int(peer.get("rank", 0)), peer.get("pid")
    try:
        answer = await jobs.command(
            job_id, "hook", rank, "stops", args, pid=pid, timeout=ANSWER_SECONDS
        )
    except RdevError as error:
        return None, error.message
    except TimeoutError:
        return None, "the process did not answer"
    return answer, ""


def _counts(answer: Mapping[str, Any], stops: DebugStart) -> bool:
    # Breakpoints from a step on are refused where no step can come, so a loop that has yet to begin
    # does count.
    if stops.from_step:
        return bool(answer.get("counted") or answer.get("loop"))
    return bool(answer.get("counted")) or not stops.step


def _blind(answers: Sequence[Mapping[str, Any]]) -> str:
    """Why no process of a rank sees a number that is not finite; empty if one does."""
    causes = [str(answer.get("blind") or "") for answer in answers]
    return causes[0] if all(causes) else ""
