"""What a person who follows a job reads of its stops at the debugger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rdev.client.ui.pauses import Pauses
from rdev.wire.events import Event
from rdev.wire.job import CommandKind, Job, JobSpec, JobState

JOB = Job(
    id="0" * 12,
    name="train",
    spec=JobSpec(CommandKind.SCRIPT, "train.py"),
    state=JobState.RUNNING,
    directory="/home/ann",
)
RANKS = replace(JOB, ranks=4)


def paused(line: int = 42, lease: float | None = 900.0, **fields) -> Event:
    return Event(
        "debug_paused",
        0.0,
        pid=7,
        fields={"file": "/home/ann/train.py", "line": line, "lease": lease, **fields},
    )


def resumed(cause: str, seconds: float = 12.3, rank: int = 0) -> Event:
    return Event(
        "debug_resumed", 0.0, rank=rank, pid=7, fields={"seconds": seconds, "cause": cause}
    )


def test_a_stop_and_its_end_are_a_line_each():
    pauses = Pauses(RANKS, "rdev debug train")
    told = pauses.take(paused(), 0.0)
    assert told == ["rank 0 is paused at train.py:42 by the debugger (goes on by itself in 15 min)"]
    assert pauses.wait(5.0) is None
    assert pauses.take(resumed("client"), 12.0) == []
    assert pauses.wait(12.25) == 0.75
    assert pauses.due(12.9) == []
    assert pauses.due(13.0) == ["rank 0 goes on after 12 s"]
    assert pauses.due(20.0) == []


def test_who_steps_is_told_of_once_with_all_the_time_that_it_took():
    pauses = Pauses(JOB, "rdev debug train")
    told = pauses.take(paused(), 0.0)
    for step in range(5):
        told += pauses.take(resumed("client", 10.0), 10.0 * step)
        told += pauses.take(paused(43 + step), 10.0 * step + 0.1)
        told += pauses.due(10.0 * step + 5.0)
    told += pauses.take(resumed("detached", 10.0), 60.0)
    assert told == [
        "train is paused at train.py:42 by the debugger (goes on by itself in 15 min)",
        "train goes on after 60 s: its debugger left",
    ]


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("detached", ": its debugger left"),
        ("lease", ": nothing was asked of its debugger in time"),
        ("adapter_lost", ": its debugger went away"),
    ],
)
def test_why_it_goes_on_is_told_at_once_where_it_was_not_the_person(cause, words):
    pauses = Pauses(RANKS, "rdev debug train")
    pauses.take(paused(), 0.0)
    assert pauses.take(resumed(cause), 1.0) == [f"rank 0 goes on after 12 s{words}"]


def test_a_stop_that_waits_for_a_debugger_says_how_to_attend_it():
    pauses = Pauses(JOB, "rdev debug -H gpu1 train")
    told = pauses.take(paused(lease=60.0, unattended=True), 0.0)
    told += pauses.take(resumed("unattended", 60.0), 60.0)
    command = "`rdev debug -H gpu1 train`"
    assert told == [
        f"train waits at train.py:42 for a debugger: {command} (goes on by itself in 60 s)",
        "train goes on after 60 s: no debugger came",
    ]


def test_a_debugger_that_comes_to_a_stop_which_waits_is_told():
    pauses = Pauses(JOB, "rdev debug train")
    pauses.take(paused(lease=60.0, unattended=True), 0.0)
    assert pauses.take(resumed("client", 5.0), 5.0) == []
    [line] = pauses.take(paused(), 5.1)
    assert line.startswith("train is paused at train.py:42 by the debugger")


def test_an_end_of_a_stop_that_nobody_saw_begin_is_told():
    assert Pauses(RANKS, "").take(resumed("lease", 900.0, rank=2), 0.0) == [
        "rank 2 goes on after 15 min: nothing was asked of its debugger in time"
    ]
