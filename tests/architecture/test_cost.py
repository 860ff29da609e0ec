"""What starting costs, as ratios with a wide margin; figures are `make bench`'s work."""

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

BIN = Path(sys.executable).parent


def cpu_seconds(*command: object) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_costs_at_most_three_times_an_empty_python():
    bare, ours = [], []
    for _ in range(9):  # interleaved, so that a busy moment hits both
        bare.append(cpu_seconds(sys.executable, "-c", "pass"))
        ours.append(cpu_seconds(BIN / "rdev", "--help"))
    assert median(ours) <= 3 * median(bare)
