"""`rdev debug --pid`: a debugger in a Python process that rdev did not start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.command import DEADLINE
from tests.support.interpreters import interpreters

pytestmark = [
    pytest.mark.shared_agent,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="strangers are entered on x86-64"),
]

LOOP = """\
import os
import threading
import time

def train():
    total = step = 0
    while not os.path.exists("stop"):
        loss = step * 2
        total += loss
        step += 1
        time.sleep(0.002)
    return total == step * (step - 1)

print("begun", flush=True)
print("right" if train() else "wrong")
print(threading.main_thread().native_id == os.getpid(), threading.active_count())
"""


@contextlib.contextmanager
def running(folder: Path, source: str = LOOP, *, python: str = sys.executable):
    """A plain script that nobody prepared, in a folder of its own; it has begun."""
    (folder / "loop.py").write_text(source)
    process = subprocess.Popen(
        [python, "loop.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen, folder: Path) -> str:
    """Lets the script come to its end; what it printed since."""
    (folder / "stop").touch()
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=() if path == sys.executable else pytest.mark.slow)
        for version, path in interpreters().items()
        if version in ("3.11", "3.12", "3.13")
    ],
)
def test_a_plain_python_is_stopped_looked_into_left_and_comes_out_right(rdev, version):
    with running(rdev.cwd, python=interpreters()[version]) as process:
        pid = str(process.pid)
        done = rdev.run(
            *("debug", "--pid", pid, "loop.py:9", "--command", "print loss == step * 2"),
            *("--command", "bt", "--command", "n"),
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"attached to pid-{pid} (pid {pid}, Python {version}." in done.stdout
        assert "paused at loop.py:9 in train()\n" in done.stdout
        assert "9->        total += loss\n" in done.stdout
        assert "\nTrue\n" in done.stdout
        assert "paused at loop.py:10 in train()\n" in done.stdout
        assert f"detached; process {pid} goes on\n" in done.stdout
        # It has its hook by now, which shows the stacks as well.
        looked = rdev.run("stack", "--pid", pid)
        assert "loop.py:11 in train" in looked.stdout, looked.stderr
        assert not rdev.json("ps")
        # The hook's thread is all that is left, and the program does not see it.
        assert ended(process, rdev.cwd) == "right\nTrue 1\n"


@pytest.mark.slow
def test_a_process_that_ends_under_the_debugger_is_said_to_have_ended(rdev):
    with running(rdev.cwd) as process:
        pid = str(process.pid)
        done = rdev.run(
            *("debug", "--pid", pid, "loop.py:9", "--command", "open('stop', 'w').close()"),
            *("--command", "cl 1", "--command", "c", "--command", "p 1"),
        )
        assert f"process {pid} has ended\n" in done.stdout
        assert "error: unable to execute 'p 1': the process has ended\n" in done.stderr
        assert "rdev logs" not in done.stderr  # it has none
        assert done.returncode == 125
        assert ended(process, rdev.cwd).startswith("right\n")


@pytest.mark.slow
@pytest.mark.own_agent
def test_a_killed_agent_lets_a_stopped_process_go_on_and_the_next_one_attaches_again(rdev):
    with running(rdev.cwd) as process:
        pid = str(process.pid)
        words = ("debug", "--pid", pid, "loop.py:9")
        with rdev.started(*words, stdin=subprocess.PIPE, text=True) as debugging:
            assert debugging.stdout is not None
            assert any("paused at" in line for line in iter(debugging.stdout.readline, ""))
            [agent] = (rdev.home / ".rdev" / "hosts").glob("*/run/agent.lock")
            os.kill(int(agent.read_text()), signal.SIGKILL)
            debugging.communicate(timeout=DEADLINE)
        again = rdev.run("debug", "--pid", pid, "loop.py:9", "--command", "p loss == step * 2")
        assert "\nTrue\n" in again.stdout, again.stderr
        assert ended(process, rdev.cwd) == "right\nTrue 1\n"


@pytest.mark.slow
def test_a_process_of_a_job_is_debugged_as_its_job(rdev):
    (rdev.cwd / "loop.py").write_text(LOOP)
    assert rdev.run("run", "-d", "--name", "night", "loop.py").returncode == 0
    [job] = rdev.json("ps")
    done = rdev.run("debug", "--pid", str(job["pid"]), "loop.py:9", "--command", "p 6 * 7")
    assert done.returncode == 0, done.stderr
    assert f"process {job['pid']} is rank 0 of job night\n" in done.stderr
    assert "42\n" in done.stdout


def test_a_job_without_a_hook_is_debugged_by_the_command_that_its_refusal_names(rdev):
    (rdev.cwd / "loop.py").write_text(LOOP)
    assert rdev.run("run", "-d", "--no-hook", "loop.py").returncode == 0
    refused = rdev.run("debug")
    [job] = rdev.json("ps")
    assert f"hint: `rdev debug --pid {job['pid']}` puts the hook into" in refused.stderr
    words = ("debug", "--pid", str(job["pid"]), "loop.py:9", "--command", "p 6 * 7")
    done = rdev.run(*words)  # the synced file is meant, and not the one of that name here
    assert done.returncode == 0, done.stderr
    assert "paused at loop.py:9 in train()\n" in done.stdout
    assert "42\n" in done.stdout


def test_what_cannot_be_debugged_is_left_alone_and_said_in_one_line(rdev):
    other = subprocess.Popen(["sleep", "60"])
    try:
        for words, code, said in (
            ((str(other.pid),), 125, f"unable to debug process {other.pid}: it is no Python"),
            (("4194305",), 125, "unable to debug process 4194305: there is no such process\n"),
            (("1", "night"), 2, "unable to debug process 1: night is named beside --pid\n"),
            (("1", "--listen"), 2, "--pid goes with the terminal"),
        ):
            done = rdev.run("debug", "--pid", *words)
            assert said in done.stderr, (words, done.stderr)
            assert "\nhint: " in done.stderr
            assert (done.returncode, done.stdout) == (code, "")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
