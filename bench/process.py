"""What processes use, as the kernel tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable


def ticks_of(pids: Iterable[int]) -> int:
    """CPU time of processes so far, in hundredths of a second."""
    return sum(_ticks(pid) for pid in pids)


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 100 // os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Bytes of memory that are a process's own or its share of what several use (PSS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"the kernel does not say what process {pid} holds")
