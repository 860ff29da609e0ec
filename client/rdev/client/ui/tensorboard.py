"""A job's metrics as a folder of this machine for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rdev.client.ui.reducing import Reduced, Runs
from rdev.client.ui.series import number_of, values_of
from rdev.wire.events import METRIC, Event
from rdev.wire.tfevents import EventFile


class TensorBoardFolder:
    """Writes events into a folder, of several ranks in `rank-0`, `rank-1`, values over ranks apart.

    Written again, the folder shows everything once: TensorBoard drops what the files of an earlier
    time say. A job that was restarted goes on in the same curves, from the step where it went on;
    a further run within one process has a folder `run-2` of its own.

    Args:
        folder: Made if it is missing.
        ranks: How many ranks the job has.
    """

    def __init__(self, folder: str, *, ranks: int) -> None:
        self._folder = folder
        self._ranks = ranks
        self._runs = Runs()
        self._files: dict[str, EventFile] = {}
        self._processes: dict[str, int] = {}

    def add(self, event: Event) -> None:
        """Takes in an event of metrics, or of a run's begin."""
        if event.kind != METRIC:
            self._runs.begin(event)
            return
        process, run = self._runs.of(event)
        parts = [f"rank-{event.rank}"] if self._ranks > 1 else []
        parts += [f"run-{run + 1}"] if run else []
        step = number_of(event, "step")
        file = self._file(os.path.join(self._folder, *parts), process, step)
        _write(file, event.time, step, str(event.fields.get("phase", "")), values_of(event))

    def add_reduced(self, reduced: Reduced) -> None:
        """Takes in values over ranks."""
        file = self._file(os.path.join(self._folder, reduced.reduction.value), 0, reduced.step)
        _write(file, reduced.time, reduced.step, reduced.phase, reduced.values)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not self._files

    def close(self) -> None:
        """Ends all files."""
        for file in self._files.values():
            file.close()

    def _file(self, folder: str, process: int, step: int) -> EventFile:
        file = self._files.get(folder)
        if file is None:
            file = self._files[folder] = EventFile(folder, purge=0)
        elif process != self._processes[folder]:
            file.restart(step)
        self._processes[folder] = process
        return file


def _write(
    file: EventFile, time: float, step: int, phase: str, values: Mapping[str, float]
) -> None:
    prefix = f"{phase}/" if phase else ""
    file.write(step, {f"{prefix}{name}": value for name, value in values.items()}, wall_time=time)
    file.flush()
