"""`rdev debug` for a person at a terminal: keys, the prompt, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
import time
from pathlib import Path

import pytest
from tests.support.command import Rdev
from tests.support.terminal import in_terminal

TRAIN = """\
import os
import time

def train():
    total = step = 0
    name = "x\\x1b]0;evil\\x07"
    while not os.path.exists("stop"):
        loss = step * 2
        total += loss
        step += 1
        time.sleep(0.002)
        open("beat", "w").write(str(step))

train()
"""

SLEEP = """\
import time

time.sleep(600)
x = 1
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A training that all tests of this module debug."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "home").mkdir(mode=0o700)
    (folder / "project").mkdir()
    (folder / "project" / "rdev.toml").touch()
    person = Rdev(folder / "home", folder / "project")
    try:
        person.write("train.py", TRAIN)
        started = person.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield person
    finally:
        person.tidy()


def test_a_person_types_edits_recalls_completes_pauses_and_leaves(job):
    with in_terminal(job, "debug", "train", "train.py:9") as terminal:
        terminal.expect(b"breakpoint 1 at train.py:9")
        terminal.expect(b"paused at train.py:9 in train()")
        terminal.expect(b"\x1b[1m    9->        total += loss")
        terminal.expect(b"(rdev) ")
        assert terminal.is_raw
        terminal.type(b"p step * 2 == los\t\r")
        terminal.expect(b"True")
        terminal.type(b"pp name\r")
        terminal.expect(b"x\\x1b]0;evil\\x07")
        terminal.type(b"n\r")
        terminal.expect(b"paused at train.py:10")
        terminal.type(b"\r")  # repeats
        terminal.expect(b"paused at train.py:11")
        terminal.type(b"\x1b[A\x1b[A == 0\x1b[1~x\x05\x15p 'the name is' + name[0:1]\r")
        terminal.expect(b"the name isx")
        terminal.type(b"clear 1\rc\r")
        terminal.expect(b"c\r\n")
        terminal.until(lambda: termios.tcgetattr(terminal.theirs)[3] & termios.ISIG, "running")
        terminal.type(b"detach\r")
        terminal.expect(b"what you type waits for the next stop")
        terminal.type(b"\x03")  # drops it: the session goes on below
        terminal.expect(b"stopping it where it is")
        terminal.expect(b"paused at ")
        terminal.expect(b"(rdev) ")
        terminal.type(b"never mind\x03")
        terminal.expect(b"^C")
        terminal.type(b"\x04")
        terminal.expect(b"detached; the job goes on")
        assert terminal.wait() == 0
        assert terminal.is_as_before


def test_ctrl_c_interrupts_an_expression_that_does_not_return_and_what_it_prints_is_shown(
    job, monkeypatch
):
    monkeypatch.setenv("NO_COLOR", "1")
    with in_terminal(job, "debug", "train", "train.py:9") as terminal:
        terminal.expect(b"(rdev) ")
        terminal.type(b"for i in range(3): print('number', i)\r")
        terminal.expect(b"number 0\r\n")
        terminal.expect(b"number 2\r\n")
        terminal.expect(b"(rdev) ")
        terminal.type(b"open('begun', 'w').close(); time.sleep(100000)\r")
        beat = Path(job.jobs()[0]["directory"]) / "beat"
        terminal.until(lambda: beat.with_name("begun").exists(), "the evaluation")
        terminal.type(b"\x03")
        terminal.expect(b"interrupted\r\n")
        terminal.expect(b"(rdev) ")
        terminal.type(b"step >= 0\r")  # the same stop
        terminal.expect(b"True\r\n")
        terminal.expect(b"(rdev) ")
        terminal.type(b"while True: pass\r")
        terminal.expect(b"still evaluating; Ctrl-C interrupts it\r\n")
        terminal.type(b"\x04")
        terminal.until(lambda: b"detached; the job goes on" in terminal.seen)
        assert b"PYDEVD" not in terminal.seen
        assert terminal.wait() == 0
    held = beat.read_text()
    deadline = time.monotonic() + 60
    while beat.read_text() in ("", held):
        assert time.monotonic() < deadline, "the job stands still"
        time.sleep(0.01)


