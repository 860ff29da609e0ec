"""Leaving a job, or stopping it, while the way to its host is broken or nobody reads our output."""

import array
import fcntl
import select
import signal
import subprocess
import sys
import termios
import time
from functools import partial

import pytest
from tests.support.command import DEADLINE
from tests.support.relay import relayed
from tests.support.terminal import in_terminal

from rdev.wire.home import Home, machine_id

pytestmark = pytest.mark.shared_agent

SAVES = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("saved", flush=True), sys.exit(9)))
print("ready", flush=True)
time.sleep(300)
"""

IGNORES = """
import os, pathlib, signal
signal.signal(signal.SIGINT, lambda *_: pathlib.Path("interrupted").touch())
while True:
    os.write(1, b"x" * 4095 + b"\\n")
"""


@pytest.fixture
def terminal(rdev):
    return partial(in_terminal, rdev)


@pytest.fixture
def relaying(rdev, tmp_path):
    """Makes a way to the agent that loses, or holds, the first call with a name."""
    rdev.jobs()  # the agent runs
    home = Home(str(rdev.home / ".rdev"), machine_id())
    return partial(relayed, tmp_path / "relay.sock", home.socket)


def test_ctrl_c_that_is_lost_on_its_way_reaches_the_job_all_the_same(rdev, relaying):
    rdev.write("train.py", SAVES)
    with (
        relaying(loses="SignalJob") as relay,
        rdev.started("run", "-q", "-H", relay.host, "train.py") as process,
    ):
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"saved\n"
        assert process.wait(DEADLINE) == 9


# What `rdev run` does once its job is there, and Ctrl-C before it has begun to listen.
AT_ONCE = """
import asyncio, signal, sys
from rdev.client.cli.attending import attend, output_of
from rdev.client.connection import connect
from rdev.client.jobs import Jobs

async def main():
    async with connect("local") as connection:
        job = await Jobs(connection).get("train")
        async with output_of(job) as output:
            signal.raise_signal(signal.SIGINT)
            return await attend(connection, job, output)

sys.exit(asyncio.run(main()))
"""


def test_ctrl_c_before_anybody_listens_reaches_the_job_all_the_same(rdev):
    rdev.write("train.py", SAVES)
    assert rdev.run("run", "-q", "-d", "train.py").returncode == 0
    with rdev.started("logs", "-f") as following:
        assert following.stdout.readline() == b"ready\n"
        done = subprocess.run(
            [sys.executable, "-c", AT_ONCE],
            cwd=rdev.cwd,
            env=rdev.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.stdout == "ready\nsaved\n", done.stderr
        assert done.returncode == 9
        assert following.wait(DEADLINE) == 0


def test_ctrl_c_at_a_terminal_outlives_a_break_of_the_connection(rdev, terminal, relaying):
    rdev.write("train.py", SAVES)
    with relaying() as relay, terminal("run", "-H", relay.host, "train.py") as shown:
        shown.expect(b"ready")
        relay.kill()
        shown.type(b"\x03")
        shown.expect(b"Enter = stop it ")
        shown.type(b"\n")
        shown.expect(b"\n")  # the answer is taken, and nobody is there to be told
        relay.start()
        shown.expect(b"saved")
        assert shown.wait() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_call_that_nobody_answers_keeps_nobody_from_leaving(rdev, relaying, number):
    rdev.write("train.py", SAVES)
    with (
        relaying(loses="SignalJob...") as relay,
        rdev.started("run", "-q", "-H", relay.host, "train.py") as process,
    ):
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        relay.expect_held()
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert b"`rdev attach" in process.stderr.read()
    rdev.await_state("running")


@pytest.mark.parametrize("leave", ["TERM", "keys"])
def test_a_terminal_that_nobody_reads_keeps_nobody_from_leaving(rdev, terminal, leave):
    with terminal("run", "-t", "--", "sh", "-c", "echo ready; exec yes") as shown:
        shown.expect(b"ready")
        until_full(shown.theirs)
        if leave == "keys":
            shown.type(b"\r~d")
        else:
            shown.process.send_signal(signal.SIGTERM)
        assert shown.process.wait(20) == (0 if leave == "keys" else 143)
        assert shown.is_as_before
    rdev.await_state("running")


def test_who_has_paused_our_output_stops_the_job_by_another_ctrl_c(rdev):
    rdev.write("train.py", IGNORES)
    with rdev.started("run", "-H", "local", "train.py") as process:
        until(lambda: bytes_in(process.stdout) >= 60_000)
        process.send_signal(signal.SIGINT)
        until(lambda: list(rdev.home.glob(".rdev/workspaces/*/interrupted")))
        process.send_signal(signal.SIGINT)
        assert rdev.run("wait", "train", timeout=20).returncode == 143


def test_whoever_is_ended_while_a_question_stands_says_so_below_it(rdev, terminal):
    rdev.write("train.py", SAVES)
    with terminal("run", "-H", "local", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(b"\x03")
        shown.expect(b"Enter = stop it ")
        shown.process.send_signal(signal.SIGTERM)
        shown.expect(b"\nrdev: detached; train goes on")
        assert shown.wait() == 143


def test_a_new_attempt_in_a_terminal_is_told(terminal):
    with terminal("run", "-t", "--retries", "1", "--", "sh", "-c", "echo in; exit 3") as shown:
        shown.expect(b"\r\nrdev: attempt 1 failed with exit code 3; attempt 2 of 2 starts\r\n")
        shown.expect(b"failed with exit code 3 after")
        assert shown.wait() == 3


def test_a_terminal_without_its_keys_is_refused(terminal):
    with terminal("run", "-t", "--no-stdin", "--", "true") as shown:
        shown.expect(b"--no-stdin keeps from the job what is typed")
        shown.expect(b"hint: leave out -t or --no-stdin")
        assert shown.wait() == 2


def until_full(terminal: int) -> None:
    """Returns once the terminal takes no more; nobody reads it, so that it stays so."""
    deadline = time.monotonic() + DEADLINE
    while select.select([], [terminal], [], 0)[1]:
        assert time.monotonic() < deadline, "the job prints nothing"


def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bytes_in(pipe) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
