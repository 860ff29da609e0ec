"""A long storm, and its report: `python -m tests.chaos [KILLS [JOBS [SEED]]]`, by `make chaos`."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.storm import Report
from tests.chaos.test_chaos import MODES, weather
from tests.support.command import Rdev

_KILLS, _JOBS = 1000, 20

# The mean time between strikes: shorter than a Python process takes to come back.
_PAUSE = 0.5


def main() -> int:
    words = [int(word) for word in sys.argv[1:]]
    kills, jobs, seed = (*words, *(_KILLS, _JOBS, time.time_ns() % 10_000)[len(words) :])
    print(f"{kills} kills over {jobs} jobs ({', '.join(MODES)}), seed {seed}", flush=True)
    # Under a short path of our own, beside whatever state the person has.
    with tempfile.TemporaryDirectory(prefix="rdev-chaos-") as name:
        folder = Path(name)
        (folder / "home").mkdir(mode=0o700)
        (folder / "project").mkdir()
        person = Rdev(folder / "home", folder / "project")
        try:
            report = weather(person, folder, seed=seed, jobs=jobs, kills=kills, pause=_PAUSE)
        finally:
            person.tidy()
    print(text(report))
    return 1 if report.faults else 0


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


if __name__ == "__main__":
    sys.exit(main())
