"""Where a reading of a job's output begins and ends: cursors, a time, last lines, an attempt.

Each narrows what the one before it left: an attempt is a range of every output, of that what was
recorded since some time, of that the last lines. Cursors take the place of the latter two.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from rdev.agent.logs.index import Index, Output
from rdev.agent.logs.log import CHUNK, Chunk, LogReader, Piece
from rdev.protocol.errors import NotFound
from rdev.wire.files import JobFiles, output_size, read_status
from rdev.wire.job import Stream
from rdev.wire.output import read_gaps
from rdev.wire.records import Status

# Times are told in microseconds: the time that a chunk came with must bring that chunk again.
_ROUNDED_NS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """What of a job's output somebody wants to read.

    Attributes:
        cursors: Where to begin; an output without one begins where the attempt does.
        lines: Only so many last lines of each output; None means all, and so with cursors.
        since: Only what was recorded then or later, in seconds since the epoch; None means all,
            and so with cursors.
        ranks: Only these; empty means all.
        streams: Only these; empty means all.
        attempt: Only this one; 0 means all.
        timed: What arrived at different times comes in pieces of its own.
    """

    cursors: Mapping[Output, int] = field(default_factory=dict)
    lines: int | None = None
    since: float | None = None
    ranks: frozenset[int] = frozenset()
    streams: frozenset[str] = frozenset()
    attempt: int = 0
    timed: bool = False

    @property
    def is_recent(self) -> bool:
        """True if the past is left out, all of it or some."""
        return not self.cursors and (self.lines is not None or self.since is not None)


class Reading:
    """Reads what was asked for, see `rdev.agent.logs.follow.Reader`. Use as a context manager.

    Args:
        files: The job's directory.
        query: What to read.

    Attributes:
        begins: Where each output is begun.

    Raises:
        NotFound: The job has no such rank, stream or attempt.
    """

    def __init__(self, files: JobFiles, query: Query) -> None:
        self._files = files
        self._attempt = query.attempt
        outputs = _wanted(files, query)
        status = read_status(files)
        _require_attempt(status, query.attempt)
        limits = _ends_of(status, query.attempt)
        earlier = _ends_of(status, query.attempt - 1) or {}
        self.begins = {o: max(earlier.get(o, 0), query.cursors.get(o, 0)) for o in outputs}
        with Index(files) as index:
            if query.is_recent:
                self._leave_out_the_past(query, index, limits or {})
            # An output that is empty so far has no record to look for.
            begun = {o: begin for o, begin in self.begins.items() if output_size(files, *o)}
            place = index.place_of(begun)
        self._reader = LogReader(
            files,
            self.begins,
            place=place,
            wanted=outputs if query.ranks or query.streams else None,
            timed=query.timed,
        )
        self._is_limited = limits is not None
        if limits is not None:
            self._reader.limit(limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    @property
    def is_behind(self) -> bool:
        """See `rdev.agent.logs.follow.Reader`."""
        return self._reader.is_behind

    def read(self) -> list[Piece]:
        """What comes next, bounded; empty if nothing new has arrived."""
        return self._clipped(self._reader.read())

    def glance(self) -> list[Piece]:
        """What of it is in memory; empty if that is not known."""
        if self._attempt and not self._is_limited:  # has to look into the status
            return []
        return self._reader.glance()

    def rest(self) -> list[Piece]:
        """What lies beyond the index; for a job whose output is drained."""
        while pieces := self._reader.rest():
            if kept := self._clipped(pieces):
                return kept
        return []

    def is_over(self) -> bool:
        """True if nothing can be added to what is read: the job, or the attempt, has ended."""
        if self._is_limited:
            return True
        try:
            status = read_status(self._files)
        except FileNotFoundError:  # it was deleted, which only ended jobs are
            return True
        return self._limit(status) or status.state.is_final

    def _leave_out_the_past(self, query: Query, index: Index, limits: Mapping[Output, int]) -> None:
        begins = self.begins
        if query.since is not None:
            place = index.place_at(round(query.since * 1e9) - _ROUNDED_NS)
            for output, end in index.ends_before(place, begins.keys()).items():
                begins[output] = max(begins[output], end)
        if query.lines is not None:
            for output, begin in begins.items():
                limit = limits.get(output)
                tail = tail_offset(self._files, output, query.lines, begin=begin, end=limit)
                begins[output] = max(begin, tail)

    def _clipped(self, pieces: list[Piece]) -> list[Piece]:
        """Without what is the next attempt's, which may have begun while this was read."""
        if not self._attempt or self._is_limited or not pieces:
            return pieces
        try:
            status = read_status(self._files)
        except FileNotFoundError:
            return pieces
        if not self._limit(status):
            return pieces
        limits = _ends_of(status, self._attempt) or {}
        return [kept for piece in pieces if (kept := _clip(piece, limits))]

    def _limit(self, status: Status) -> bool:
        """Reads no further than the attempt's end, if it has one; True if so."""
        limits = _ends_of(status, self._attempt)
        if limits is not None:
            self._reader.limit(limits)
            self._is_limited = True
        return limits is not None


