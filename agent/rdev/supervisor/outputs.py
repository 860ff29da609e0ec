"""All outputs of a job: waits for their bytes, moves them, and knows what to do when nothing fits.

waiting for bytes --they come--> moved --a moment--> waiting for bytes
      moved --no room, the job may wait--> resting, bytes in their pipe --> waiting for bytes
      moved --no room, the job may not wait--> counted and dropped, see rdev.supervisor.output
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from rdev.supervisor.output import Index, Output
from rdev.wire.files import JobFiles
from rdev.wire.job import LogFull, Stream
from rdev.wire.records import Launch

# Descriptors that an output takes: its FIFO, its log, its gaps.
PER_OUTPUT = 3

# While output pours in line by line, one splice serves what came in this time: far below what a
# reader notices, and it saves a wake-up per line at both ends.
_GATHER = 0.0005

# From here on a pipe is filling fast and is emptied at once: the writer would wait for us.
_BUSY = 16 << 10


class Outputs:
    """Moves all outputs of one job.

    Args:
        files: The job's directory.
        launch: Which outputs it has, and what to do when they cannot be kept.
        selector: Waits for bytes.
        on_moved: Called after every move.
        on_lost: Called with an errno once the first bytes were lost, if the job wants to know.

    Attributes:
        main: The main process's stdout.
    """

    def __init__(
        self,
        files: JobFiles,
        launch: Launch,
        selector: selectors.BaseSelector,
        *,
        on_moved: Callable[[], None],
        on_lost: Callable[[int], None],
    ) -> None:
        index = Index(files)
        self._all = [
            Output(
                files,
                index,
                rank=rank,
                stream=stream,
                is_patient=launch.log_full is LogFull.BLOCK,
                most=launch.log_most,
            )
            for rank, stream in launch.outputs
        ]
        self.main = self._all[0]
        self._selector = selector
        self._on_moved = on_moved
        self._on_lost = on_lost if launch.log_full is LogFull.STOP else None
        self._resting: list[Output] = []
        self._busy_until = 0.0

    def watch(self) -> None:
        """Begins to wait for bytes."""
        for output in self._all:
            self._watch(output)

    def next_look(self) -> float | None:
        """When `step` wants to be called, on CLOCK_MONOTONIC; None while there is room."""
        return min((output.retry_at for output in self._resting), default=None)

    def step(self) -> None:
        """Tries again where there was no room."""
        now = time.monotonic()
        for output in [output for output in self._resting if output.retry_at <= now]:
            self._resting.remove(output)
            self._watch(output)

    def lose_patience(self) -> None:
        """What finds no room is dropped from here on: whoever stops a job does not want to wait."""
        for output in self._all:
            output.is_patient = False
        for output in self._resting:
            self._watch(output)
        self._resting = []

    def drain(self) -> bool:
        """Moves what is there at this moment; False if something has to wait for room."""
        for output in self._all:
            output.drain()
        return not any(output.is_waiting for output in self._all)

    def waits_for(self) -> int:
        """The errno that keeps bytes in their pipe, and the job in its write; 0 if none does."""
        return next((output.error for output in self._all if output.is_waiting), 0)

    def ends(self) -> tuple[Stream, ...]:
        """Where each output stands."""
        return tuple(Stream(output.rank, output.stream, output.offset) for output in self._all)

    def _watch(self, output: Output) -> None:
        def move(_events: int) -> None:
            # Lines that follow one another closely are gathered, unless they come in floods.
            if time.monotonic() < self._busy_until:
                time.sleep(_GATHER)
            moved = output.move()
            self._on_moved()
            self._busy_until = 0.0 if moved >= _BUSY else time.monotonic() + _GATHER
            if output.is_waiting:
                self._selector.unregister(output.fifo)
                self._resting.append(output)
            elif output.error and self._on_lost is not None:
                on_lost, self._on_lost = self._on_lost, None
                on_lost(output.error)

        self._selector.register(output.fifo, selectors.EVENT_READ, move)
