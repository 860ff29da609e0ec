"""Jobs that stop by themselves and wait for a debugger, as a person meets them in two terminals."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from tests.e2e.test_debug import lines_until
from tests.support.command import DEADLINE

pytestmark = pytest.mark.shared_agent

PLAIN = """\
first = 1
second = 2
print("right", first + second)
"""

FAILS = """\
import os
import time

def divide(batch):
    size = len(batch)
    return 1 / (size - 3)

while not os.path.exists("fail"):
    time.sleep(0.01)
divide([1, 2, 3])
"""

LOOP = """\
import os
import time
from rdev.loop import Callback, Loop
from rdev.wire.clock import active_monotonic

class Held(Callback):
    pauses = resumes = held = 0

    def pause(self, state):
        self.pauses += 1

    def resume(self, state, seconds):
        self.resumes += 1
        self.held += seconds

def step(state):
    loss = state.step * 2
    while not os.path.exists("begin"):
        time.sleep(0.01)
    time.sleep(0.01)
    return loss

held = Held()
began = time.monotonic(), active_monotonic()
print("right", Loop(step, range(600), callbacks=[held]).run().step)
print("wall", time.monotonic() - began[0])
print("active", active_monotonic() - began[1])
print("pauses", held.pauses)
print("resumes", held.resumes)
print("held", held.held)
"""

BREAKPOINT = """\
def step(number):
    breakpoint()
    return number * 2

print("right", [step(n) for n in range(2)])
"""


WORKER = """\
import multiprocessing
import sys

def load(index):
    breakpoint()
    return index * 2

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print("right", pool.apply(load, (7,)))
"""


def release(rdev, name: str) -> None:
    """Makes a file in the job's workspace, which its script waits for."""
    [workspace] = (rdev.home / ".rdev" / "workspaces").iterdir()
    (workspace / name).touch()


def test_a_run_that_waits_at_its_start_says_how_to_come_and_stops_at_the_first_line(rdev):
    rdev.write("plain.py", PLAIN)
    with rdev.started("run", "--debug", "plain.py", text=True) as running:
        told = lines_until(running.stderr, "waits at")[-1]
        assert "plain waits at plain.py:1 for a debugger: `rdev debug plain`" in told
        assert "goes on by itself in 60 s" in told
        assert "PAUSED plain.py:1" in (shown := rdev.run("ps").stdout)
        assert "waits for a debugger" in shown
        done = rdev.run("debug", "plain", "--command", "n", "--command", "p first")
        assert done.returncode == 0, done.stderr
        assert "paused at plain.py:1 in <module>()" in done.stdout
        assert done.stdout.count("paused at") == 2
        assert "\n1\n" in done.stdout
        assert running.wait(30) == 0
        assert running.stdout.read() == "right 3\n"


def test_a_running_job_is_looked_at_where_it_fails_and_keeps_its_code_and_traceback(rdev):
    rdev.write("fails.py", FAILS)
    assert rdev.run("run", "-d", "fails.py").returncode == 0
    words = ("debug", "fails", "--on", "exception", "--command", "p size", "--command", "s")
    with rdev.started(*words, text=True) as debugging:
        lines_until(debugging.stderr, "waiting for an exception in fails; Ctrl-C takes it back")
        release(rdev, "fail")
        assert debugging.wait(60) == 0, debugging.stderr.read()
        shown = debugging.stdout.read()
    assert "paused at fails.py:6 in divide() (exception): ZeroDivisionError: division by" in shown
    assert "(note:" not in shown
    assert "(Current frame)" not in shown
    assert "\n3\n" in shown
    assert "nothing is left to step: the exception has ended these frames; `c` goes on\n" in shown
    assert shown.count("paused at") == 1
    assert rdev.run("wait", "fails").returncode == 1
    assert rdev.run("logs", "fails").stderr.count("Traceback") == 1


@pytest.mark.slow
def test_a_wait_that_is_interrupted_is_taken_back(rdev):
    rdev.write("fails.py", FAILS)
    assert rdev.run("run", "-d", "fails.py").returncode == 0
    with rdev.started("debug", "fails", "--on", "exception", text=True) as debugging:
        lines_until(debugging.stderr, "waiting for an exception")
        debugging.send_signal(signal.SIGINT)
        assert debugging.wait(30) == 0
        assert "taken back" in debugging.stderr.read()
    release(rdev, "fail")
    assert rdev.run("wait", "fails").returncode == 1
    assert not [
        event for event in rdev.run("events", "fails").stdout.splitlines() if "paused" in event
    ]


@pytest.mark.slow
def test_a_job_that_ends_before_what_is_waited_for_is_said(rdev):
    rdev.write("calm.py", FAILS.replace("divide([1, 2, 3])", "print('right')"))
    assert rdev.run("run", "-d", "calm.py").returncode == 0
    words = ("debug", "calm", "--on", "step=5")
    with rdev.started(*words, text=True) as debugging:
        told = lines_until(debugging.stderr, "waiting for step 5 in calm")
        assert "nobody counts steps in calm" in "".join(told)
        release(rdev, "fail")
        assert debugging.wait(30) == 125
        assert "it has ended (succeeded)" in debugging.stderr.read()


