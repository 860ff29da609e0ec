"""`rdev run` at a real terminal: what Ctrl-C asks, and what the answers do."""

import os
import signal
from functools import partial

import pytest
from tests.support.terminal import in_terminal

CTRL_C = b"\x03"
SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("interrupted", flush=True), sys.exit(9)))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def terminal(rdev):
    return partial(in_terminal, rdev)


def test_ctrl_c_then_d_detaches(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(b"d")
        shown.expect(b"rdev attach")
        assert shown.wait() == 0
    assert rdev.json("ps")[0]["state"] == "running"


@pytest.mark.parametrize("answer", [b"\n", CTRL_C])
def test_ctrl_c_then_enter_or_ctrl_c_interrupts_the_job(rdev, terminal, answer):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(answer)
        shown.expect(b"interrupted")
        assert shown.wait() == 9


def test_ctrl_c_after_the_answer_stops_the_job(rdev, terminal):
    rdev.write("train.py", SCRIPT.replace("sys.exit(9)", "None").replace("60", "1") + "while 1: 1")
    with terminal("run", "--grace", "0.5", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(b"\n")
        shown.expect(b"interrupted")
        shown.type(CTRL_C)
        shown.expect(b"stopping train: TERM now, KILL in")
        assert shown.wait() == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_question_stands_detaches(rdev, terminal, number):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        assert not shown.is_as_before
        shown.type(b"x")  # no answer
        shown.process.send_signal(number)
        shown.expect(b"rdev attach")
        assert shown.wait() == 128 + number
        assert shown.is_as_before
    assert rdev.json("ps")[0]["state"] == "running"


def test_ctrl_c_in_attach_detaches_without_asking(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    rdev.run("run", "-d", "train.py")
    with terminal("attach") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"detached")
        assert shown.wait() == 0
    assert rdev.json("ps")[0]["state"] == "running"


def test_a_terminal_that_goes_away_leaves_the_job_running(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        pid = shown.process.pid
    # The pseudo-terminal is closed and rdev killed with it, as when a window is closed.
    assert not os.path.exists(f"/proc/{pid}")
    assert rdev.json("ps")[0]["state"] == "running"
