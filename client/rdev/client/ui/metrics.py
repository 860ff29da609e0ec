"""Metrics as people read them: a table of latest values, a line an event, plots of dots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rdev.client.ui.columns import aligned
from rdev.wire.events import Event

# A series keeps about this many points; beyond it every second one is dropped, and again.
_KEPT_POINTS = 1024

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = ("METRIC", "VALUE", "MIN", "MAX", "STEP", "TREND")
_TREND_WIDTH = 24

# The dots of a braille character by (column, row) within its 2 x 4 cell: Unicode, U+2800.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800

Point = tuple[int, float]


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """Which series: one metric of one phase of one rank."""

    rank: int
    phase: str
    name: str


@dataclass(slots=True)
class Series:
    """One metric's course, thinned evenly once it is long.

    Attributes:
        points: (step, value), oldest first; the latest is always the last.
        least: Least finite value seen, infinite before there is one.
        greatest: Greatest finite value seen, infinite before there is one.
    """

    points: list[Point] = field(default_factory=list)
    least: float = math.inf
    greatest: float = -math.inf
    _every: int = 1
    _skipped: int = 0

    def add(self, step: int, value: float) -> None:
        """Takes in a value."""
        if math.isfinite(value):
            self.least = min(self.least, value)
            self.greatest = max(self.greatest, value)
        if self._skipped and self.points:
            self.points[-1] = (step, value)
        else:
            self.points.append((step, value))
        self._skipped = (self._skipped + 1) % self._every
        if len(self.points) > _KEPT_POINTS:
            # From the end, so that the latest stays.
            self.points = self.points[::-2][::-1]
            self._every *= 2

    @property
    def latest(self) -> Point:
        """The last (step, value)."""
        return self.points[-1]


class Board:
    """All series of a job, as its metric events build them up."""

    def __init__(self) -> None:
        self.series: dict[SeriesKey, Series] = {}

    def add(self, event: Event) -> None:
        """Takes in a metric event; what is no number is left out."""
        phase, step = str(event.fields.get("phase", "")), _step(event)
        for name, value in values_of(event).items():
            key = SeriesKey(event.rank, phase, name)
            self.series.setdefault(key, Series()).add(step, value)

    def table(self) -> str:
        """Latest values, extremes and trend of every series, with a heading."""
        several = len({key.rank for key in self.series}) > 1
        rows = [_COLUMNS]
        for key in sorted(self.series):
            series = self.series[key]
            step, value = series.latest
            extremes = (_number(series.least), _number(series.greatest))
            trend = sparkline([point[1] for point in series.points], width=_TREND_WIDTH)
            rows.append((_label(key, several), _number(value), *extremes, str(step), trend))
        return aligned(rows)

    def plots(self, *, width: int, height: int = 8) -> str:
        """A plot of every series, one below the other.

        Args:
            width: Columns of the terminal.
            height: Rows of each plot.
        """
        several = len({key.rank for key in self.series}) > 1
        parts = (
            f"{_label(key, several)}\n{plot(self.series[key].points, width=width, height=height)}"
            for key in sorted(self.series)
        )
        return "\n\n".join(parts)


def values_of(event: Event) -> dict[str, float]:
    """The numbers a metric event carries, by printable name."""
    values = event.fields.get("values")
    if not isinstance(values, Mapping):
        return {}
    return {
        _printable(str(name)): float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def metric_line(event: Event) -> str:
    """One metric event on one line: `step 120  epoch 2  loss 0.1234`."""
    phase = _printable(str(event.fields.get("phase", "")))
    head = [f"step {_step(event)}", f"epoch {event.fields.get('epoch', 0)}"]
    values = [
        f"{phase}.{name} {_number(value)}" if phase else f"{name} {_number(value)}"
        for name, value in values_of(event).items()
    ]
    rank = [f"[rank {event.rank}]"] if event.rank else []
    return "  ".join(rank + head + values)


def csv_rows(event: Event) -> Iterator[tuple[object, ...]]:
    """Rows of (time, rank, step, epoch, phase, name, value); time in seconds since the epoch."""
    phase, epoch = event.fields.get("phase", ""), event.fields.get("epoch", 0)
    for name, value in values_of(event).items():
        yield event.time, event.rank, _step(event), epoch, phase, name, value


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
        height: Rows of the dots.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return "no finite values"
    low, high = min(value for _, value in finite), max(value for _, value in finite)
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


def _label(key: SeriesKey, several_ranks: bool) -> str:  # noqa: FBT001  # of this module only
    name = f"{_printable(key.phase)}.{key.name}" if key.phase else key.name
    return f"[rank {key.rank}] {name}" if several_ranks else name


def _number(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else str(value)


def _step(event: Event) -> int:
    step = event.fields.get("step", 0)
    return step if isinstance(step, int) else 0


def _printable(name: str) -> str:
    # Names come from the job: no control or escape sequence may reach a terminal.
    return "".join(letter if letter.isprintable() else "�" for letter in name)
