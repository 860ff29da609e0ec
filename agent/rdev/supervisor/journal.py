"""The job's events on disk: each once, in the order of arrival, one line each.

What a predecessor has recorded is read when somebody asks for it first, which may take a second
where there are very many: meanwhile the job's output is moved.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable

from rdev.wire.events import EVENTS_DROPPED, Event
from rdev.wire.files import JobFiles

# `Event.to_json` puts these first and in this order, so a line needs no parsing to be recognised.
_IDENTITY = re.compile(rb'^[^\n]*?"rank":(\d+),"pid":(\d+),"seq":(\d+)', re.MULTILINE)

_BLOCK = 1 << 20


class Journal:
    """Appends events; knows up to which number it has those of each process.

    Args:
        files: The job's directory.
        breathe: Called now and again while a long record is read, to do what cannot wait.
    """

    def __init__(self, files: JobFiles, breathe: Callable[[], object] = lambda: None) -> None:
        self._file = os.open(files.events, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._breathe = breathe
        self._known: dict[tuple[int, int], int] | None = None
        self._dropped = 0
        self._size = self._cut_torn_line()

    def acknowledged(self, rank: int, pid: int) -> int:
        """The highest number recorded of that process; 0 if none is."""
        return self._numbers().get((rank, pid), 0)

    def add(self, event: Event) -> bool:
        """Records an event; False if it was there already.

        On a full disk it is dropped, and counted in an `events_dropped` as soon as there is space.
        """
        identity, known = (event.rank, event.pid), self._numbers()
        if event.seq <= known.get(identity, 0):
            return False
        known[identity] = event.seq
        line = event.to_json().encode() + b"\n"
        if self._dropped:
            line = self._dropped_line() + line
        if self._append(line):
            self._dropped = 0
        else:
            self._dropped += 1
        return True

    def close(self) -> None:
        """Says what was dropped, if that is possible by now, and closes the file."""
        if self._dropped:
            self._append(self._dropped_line())
        os.close(self._file)

    def _dropped_line(self) -> bytes:
        fields = {"count": self._dropped}
        event = Event(EVENTS_DROPPED, time.time(), pid=os.getpid(), fields=fields)
        return event.to_json().encode() + b"\n"

    def _append(self, line: bytes) -> bool:
        """Writes all of it or, as far as a reader can see, nothing."""
        try:
            written = os.pwrite(self._file, line, self._size)
        except OSError:
            written = 0
        if written == len(line):
            self._size += written
            return True
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._size)
        return False

    def _cut_torn_line(self) -> int:
        """Cuts off what a predecessor was killed over; returns the size."""
        size = end = os.fstat(self._file).st_size
        while end:
            begin = max(0, end - _BLOCK)
            newline = os.pread(self._file, end - begin, begin).rfind(b"\n")
            end = begin
            if newline >= 0:
                end += newline + 1
                break
        if end < size:
            os.ftruncate(self._file, end)
        return end

    def _numbers(self) -> dict[tuple[int, int], int]:
        """Up to which number the events of each (rank, pid) are recorded."""
        if self._known is None:
            known: dict[tuple[int, int], int] = {}
            position, rest = 0, b""
            while block := os.pread(self._file, min(_BLOCK, self._size - position), position):
                position += len(block)
                lines, _, rest = (rest + block).rpartition(b"\n")
                # They only grow, see `add`: the last one of a process is its highest.
                last = {(rank, pid): seq for rank, pid, seq in _IDENTITY.findall(lines)}
                known |= {(int(rank), int(pid)): int(seq) for (rank, pid), seq in last.items()}
                self._breathe()
            self._known = known
        return self._known
