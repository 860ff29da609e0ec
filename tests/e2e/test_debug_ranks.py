"""`rdev debug --rank` in a distributed job, through the real agent, as a person sees it."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
from tests.support.command import DEADLINE
from tests.support.distributed import STEP, TRAIN

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(rdev, tmp_path):
    """Where the training's files lie; it trains, two ranks with a timeout of 4 s."""
    rdev.write("train.py", TRAIN)
    done = rdev.run("run", "-d", "--nproc", "2", "train.py", "4", str(tmp_path))
    assert done.returncode == 0, done.stderr
    until((tmp_path / "trains").exists)
    return tmp_path


def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def stopped(rdev, rank: int):
    words = ("debug", f"train.py:{STEP}", "--rank", str(rank))
    with rdev.started(*words, stdin=subprocess.PIPE, text=True) as session:
        shown = []
        for line in iter(session.stdout.readline, ""):
            shown.append(line)
            if f"paused at train.py:{STEP}" in line:
                break
        else:
            raise AssertionError((shown, session.stderr.read()))
        yield session


def finish(rdev, folder) -> None:
    (folder / "stop").touch()
    done = rdev.run("wait")
    printed = rdev.run("logs").stdout
    assert done.returncode == 0, printed
    assert {"rank 0 right True", "rank 1 right True"} <= set(printed.splitlines())


def test_a_person_looks_at_one_rank_for_three_times_the_timeout(rdev, folder):
    with rdev.started("logs", "-f", text=True) as following, stopped(rdev, 1) as session:
        time.sleep(12.0)  # the length of the stop is what is tested
        session.stdin.write("p number > 0\n")
        session.stdin.close()
        assert session.wait(DEADLINE) == 0, session.stderr.read()
        assert "True" in session.stdout.read()
        finish(rdev, folder)
        told = following.stderr.read()
    assert "rank 1 is paused at train.py" in told
    assert "makes no progress" not in told


def test_an_agent_that_is_killed_while_a_rank_is_stopped_leaves_no_timeout_raised(rdev, folder):
    with stopped(rdev, 1):
        rdev.kill_agent()
        until(lambda: "PAUSED" not in rdev.run("ps").stdout)
    done = rdev.run("debug", f"train.py:{STEP}", "--command", "p number > 0")
    assert done.returncode == 0, done.stderr
    finish(rdev, folder)


def test_a_rank_that_hangs_under_a_debugger_is_named_in_ps_and_beside_the_output(rdev, folder):
    with rdev.started("logs", "-f", text=True) as following:
        # Where rank 1 never comes: only rank 0 is absent.
        line = TRAIN.splitlines().index("        time.sleep(0.02)") + 1
        words = ("debug", f"train.py:{line}", "--rank", "1")
        with rdev.started(*words, stdin=subprocess.PIPE, text=True) as session:
            until(lambda: '"debug_attached"' in rdev.run("events").stdout)
            (folder / "hang-0").touch()
            where = "rank 1 makes no progress since 4 s: train.py:"
            until(lambda: where in rdev.run("ps").stdout)
            (folder / "back").touch()
            until(lambda: "makes no progress" not in rdev.run("ps").stdout)
            session.send_signal(signal.SIGINT)
            until(lambda: rdev.run("events").stdout.count('"debug_disarmed"') == 2)
        finish(rdev, folder)
        told = following.stderr.read()
    assert where in told
    assert "in step, waiting in all_reduce" in told
    assert "train goes on\n" in told


COUNTED = TRAIN.replace(
    "    while not stop.item():\n        number += 1\n",
    "    for number in __import__('rdev.loop').loop.track(range(1, 10**9)):\n"
    "        if stop.item(): break\n",
)


@pytest.mark.parametrize("rank", ["1", "all"])
def test_a_step_that_waits_for_its_debugger_is_held_for_three_times_the_timeout(
    rdev, tmp_path, rank
):
    assert COUNTED != TRAIN
    rdev.write("train.py", COUNTED)
    done = rdev.run("run", "-d", "--nproc", "2", "train.py", "4", str(tmp_path))
    assert done.returncode == 0, done.stderr
    until((tmp_path / "trains").exists)
    words = ("debug", f"train.py:{STEP}", "--rank", rank, "--from", "step=200")
    with rdev.started(*words, stdin=subprocess.PIPE, text=True) as session:
        lines = []
        for line in iter(session.stdout.readline, ""):
            lines.append(line)
            if f"paused at train.py:{STEP}" in line:
                break
        time.sleep(12.0)  # the length of the stop is what is tested
        session.stdin.write("p number\n")
        session.stdin.close()
        assert session.wait(DEADLINE) == 0, session.stderr.read()
        assert "200\n" in session.stdout.read(), lines
    finish(rdev, tmp_path)
