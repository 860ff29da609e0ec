"""The processes of a job: its keeper's descendants, and whoever carries the job's marker.

An agent, a keeper, a supervisor and everything below them, and whatever carries the marker of
another job, is no process of this job even where it descends from it: somebody ran rdev in a job.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rdev.wire.channel import JOB_VARIABLE
from rdev.wire.records import Started

# The names that our own processes give themselves begin so, see rdev.supervisor.platform.
OUR_NAMES = "rdev-"


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it.

    Attributes:
        pid: Its id.
        name: Its name, at most 15 bytes.
        parent: Its parent's id.
        session: The session it is in.
        ticks: When it started, in clock ticks since boot.
        is_dead: It ended and only its parent has not noticed.
    """

    pid: int
    name: str
    parent: int
    session: int
    ticks: int
    is_dead: bool


def look_at(pid: int) -> Process | None:
    """That process, or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            content = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold anything, blanks and parentheses too: fields are counted from the last one.
    head, _, tail = content.rpartition(b")")
    fields = tail.split()
    return Process(
        pid=pid,
        name=head.partition(b"(")[2].decode(errors="replace"),
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=int(fields[19]),
        is_dead=fields[0] in (b"Z", b"X"),
    )


def is_alive(pid: int, *, ticks: int) -> bool:
    """True if the process that started at `ticks` under that id has not ended."""
    found = look_at(pid)
    return found is not None and found.ticks == ticks and not found.is_dead


def members(
    job_id: str, *, keeper: int, main: Started | None, in_session: bool = False
) -> list[Process]:
    """All living processes of a job, the main process first if it lives.

    Args:
        job_id: The job.
        keeper: Its keeper; 0 if that has gone.
        main: Its main process; None if that is not known.
        in_session: Only those in the main process's session.
    """
    table = {process.pid: process for process in _all_processes()}
    leader = _main_pid(table, main)
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    marked = {pid for pid in table if _marker(pid) == job_id}
    found: dict[int, Process] = {}
    # Nobody's keeper is 0, the parent of init and the kernel's threads, or init itself.
    descendants = children.get(keeper, []) if keeper > 1 else []
    pending = [pid for pid in (leader, *descendants, *marked) if pid > 1]
    untouchable = _ancestors(table, os.getpid())
    while pending:
        candidate = table.get(pending.pop(0))
        if candidate is None or candidate.pid in found or candidate.pid in untouchable:
            continue
        if _is_spared(candidate, job_id):
            continue
        found[candidate.pid] = candidate
        pending += children.get(candidate.pid, ())
    living = [process for process in found.values() if not process.is_dead]
    return [process for process in living if process.session == leader] if in_session else living


def _main_pid(table: Mapping[int, Process], main: Started | None) -> int:
    """The main process's id, which is its session's too; 0 if another process has it by now.

    The kernel gives an id away only when no process of the session is left.
    """
    if main is None:
        return 0
    found = table.get(main.pid)
    return main.pid if found is None or found.ticks == main.ticks else 0


def _ancestors(table: dict[int, Process], pid: int) -> set[int]:
    """A process and those above it."""
    found: set[int] = set()
    while (process := table.get(pid)) is not None and pid not in found:
        found.add(pid)
        pid = process.parent
    return found


def send(process: Process, number: int) -> None:
    """Signals exactly that process and none that has its id by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(process.pid)
        try:
            found = look_at(process.pid)
            if found is not None and found.ticks == process.ticks:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def send_all(processes: Iterable[Process], number: int) -> None:
    """Signals each of them."""
    for process in processes:
        send(process, number)


def _all_processes() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            process = look_at(int(name))
            if process is not None:
                yield process


def _is_spared(process: Process, job_id: str) -> bool:
    if process.name.startswith(OUR_NAMES):
        return True
    marker = _marker(process.pid)
    return (marker is not None and marker != job_id) or _runs_agent(process.pid)


def _marker(pid: int) -> str | None:
    """The id of the job in whose environment a process was started; None without one."""
    prefix = f"{JOB_VARIABLE}=".encode()
    for variable in _strings(pid, "environ"):
        if variable.startswith(prefix):
            return variable[len(prefix) :].decode(errors="replace")
    return None


def _runs_agent(pid: int) -> bool:
    words = _strings(pid, "cmdline")
    return any(
        word == b"rdev.agent.main" or word.rpartition(b"/")[2] == b"rdev-agent"
        for word in words[:4]
    )


def _strings(pid: int, name: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # it ended, or belongs to somebody else: either way it tells us nothing
        return []
