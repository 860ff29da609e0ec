"""What processes use, as the kernel tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable


def ticks_of(pids: Iterable[int]) -> int:
    """CPU time of processes so far, in hundredths of a second."""
    return sum(_ticks(pid) for pid in pids)


def _ticks(pid: int) -> int:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) * 100 // os.sysconf("SC_CLK_TCK")


def with_children(pid: int) -> int:
    """CPU time so far, in clock ticks, of a process and of its children that have ended."""
    return sum(map(int, _fields(pid)[11:15]))


def memory_of(pid: int) -> int:
    """Bytes of memory that are a process's own or its share of what several use (PSS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"the kernel does not say what process {pid} holds")


def _fields(pid: int) -> list[str]:
    """The fields of proc(5)'s `stat` behind the name, the third first."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()
