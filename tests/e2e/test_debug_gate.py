"""Breakpoints that are set from a step on, as a person asks for them."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from tests.e2e.test_debug import lines_until
from tests.e2e.test_debug_waiting import FAILS, release
from tests.support.command import DEADLINE
from tests.support.editors import of_process

pytestmark = pytest.mark.shared_agent

LOOP = """\
import os
import time
from rdev.loop import Loop

def step(state):
    loss = state.step * 2
    while state.step == 5 and not os.path.exists("begin"):
        open("there-" + os.environ.get("RANK", "0"), "w").close(), time.sleep(0.01)
    return loss

print("right", Loop(step, range(600)).run().step)
"""

WAITING = "attached to nothing; Ctrl-C takes it back"


def run_until_step_5(rdev, *words: str, ranks: int = 1) -> None:
    """The job has come to where it waits to be released."""
    rdev.write("loop.py", LOOP)
    assert rdev.run("run", "-d", *words, "loop.py").returncode == 0
    deadline = time.monotonic() + DEADLINE
    [workspace] = (rdev.home / ".rdev" / "workspaces").iterdir()
    while not all((workspace / f"there-{rank}").exists() for rank in range(ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def paused_events(rdev, job: str) -> list[str]:
    return [line for line in rdev.run("events", job).stdout.splitlines() if "paused" in line]


def test_a_breakpoint_from_a_step_on_hits_in_that_very_step_and_not_before(rdev):
    run_until_step_5(rdev)
    words = ("debug", "loop", "loop.py:9", "--from", "step=90", "--command", "p state.step")
    with rdev.started(*words, "--command", "c", "--command", "p state.step", text=True) as ours:
        lines_until(ours.stderr, f"waiting for step 90 in loop, {WAITING}")
        release(rdev, "begin")
        assert ours.wait(60) == 0, ours.stderr.read()
        shown = ours.stdout.read()
    assert "\n90\n" in shown
    assert "\n91\n" in shown
    assert shown.count("paused at loop.py:9 in step()") == 2
    assert rdev.run("wait", "loop").returncode == 0
    assert rdev.run("logs", "loop").stdout == "right 600\n"


def test_a_gate_is_refused_taken_back_or_said_to_be_past(rdev):
    rdev.write("calm.py", FAILS.replace("divide([1, 2, 3])", "print('right')"))
    assert rdev.run("run", "-d", "calm.py").returncode == 0
    run_until_step_5(rdev)
    uncounted = rdev.run("debug", "calm", "calm.py:6", "--from", "step=3")
    assert uncounted.returncode == 125
    assert "unable to wait for step 3 in calm: nobody counts steps in it" in uncounted.stderr
    assert "`rdev ctl calm watch` does" in uncounted.stderr
    for words, cause in (
        (("--from", "9", "loop.py:9"), "'9' is not `step=N`"),
        (("--from", "step=0", "loop.py:9"), "step"),
        (("--from", "step=9"), "--from needs a FILE:LINE to stop at"),
        (("--from", "step=9", "--on", "exception", "loop.py:9"), "--on stops by itself"),
    ):
        refused = rdev.run("debug", "loop", *words)
        assert refused.returncode == 2, refused.stderr
        assert cause in refused.stderr
    with (
        rdev.started("debug", "loop", "loop.py:9", "--from", "step=90", text=True) as first,
        rdev.started("debug", "loop", "loop.py:9", "--from", "step=700", text=True) as second,
    ):
        for waiting in (first, second):
            lines_until(waiting.stderr, WAITING)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 0
        assert "taken back: loop goes on, and no breakpoint is set" in first.stderr.read()
        past = ("debug", "loop", "loop.py:9", "--from", "step=2", "--command", "p state.step")
        with rdev.started(*past, text=True) as late:
            lines_until(late.stderr, "step 2 is past, loop is at 5: set at once")
            lines_until(late.stdout, "breakpoint 1 at")
            busy = rdev.run("debug", "loop", "loop.py:9", "--from", "step=80")
            assert "is attached to it" in busy.stderr
            release(rdev, "begin")
            assert late.wait(60) == 0
            assert "\n5\n" in late.stdout.read()
        assert second.wait(60) == 125
        assert "it has ended (succeeded)" in second.stderr.read()
    assert len(paused_events(rdev, "loop")) == 1
    release(rdev, "fail")
    assert rdev.run("wait", "calm").returncode == 0


@pytest.mark.slow
def test_an_editor_attaches_when_the_step_comes(rdev):
    run_until_step_5(rdev)
    with rdev.started("dap", "loop", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        editor.ask("initialize", adapterID="rdev")
        refused = editor.response("attach", fromStep="soon")
        assert "fromStep: 'soon' is no step's number" in refused["message"]
    with rdev.started("dap", "loop", stdin=subprocess.PIPE) as process:
        editor = of_process(process)
        editor.ask("initialize", adapterID="rdev")
        attach = editor.send("attach", fromStep=90)
        editor.receive(lambda m: WAITING in m.get("body", {}).get("output", ""))
        release(rdev, "begin")
        editor.receive(lambda m: m.get("event") == "initialized")
        path = {"path": str((rdev.cwd / "loop.py").resolve())}
        editor.ask("setBreakpoints", source=path, breakpoints=[{"line": 9}])
        editor.ask("configurationDone")
        assert editor.receive(lambda m: m.get("request_seq") == attach)["success"]
        _, frame = editor.stop()
        value = editor.ask("evaluate", expression="state.step", frameId=frame["id"])
        assert value["result"] == "90"
        editor.ask("disconnect")
        assert process.wait(DEADLINE) == 0
    assert rdev.run("wait", "loop").returncode == 0


@pytest.mark.slow
def test_all_ranks_wait_for_the_step_and_each_stops_in_it(rdev):
    run_until_step_5(rdev, "--nproc", "2", ranks=2)
    words = ("debug", "loop", "loop.py:9", "--rank", "all", "--from", "step=90")
    asked = ("--command", "wait", "--command", "p state.step", "--command", "rank 1")
    with rdev.started(*words, *asked, "--command", "p state.step", text=True) as ours:
        lines_until(ours.stderr, WAITING)
        release(rdev, "begin")
        assert ours.wait(60) == 0, ours.stderr.read()
        shown = ours.stdout.read()
    assert shown.count("\n90\n") == 2, shown
    assert rdev.run("wait", "loop").returncode == 0