def test_ctrl_d_leaves_a_job_that_runs_and_without_colours_there_are_none(job, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with in_terminal(job, "debug", "train.py:9", "--when", "step < 0") as terminal:
        terminal.expect(b"breakpoint 1 at train.py:9")
        assert b"\x1b[1m" not in terminal.seen
        terminal.type(b"\x04")
        terminal.expect(b"detached; the job goes on")
        assert terminal.wait() == 0
        assert terminal.is_as_before


@pytest.mark.slow
def test_ctrl_c_twice_leaves_a_job_that_cannot_be_stopped_just_now(rdev):
    rdev.write("wait.py", SLEEP)
    assert rdev.run("run", "-d", "wait.py").returncode == 0
    with in_terminal(rdev, "debug", "wait.py:4") as terminal:
        terminal.expect(b"breakpoint 1 at wait.py:4")
        terminal.type(b"\x03")
        terminal.expect(b"Ctrl-C again leaves it")
        terminal.type(b"\x03")
        terminal.expect(b"detached; the job goes on")
        assert terminal.wait() == 0
        assert terminal.is_as_before


HANGS = """\
import os
import time

class Slow:
    def __repr__(self):
        open("asked", "w").close()
        while not os.path.exists("answer"):
            time.sleep(0.01)
        return "at last"

slow = Slow()
while not os.path.exists("stop"):
    time.sleep(0.01)
    number = 1
"""


@pytest.mark.slow
def test_ctrl_c_gives_up_an_answer_that_does_not_come_and_the_prompt_is_back(rdev):
    rdev.write("hangs.py", HANGS)
    assert rdev.run("run", "-d", "hangs.py").returncode == 0
    there = Path(rdev.jobs()[0]["directory"])
    with in_terminal(rdev, "debug", "hangs.py:14") as terminal:
        terminal.expect(b"paused at hangs.py:14")
        terminal.expect(b"(rdev) ")
        terminal.type(b"locals\r")
        terminal.until((there / "asked").exists, "the question")
        terminal.type(b"\x03")
        terminal.expect(b"its answer is not waited for")
        terminal.expect(b"(rdev) ")
        (there / "answer").touch()
        terminal.type(b"p number + 41\r")
        terminal.expect(b"42")
        assert b"at last" not in terminal.seen
        terminal.type(b"q\r")
        terminal.expect(b"detached; the job goes on")
        assert terminal.wait() == 0
    (there / "stop").touch()


@pytest.mark.slow
def test_ctrl_c_at_an_attach_that_takes_long_leaves(rdev):
    rdev.write("train.py", TRAIN)
    assert rdev.run("run", "-d", "train.py").returncode == 0
    training = os.pidfd_open(rdev.jobs()[0]["pid"])
    try:
        signal.pidfd_send_signal(training, signal.SIGSTOP)
        with in_terminal(rdev, "debug", "train.py:9") as terminal:
            terminal.expect(b"the process does not answer yet")
            terminal.type(b"\x04\x03")
            terminal.expect(b"detached; the job goes on")
            assert terminal.wait() == 0
            assert terminal.is_as_before
    finally:
        signal.pidfd_send_signal(training, signal.SIGCONT)
        os.close(training)


@pytest.mark.slow
def test_a_stop_whose_time_is_over_says_so_and_offers_to_come_back(job):
    with in_terminal(job, "debug", "train.py:9", "--lease", "3s") as terminal:
        terminal.expect(b"(rdev) ")
        terminal.expect(b"the job goes on")
        terminal.expect(b"attach again? [y/N] ")
        terminal.type(b"p step\r")  # which was being typed
        terminal.expect(b"not executed, for the session is over")
        terminal.expect(b"attach again? [y/N] ")
        terminal.type(b"y\r")
        terminal.expect(b"paused at train.py:9")
        terminal.expect(b"(rdev) ")
        terminal.type(b"q\r")
        terminal.expect(b"detached; the job goes on")
        assert terminal.wait() == 0


@pytest.mark.slow
def test_an_agent_that_dies_at_the_prompt_is_one_line_and_an_offer_to_come_back(job):
    with in_terminal(job, "debug", "train.py:9") as terminal:
        terminal.expect(b"(rdev) ")
        job.kill_agent()
        terminal.expect(b"attach again? [y/N] ")
        shown = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", terminal.seen)
        assert b"Traceback" not in shown
        terminal.type(b"n\r")
        assert terminal.wait() == 0
        assert terminal.is_as_before


@pytest.mark.slow
def test_a_step_that_is_asked_for_after_the_lease_is_too_late_in_one_line(job):
    with in_terminal(job, "debug", "train.py:9", "--lease", "2s") as terminal:
        terminal.expect(b"(rdev) ")
        beat = Path(job.jobs()[0]["directory"]) / "beat"
        held, agent = beat.read_text(), os.pidfd_open(job.agent_pid)
        try:
            # As a network that is away: what ended the stop is not known here, when a step is
            # asked for.
            signal.pidfd_send_signal(agent, signal.SIGSTOP)
            terminal.until(lambda: beat.read_text() not in ("", held), "the lease's end")
            terminal.type(b"n\r")
            terminal.expect(b"n\r\n")
        finally:
            signal.pidfd_send_signal(agent, signal.SIGCONT)
            os.close(agent)
        terminal.until(lambda: b"attach again? [y/N] " in terminal.seen)
        shown = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", terminal.seen)
        assert shown.count(b"too late: the stop is over") == 1
        assert shown.count(b"nothing was asked of the debugger for 2 s; the job goes on") == 1
        terminal.type(b"n\r")
        assert terminal.wait() == 0


@pytest.mark.slow
def test_a_library_by_its_path_is_a_breakpoint_and_a_name_that_is_not_there_one_line(job):
    commands = [f"b {json.__file__}:290", "display not_there", "n"]
    words = [word for command in commands for word in ("--command", command)]
    done = job.run("debug", "train", "train.py:9", *words)
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "breakpoint 2 at" in shown, shown
    assert shown.count("not_there: NameError: name 'not_there' is not defined\n") >= 1, shown
    assert "Traceback" not in shown
