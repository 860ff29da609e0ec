"""One process as /proc shows it, and signals that reach exactly that one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it.

    Attributes:
        pid: Its id.
        name: Its name, at most 15 bytes.
        parent: Its parent's id.
        session: The session it is in.
        terminal: Its controlling terminal's device number; 0 if it has none.
        ticks: When it started, in clock ticks since boot.
        is_dead: It ended and only its parent has not noticed.
    """

    pid: int
    name: str
    parent: int
    session: int
    terminal: int
    ticks: int
    is_dead: bool


def look_at(pid: int) -> Process | None:
    """That process, or None if there is none, or one of somebody else's that is hidden from us."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            content = file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # /proc with `hidepid=1`
        return None
    # The name may hold anything, blanks and parentheses too: fields are counted from the last one.
    head, _, tail = content.rpartition(b")")
    fields = tail.split()
    return Process(
        pid=pid,
        name=head.partition(b"(")[2].decode(errors="replace"),
        parent=int(fields[1]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        ticks=int(fields[19]),
        is_dead=fields[0] in (b"Z", b"X"),
    )


def is_alive(pid: int, *, ticks: int) -> bool:
    """True if the process that started at `ticks` under that id has not ended."""
    found = look_at(pid)
    return found is not None and found.ticks == ticks and not found.is_dead


def all_processes() -> Iterator[Process]:
    """Every process of the machine, or of its part that we may see."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            process = look_at(int(name))
            if process is not None:
                yield process


def variables(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty if nobody may tell us."""
    pairs = (word.partition(b"=") for word in _words(pid, "environ"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}


def command_line(pid: int) -> list[bytes]:
    """A process's argv; empty if nobody may tell us."""
    return _words(pid, "cmdline")


def has_word(pid: int, word: bytes) -> bool:
    """True if a process was started with exactly that `NAME=value` in its environment."""
    content = b"\0" + _content(pid, "environ")
    return b"\0" + word + b"\0" in content


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


def _words(pid: int, name: str) -> list[bytes]:
    return _content(pid, name).split(b"\0")


def _content(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it ended, or belongs to somebody else: either way it tells us nothing
        return b""
