"""What is kept of a job's output: the index of what arrived when, and the gaps.

An output's log holds its raw bytes at the offsets they have in the stream, for ever. What could not
be kept is a hole in the file and a gap in the table beside it. A gap is recorded before its bytes
are thrown away: a supervisor killed between the two counts up to one pipe (64 KiB) too many as
lost, and what came then follows it; it never loses bytes that no gap names.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from rdev.wire.blocks import private

# Their order is the index's format. `launcher` is what torchrun itself prints, of rank 0.
STREAMS = ("stdout", "stderr", "launcher")

# time in ns since the epoch, offset, length, rank, stream, flags
_ARRIVAL = struct.Struct("<QQIHBB")
ARRIVAL_SIZE = _ARRIVAL.size

# Longer than any job, in nanoseconds.
_FOR_EVER = 1 << 64

APPROXIMATE = 1
"""Flag: written after a crash; the bytes are right, their time and place among others roughly."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes of one output that arrived at one time.

    Attributes:
        time_ns: Nanoseconds since the epoch at which the last byte was recorded.
        offset: Of the first byte.
        length: In bytes.
        rank: Which rank wrote them.
        stream: To which stream.
        flags: `APPROXIMATE` or 0.
    """

    time_ns: int
    offset: int
    length: int
    rank: int
    stream: str
    flags: int = 0

    @property
    def end(self) -> int:
        """Offset of the first byte after them."""
        return self.offset + self.length

    def pack(self) -> bytes:
        """As the index's record."""
        return pack_arrival(
            self.time_ns, self.offset, self.length, self.rank, self.stream, self.flags
        )


def pack_arrival(
    time_ns: int, offset: int, length: int, rank: int, stream: str, flags: int
) -> bytes:
    """An `Arrival` as the index's record, without the object."""
    return _ARRIVAL.pack(time_ns, offset, length, rank, STREAMS.index(stream), flags)


def unpack_arrivals(content: bytes) -> Iterator[Arrival]:
    """The whole records in a part of the index; a torn last one is left out."""
    whole = len(content) - len(content) % ARRIVAL_SIZE
    for values in _ARRIVAL.iter_unpack(content[:whole]):
        time_ns, offset, length, rank, stream, flags = values
        yield Arrival(time_ns, offset, length, rank, STREAMS[stream], flags)


def merged_arrivals(
    content: bytes,
    *,
    at_most: int,
    within_ns: int | None = None,
    wanted: Collection[tuple[int, str]] | None = None,
) -> list[Arrival]:
    """The whole records in a part of the index, those that follow one another in one output as one.

    Args:
        content: The part.
        at_most: Runs are not made longer than this, in bytes.
        within_ns: Runs join only what arrived in so many nanoseconds; None means ever.
        wanted: Only these (rank, stream) pairs; None means all.
    """
    keys = None if wanted is None else {(rank, STREAMS.index(stream)) for rank, stream in wanted}
    patience = _FOR_EVER if within_ns is None else within_ns
    runs: list[list[int]] = []
    whole = len(content) - len(content) % ARRIVAL_SIZE
    last = [0, 0, 0, -1, -1, 0, 0]
    for values in _ARRIVAL.iter_unpack(content[:whole]):
        time_ns, offset, length, rank, stream, _flags = values
        if keys is not None and (rank, stream) not in keys:
            continue
        follows = rank == last[3] and stream == last[4] and offset == last[1] + last[2]
        if follows and last[2] + length <= at_most and time_ns - last[6] <= patience:
            last[0] = time_ns
            last[2] += length
        else:
            last = [*values, time_ns]
            runs.append(last)
    return [
        Arrival(time_ns, offset, length, rank, STREAMS[stream], flags)
        for time_ns, offset, length, rank, stream, flags, _ in runs
    ]


# offset, length, errno, checksum of these; 32 bytes, so that none lies across two pages
_GAP = struct.Struct("<QQII8x")
_GAP_BODY = struct.Struct("<QQI")

# One gap at most begins each second, see rdev.supervisor.output; when all are used the last one
# grows to the end of the stream and stays exact.
GAP_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of an output that could not be kept.

    Attributes:
        offset: Of the first byte lost.
        length: Bytes lost.
        error: The errno that says why.
    """

    offset: int
    length: int
    error: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the gap."""
        return self.offset + self.length

    def pack(self) -> bytes:
        """As the record in the gaps file."""
        body = _GAP_BODY.pack(self.offset, self.length, self.error)
        return _GAP.pack(self.offset, self.length, self.error, zlib.crc32(body))


def reserve_gaps(path: str) -> None:
    """Makes an empty gaps file, its space taken."""
    with open(path, "xb", opener=private) as file:
        file.write(bytes(GAP_SLOTS * _GAP.size))


def read_gaps(path: str) -> list[Gap]:
    """The gaps of one output, in order of offset; empty if there is no such file."""
    try:
        # Unbuffered, and no further than the first record of an empty table, which is what most
        # are: whoever lists jobs reads one for each output.
        with open(path, "rb", buffering=0) as file:
            content = file.read(_GAP.size) or b""
            if not any(content):
                return []
            content += file.read() or b""
    except FileNotFoundError:
        return []
    gaps = []
    for offset, length, error, checksum in _GAP.iter_unpack(content):
        if not length or checksum != zlib.crc32(_GAP_BODY.pack(offset, length, error)):
            break
        gaps.append(Gap(offset, length, error))
    return gaps


@dataclass(slots=True)
class GapTable:
    """The gaps of one output, as its supervisor keeps them."""

    path: str
    gaps: list[Gap] = field(init=False)
    _file: int = field(init=False)
    # How many records are as they should be on disk.
    _written: int = field(init=False)

    def __post_init__(self) -> None:
        self.gaps = read_gaps(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        self._written = len(self.gaps)

    @property
    def end(self) -> int:
        """Offset of the first byte after the last gap; 0 without one."""
        return self.gaps[-1].end if self.gaps else 0

    @property
    def is_full(self) -> bool:
        """True once no further gap can be told from the last one."""
        return len(self.gaps) == GAP_SLOTS

    def add(self, offset: int, length: int, *, error: int) -> None:
        """Records that `length` bytes from `offset` on are lost, before they are thrown away.

        Where even space that was taken cannot be written, as on a disk that copies on writing, the
        record is written later. If the supervisor is killed before that, its successor does not
        know of those bytes: they are not counted, or read as zeros if more was kept after them.
        """
        if self.gaps and self.gaps[-1].end == offset:
            self.gaps[-1] = replace(self.gaps[-1], length=self.gaps[-1].length + length)
        else:
            self.gaps.append(Gap(offset, length, error))
        self._written = min(self._written, len(self.gaps) - 1)
        self._write()

    def _write(self) -> None:
        """Writes the records that are behind, in order: a reader stops at the first hole."""
        with contextlib.suppress(OSError):
            for number in range(self._written, len(self.gaps)):
                record = self.gaps[number].pack()
                if os.pwrite(self._file, record, number * _GAP.size) < len(record):
                    return
                self._written = number + 1

    def close(self) -> None:
        """Closes the file."""
        self._write()
        os.close(self._file)
