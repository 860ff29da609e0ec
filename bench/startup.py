"""What a command costs before it does anything: `rdev --help` beside `python -c pass`, CPU time.

All in processes of their own; what the session saves is in `bench contact`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from bench.measure import Figure, table

ROUNDS = 25
BIN = Path(sys.executable).parent

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "rdev --help": [str(BIN / "rdev"), "--help"],
    "rdev run --help": [str(BIN / "rdev"), "run", "--help"],
    "ssh -V": ["ssh", "-V"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(cpu_time(command) * 1000)
    rows = [(name, Figure(values)) for name, values in times.items()]
    print(f"{ROUNDS} interleaved rounds; CPU milliseconds, user and system\n")
    print(table("ms", rows, base=rows[0][1]))


def cpu_time(command: list[str]) -> float:
    """Seconds of CPU that one run of a command uses."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    alone = os.environ | {"RDEV_SESSION": "0"}
    subprocess.run(command, capture_output=True, check=True, env=alone)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
