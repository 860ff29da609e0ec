"""Moves a job's output from its FIFOs into its logs, without a copy in any process.

    keeping --no space--> dropping (every byte counted in a gap) --a second later--> keeping
        '--no space, and the job may wait--> waiting (the bytes stay in the pipe) --> keeping
        '--as much as the site allows is kept--> dropping, to the end

Bytes are in the pipe or in the file, never only here, so a supervisor may be killed at any moment:
splice(2) takes from the pipe exactly what it has written.
"""

from __future__ import annotations

import errno
import os
import time

from rdev.supervisor.platform import bytes_waiting
from rdev.wire.files import JobFiles
from rdev.wire.output import APPROXIMATE, ARRIVAL_SIZE, GapTable, pack_arrival, unpack_arrivals

# A FIFO holds 64 KiB; asking for more costs nothing.
_AT_MOST = 1 << 20

# A pause between two attempts to write on a full disk: short enough to be back soon, long enough
# that the table of gaps lasts at least a quarter of an hour of a disk that fills and empties.
_RETRY_AFTER = 1.0


class Index:
    """The index of what arrived when, over all outputs."""

    def __init__(self, files: JobFiles) -> None:
        self._file = os.open(files.index, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._file).st_size
        self._size = size - size % ARRIVAL_SIZE
        self._covered = self._read_covered()

    def add(self, rank: int, stream: str, *, offset: int, length: int, flags: int = 0) -> None:
        """Records an arrival.

        On a full disk it is left out: readers take what lies before the next arrival along with it,
        and what lies after the last one at the end.
        """
        record = pack_arrival(time.time_ns(), offset, length, rank, stream, flags)
        try:
            if os.pwrite(self._file, record, self._size) == ARRIVAL_SIZE:
                self._size += ARRIVAL_SIZE
        except OSError:
            pass

    def catch_up(self, rank: int, stream: str, *, offset: int) -> None:
        """Records what a killed predecessor moved and did not record, up to an offset."""
        covered = self._covered.get((rank, stream), 0)
        if offset > covered:
            length = min(offset - covered, 0xFFFFFFFF)
            self.add(rank, stream, offset=offset - length, length=length, flags=APPROXIMATE)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _read_covered(self) -> dict[tuple[int, str], int]:
        """Where each output's last recorded arrival ends; only the last ones are looked at."""
        # The last arrival of each output is near the end, or the output has been silent since.
        start = max(0, self._size - (1 << 20) // ARRIVAL_SIZE * ARRIVAL_SIZE)
        content = os.pread(self._file, self._size - start, start)
        return {(a.rank, a.stream): a.offset + a.length for a in unpack_arrivals(content)}


class Output:
    """One output of the job: a FIFO, a log, its gaps.

    Attributes:
        fifo: What the job writes into.
        offset: How far it has come.
        is_patient: Bytes that find no room wait in their pipe.
        is_waiting: They do.
        retry_at: When the next attempt may find room, on CLOCK_MONOTONIC.
        error: errno of the last loss; 0 if nothing was lost.
    """

    def __init__(
        self,
        files: JobFiles,
        index: Index,
        *,
        rank: int,
        stream: str,
        is_patient: bool = False,
        most: int | None = None,
    ) -> None:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        self.fifo = os.open(files.fifo(rank, stream), flags)
        self._log = os.open(files.log(rank, stream), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._gaps = GapTable(files.gaps(rank, stream))
        self.error = self._gaps.gaps[-1].error if self._gaps.gaps else 0
        self._index = index
        self.rank = rank
        self.stream = stream
        self.is_patient = is_patient
        self._most = most
        self.is_waiting = False
        self.retry_at = 0.0
        self.offset = max(os.fstat(self._log).st_size, self._gaps.end)
        index.catch_up(rank, stream, offset=self.offset)

    def move(self) -> int:
        """Moves what is there; returns how many bytes that was, those dropped included."""
        has_to_rest = self.retry_at > 0.0 and time.monotonic() < self.retry_at
        if self._gaps.is_full or has_to_rest:
            return self._do_without(self.error)
        room = _AT_MOST if self._most is None else min(_AT_MOST, self._most - self.offset)
        if room <= 0:
            return self._do_beyond()
        try:
            moved = os.splice(
                self.fifo,
                self._log,
                room,
                offset_dst=self.offset,
                flags=os.SPLICE_F_NONBLOCK,
            )
        except BlockingIOError:
            return 0
        except OSError as error:  # full disk, quota, limit, broken disk: never the job's trouble
            return self._do_without(error.errno or 0)
        self.retry_at, self.is_waiting = 0.0, False
        self._index.add(self.rank, self.stream, offset=self.offset, length=moved)
        self.offset += moved
        return moved

    def drain(self) -> None:
        """Moves what is there at this moment; a daemon of the job may go on writing for ever."""
        left = bytes_waiting(self.fifo)
        while left > 0 and (moved := self.move()):
            left -= moved

    def close(self) -> None:
        """Closes the files."""
        os.close(self.fifo)
        os.close(self._log)
        self._gaps.close()

    def _do_without(self, error: int) -> int:
        """There is no room."""
        count = bytes_waiting(self.fifo)
        self.is_waiting = self.is_patient and count > 0
        if not count:
            return 0
        now = time.monotonic()
        if now >= self.retry_at:
            self.retry_at = now + _RETRY_AFTER
        self.error = error
        return 0 if self.is_waiting else self._drop(count, error)

    def _do_beyond(self) -> int:
        """As much as the site allows is kept; no room will come, so nobody waits for any."""
        count = bytes_waiting(self.fifo)
        if not count:
            return 0
        self.error = errno.EFBIG
        return self._drop(count, errno.EFBIG)

    def _drop(self, count: int, error: int) -> int:
        self._gaps.add(self.offset, count, error=error)
        self.offset += count
        left = count
        while left:
            left -= len(os.read(self.fifo, left))
        return count