def _wanted(files: JobFiles, query: Query) -> list[Output]:
    outputs = files.outputs()
    found = [
        (rank, stream)
        for rank, stream in outputs
        if (not query.ranks or rank in query.ranks)
        and (not query.streams or stream in query.streams)
    ]
    if found or not outputs:
        return found
    words = [f"rank {rank}" for rank in sorted(query.ranks)] + sorted(query.streams)
    raise NotFound(f"read {' and '.join(words)} of the job", _what_there_is(outputs, query))


def _what_there_is(outputs: list[Output], query: Query) -> str:
    ranks = sorted({rank for rank, _ in outputs})
    if query.ranks and not set(ranks) & set(query.ranks):
        return f"it has ranks {ranks[0]} to {ranks[-1]}" if ranks[1:] else f"it has rank {ranks[0]}"
    has = ", ".join(f"{rank}.{stream}" for rank, stream in outputs[:_NAMED])
    more = ", ..." if len(outputs) > _NAMED else ""
    return f"its outputs are {has}{more}"


# So many outputs are named to somebody who asks for one that is not there.
_NAMED = 6


def _require_attempt(status: Status, attempt: int) -> None:
    if attempt > status.attempt:
        cause = f"the latest one is attempt {status.attempt}"
        raise NotFound(f"read attempt {attempt} of the job", cause, hint="choose an earlier one")


def _ends_of(status: Status, attempt: int) -> dict[Output, int] | None:
    """Where the outputs stood when that attempt ended; None if no other has followed it."""
    for ended in status.attempts:
        if ended.number == attempt:
            return _by_output(ended.ends)
    return None


def _by_output(streams: Iterable[Stream]) -> dict[Output, int]:
    return {(stream.rank, stream.name): stream.size for stream in streams}


def _clip(piece: Piece, limits: Mapping[Output, int]) -> Piece | None:
    room = limits.get((piece.rank, piece.stream), 0) - piece.offset
    if room <= 0:
        return None
    if isinstance(piece, Chunk):
        return piece if len(piece.data) <= room else replace(piece, data=piece.data[:room])
    return piece if piece.length <= room else replace(piece, length=room)


def tail_offset(
    files: JobFiles, output: Output, lines: int, *, begin: int = 0, end: int | None = None
) -> int:
    """Where the last lines of an output, or of a part of it, begin; 0 lines is its end.

    A begun line counts.

    Args:
        files: The job's directory.
        output: Whose.
        lines: How many.
        begin: Where the part begins.
        end: Where it ends; None is the end so far.
    """
    with open(files.log(*output), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not lines:
            gaps = read_gaps(files.gaps(*output))
            return max(size, gaps[-1].end if gaps else 0) if end is None else end
        position = min(size, size if end is None else end)
        # The newline that ends the last line begins no other.
        wanted = lines + (os.pread(file.fileno(), 1, position - 1) == b"\n" if position else 0)
        while position > begin:
            start = max(begin, position - CHUNK)
            block = os.pread(file.fileno(), position - start, start)
            found = len(block)
            while wanted and (found := block.rfind(b"\n", 0, found)) >= 0:
                wanted -= 1
            if not wanted:
                return start + found + 1
            position = start
    return begin