@pytest.mark.slow
def test_a_step_of_a_running_loop_is_waited_for_and_the_active_clock_leaves_the_stop_out(rdev):
    rdev.write("loop.py", LOOP)
    assert rdev.run("run", "-d", "loop.py").returncode == 0
    words = ("debug", "loop", "--on", "step=90")
    with rdev.started(*words, stdin=subprocess.PIPE, text=True) as debugging:
        lines_until(debugging.stderr, "waiting for step 90 in loop")
        release(rdev, "begin")
        lines_until(debugging.stdout, "paused at loop.py")
        time.sleep(2.0)  # the length of the stop is what is tested
        debugging.stdin.write("p state.step\n")
        debugging.stdin.close()
        assert debugging.wait(30) == 0, debugging.stderr.read()
        assert "90\n" in debugging.stdout.read()
    assert rdev.run("wait", "loop").returncode == 0
    told = dict(line.split(maxsplit=1) for line in rdev.run("logs", "loop").stdout.splitlines())
    assert told["right"] == "600"
    assert told["pauses"] == told["resumes"]
    assert float(told["held"]) >= 2.0
    assert float(told["active"]) < float(told["wall"]) - 2.0


@pytest.mark.slow
def test_breakpoint_in_a_plain_script_waits_for_whoever_comes(rdev):
    rdev.write("plain.py", BREAKPOINT)
    with rdev.started("run", "plain.py", text=True) as running:
        lines_until(running.stderr, "plain waits at plain.py:2")
        done = rdev.run(
            "debug", "plain", "--command", "p number", "--command", "c", "--command", "p number"
        )
        assert done.returncode == 0, done.stderr
        assert "\n0\n" in done.stdout
        assert "\n1\n" in done.stdout
        assert running.wait(30) == 0
        assert running.stdout.read() == "right [0, 2]\n"


@pytest.mark.slow
def test_each_rank_waits_at_its_start_and_torchrun_itself_does_not(rdev):
    rdev.write("plain.py", PLAIN)
    assert rdev.run("run", "-d", "--debug", "--nproc", "2", "plain.py").returncode == 0
    deadline = time.monotonic() + DEADLINE
    while len(held := rdev.json("ps")[0]["paused"]) < 2:
        assert time.monotonic() < deadline, held
    assert {(stop["rank"], stop["file"][-8:], stop["line"]) for stop in held} == {
        (0, "plain.py", 1),
        (1, "plain.py", 1),
    }
    done = rdev.run("debug", "plain", "--rank", "all", "--command", "wait", "--command", "p 6 * 7")
    assert done.returncode == 0, done.stderr
    assert "paused at plain.py:1" in done.stdout
    assert "\n42\n" in done.stdout
    assert rdev.run("wait", "plain").returncode == 0
    assert rdev.run("logs", "plain").stdout.count("right 3") == 2


@pytest.mark.slow
def test_a_worker_that_waits_in_a_breakpoint_is_the_one_that_is_attached_to(rdev):
    rdev.write("loads.py", WORKER)
    with rdev.started("run", "loads.py", text=True) as running:
        lines_until(running.stderr, "loads waits at loads.py:5")
        done = rdev.run("debug", "loads", "--command", "p index * 10")
        assert done.returncode == 0, done.stderr
        assert "paused at loads.py:6 in load()" in done.stdout
        assert "\n70\n" in done.stdout
        assert running.wait(30) == 0
        assert running.stdout.read() == "right 14\n"


def test_a_run_that_diverges_is_looked_at_where_its_loss_is_not_finite(rdev):
    source = LOOP.replace("state.step * 2", 'state.step * 2 if state.step < 90 else float("nan")')
    source = source.replace("range(600)", "range(120)")
    rdev.write("loop.py", source)
    assert rdev.run("run", "-d", "loop.py").returncode == 0
    words = ("debug", "loop", "--on", "nan", "--command", "p held.pauses")
    with rdev.started(*words, text=True) as debugging:
        waiting = "waiting for a number that is not finite in loop; Ctrl-C takes it back"
        lines_until(debugging.stderr, waiting)
        release(rdev, "begin")
        assert debugging.wait(60) == 0, debugging.stderr.read()
        shown = debugging.stdout.read()
    assert "FloatingPointError: step 90: the loss is nan; the update had been made" in shown
    assert "\n0\n" in shown
    assert rdev.run("wait", "loop").returncode == 0
    refused = rdev.run("run", "--on", "inf", "loop.py")
    assert refused.returncode == 2
    assert "'inf' is none of `exception`, `nan` and `step=N`" in refused.stderr


FORKS = """\
import os, time
from torch.utils.data import DataLoader

batches = iter(DataLoader(range(1000), batch_size=None, num_workers=2, prefetch_factor=1))
next(batches)
while not os.path.exists("stop"):
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_whoever_attaches_is_told_of_the_workers_that_no_breakpoint_hits(rdev):
    rdev.write("train.py", FORKS)
    assert rdev.run("run", "-q", "-d", "train.py").returncode == 0
    words = "no breakpoint hits in 2 processes that it has forked, as a DataLoader does"
    until = time.monotonic() + DEADLINE
    while True:  # each dials by itself
        done = rdev.run("debug", "train", "train.py:7", "--command", "q")
        if words in done.stdout + done.stderr:
            break
        assert time.monotonic() < until, done
    assert "Traceback" not in done.stderr
