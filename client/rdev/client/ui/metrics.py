"""Metrics as people read them: a table of latest values, a line an event, plots of dots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rdev.client.ui.columns import aligned
from rdev.client.ui.reducing import Reduced
from rdev.client.ui.series import (
    REDUCED,
    Point,
    Series,
    SeriesKey,
    number_of,
    printable,
    values_of,
)
from rdev.wire.events import Event

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = ("METRIC", "VALUE", "MIN", "MAX", "STEP", "TREND")
_TREND_WIDTH = 24

# The dots of a braille character by (column, row) within its 2 x 4 cell: Unicode, U+2800.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800


class Board:
    """All series of a job, as its metric events build them up."""

    def __init__(self) -> None:
        self.series: dict[SeriesKey, Series] = {}
        self._reduction = ""

    def add(self, event: Event) -> None:
        """Takes in a metric event; what is no number is left out."""
        phase = str(event.fields.get("phase", ""))
        self._add(event.rank, phase, number_of(event, "step"), values_of(event))

    def add_reduced(self, reduced: Reduced) -> None:
        """Takes in values over ranks; they stand above those of the ranks."""
        self._reduction = reduced.reduction.value
        self._add(REDUCED, reduced.phase, reduced.step, reduced.values)

    def table(self) -> str:
        """Latest values, extremes and trend of every series, with a heading."""
        rows: list[tuple[str, ...]] = [_COLUMNS]
        for key in sorted(self.series):
            series = self.series[key]
            step, value = series.latest
            is_known = series.least <= series.greatest
            extremes = [_number(series.least), _number(series.greatest)] if is_known else ["-", "-"]
            trend = sparkline([point[1] for point in series.points], width=_TREND_WIDTH)
            rows.append((self._label(key), _number(value), *extremes, str(step), trend))
        return aligned(rows)

    def plots(self, *, width: int, height: int = 8) -> str:
        """A plot of every series, one below the other.

        Args:
            width: Columns of the terminal.
            height: Rows of each plot.
        """
        parts = []
        for key in sorted(self.series):
            points = self.series[key].points
            holes = sum(not math.isfinite(value) for _, value in points)
            note = f"  {holes} of {len(points)} values not finite" if holes else ""
            parts.append(f"{self._label(key)}{note}\n{plot(points, width=width, height=height)}")
        return "\n\n".join(parts)

    def _add(self, rank: int, phase: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.series.setdefault(SeriesKey(rank, phase, name), Series()).add(step, value)

    def _label(self, key: SeriesKey) -> str:
        name = f"{printable(key.phase)}.{key.name}" if key.phase else key.name
        if key.rank == REDUCED:
            return f"[{self._reduction}] {name}"
        several = len({other.rank for other in self.series}) > 1
        return f"[rank {key.rank}] {name}" if several else name


def metric_line(event: Event) -> str:
    """One metric event on one line: `step 120  epoch 2  loss 0.1234`."""
    rank = f"[rank {event.rank}]  " if event.rank else ""
    phase = str(event.fields.get("phase", ""))
    return rank + _line(
        number_of(event, "step"), number_of(event, "epoch"), phase, values_of(event)
    )


def reduced_line(reduced: Reduced) -> str:
    """Values over ranks on one line: `[mean of 4]  step 120  epoch 2  loss 0.1234`."""
    head = f"[{reduced.reduction.value} of {len(reduced.ranks)}]  "
    return head + _line(reduced.step, reduced.epoch, reduced.phase, reduced.values)


def csv_rows(event: Event) -> Iterator[tuple[object, ...]]:
    """Rows of (time, rank, step, epoch, phase, name, value); time in seconds since the epoch."""
    phase, epoch = event.fields.get("phase", ""), event.fields.get("epoch", 0)
    for name, value in values_of(event).items():
        yield event.time, event.rank, number_of(event, "step"), epoch, phase, name, value


def reduced_rows(reduced: Reduced) -> Iterator[tuple[object, ...]]:
    """The same rows of values over ranks; instead of a rank they have the reduction's name."""
    head = (reduced.time, reduced.reduction.value, reduced.step, reduced.epoch, reduced.phase)
    for name, value in reduced.values.items():
        yield *head, name, value


CSV_HEADING = ("time", "rank", "step", "epoch", "phase", "name", "value")


def sparkline(values: Sequence[float], *, width: int) -> str:
    """Bars of the last value in each of `width` even parts; `!` where it is not finite."""
    if len(values) > width:
        values = [values[(part + 1) * len(values) // width - 1] for part in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(
        _BARS[_level(value, low, high, len(_BARS))] if math.isfinite(value) else "!"
        for value in values
    )


def plot(points: Sequence[Point], *, width: int, height: int) -> str:
    """Dots of (step, value) with the extremes at the left and the steps below.

    Args:
        points: In the order of steps; values that are not finite leave a hole.
        width: Columns of all, labels included.
        height: Rows of the dots; what has one value only takes one.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return "no finite values"
    low, high = min(value for _, value in finite), max(value for _, value in finite)
    height = height if low < high else 1
    first, last = finite[0][0], finite[-1][0]
    labels = (_number(high), _number(low))
    margin = max(map(len, labels))
    columns = max(8, width - margin - 2)
    cells = [[0] * columns for _ in range(height)]
    for step, value in finite:
        x = _level(step, first, last, 2 * columns)
        y = 4 * height - 1 - _level(value, low, high, 4 * height)
        cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    names = [labels[0], *[""] * (height - 2), labels[1]] if height > 1 else [labels[0]]
    lines = [
        f"{name:>{margin}} ┤{''.join(chr(_BRAILLE | dots) for dots in row)}"
        for name, row in zip(names, cells, strict=True)
    ]
    steps = f"{first:<{columns - len(str(last))}}{last}" if first != last else str(first)
    lines.append(f"{'':>{margin}}  {steps}")
    return "\n".join(lines)


def _level(value: float, low: float, high: float, count: int) -> int:
    """Which of `count` even levels between low and high `value` is on."""
    if high <= low:
        return 0
    # Halved first: the span of two huge numbers of unlike sign would be infinite.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(count - 1, max(0, int(share * count)))


def _number(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else str(value)


def _line(step: int, epoch: int, phase: str, values: Mapping[str, float]) -> str:
    prefix = f"{printable(phase)}." if phase else ""
    shown = (f"{prefix}{name} {_number(value)}" for name, value in values.items())
    return "  ".join([f"step {step}", f"epoch {epoch}", *shown])
