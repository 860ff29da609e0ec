"""Scalars for TensorBoard, written without it."""

from __future__ import annotations

import os

from rdev.loop.callbacks.rank import rank_of_process
from rdev.loop.callbacks.recording import Record, Recording
from rdev.loop.state import State
from rdev.wire.tfevents import EventFile


class TensorBoard(Recording):
    """Writes metrics into an event file that TensorBoard reads; a phase prefixes its metrics' tags.

    The file is written at least every five seconds. A run that was resumed goes on in the same
    folder: TensorBoard drops what an earlier attempt wrote of the steps that come anew. A disk that
    is full is told once, and what did not fit is written later.

    Cost: about 15 us a recorded step, and on CUDA what `Recording` says (untested there).

    Args:
        folder: Of this run; TensorBoard is given it, or the folder of all runs.
        every: How many steps apart; the first step and the last of each epoch are always there.
        every_rank: Whether each rank writes a folder of its own, `rank-1` and so on, in it; else
            only rank 0 writes.
        order: See `Callback`.
    """

    def __init__(
        self, folder: str, *, every: int = 10, every_rank: bool = False, order: int = 90
    ) -> None:
        super().__init__(every=every, every_rank=every_rank, order=order)
        rank = rank_of_process()
        self._folder = os.path.join(folder, f"rank-{rank}") if every_rank and rank else folder
        self._file: EventFile | None = None

    def open(self, state: State) -> None:
        """Begins a file."""
        purge = state.step + 1 if state.step else None
        self._file = EventFile(self._folder, purge=purge)

    def write(self, record: Record) -> None:
        """Adds a record to it."""
        if self._file is None:
            return
        prefix = f"{record.phase}/" if record.phase else ""
        values = {f"{prefix}{name}": value for name, value in record.numbers().items()}
        self._file.write(record.step, values, wall_time=record.time)

    def flush(self) -> None:
        """Lets TensorBoard see it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def described(self) -> str:
        """For messages."""
        return f"TensorBoard's file in {self._folder}"
