"""Metrics as series: what an event carries, and the course of one, thinned once it is long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rdev.wire.events import Event

# A series keeps about this many points; beyond it every second one is dropped, and again.
_KEPT_POINTS = 1024

# The rank of a series that is reduced over ranks: it stands above theirs.
REDUCED = -1

Point = tuple[int, float]


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """Which series: one metric of one phase of one rank, or `REDUCED`."""

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


def values_of(event: Event) -> dict[str, float]:
    """The numbers a metric event carries, by printable name."""
    values = event.fields.get("values")
    if not isinstance(values, Mapping):
        return {}
    return {
        printable(str(name)): float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def number_of(event: Event, name: str) -> int:
    """A whole number of an event, or 0."""
    number = event.fields.get(name, 0)
    return number if isinstance(number, int) else 0


def printable(name: str) -> str:
    """A name that a job chose: no control or escape sequence of it may reach a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in name)
