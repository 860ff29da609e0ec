"""Why a job stands still, in one line: from where each rank's run and threads are.

Nothing is asked of the training threads: the loops' and hooks' own threads answer, and a rank that
does not is a finding of its own. All is over in three seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rdev.agent.control import members as runs
from rdev.agent.control.members import Member
from rdev.agent.debug.stacks import Frame, ProcessStack, of_hook
from rdev.agent.debug.target import Jobs, choose, hooks_of, parent_of
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job, JobState

# Two looks so far apart tell a run that moves from one that stands, if its steps are fast.
_APART = 0.4

# A rank that has not answered by then is kept from it by C code, or stopped. The first look and
# the stacks are asked for together, then comes the second look: all is over in three seconds.
_STACK_SECONDS = 1.5
_LOOK_SECONDS = 1.0

# Torch's wrappers, which say nothing of what is waited for.
_WRAPPERS = frozenset({"wrapper", "decorate_context", "_fn", "inner"})


@dataclass(frozen=True, slots=True)
class Account:
    """One rank: where its run is, and where its main thread is.

    Attributes:
        pid: Its process; 0 if none is known.
        step: Steps begun; None if nobody counts them.
        stage: As `rdev.wire.control.Where.stage`; empty if nobody counts.
        reason: Why it is paused.
        since: Seconds that it has been in this stage.
        rate: Steps a second between two looks.
        waits_in: The operation of torch.distributed's that it waits in; empty if none.
        waits_for_data: Whether its main thread is in a data loader.
        doing: What it does, in a few words.
        frame: Where the user's own code is; of a worker, if it is that which is waited for.
        is_silent: Its threads did not answer.
    """

    rank: int
    pid: int = 0
    step: int | None = None
    stage: str = ""
    reason: str = ""
    since: float = 0.0
    rate: float = 0.0
    waits_in: str = ""
    waits_for_data: bool = False
    doing: str = ""
    frame: Frame | None = None
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line for a person."""

    line: str


async def explain(jobs: Jobs, job: Job) -> tuple[Verdict, Sequence[Account]]:
    """Looks at all ranks and says what that means."""
    if job.state is not JobState.RUNNING:
        return Verdict(f"it is {job.state.value}{f': {job.message}' if job.message else ''}"), ()
    began = time.monotonic()
    first, stacks, _ = await asyncio.gather(
        _members(jobs, job), _stacks(jobs, job), asyncio.sleep(_APART)
    )
    # A rank that has just not answered is as it was.
    second = {member.rank: member for member in (*first, *await _members(jobs, job))}
    took = time.monotonic() - began
    accounts = [
        account_of(
            rank,
            before=next((m for m in first if m.rank == rank), None),
            after=second.get(rank),
            stacks=stacks.get(rank, ()),
            took=took,
            root=job.directory,
        )
        for rank in range(max(1, job.ranks))
    ]
    return Verdict(verdict(job, accounts)), accounts


async def _members(jobs: Jobs, job: Job) -> list[Member]:
    try:
        async with asyncio.timeout(_STACK_SECONDS):
            return await runs.looked_at(jobs, job, timeout=_LOOK_SECONDS)
    except (RdevError, TimeoutError):  # its supervisor is just replaced
        return []


async def _stacks(jobs: Jobs, job: Job) -> dict[int, list[ProcessStack]]:
    """By rank, the process that trains first, then its workers."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            hooks = await hooks_of(jobs, job.id, None)
    except (RdevError, TimeoutError):
        return {}
    answers = await asyncio.gather(*(_stack(jobs, job.id, rank, pid) for rank, pid in hooks))
    found: dict[int, list[ProcessStack]] = {}
    for rank in sorted({rank for rank, _ in hooks}):
        mine = [answer for answer in answers if answer.rank == rank]
        main = choose([one.pid for one in mine], parent_of).pid
        found[rank] = sorted(mine, key=lambda one, main=main: one.pid != main)  # type: ignore[misc]  # a default binds the loop's own
    return found


async def _stack(jobs: Jobs, job_id: str, rank: int, pid: int) -> ProcessStack:
    try:
        answer = await jobs.command(job_id, "hook", rank, "stack", pid=pid, timeout=_STACK_SECONDS)
    except (RdevError, TimeoutError):
        return ProcessStack(rank, pid, cause="it does not answer")
    return of_hook(answer, rank, pid)


def account_of(
    rank: int,
    *,
    before: Member | None,
    after: Member | None,
    stacks: Sequence[ProcessStack],
    took: float,
    root: str,
) -> Account:
    """Puts together what is known of a rank.

    Args:
        rank: The rank.
        before: Its run at the first look.
        after: Its run at the second.
        stacks: Its processes, the one that trains first.
        took: Seconds between the looks.
        root: The job's working directory.
    """
    where: Mapping[str, object] = after.where if after is not None else {}
    account = Account(rank, after.pid if after else (stacks[0].pid if stacks else 0))
    if after is not None:
        earlier = int(before.where.get("step", 0)) if before is not None else after.where["step"]
        account = replace(
            account,
            step=after.where["step"],
            stage=str(where.get("stage") or ""),
            reason=str(where.get("reason") or ""),
            since=float(after.where.get("since") or 0.0),
            rate=(after.where["step"] - earlier) / took if took > 0 else 0.0,
        )
    return _with_frames(account, stacks, root)


def _with_frames(account: Account, stacks: Sequence[ProcessStack], root: str) -> Account:
    main = stacks[0] if stacks else None
    if main is None:
        return replace(account, doing="has no hook that could say what it does")
    if main.cause or not main.threads:
        return replace(account, is_silent=True, doing="does not answer")
    frames = main.threads[0].frames
    frame = _users(frames, root)
    waits_in = _waits_in(frames, root)
    for_data = any("/torch/utils/data/" in one.file for one in frames) and not waits_in
    if for_data and (busy := _busy_worker(stacks[1:], root)) is not None:
        frame = busy
    doing = "waits for data" if for_data else f"waits in {waits_in}" if waits_in else "is"
    if any(one.file.startswith("<frozen importlib") for one in frames):
        doing = "imports"
    return replace(account, waits_in=waits_in, waits_for_data=for_data, doing=doing, frame=frame)


def _busy_worker(workers: Sequence[ProcessStack], root: str) -> Frame | None:
    """Where a data loader's worker is in the user's own code; None if none is."""
    for worker in workers:
        for thread in worker.threads[:1]:
            fetches = any("/torch/utils/data/_utils/" in frame.file for frame in thread.frames)
            frame = _innermost(thread.frames, root)
            if fetches and frame is not None:
                return frame
    return None


def _innermost(frames: Sequence[Frame], root: str) -> Frame | None:
    """The user's innermost frame that is called by a data loader's worker, not the script's."""
    for frame in frames:
        if "/torch/utils/data/_utils/" in frame.file:
            return None
        if _is_users(frame.file, root):
            return frame
    return None


