"""Looks places up in the index of what arrived when; nothing here is asynchronous.

A place is a position in the index's file at which a record begins. Records of one output are in
order of offset, and all of them in order of time unless the machine's clock was set back, in which
case a time's place is roughly right.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Self, TypeAlias

from rdev.wire.files import JobFiles
from rdev.wire.output import ARRIVAL_SIZE, STREAMS, Arrival, unpack_arrivals

Output: TypeAlias = tuple[int, str]

# Looked through at a time, newest first: what is looked for is mostly near the end.
_BLOCK = 2048 * ARRIVAL_SIZE

# A record's first 8 bytes are its time; its last 4 say whose it is, little-endian as they are
# written, with the flags above.
_TIME = struct.Struct("<Q")
_WORDS = ARRIVAL_SIZE // 4
_FLAGS = range(2)


class Index:
    """A job's index as long as it was when this was made. Use as a context manager."""

    def __init__(self, files: JobFiles) -> None:
        self._file = os.open(files.index, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._file).st_size
        self.end = size - size % ARRIVAL_SIZE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def place_at(self, time_ns: int) -> int:
        """The place of the first record of that time or later, in nanoseconds since the epoch."""
        low, high = 0, self.end // ARRIVAL_SIZE
        while low < high:
            middle = (low + high) // 2
            content = os.pread(self._file, _TIME.size, middle * ARRIVAL_SIZE)
            if _TIME.unpack(content)[0] < time_ns:
                low = middle + 1
            else:
                high = middle
        return low * ARRIVAL_SIZE

    def ends_before(self, place: int, outputs: Collection[Output]) -> dict[Output, int]:
        """Where each output stood at a place: the end of its last record before it, or 0."""
        ends = dict.fromkeys(outputs, 0)
        missing = set(ends)
        for _, arrival in self._backward(place, missing):
            ends[arrival.rank, arrival.stream] = arrival.end
            missing.discard((arrival.rank, arrival.stream))
        return ends

    def place_of(self, offsets: Mapping[Output, int]) -> int:
        """The place before which nothing is recorded that lies at these offsets or beyond."""
        if 0 in offsets.values():
            return 0
        found = self.end
        missing = set(offsets)
        for place, arrival in self._backward(self.end, missing):
            key = arrival.rank, arrival.stream
            if arrival.end <= offsets[key]:
                missing.discard(key)
            else:
                found = place
        return found

    def _backward(self, place: int, missing: set[Output]) -> Iterator[tuple[int, Arrival]]:
        """The records before a place of those outputs that are still in `missing`, last first."""
        while place > 0 and missing:
            begin = max(0, place - _BLOCK)
            content = os.pread(self._file, place - begin, begin)
            if not _codes(missing).isdisjoint(memoryview(content).cast("I")[_WORDS - 1 :: _WORDS]):
                arrivals = list(unpack_arrivals(content))
                for number in range(len(arrivals) - 1, -1, -1):
                    arrival = arrivals[number]
                    if (arrival.rank, arrival.stream) in missing:
                        yield begin + number * ARRIVAL_SIZE, arrival
            place = begin


def _codes(outputs: Collection[Output]) -> set[int]:
    """The last word of their records: to find none of them in a block takes no loop of our own."""
    return {
        rank | STREAMS.index(stream) << 16 | flags << 24
        for rank, stream in outputs
        for flags in _FLAGS
    }
