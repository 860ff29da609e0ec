"""Looks at all ranks of a job, twice, and has `rdev.agent.control.why` say what that means.

Nothing is asked of the training threads: the loops' and hooks' own threads answer, and a rank that
does not is a finding of its own. All is over in three seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rdev.agent.control import members as runs
from rdev.agent.control.members import Member
from rdev.agent.control.why import DISK, INPUT, STOPPED, Account, account_of, verdict
from rdev.agent.debug.stacks import ProcessStack, of_hook
from rdev.agent.debug.target import Jobs, choose, hooks_of, parent_of
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job, JobState

# Two looks so far apart tell a run that moves from one that stands, if its steps are fast.
_APART = 0.4

# A rank that has not answered by then is kept from it by C code, or stopped. The first look and
# the stacks are asked for together, then comes the second look: all is over in three seconds.
_STACK_SECONDS = 1.3
_LOOK_SECONDS = 0.9

_STATES = {b"T": STOPPED, b"D": DISK}

# The number of read() on x86-64, and on aarch64.
_READ = (b"0", b"63")


async def explain(jobs: Jobs, job: Job) -> tuple[str, Sequence[Account]]:
    """What a job does, or what holds it up: a line, and what it follows from."""
    if job.state is not JobState.RUNNING:
        return _unlived(job), ()
    (first, began), stacks, _ = await asyncio.gather(
        _look(jobs, job), _stacks(jobs, job), asyncio.sleep(_APART)
    )
    again, ended = await _look(jobs, job)
    # A rank that has just not answered is as it was.
    before = {member.rank: member for member in first}
    after = before | {member.rank: member for member in again}
    accounts = []
    for rank in range(max(1, job.ranks)):
        mine, seen = stacks.get(rank, ()), after.get(rank)
        pid = seen.pid if seen is not None else mine[0].pid if mine else 0
        account = account_of(
            rank,
            before=before.get(rank),
            after=seen,
            stacks=mine,
            took=ended - began,
            root=job.directory,
            process=await asyncio.to_thread(_state, pid) if pid else "",
        )
        accounts.append(account)
    return verdict(job, accounts, now=time.time()), accounts


def _unlived(job: Job) -> str:
    words = f"it is {job.state.value}"
    if job.state.is_final:
        code = f", exit code {job.exit_code}" if job.exit_code is not None else ""
        words = f"it has ended: {job.state.value}{code}"
    return f"{words}: {job.message}" if job.message else words


async def _look(jobs: Jobs, job: Job) -> tuple[list[Member], float]:
    """Where the runs are, and when that was."""
    try:
        async with asyncio.timeout(_STACK_SECONDS):
            found = await runs.looked_at(jobs, job, timeout=_LOOK_SECONDS)
    except (RdevError, TimeoutError):  # its supervisor is just replaced, or stopped
        found = []
    return found, time.monotonic()


async def _stacks(jobs: Jobs, job: Job) -> dict[int, list[ProcessStack]]:
    """By rank, the process that trains first, then its workers."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            hooks = await hooks_of(jobs, job.id, None)
    except (RdevError, TimeoutError):
        return {}
    answers = await asyncio.gather(*(_stack(jobs, job.id, rank, pid) for rank, pid in hooks))
    by_rank: dict[int, list[ProcessStack]] = {}
    for answer in answers:
        by_rank.setdefault(answer.rank, []).append(answer)
    for mine in by_rank.values():
        main = choose([one.pid for one in mine], parent_of).pid
        mine.sort(key=lambda one, main=main: one.pid != main)  # type: ignore[misc]  # a default binds the loop's own
    return by_rank


async def _stack(jobs: Jobs, job_id: str, rank: int, pid: int) -> ProcessStack:
    try:
        answer = await jobs.command(job_id, "hook", rank, "stack", pid=pid, timeout=_STACK_SECONDS)
    except (RdevError, TimeoutError):
        return ProcessStack(rank, pid, cause="it does not answer")
    return of_hook(answer, rank, pid)


def _state(pid: int) -> str:
    """What a process waits for, as far as the kernel tells; empty if that is nothing of these."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # it has gone
        return ""
    if state in _STATES:
        return _STATES[state]
    try:
        with open(f"/proc/{pid}/syscall", "rb", buffering=0) as file:
            call = file.read().split()
    except OSError:  # only who may trace it is told
        return ""
    is_reading = len(call) > 1 and call[0] in _READ and int(call[1], 16) == 0
    return INPUT if is_reading else ""
