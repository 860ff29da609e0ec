"""The figures of a storm, as docs/reliability.md has them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """What was done, and what came of it.

    Attributes:
        kills: How many of which kind.
        jobs: How many ran.
        refused: How many were not taken, because the agent was dying, and whose starter was told.
        received: Bytes in the files of all clients, each of which was compared.
        faults: What was not as it should be.
        adoption: Seconds from a supervisor's death until its successor answers.
        return_: Seconds from an agent's death until one answers.
        stalls: Seconds of each job's longest write.
        seconds: How long all took.
    """

    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    received: int = 0
    faults: list[str] = field(default_factory=list)
    adoption: list[float] = field(default_factory=list)
    return_: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0.0


def text(report: Report) -> str:
    """The figures, as docs/reliability.md has them."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kills.items()))
    lines = [
        f"kills               {report.kills.total()}: {kinds}",
        f"jobs                {report.jobs}, and {report.refused} that the agent's death kept out",
        f"bytes received      {report.received:,}",
        f"faults              {len(report.faults)}",
        f"supervisor is back  {_spread(report.adoption)}",
        f"agent is back       {_spread(report.return_)}",
        f"longest write       {_spread(report.stalls)}",
        f"took                {report.seconds:.0f} s",
        *(f"FAULT {fault}" for fault in report.faults),
    ]
    return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "never"
    ordered = sorted(seconds)
    p95 = ordered[len(ordered) * 95 // 100]
    figures = (statistics.median(ordered), p95, ordered[-1])
    middle, high, most = (f"{figure * 1000:.0f} ms" for figure in figures)
    return f"median {middle}, p95 {high}, at most {most} ({len(ordered)} times)"
