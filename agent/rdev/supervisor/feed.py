"""Feeds a job's input from its spool into the FIFO that the job, or its terminal, reads.

    nothing to feed --more committed--> feeding --FIFO full--> waiting for room --> feeding
                                           |--it cannot be read--> (a second later) feeding
                                           '--all fed, and the end committed--> closed: the job
                                                                                reads end of file

The keeper opens the spool once, and every supervisor inherits that very description: its file
offset, which splice(2) advances in the same call that fills the FIFO, says exactly what was fed,
whoever is killed when. The FIFO's write end is inherited too, so that no death of a supervisor ends
the job's input early; the keeper closes its own when a supervisor says that all is fed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from dataclasses import dataclass
from typing import Self

from rdev.supervisor.platform import complain
from rdev.wire.files import JobFiles
from rdev.wire.input import last_write

# Tells the keeper that the job's input is fed to its end.
FED = signal.SIGUSR1

# A FIFO holds 64 KiB; asking for more costs nothing.
_AT_MOST = 1 << 20

# A disk or a network home that fails may be back; until then the job waits for its input.
_RETRY_AFTER = 1.0


@dataclass(slots=True)
class Conduit:
    """What the keeper holds of the way of a job's input, for itself and all its supervisors.

    Attributes:
        spool: What was written, its file offset where feeding goes on.
        writes: Up to where it may be read.
        reader: Read end of the FIFO: what was fed is kept, whoever comes to read it.
        writer: Write end; -1 once the input has ended.
    """

    spool: int
    writes: int
    reader: int
    writer: int

    @classmethod
    def open(cls, files: JobFiles) -> Self:
        """Opens all of it at the beginning of the input."""
        reader = os.open(files.input_fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return cls(
            spool=os.open(files.input, os.O_RDONLY | os.O_CLOEXEC),
            writes=os.open(files.writes, os.O_RDONLY | os.O_CLOEXEC),
            reader=reader,
            writer=os.open(files.input_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC),
        )

    @property
    def is_fed(self) -> bool:
        """True once all of the input and its end are committed and in the FIFO."""
        last = last_write(self.writes)
        return last.is_end and self.position >= last.end

    @property
    def position(self) -> int:
        """Bytes that were fed."""
        return os.lseek(self.spool, 0, os.SEEK_CUR)

    def close_fed(self) -> None:
        """Closes the write end if the input is fed to its end; the keeper, on `FED`."""
        if self.writer >= 0 and self.is_fed:
            os.close(self.writer)
            self.writer = -1


def open_input(files: JobFiles) -> int:
    """Opens the read end for the job itself; does not block, and sees the end if it has come."""
    # A reader that opens while nobody writes would wait for one, or, told not to, would never be
    # told of the end by poll(2): see fifo_open in Linux's fs/pipe.c.
    writer = os.open(files.input_fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.open(files.input_fifo, os.O_RDONLY)
    finally:
        os.close(writer)


class Feed:
    """Feeds the input of one job.

    Args:
        conduit: What the keeper holds.
        selector: Waits for room in a full FIFO.
        keeper: The keeper's process id.
        can_end: The job reads an end of file once the input has ended; a terminal does not.

    Attributes:
        retry_at: When `step` wants to be called, on CLOCK_MONOTONIC; None while nothing fails.
    """

    def __init__(
        self,
        conduit: Conduit,
        selector: selectors.BaseSelector,
        *,
        keeper: int,
        can_end: bool,
    ) -> None:
        self._conduit = conduit
        self._selector = selector
        self._keeper = keeper
        self._can_end = can_end
        self._is_waiting = False
        self.retry_at: float | None = None

    def step(self) -> None:
        """Feeds what is committed, as far as there is room and it can be read."""
        try:
            self._step()
            self.retry_at = None
        except OSError:
            if self.retry_at is None:  # once for as long as it lasts
                complain()
            self.retry_at = time.monotonic() + _RETRY_AFTER
            self._wait_for_room(wanted=False)

    def _step(self) -> None:
        if self._conduit.writer < 0:
            return
        self._wait_for_room(wanted=not self._fill())
        if self._can_end and not self._is_waiting and self._conduit.is_fed:
            self._end()

    def _fill(self) -> bool:
        """True if all that is committed has found room."""
        conduit = self._conduit
        left = last_write(conduit.writes).end - conduit.position
        while left > 0:
            try:
                moved = os.splice(
                    conduit.spool,
                    conduit.writer,
                    min(left, _AT_MOST),
                    flags=os.SPLICE_F_NONBLOCK,
                )
            except BlockingIOError:
                return False
            if not moved:  # the spool is shorter than its record: nothing that waiting would mend
                return True
            left -= moved
        return True

    def _wait_for_room(self, *, wanted: bool) -> None:
        if wanted == self._is_waiting:
            return
        self._is_waiting = wanted
        if wanted:
            self._selector.register(
                self._conduit.writer, selectors.EVENT_WRITE, lambda _events: self.step()
            )
        else:
            self._selector.unregister(self._conduit.writer)

    def _end(self) -> None:
        os.close(self._conduit.writer)
        self._conduit.writer = -1
        if os.getppid() == self._keeper:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._keeper, FED)
