"""Reads a job's events from an offset in its record. Nothing here is asynchronous."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from rdev.protocol.errors import InvalidRequest
from rdev.wire.channel import MAX_LINE
from rdev.wire.events import Event
from rdev.wire.files import JobFiles

# Events that are read at a time; one longer than this is read by itself.
_BLOCK = 256 << 10


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as recorded, and where the one after it begins."""

    next_offset: int
    line: str


def end_of(files: JobFiles) -> int:
    """The offset behind the last whole event; 0 if there is none."""
    try:
        file = os.open(files.events, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(file).st_size
        since = max(0, size - MAX_LINE - 1)
        return since + os.pread(file, size - since, since).rfind(b"\n") + 1
    finally:
        os.close(file)


class EventReader:
    """Reads on and on; whole lines only.

    Args:
        files: The job's directory.
        offset: Where to begin: 0, or a `next_offset`.
        kinds: Only these; empty means all.

    Raises:
        InvalidRequest: No event begins at the offset.
    """

    def __init__(self, files: JobFiles, offset: int, *, kinds: Collection[str] = ()) -> None:
        self._file = os.open(files.events, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset
        self._kinds = frozenset(kinds)
        self._words = tuple(f'"{kind}"' for kind in self._kinds)
        self._is_behind = False
        if offset and os.pread(self._file, 1, offset - 1) != b"\n":
            os.close(self._file)
            raise InvalidRequest("read the events", f"no event begins at offset {offset}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def is_behind(self) -> bool:
        """See `rdev.agent.logs.follow.Reader`."""
        return self._is_behind

    def read(self) -> list[Recorded]:
        """What comes next, a block at most; empty if nothing new has arrived."""
        while True:
            lines = self._lines()
            found = [recorded for recorded in lines if self._is_wanted(recorded)]
            if found or not lines:
                return found

    def glance(self) -> list[Recorded]:
        """Events are few; they are read in the thread."""
        return []

    def rest(self) -> list[Recorded]:
        """A torn last line is no event."""
        return []

    def _lines(self) -> list[Recorded]:
        for size in (_BLOCK, MAX_LINE + 1):
            content = os.pread(self._file, size, self._offset)
            *lines, _torn = content.split(b"\n")
            if lines or len(content) < size:
                break
        self._is_behind = len(content) == size
        found = []
        for line in lines:
            self._offset += len(line) + 1
            found.append(Recorded(self._offset, line.decode(errors="replace")))
        return found

    def _is_wanted(self, recorded: Recorded) -> bool:
        if not self._kinds:
            return True
        # A training reports thousands of metrics for each other event, and every follower looks
        # through all of them: only what names the kind somewhere is worth being parsed.
        if not any(word in recorded.line for word in self._words):
            return False
        try:
            return Event.from_json(recorded.line).kind in self._kinds
        except (TypeError, ValueError):
            return False
