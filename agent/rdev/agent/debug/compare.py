"""One expression in every rank: in the same function, whether a rank is held or runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rdev.agent.debug.target import Jobs, choose, hooks_of, parent_of, running_job, why_no_hook
from rdev.protocol.errors import DebuggerUnavailable, RdevError

# The hook gives an expression 2 s; the rest is for a process that is slow to hear.
ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Value:
    """What the expression is in one rank, and where; or why there is none."""

    rank: int
    place: str = ""
    value: str = ""
    cause: str = ""


async def compare(jobs: Jobs, job_id: str, expression: str, *, function: str) -> Sequence[Value]:
    """Evaluates an expression in each rank's main thread, in the order of the ranks.

    Args:
        jobs: Where the job is.
        job_id: Full id.
        expression: Of Python.
        function: Whose innermost frame is meant; empty takes that of the rank that is held, or
            else the innermost one in the workspace.

    Raises:
        DebuggerUnavailable: No process of the job has a hook.
        JobNotRunning: The job has ended or has not begun.
    """
    action = f"compare the ranks of the job {(await jobs.get(job_id)).name!r}"
    job = await running_job(jobs, job_id, action)
    ranks: dict[int, list[int]] = {}
    for rank, pid in await hooks_of(jobs, job_id, None):
        ranks.setdefault(rank, []).append(pid)
    if not ranks:
        raise DebuggerUnavailable(action, why_no_hook(job))
    asked = {"expression": expression, "function": function, "file": ""}
    stop = next((stop for stop in job.stops if not stop.unattended), None)
    if stop is not None and not function:
        asked |= {"function": stop.function, "file": stop.file}
    calls = [
        _value(jobs, job_id, rank, choose(pids, parent_of).pid, asked)
        for rank, pids in sorted(ranks.items())
    ]
    return await asyncio.gather(*calls)


async def _value(jobs: Jobs, job_id: str, rank: int, pid: int, asked: Mapping[str, str]) -> Value:
    try:
        answer = await jobs.command(
            job_id, "hook", rank, "evaluate", asked, pid=pid, timeout=ANSWER_SECONDS
        )
    except RdevError as error:
        return Value(rank, cause=error.cause or error.message)
    except TimeoutError:
        return Value(rank, cause="the process does not answer")
    return Value(rank, place=str(answer.get("place", "")), value=str(answer.get("value", "")))
