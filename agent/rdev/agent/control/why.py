"""Why a job stands still, in one line: from where each rank's run and threads are. No I/O here.

The surest finding first: the debugger holds it, a pause does, it trains; else whoever is behind
holds up the rest, and of those beside whoever does not wait for others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rdev.agent.control.members import Member
from rdev.agent.debug.stacks import Frame, ProcessStack
from rdev.wire.job import Job

# Torch's wrappers, which say nothing of what is waited for.
_WRAPPERS = frozenset({"wrapper", "decorate_context", "_fn", "inner"})

# Ranks wait for one another at the end of every step, which takes a large model seconds: only who
# waits for longer is said to wait in vain.
_BRIEF = 10.0

# Of what is held for longer it is told for how long.
_LONG = 30.0

# What a call of the standard library, between the user's code and a wait, waits for.
_STANDARD = {
    "/threading.py": "another thread",
    "/queue.py": "a queue",
    "/subprocess.py": "another process",
    "/multiprocessing/popen_fork.py": "another process",
    "/multiprocessing/connection.py": "another process",
    "/socket.py": "the network",
    "/ssl.py": "the network",
}

# What the kernel says of a process that does nothing by itself.
STOPPED = "is stopped, as by SIGSTOP or Ctrl-Z"
DISK = "waits for a disk, or for a network's file system"
INPUT = "waits for input"


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
        doing: What it does, in a few words; `is` if only its stage is known.
        frame: Where the user's own code is; of a worker, if it is that which is waited for.
        is_worker: The frame is a worker's.
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
    is_worker: bool = False
    is_silent: bool = False


def account_of(
    rank: int,
    *,
    before: Member | None,
    after: Member | None,
    stacks: Sequence[ProcessStack],
    took: float,
    root: str,
    process: str = "",
) -> Account:
    """Puts together what is known of a rank.

    Args:
        rank: The rank.
        before: Its run at the first look.
        after: Its run at the second.
        stacks: Its processes, the one that trains first.
        took: Seconds between the looks.
        root: The job's working directory.
        process: `STOPPED`, `DISK` or `INPUT`, if the kernel says so of its process.
    """
    account = Account(rank, after.pid if after else (stacks[0].pid if stacks else 0))
    if after is not None:
        where, step = after.where, after.where.get("step", 0)
        earlier = before.where.get("step", 0) if before is not None else step
        account = replace(
            account,
            step=step,
            stage=where.get("stage", ""),
            reason=where.get("reason", ""),
            since=where.get("since", 0.0),
            rate=(step - earlier) / took if took > 0 else 0.0,
        )
    account = _with_frames(account, stacks, root)
    if process and not account.waits_for_data:
        account = replace(account, doing=process, is_silent=False)
    return account


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
        account, frame = replace(account, is_worker=True), busy
    doing = _waits_for(frames, root)
    doing = "waits for data" if for_data else f"waits in {waits_in}" if waits_in else doing
    return replace(account, waits_in=waits_in, waits_for_data=for_data, doing=doing, frame=frame)


def _waits_for(frames: Sequence[Frame], root: str) -> str:
    """What the standard library does for the user's code, as far as that can be told."""
    for frame in frames:
        if _is_users(frame.file, root):
            break
        if frame.file.startswith("<frozen importlib"):
            return "imports"
        for name, what in _STANDARD.items():
            if frame.file.endswith(name):
                return f"waits for {what}"
    return "is"


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


def verdict(job: Job, accounts: Sequence[Account], *, now: float = 0.0) -> str:
    """What it means.

    Args:
        job: The job, which runs.
        accounts: Of its ranks.
        now: Seconds since the epoch, to tell for how long it is held; 0 leaves that out.
    """
    if job.stops:
        stop = job.stops[0]
        place = f"{os.path.basename(stop.file)}:{stop.line}{_long(now - stop.since)}"
        if stop.unattended:
            return f"rank {stop.rank} waits for a debugger at {place}; `rdev debug` attaches"
        return f"the debugger holds rank {stop.rank} at {place}; detaching lets it go on"
    paused = [account for account in accounts if account.stage == "paused"]
    if paused:
        who = "" if len(paused) == len(accounts) else f"{_ranks(paused)}: "
        since = min((p.since for p in job.pauses if p.rank == paused[0].rank), default=now)
        held = f"held after step {paused[0].step}: {paused[0].reason}{_long(now - since)}"
        return f"{who}{held}; `rdev ctl resume` lets it go on"
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
        return _all_wait(waiting)
    return _place(_slowest(accounts), with_rank=len(accounts) > 1)


def _all_wait(accounts: Sequence[Account]) -> str:
    steps = {account.step for account in accounts}
    operation, longest = accounts[0].waits_in, max(account.since for account in accounts)
    if len(steps) == 1 and None not in steps and longest < _BRIEF:
        return f"all ranks are in step {accounts[0].step} for {longest:.1f} s, now in {operation}"
    apart = f", at steps {_span(accounts)}" if len(steps) > 1 and None not in steps else ""
    return f"all ranks wait in {operation}{apart}: a rank, or a machine, is missing"


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
    if account.frame is None and account.doing in (STOPPED, DISK, INPUT):
        return f"{who} {account.doing}"
    where = "outside of any code of yours"
    if account.frame is not None:
        frame = account.frame
        worker = "its worker " if account.is_worker else ""
        where = f"{worker}in {frame.function}, {os.path.basename(frame.file)}:{frame.line}"
    for_so_long = f" for {account.since:.0f} s" if account.since >= 1 else ""
    return f"{who} {_doing(account)}{for_so_long}, {where}"


def _doing(account: Account) -> str:
    if account.stage == "over":
        return "trains no more: its run is over, and its process goes on"
    if account.step is None or account.doing in ("imports", STOPPED, DISK, INPUT):
        return account.doing if account.doing != "is" else "runs"
    if account.stage in ("step", "callbacks"):
        callback = " in a callback" if account.stage == "callbacks" else ""
        waits = "" if account.doing == "is" or account.waits_in else f" and {account.doing}"
        return f"is in step {account.step}{callback}{waits}"
    if account.stage == "data" or account.waits_for_data:
        return f"waits for its next batch after step {account.step}"
    return f"is between its epochs, after step {account.step}"


def _wait(accounts: Sequence[Account]) -> str:
    return f"{_ranks(accounts)} wait{'s' if len(accounts) == 1 else ''}"


def _long(seconds: float) -> str:
    if seconds < _LONG:
        return ""
    return f", for {seconds:.0f} s" if seconds < 120 else f", for {seconds / 60:.0f} min"


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
