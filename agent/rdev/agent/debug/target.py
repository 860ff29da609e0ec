"""Which process of a job is meant, and why there may be none that can be attached to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rdev.protocol.errors import DebuggerUnavailable, InvalidRequest, JobNotRunning
from rdev.supervisor.processes import look_at
from rdev.wire.job import CommandKind, Job, JobState

# A process that has just been started dials within its interpreter's start, 20 to 200 ms; a busy
# machine may take seconds. One that runs for longer without a hook has none.
ARRIVAL_SECONDS = 3.0
ARRIVAL_TICK = 0.05

# Ranks of a launcher begin once it has imported torch, and dial once Python has begun: 2 to 5 s,
# and many times that on a busy machine.
BEGIN_SECONDS = 60.0

# When a supervisor was killed, its next one is there in 0.1 to 1 s, and a hook dials again within
# as much of its back-off.
RETURN_SECONDS = 2.0


class Jobs(Protocol):
    """What debugging needs of the jobs; the job manager is one."""

    async def get(self, reference: str) -> Job:
        """The job; JobNotFound if there is none."""
        ...

    async def peers(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The processes that are connected to the job's supervisor, with `role` and `rank`."""
        ...

    async def command(
        self,
        job_id: str,
        role: str,
        rank: int,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        pid: int | None = None,
        timeout: float = ...,  # noqa: ASYNC109 - callers know how long theirs may take
    ) -> Mapping[str, Any]:
        """Sends a command to one process and returns its answer; an error of rdev's if none."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A process with a hook.

    Attributes:
        pid: The process.
        others: Processes of the rank that carry a hook too and are no children of it.
    """

    pid: int
    others: tuple[int, ...] = ()


async def running_job(jobs: Jobs, job_id: str, action: str) -> Job:
    """The job, which runs and has a hook.

    Raises:
        DebuggerUnavailable: It was started without one.
        JobNotRunning: It has ended or has not begun.
    """
    job = await jobs.get(job_id)
    if job.state is not JobState.RUNNING:
        state = job.state.value
        raise JobNotRunning(
            action, f"it has ended ({state})" if job.state.is_final else f"it is {state}"
        )
    if not job.spec.hook:
        raise DebuggerUnavailable(
            action,
            "it was started without the debug hook",
            hint=by_pid(job),
        )
    return job


def may_still_begin(job: Job) -> bool:
    """Whether processes of a job that have no hook yet may only be on their way."""
    patience = BEGIN_SECONDS if job.spec.processes else ARRIVAL_SECONDS
    return time.time() - job.started <= patience


async def target_of(
    jobs: Jobs,
    job: Job,
    rank: int,
    action: str,
    notice: Callable[[str], None] = lambda _line: None,
) -> Target:
    """The process of a rank that is attached to; waits for one that has just been started.

    Args:
        jobs: Where the jobs are.
        job: Which; it runs.
        rank: Which of its ranks.
        action: What is attempted, for an error.
        notice: Told once, as a line for the person, if one of several ranks is waited for.

    Raises:
        DebuggerUnavailable: No process of it has a hook.
        InvalidRequest: There is no such rank.
        JobNotRunning: The job ended before the rank began.
    """
    if not 0 <= rank < max(1, job.ranks):
        last = f"0 to {job.ranks - 1}" if job.ranks > 1 else "only rank 0"
        raise InvalidRequest(action, f"it has {last}", hint="`rdev ps` shows how many it has")
    patience = time.monotonic() + RETURN_SECONDS
    is_told = job.ranks <= 1 or not may_still_begin(job)
    while not (hooks := await hooks_of(jobs, job.id, rank)):
        if not may_still_begin(job) and time.monotonic() > patience:
            raise DebuggerUnavailable(action, why_no_hook(job, rank), hint=by_pid(job))
        if not is_told:
            notice(f"waiting for rank {rank} to begin")
            is_told = True
        await asyncio.sleep(ARRIVAL_TICK)
        job = await running_job(jobs, job.id, action)  # which may wait for us by now
    return choose(_waiting(job, hooks) or [pid for _, pid in hooks], parent_of)


def _waiting(job: Job, hooks: Sequence[tuple[int, int]]) -> list[int]:
    """Those that stopped by themselves and wait for a debugger: whoever comes, comes for them."""
    waiting = {stop.pid for stop in job.stops if stop.unattended}
    return [pid for _, pid in hooks if pid in waiting]


async def hooks_of(jobs: Jobs, job_id: str, rank: int | None) -> list[tuple[int, int]]:
    """(rank, pid) of the processes with a hook, in the order in which they connected."""
    return [
        (int(peer.get("rank") or 0), int(peer["pid"]))
        for peer in await jobs.peers(job_id)
        if peer.get("role") == "hook" and rank in (None, peer.get("rank"))
    ]


async def forked_by(jobs: Jobs, job_id: str, rank: int, pid: int) -> tuple[int, ...]:
    """The processes with a hook that a rank's process has forked, as a data loader's workers."""
    scripts = {
        int(peer["pid"]): peer.get("script")
        for peer in await jobs.peers(job_id)
        if peer.get("role") == "hook" and peer.get("rank") == rank
    }
    # One that is spawned, or helps, executes something else.
    same = [other for other, script in scripts.items() if script == scripts.get(pid)]
    return tuple(other for other in same if parent_of(other) == pid)


def choose(pids: Sequence[int], parent: Callable[[int], int]) -> Target:
    """The one of a rank's processes that trains: workers and helpers are its children.

    Args:
        pids: At least one, in the order in which they connected.
        parent: The parent of a process; 0 where that is not known.
    """

    def is_child(pid: int) -> bool:
        seen: set[int] = set()
        while (pid := parent(pid)) > 1 and pid not in seen:
            if pid in pids:
                return True
            seen.add(pid)
        return False

    roots = [pid for pid in dict.fromkeys(pids) if not is_child(pid)] or [pids[0]]
    return Target(roots[0], tuple(roots[1:]))


def parent_of(pid: int) -> int:
    """The parent of a process; 0 where that is not known."""
    process = look_at(pid)
    return process.parent if process is not None else 0


def by_pid(job: Job) -> str:
    """What to do about a job without a hook; its process may be another than its program's."""
    pid = str(job.pid) if job.pid and job.ranks <= 1 else "PID"
    return f"`rdev debug --pid {pid}` puts the hook into a Python process that runs"


def why_no_hook(job: Job, rank: int = 0) -> str:
    """Why a process of the job may have no hook, as far as its command line tells."""
    if job.spec.processes and may_still_begin(job):
        return f"rank {rank} has not begun yet, or runs without the debug hook"
    interpreted = job.spec.kind is not CommandKind.PROGRAM or "python" in job.spec.target
    for argument in job.argv[1:]:
        if not argument.startswith("-") or argument in ("-m", "-c"):
            break
        if interpreted and not argument.startswith("--") and set(argument[1:]) & set("IES"):
            return f"it runs without the debug hook: `python {argument}` ignores PYTHONPATH"
    program = os.path.basename(job.argv[0]) if job.argv else ""
    subject = f"no Python process of {program or 'it'} carries the debug hook"
    return (
        f"{subject}: it is no Python program, its Python is older than 3.11, or it was started"
        " with another PYTHONPATH"
    )
