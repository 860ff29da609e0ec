"""The one line that says why a job stands still, from what is known of its ranks."""

from dataclasses import dataclass

import pytest

from rdev.agent.control import why
from rdev.agent.control.members import Member
from rdev.agent.control.why import STOPPED, account_of, verdict
from rdev.agent.debug.stacks import Frame, ProcessStack, ThreadStack
from rdev.wire.job import LoopPause

ROOT = "/home/ada/work"
MINE = Frame(f"{ROOT}/train.py", 31, "step")
READ = Frame(f"{ROOT}/data.py", 7, "Images.__getitem__")
LOOP = Frame("/site-packages/rdev/loop/probe.py", 5, "drive")
REDUCE = Frame("/x/site-packages/torch/distributed/distributed_c10d.py", 9, "all_reduce")
WRAPPER = Frame("/x/site-packages/torch/distributed/c10d_logger.py", 8, "wrapper")
LOADER = Frame("/x/site-packages/torch/utils/data/dataloader.py", 4, "__next__")
FETCH = Frame("/x/site-packages/torch/utils/data/_utils/fetch.py", 3, "fetch")
IMPORT = Frame("<frozen importlib._bootstrap>", 2, "_find_and_load")
JOIN = Frame("/usr/lib/python3.11/threading.py", 4, "Thread.join")
INPUT = Frame(f"{ROOT}/train.py", 12, "<module>")


@dataclass
class Job:
    stops: tuple = ()
    pauses: tuple = ()


@dataclass
class Stop:
    rank: int = 1
    file: str = f"{ROOT}/train.py"
    line: int = 8
    since: float = 100.0
    unattended: bool = False


def rank(
    number, *frames, step=None, stage="step", moved=0, workers=(), silent=False, process="", **where
):
    """What is known of a rank: its main thread's frames, and its run if it has one."""

    def look(at):
        return Member(number, 10, {"step": at, "stage": stage, **where})

    stack = ProcessStack(number, 10, "train", (ThreadStack("MainThread", frames),))
    if silent:
        stack = ProcessStack(number, 10, cause="it does not answer")
    others = [ProcessStack(number, 11, "worker", (ThreadStack("MainThread", w),)) for w in workers]
    return account_of(
        number,
        before=None if step is None else look(step - moved),
        after=None if step is None else look(step),
        stacks=() if not frames and not silent else (stack, *others),
        took=0.5,
        root=ROOT,
        process=process,
    )


@pytest.mark.parametrize(
    ("accounts", "line"),
    [
        ([rank(0, MINE, step=9, moved=4)], "it trains: step 9, 8 steps/s"),
        (
            [rank(0, MINE, LOOP, step=9, since=4.2)],
            "it is in step 9 for 4 s, in step, train.py:31",
        ),
        (
            [rank(0, MINE, step=9, stage="paused", reason="loss > 3")],
            "held after step 9: loss > 3; `rdev ctl resume` lets it go on",
        ),
        (
            [rank(0, MINE, step=9, stage="paused", reason="nan"), rank(1, REDUCE, MINE, step=9)],
            "rank 0: held after step 9: nan; `rdev ctl resume` lets it go on",
        ),
        (
            [rank(0, WRAPPER, REDUCE, MINE, step=9), rank(1, READ, LOOP, step=8, stage="data")],
            "rank 1 waits for its next batch after step 8, in Images.__getitem__, data.py:7; rank 0 waits for it in all_reduce",
        ),
        (
            [rank(n, REDUCE, MINE, step=9) for n in range(3)] + [rank(3, silent=True, step=9)],
            "rank 3 does not answer: a long call of C code, or a process that is stopped; ranks 0-2 wait for it in all_reduce",
        ),
        (
            [rank(0, REDUCE, MINE, step=9), rank(1)],
            "rank 1 has no process that is connected; rank 0 waits for it in all_reduce",
        ),
        (
            [rank(0, REDUCE, MINE, step=9, since=2.0), rank(1, REDUCE, MINE, step=9, since=2.1)],
            "all ranks are in step 9 for 2.1 s, now in all_reduce",
        ),
        (
            [rank(0, REDUCE, MINE, step=9), rank(1, REDUCE, MINE, step=8)],
            "all ranks wait in all_reduce, at steps 8 to 9: a rank, or a machine, is missing",
        ),
        (
            [rank(0, REDUCE, MINE, step=9, since=60.0), rank(1, REDUCE, MINE, step=9)],
            "all ranks wait in all_reduce: a rank, or a machine, is missing",
        ),
        (
            [rank(0, LOADER, INPUT, step=9, stage="data", workers=[(READ, FETCH, LOADER, MINE)])],
            "it waits for its next batch after step 9, its worker in Images.__getitem__, data.py:7",
        ),
        ([rank(0, INPUT)], "it runs, in <module>, train.py:12"),
        ([rank(0, IMPORT, INPUT)], "it imports, in <module>, train.py:12"),
        (
            [rank(0, INPUT, step=0, stage="over")],
            "it trains no more: its run is over, and its process goes on, in <module>, train.py:12",
        ),
        (
            [rank(0, JOIN, MINE, step=9)],
            "it is in step 9 and waits for another thread, in step, train.py:31",
        ),
        (
            [rank(0, MINE, step=9, stage="callbacks")],
            "it is in step 9 in a callback, in step, train.py:31",
        ),
        (
            [rank(0, REDUCE, MINE, step=9), rank(1, silent=True, process=STOPPED, step=8)],
            "rank 1 is stopped, as by SIGSTOP or Ctrl-Z; rank 0 waits for it in all_reduce",
        ),
        (
            [rank(0, INPUT, process=why.INPUT)],
            "it waits for input, in <module>, train.py:12",
        ),
        ([rank(0)], "it has no hook that could say what it does"),
        (
            [rank(0, step=9)],
            "it is at step 9, and has no hook that could say what it does",
        ),
        ([rank(0, silent=True)], "it does not answer: a long call of C code, or a process that is stopped"),
    ],
)  # fmt: skip
def test_the_surest_finding_is_said_in_a_line(accounts, line):
    assert verdict(Job(), accounts) == line


def test_a_stop_of_the_debuggers_comes_first():
    line = verdict(Job((Stop(),)), [rank(0, MINE, step=9, stage="paused", reason="x")])
    assert line == "the debugger holds rank 1 at train.py:8; detaching lets it go on"


def test_for_how_long_it_is_held_is_told_once_that_is_long():
    held = rank(0, MINE, step=9, stage="paused", reason="paused by ada@laptop")
    job = Job(pauses=(LoopPause(0, 10, 9, 1, "", "paused by ada@laptop", 100.0),))
    assert "ada@laptop; `rdev ctl" in verdict(job, [held], now=120.0)
    assert "ada@laptop, for 5 min; `rdev ctl" in verdict(job, [held], now=400.0)
    waiting = Job((Stop(unattended=True),))
    assert verdict(waiting, [held], now=140.0) == (
        "rank 1 waits for a debugger at train.py:8, for 40 s; `rdev debug` attaches"
    )
