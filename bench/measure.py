"""What the benchmarks share: medians with their spread, and a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A series of measurements of one thing, in one unit."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:8.1f}  ({min(self.values):.1f} to {max(self.values):.1f})"


def table(unit: str, rows: Sequence[tuple[str, Figure]], *, base: Figure) -> str:
    """One line a row: median, spread, and the ratio to `base`."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  median {unit}  (min to max)   ratio"]
    lines += [
        f"{name:{width}}  {figure}   {figure.median / base.median:.2f}" for name, figure in rows
    ]
    return "\n".join(lines)
