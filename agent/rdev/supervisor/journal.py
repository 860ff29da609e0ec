"""The job's events on disk: each once, in the order of arrival, one line each."""

from __future__ import annotations

import contextlib
import os
import re
import time

from rdev.wire.events import EVENTS_DROPPED, Event
from rdev.wire.files import JobFiles

# `Event.to_json` puts these first and in this order, so a line needs no parsing to be recognised.
_IDENTITY = re.compile(rb'"rank":(\d+),"pid":(\d+),"seq":(\d+)')

_BLOCK = 1 << 20


class Journal:
    """Appends events; knows up to which number it has those of each process."""

    def __init__(self, files: JobFiles) -> None:
        self._file = os.open(files.events, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._known: dict[tuple[int, int], int] = {}
        self._dropped = 0
        self._size = self._recover()

    def acknowledged(self, rank: int, pid: int) -> int:
        """The highest number recorded of that process; 0 if none is."""
        return self._known.get((rank, pid), 0)

    def add(self, event: Event) -> bool:
        """Records an event; False if it was there already.

        On a full disk it is dropped, and counted in an `events_dropped` as soon as there is space.
        """
        identity = (event.rank, event.pid)
        if event.seq <= self._known.get(identity, 0):
            return False
        self._known[identity] = event.seq
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

    def _recover(self) -> int:
        """Learns what a predecessor recorded, cuts off a torn last line; returns the size."""
        size, rest = 0, b""
        with open(self._file, "rb", closefd=False) as file:
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                size += sum(len(line) + 1 for line in lines)
                for line in lines:
                    self._learn(line)
        if rest:
            os.ftruncate(self._file, size)
        return size

    def _learn(self, line: bytes) -> None:
        found = _IDENTITY.search(line)
        if found:
            rank, pid, seq = (int(group) for group in found.groups())
            self._known[rank, pid] = max(seq, self._known.get((rank, pid), 0))
