"""A long storm, and its report: `python -m tests.chaos [KILLS [JOBS [SEED]]]`, by `make chaos`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.report import text
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


if __name__ == "__main__":
    sys.exit(main())
