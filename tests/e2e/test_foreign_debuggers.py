"""Debuggers that nobody here wrote, through the whole path, on a job that nobody prepared."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.command import BIN, DEADLINE, Rdev
from tests.support.foreign import installed

FOREIGN = Path(__file__).resolve().parents[1] / "foreign"

# Line 9 is inside the step.
TRAIN = """\
import os
import time

def train():
    total = step = 0
    while not os.path.exists("stop"):
        step += 1
        loss = step * 2
        total += loss
        time.sleep(0.002)
    return total == step * (step + 1)

print("right" if train() else "wrong")
"""
LINE = 9

# Where Debian puts what its Emacs packages install.
DAP_MODE = "/usr/share/emacs/site-lisp/elpa-src"


@pytest.fixture(scope="module")
def modules():
    """Where node finds Microsoft's client."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here")
    return installed(FOREIGN / "package.json")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A training that must come out right after all rounds."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "home").mkdir(mode=0o700)
    (folder / "project").mkdir()
    (folder / "project" / "rdev.toml").touch()
    person = Rdev(folder / "home", folder / "project")
    try:
        person.write("train.py", TRAIN)
        started = person.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield person
        [workspace] = (person.home / ".rdev" / "workspaces").iterdir()
        (workspace / "stop").touch()
        assert person.run("wait", "train").returncode == 0
        assert person.run("logs", "train").stdout == "right\n"
    finally:
        person.tidy()


def rounds(job: Rdev, modules: Path, count: int, **way) -> list[int]:
    """The job's step at the breakpoint of each round."""
    order = {
        "attach": {"job": "train"},
        "path": str((job.cwd / "train.py").resolve()),
        "line": LINE,
        "rounds": count,
        "folder": str(job.cwd),
        **way,
    }
    done = subprocess.run(
        ["node", FOREIGN / "rounds.js", json.dumps(order)],
        env=job.environment | {"NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=20 + 10 * count,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def assert_went_on(steps: list[int], count: int) -> None:
    assert len(steps) == count
    assert steps == sorted(set(steps)), "the job stood still between two rounds"


def test_microsofts_client_on_the_stdio_adapter(job, modules):
    assert_went_on(rounds(job, modules, 3, adapter=[str(BIN / "rdev"), "dap"]), 3)


@pytest.mark.slow
def test_microsofts_client_for_twenty_rounds(job, modules):
    assert_went_on(rounds(job, modules, 20, adapter=[str(BIN / "rdev"), "dap"]), 20)


def test_microsofts_client_at_the_port_for_an_ide(job, modules):
    with job.started("debug", "train", "--listen", stdout=subprocess.PIPE) as process:
        line = process.stdout.readline().decode()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        assert_went_on(rounds(job, modules, 2, port=port), 2)
        process.terminate()
        process.wait(DEADLINE)


@pytest.mark.slow
def test_emacs_with_its_dap_mode(job, tmp_path):
    if shutil.which("emacs") is None or not Path(DAP_MODE).exists():
        pytest.skip("there is no Emacs with dap-mode here")
    path = str((job.cwd / "train.py").resolve())
    words = ("emacs", "--batch", "--no-site-file", "-l", FOREIGN / "round.el", "--")
    done = subprocess.run(
        [*words, str(BIN / "rdev"), path, str(LINE), f"{job.cwd.resolve()}/"],
        env=job.environment | {"TMPDIR": str(tmp_path)},
        cwd=job.cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"breakpoint {path}:{LINE}",
        "evaluate True",
        f"next {path}:{LINE + 1}",
        f"breakpoint {path}:{LINE}",
        "left",
    ]
