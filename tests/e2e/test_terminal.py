"""`rdev run` at a real terminal: what Ctrl-C asks, and what the answers do."""

import os
import signal
from functools import partial

import pytest
from tests.support.terminal import in_terminal

pytestmark = pytest.mark.shared_agent

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
    rdev.await_state("running")


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


TICKS = "while :; do printf 'tick\\r'; test -e go && exit 3; sleep 0.01; done"


def test_the_question_is_not_buried_by_what_the_job_prints(rdev, terminal):
    with terminal("run", "--", "sh", "-c", TICKS) as shown:
        shown.expect(b"tick")
        shown.type(CTRL_C)
        shown.expect(b"Enter = stop it ")
        printed = size_of(rdev)
        shown.until(lambda: size_of(rdev) > printed + 100)
        assert shown.seen == b""
        shown.type(b"d")
        shown.expect(b"rdev attach")
        assert shown.wait() == 0
        assert shown.is_as_before


def test_a_job_that_ends_while_the_question_stands_ends_the_run(rdev, terminal):
    with terminal("run", "--", "sh", "-c", TICKS) as shown:
        shown.expect(b"tick")
        shown.type(CTRL_C)
        shown.expect(b"Enter = stop it ")
        host_file(rdev, "go").touch()
        shown.expect(b"tick")
        shown.expect(b"failed with exit code 3")
        assert shown.wait() == 3
        assert shown.is_as_before


@pytest.mark.slow  # it waits for the half minute that an answer may take
def test_a_question_that_nobody_answers_is_withdrawn(rdev, terminal):
    with terminal("run", "--", "sh", "-c", TICKS) as shown:
        shown.expect(b"tick")
        shown.type(CTRL_C)
        shown.expect(b"Enter = stop it ")
        shown.expect(b"tick")
        assert shown.is_as_before
        shown.type(CTRL_C)
        shown.expect(b"Enter = stop it ")
        host_file(rdev, "go").touch()
        assert shown.wait() == 3


def test_what_is_said_beside_labelled_lines_stands_above_the_unfinished_one(rdev, terminal):
    script = "printf 'a bar'; until [ -e go ]; do sleep 0.01; done; exit 3"
    with terminal("run", "--prefix", "--retries", "1", "--", "sh", "-c", script) as shown:
        shown.expect(b"a bar")
        host_file(rdev, "go").touch()
        shown.expect(b"\r\x1b[Krdev: attempt 1 failed with exit code 3; attempt 2 of 2 starts\r\n")
        assert shown.wait() == 3


def size_of(rdev) -> int:
    return rdev.jobs()[0]["streams"][0]["size"]


def host_file(rdev, name: str):
    (folder,) = (rdev.home / ".rdev" / "workspaces").iterdir()
    return folder / name


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
    rdev.await_state("running")


def test_ctrl_c_in_attach_detaches_without_asking(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    rdev.run("run", "-d", "train.py")
    with terminal("attach") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"detached")
        assert shown.wait() == 0
    rdev.await_state("running")


def test_a_terminal_that_goes_away_leaves_the_job_running(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        pid = shown.process.pid
    # The pseudo-terminal is closed and rdev killed with it, as when a window is closed.
    assert not os.path.exists(f"/proc/{pid}")
    rdev.await_state("running")
