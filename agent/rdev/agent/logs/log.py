"""Reads a job's output from given offsets, in the order in which it was written.

The index says what arrived when; what it does not cover (it could not be written, or its writer was
killed) comes along with the next arrival, or at the end. Nothing here is asynchronous.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import Self, TypeAlias

from rdev.agent.logs.index import Output
from rdev.wire.files import JobFiles
from rdev.wire.output import ARRIVAL_SIZE, Arrival, merged_arrivals, read_gaps

# The protocol's limit for one chunk.
CHUNK = 256 << 10

# What is read in one go: each go is a hop to a thread and back.
_GO = 4 * CHUNK

# More than that is copied by a thread, while others are served.
_GLANCE = 32 << 10

# Bytes of the index that are read at a time; less for a glance, which mostly finds one record.
_INDEX_BLOCK = 2048 * ARRIVAL_SIZE
_INDEX_GLANCE = 64 * ARRIVAL_SIZE

# Lines that came within this are told as of one time: nobody reads finer, and a chunk a line would
# cost a flood dearly.
_TIMED_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one output, at most `CHUNK`; `time` is seconds since the epoch."""

    rank: int
    stream: str
    offset: int
    data: bytes
    time: float


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes of one output that could not be kept, and why."""

    rank: int
    stream: str
    offset: int
    length: int
    reason: str


Piece: TypeAlias = Chunk | Lost


class LogReader:
    """Reads on and on; holds a block of the index and no output.

    Args:
        files: The job's directory.
        offsets: Where to begin; an output that is not named begins at 0.
        place: Where to begin in the index; what is recorded before lies before the offsets.
        wanted: Only these outputs; None means all.
        timed: What arrived at different times comes in chunks of its own.
    """

    def __init__(
        self,
        files: JobFiles,
        offsets: Mapping[Output, int],
        *,
        place: int = 0,
        wanted: Collection[Output] | None = None,
        timed: bool = False,
    ) -> None:
        self._files = files
        self._index = os.open(files.index, os.O_RDONLY | os.O_CLOEXEC)
        self._position = place
        self._pending: deque[Arrival] = deque()
        self._outputs: dict[Output, _OutputReader] = {}
        self._offsets = dict(offsets)
        self._wanted = None if wanted is None else frozenset(wanted)
        self._within_ns = _TIMED_NS if timed else None
        self._limits: dict[Output, int] | None = None
        self._is_behind = False
        self._is_at_end = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._index)
        for output in self._outputs.values():
            output.close()

    @property
    def is_behind(self) -> bool:
        """See `rdev.agent.logs.follow.Reader`."""
        return self._is_behind

    def limit(self, limits: Mapping[Output, int]) -> None:
        """Reads no further than this; nothing of an output that is not named."""
        self._limits = dict(limits)
        for key, output in self._outputs.items():
            output.limit = self._limits.get(key, 0)

    def read(self) -> list[Piece]:
        """What comes next, at most five chunks in all; empty if nothing new has arrived."""
        return self._read(may_block=True)

    def glance(self) -> list[Piece]:
        """What of it is in memory, as what was just written is; empty if that is not known."""
        try:
            return self._read(may_block=False)
        except OSError:  # on the disk, or on a file system that does not tell
            return []

    def _read(self, *, may_block: bool) -> list[Piece]:
        pieces: list[Piece] = []
        self._is_at_end = False
        room, is_refused = 0 if self._is_at_limits() else _GO, False
        while room > 0 and not is_refused:
            try:
                piece = self._piece(may_block=may_block)
            except OSError:
                if not pieces:
                    raise
                is_refused = True  # what was read is good; the next read meets it again
            else:
                if piece is None:
                    break
                pieces.append(piece)
                room -= len(piece.data) if isinstance(piece, Chunk) else 0
        self._is_behind = room <= 0 or is_refused
        return pieces

    def _piece(self, *, may_block: bool) -> Piece | None:
        while (arrival := self._next(may_block=may_block)) is not None:
            output = self._output((arrival.rank, arrival.stream), may_block=may_block)
            end = min(arrival.end, output.limit)
            if end <= output.offset:
                self._pending.popleft()
                continue
            if end - output.offset > _GLANCE:
                _require(may_block)
            piece = output.read(arrival, end, may_block=may_block)
            if output.offset >= end:
                self._pending.popleft()
            return piece
        return None

    def rest(self) -> list[Piece]:
        """What lies beyond the index, piece by piece; for a job whose output is drained."""
        for key in self._files.outputs():
            if self._wanted is not None and key not in self._wanted:
                continue
            output = self._output(key)
            if output.offset < (end := min(output.size(), output.limit)):
                return [output.read_rest(end)]
        return []

    def _is_at_limits(self) -> bool:
        """True once the index can bring nothing more; it may go on for long behind the limits."""
        if self._limits is None:
            return False
        wanted = self._limits.keys() if self._wanted is None else self._wanted
        return all(self._output(key).is_at_limit for key in wanted)

    def _next(self, *, may_block: bool) -> Arrival | None:
        while not self._pending:
            if self._is_at_end:  # as it was a moment ago; what came since is told
                return None
            block = _INDEX_BLOCK if may_block else _INDEX_GLANCE
            content = _pread(self._index, block, self._position, may_block=may_block)
            end = self._position + len(content)
            # A glance also stops before a page that is not in memory, and there may be more.
            is_cut = not may_block and bool(content) and end % PAGESIZE == 0
            self._is_at_end = len(content) < block and not is_cut
            if len(content) < ARRIVAL_SIZE:
                _require(may_block or not is_cut)
                return None
            self._position += len(content) - len(content) % ARRIVAL_SIZE
            self._pending.extend(
                merged_arrivals(
                    content, at_most=CHUNK, within_ns=self._within_ns, wanted=self._wanted
                )
            )
        return self._pending[0]

    def _output(self, key: Output, *, may_block: bool = True) -> _OutputReader:
        found = self._outputs.get(key)
        if found is None:
            _require(may_block)
            found = _OutputReader(self._files, key, self._offsets.get(key, 0))
            if self._limits is not None:
                found.limit = self._limits.get(key, 0)
            self._outputs[key] = found
        return found


class _OutputReader:
    def __init__(self, files: JobFiles, key: Output, offset: int) -> None:
        self.offset = offset
        self.limit = sys.maxsize
        self._rank, self._stream = key
        self._path = files.gaps(*key)
        self._file = os.open(files.log(*key), os.O_RDONLY | os.O_CLOEXEC)
        self._gaps = read_gaps(self._path)

    @property
    def is_at_limit(self) -> bool:
        """True if nothing more of it is wanted."""
        return self.offset >= self.limit

    def read(self, arrival: Arrival, end: int, *, may_block: bool) -> Piece:
        """The next piece of an arrival before `end`.

        Raises:
            BlockingIOError: It is not in memory, and `may_block` is False; nothing has changed.
        """
        if arrival.offset > self.offset:  # what the index does not cover may be a gap
            _require(may_block)
            self._gaps = read_gaps(self._path)
        return self._read(end, time_ns=arrival.time_ns, may_block=may_block)

    def read_rest(self, end: int) -> Piece:
        """The next piece before `end`, which no index covers."""
        self._gaps = read_gaps(self._path)
        return self._read(end, time_ns=self.changed_ns(), may_block=True)

    def _read(self, end: int, *, time_ns: int, may_block: bool) -> Piece:
        gap = next((gap for gap in self._gaps if gap.end > self.offset), None)
        if gap is not None and gap.offset <= self.offset:
            return self._lose(min(gap.end, self.limit) - self.offset, gap.error)
        limit = min(end, self.offset + CHUNK, gap.offset if gap else end)
        data = _pread(self._file, limit - self.offset, self.offset, may_block=may_block)
        if not data:  # it was there when it was recorded: the machine crashed before it was durable
            _require(may_block)
            return self._lose(limit - self.offset, errno.EIO)
        begin = self.offset
        self.offset += len(data)
        return Chunk(self._rank, self._stream, begin, data, time_ns / 1e9)

    def size(self) -> int:
        """Where the output ends now, gaps included."""
        # The size first: what lies behind a gap was written after the gap was recorded.
        size = os.fstat(self._file).st_size
        self._gaps = read_gaps(self._path)
        return max(size, self._gaps[-1].end if self._gaps else 0)

    def changed_ns(self) -> int:
        """When the log was last written, in nanoseconds since the epoch."""
        return os.fstat(self._file).st_mtime_ns

    def close(self) -> None:
        os.close(self._file)

    def _lose(self, length: int, error: int) -> Lost:
        begin = self.offset
        self.offset += length
        reason = os.strerror(error)
        return Lost(self._rank, self._stream, begin, length, reason[:1].lower() + reason[1:])


def _pread(descriptor: int, count: int, offset: int, *, may_block: bool) -> bytes:
    if may_block:
        return os.pread(descriptor, count, offset)
    content = bytearray(count)
    length = os.preadv(descriptor, [content], offset, os.RWF_NOWAIT)
    return bytes(memoryview(content)[:length])


def _require(may_block: bool) -> None:  # noqa: FBT001  # reads like the words
    if not may_block:
        raise BlockingIOError
