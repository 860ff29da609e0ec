"""Edit a file, then run: `rdev run` beside `rsync -az && ssh` over a mastered connection.

Both copy a workspace of a few hundred files on loopback and run `python3 -c pass`. The rounds are
interleaved, and the interpreter's own time is measured in the same rounds and taken off. ssh is
measured at its best: one connection is kept open, and no rc file is read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Figure, table
from bench.sshd import sshd

ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "15"))
FILES = 300
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
BIN = Path(sys.executable).parent


def main() -> None:
    if shutil.which("rsync") is None:
        raise SystemExit("rsync is missing: install it")
    # Under a short path of our own: sockets have short names, and ssh's master needs one too.
    with tempfile.TemporaryDirectory(prefix="rdev-bench-") as name:
        folder = Path(name)
        with sshd() as server:
            _compare(folder, server.ssh)


def _compare(folder: Path, ssh: list[str]) -> None:
    tree = _tree(folder / "project")
    environment = os.environ | {"RDEV_HOME": str(folder / "rdev"), "HOME": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody runs an installed command with it
    program = [PYTHON, "-c", "pass"]
    rdev = [BIN / "rdev", "run", "--quiet", "--", *program]
    rsync = ["rsync", "-az", "--delete", "-e", " ".join(ssh), f"{tree}/", f"bench:{folder}/copy/"]
    remote = [*ssh, "bench", f"cd {folder}/copy && {PYTHON} -c pass"]
    times: dict[str, list[float]] = {"bare": [], "rsync + ssh": [], "rdev run": []}
    try:
        for round_number in range(-2, ROUNDS):  # two rounds to warm both up
            took = {"bare": _timed([program], tree, environment)}
            _edit(tree, round_number)
            took["rsync + ssh"] = _timed([rsync, remote], tree, os.environ)
            _edit(tree, round_number + 1000)
            took["rdev run"] = _timed([rdev], tree, environment)
            if round_number >= 0:
                for what, seconds in took.items():
                    times[what].append(seconds * 1000)
    finally:
        subprocess.run(
            [BIN / "rdev-agent", "stop"], env=environment, capture_output=True, check=False
        )
    _print(times)


def _print(times: dict[str, list[float]]) -> None:
    whole = {name: Figure(values) for name, values in times.items()}
    bare = whole["bare"].median
    net = {name: Figure([v - bare for v in times[name]]) for name in ("rsync + ssh", "rdev run")}
    print(f"{FILES} files, one edited; {ROUNDS} interleaved rounds on loopback; milliseconds\n")
    print(table("ms", list(whole.items()), base=whole["rsync + ssh"]))
    print(f"\nless the interpreter's own {bare:.1f} ms:\n")
    print(table("ms", list(net.items()), base=net["rsync + ssh"]))


def _tree(root: Path) -> Path:
    (root / "src").mkdir(parents=True)
    (root / "rdev.toml").touch()
    for number in range(FILES):
        (root / "src" / f"module_{number}.py").write_text(f"value = {number}\n" * 40)
    return root


def _edit(tree: Path, number: int) -> None:
    (tree / "src" / "module_7.py").write_text(f"value = {number}\n" * 40)


def _timed(commands: Sequence[Sequence[object]], cwd: Path, environment: object) -> float:
    begin = time.perf_counter()
    for command in commands:
        subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)  # type: ignore[call-overload]  # paths and strings
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
