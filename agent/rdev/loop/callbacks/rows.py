"""Metrics as rows of a CSV file, one for each step, or for each phase of one."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable

from rdev.loop.callbacks.rank import rank_of_process
from rdev.loop.callbacks.recording import Record, Recording
from rdev.loop.state import State
from rdev.wire.appending import Appender

_HEAD = ["time", "step", "epoch", "phase"]
_STEP = _HEAD.index("step")

Row = dict[str, object]


class Csv(Recording):
    """Writes a row for each recorded step: time, step, epoch, phase, and a column for each metric.

    A metric that is new gets a column at the end, for which the file is written anew. A resumed run
    appends to the file, without the rows of steps that come anew; a run that begins at step 1
    keeps the file of an earlier one as `NAME-1.csv`, `NAME-2.csv`. A step's row is written
    when the next one comes. A disk that is full is told once, and its rows are written later.

    Cost: about 15 us a recorded step, and on CUDA what `Recording` says (untested there).

    Args:
        path: The file; `NAME-rank-1.csv` and so on for other ranks than 0.
        every: How many steps apart; the first step and the last of each epoch are always there.
        every_rank: Whether each rank writes a file of its own; else only rank 0 writes.
        order: See `Callback`.
    """

    def __init__(
        self, path: str, *, every: int = 1, every_rank: bool = False, order: int = 90
    ) -> None:
        super().__init__(every=every, every_rank=every_rank, order=order)
        rank = rank_of_process()
        self._path = _named(path, f"rank-{rank}") if every_rank and rank else path
        self._file: Appender | None = None
        self._columns: list[str] = []
        # Rows of the latest step, by phase: more may come in for them.
        self._latest: dict[str, Row] = {}

    def open(self, state: State) -> None:
        """Goes on with the file of a resumed run, or begins one."""
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        self._columns, self._latest = list(_HEAD), {}
        if os.path.exists(self._path):
            if state.step:
                self._rewrite([], last=state.step)
            else:
                os.replace(self._path, _free(self._path))
        self._file = Appender(self._path)
        if not os.path.getsize(self._path):
            self._file.add(_lines([self._columns]))

    def write(self, record: Record) -> None:
        """Takes in a record; those of one step and phase become one row."""
        if self._file is None:
            return
        if self._latest and next(iter(self._latest.values()))["step"] != record.step:
            self._write_latest()
        head = {"time": f"{record.time:.3f}", "step": record.step, "epoch": record.epoch}
        row = self._latest.setdefault(record.phase, {**head, "phase": record.phase})
        # A metric called `step` must not pass for the step.
        row.update({_column(name): value for name, value in record.numbers().items()})

    def flush(self) -> None:
        """Lets readers see what is whole."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Writes the last rows and ends the file."""
        self._write_latest()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def described(self) -> str:
        """For messages."""
        return self._path

    def _write_latest(self) -> None:
        rows = [self._latest[phase] for phase in sorted(self._latest)]
        self._latest = {}
        if self._file is None or not rows:
            return
        new = {name: None for row in rows for name in row if name not in self._columns}
        if new:
            self._file.close()
            self._file = None
            try:
                self._rewrite(list(new))
            finally:
                self._file = Appender(self._path)
        self._file.add(_lines([row.get(name, "") for name in self._columns] for row in rows))

    def _rewrite(self, new: list[str], *, last: int | None = None) -> None:
        """Writes the file anew, with new columns and without the steps after the last."""
        with open(self._path, newline="", encoding="utf-8") as file:
            heading, *rows = _whole_rows(file.read()) or [self._columns]
        columns = heading + [name for name in new if name not in heading]
        kept = [row for row in rows if last is None or _step(row) <= last]
        beside = f"{self._path}.new"
        with open(beside, "wb") as target:
            target.write(
                _lines([columns, *(row + [""] * (len(columns) - len(row)) for row in kept)])
            )
        os.replace(beside, self._path)
        self._columns = columns


def _column(name: str) -> str:
    return f"{name}_" if name in _HEAD else name


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")


def _whole_rows(text: str) -> list[list[str]]:
    # A line that a crash has torn is no row.
    return list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))


def _step(row: list[str]) -> int:
    step = row[_STEP] if len(row) > _STEP else ""
    return int(step) if step.isdigit() else 0


def _named(path: str, addition: object) -> str:
    name, ending = os.path.splitext(path)
    return f"{name}-{addition}{ending}"


def _free(path: str) -> str:
    number = 1
    while os.path.exists(_named(path, number)):
        number += 1
    return _named(path, number)