def _users(frames: Sequence[Frame], root: str) -> Frame | None:
    return next((frame for frame in frames if _is_users(frame.file, root)), None)


def _is_users(file: str, root: str) -> bool:
    if file.startswith("<") or "/site-packages/" in file or "/dist-packages/" in file:
        return False
    if root and file.startswith(root.rstrip("/") + "/"):
        return True
    library = os.path.dirname(os.path.abspath(os.__file__))
    return "/lib/python" not in file and "/rdev/" not in file and not file.startswith(library)


def _waits_in(frames: Sequence[Frame], root: str) -> str:
    for frame in frames:
        if _is_users(frame.file, root):
            return ""
        if "/torch/distributed/" in frame.file and frame.function not in _WRAPPERS:
            return frame.function
        if frame.file.endswith("/torch/autograd/graph.py") and "run_backward" in frame.function:
            return "backward"
    return ""


def verdict(job: Job, accounts: Sequence[Account]) -> str:
    """What it means, the surest finding first."""
    if job.stops:
        stop = job.stops[0]
        place = f"{os.path.basename(stop.file)}:{stop.line}"
        return f"the debugger holds rank {stop.rank} at {place}; detaching lets it go on"
    paused = [account for account in accounts if account.stage == "paused"]
    if paused:
        who = "" if len(paused) == len(accounts) else f"{_ranks(paused)}: "
        reason = paused[0].reason
        return f"{who}held after step {paused[0].step}: {reason}; `rdev ctl resume` lets it go on"
    counted = [account for account in accounts if account.step is not None]
    if len(counted) == len(accounts) and all(account.rate > 0 for account in counted):
        rate = min(account.rate for account in counted)
        return f"it trains: step {_span(counted)}, {rate:.3g} steps/s"
    return _standing(accounts)


def _standing(accounts: Sequence[Account]) -> str:
    waiting = [account for account in accounts if account.waits_in]
    others = [account for account in accounts if not account.waits_in]
    if waiting and others:
        # Whoever is behind holds up the rest; of those beside, whoever is no further than they.
        least = min((a.step for a in others if a.step is not None), default=None)
        late = [a for a in others if a.step == least] or others
        operation = waiting[0].waits_in
        return f"{_place(late[0], with_rank=True)}; {_wait(waiting)} for it in {operation}"
    if waiting and len(accounts) > 1:
        steps = {account.step for account in accounts}
        apart = f", at steps {_span(accounts)}" if len(steps) > 1 and None not in steps else ""
        return f"all ranks wait in {waiting[0].waits_in}{apart}: a rank, or a machine, is missing"
    return _place(_slowest(accounts), with_rank=len(accounts) > 1)


def _slowest(accounts: Sequence[Account]) -> Account:
    return min(accounts, key=lambda a: (a.rate > 0, a.step if a.step is not None else 0))


def _place(account: Account, *, with_rank: bool) -> str:
    who = f"rank {account.rank}" if with_rank else "it"
    if account.is_silent:
        return f"{who} does not answer: a long call of C code, or a process that is stopped"
    if with_rank and not account.pid:
        return f"{who} has no process that is connected"
    if account.frame is None and account.doing.startswith("has no hook"):
        step = "" if account.step is None else f" is at step {account.step}, and"
        return f"{who}{step} {account.doing}"
    where = "outside of any code of yours"
    if account.frame is not None:
        frame = account.frame
        where = f"in {frame.function}, {os.path.basename(frame.file)}:{frame.line}"
    for_so_long = f" for {account.since:.0f} s" if account.since >= 1 else ""
    return f"{who} {_doing(account)}{for_so_long}, {where}"


def _doing(account: Account) -> str:
    if account.stage == "over":
        return "trains no more: its run is over, and its process goes on"
    if account.step is None or account.doing == "imports":
        return account.doing if account.doing != "is" else "runs"
    if account.stage == "step":
        return f"is in step {account.step}"
    if account.stage == "data" or account.waits_for_data:
        return f"waits for its next batch after step {account.step}"
    return f"is between its epochs, after step {account.step}"


def _wait(accounts: Sequence[Account]) -> str:
    return f"{_ranks(accounts)} wait{'s' if len(accounts) == 1 else ''}"


def _ranks(accounts: Sequence[Account]) -> str:
    numbers = [account.rank for account in accounts]
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"ranks {numbers[0]}-{numbers[-1]}"
    return "ranks " + ", ".join(map(str, numbers))


def _span(accounts: Sequence[Account]) -> str:
    steps = sorted({account.step for account in accounts if account.step is not None})
    return f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
