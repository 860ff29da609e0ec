"""What a person reads of a training that is held: in the table, and beside the output."""

from __future__ import annotations

from dataclasses import replace

from rdev.client.ui.holds import Holds
from rdev.client.ui.jobs import as_json, state_words
from rdev.wire.events import LOOP_PAUSED, LOOP_RESUMED, Event
from rdev.wire.job import CommandKind, Job, JobSpec, JobState, LoopPause

JOB = Job("0" * 12, "train", JobSpec(CommandKind.SCRIPT, "train.py"), JobState.RUNNING)
RANKS = replace(JOB, ranks=4)
RESUME = "rdev ctl train resume"


def paused(rank: int = 0, step: int = 1203, reason: str = "paused by ada@laptop", phase: str = ""):
    fields = {"step": step, "epoch": 3, "phase": phase, "reason": reason}
    return Event(LOOP_PAUSED, 100.0, rank, 10 + rank, fields=fields)


def resumed(rank: int = 0, seconds: float = 12.4) -> Event:
    return Event(LOOP_RESUMED, 112.0, rank, 10 + rank, fields={"step": 1203, "seconds": seconds})


def held(rank: int, step: int = 1203, reason: str = "paused by ada@laptop", phase: str = ""):
    return LoopPause(rank, 10 + rank, step, 3, phase, reason, 100.0)


def test_the_table_says_after_which_step_and_by_whom():
    job = replace(JOB, pauses=(held(0),))
    assert state_words(job) == "RUNNING, PAUSED after step 1203 (rdev ctl, ada@laptop)"
    told = "RUNNING, PAUSED after step 1203 (rdev ctl, ada@laptop) for 37s"
    assert state_words(job, now=137.0) == told
    assert as_json(job)["held"][0]["since"] == "1970-01-01T00:01:40Z"
    assert state_words(replace(JOB, pauses=(held(0, reason="loss > 10"),))).endswith("(loss > 10)")
    phase = replace(JOB, pauses=(held(0, reason="paused", phase="critic"),))
    assert state_words(phase) == "RUNNING, PAUSED in step 1203, after its phase critic (rdev ctl)"


def test_ranks_that_are_held_alike_are_one_phrase_and_others_are_named():
    alike = replace(RANKS, pauses=tuple(held(rank) for rank in range(4)))
    assert state_words(alike) == "RUNNING, PAUSED after step 1203 (rdev ctl, ada@laptop)"
    alone = replace(RANKS, pauses=(held(2, reason="a NaN in loss"),))
    assert state_words(alone) == "RUNNING, rank 2 PAUSED after step 1203 (a NaN in loss)"


def test_what_a_reason_holds_cannot_break_the_line():
    job = replace(JOB, pauses=(held(0, reason="x\n\x1b[2J"),))
    assert state_words(job).isprintable()


def test_a_pause_and_its_end_are_a_line_each_for_all_ranks():
    holds = Holds(RANKS, RESUME)
    for rank in range(4):
        assert holds.take(paused(rank), 0.1 * rank / 4) == []
    assert 0.19 < (holds.wait(0.1) or 0.0) < 0.21
    assert holds.due(0.2) == []
    (line,) = holds.due(0.35)
    assert (
        line == f"train is paused after step 1203 (rdev ctl, ada@laptop): `{RESUME}` lets it go on"
    )
    assert holds.wait(5.0) is None
    for rank in range(4):
        holds.take(resumed(rank), 12.0)
    assert holds.due(12.5) == []
    assert holds.due(13.0) == ["train goes on after 12 s"]
    assert holds.wait(20.0) is None


def test_who_steps_is_told_of_once():
    holds = Holds(JOB, RESUME)
    holds.take(paused(), 0.0)
    told = holds.due(1.0)
    for number in range(3):
        holds.take(resumed(seconds=10.0), 10.0 + number)
        holds.take(paused(step=1204 + number), 10.1 + number)
        told += holds.due(10.9 + number)
    holds.take(resumed(seconds=10.0), 20.0)
    assert [*told, *holds.due(21.0)][1:] == ["train goes on after 40 s"]


def test_a_pause_too_short_to_be_seen_is_not_told_of_and_one_rank_is_named():
    holds = Holds(RANKS, RESUME)
    holds.take(paused(), 0.0)
    holds.take(resumed(seconds=0.1), 0.1)
    assert (holds.due(5.0), holds.wait(5.0)) == ([], None)
    holds.take(paused(rank=2, reason="a NaN in loss"), 6.0)
    (line,) = holds.due(7.0)
    assert line.startswith("rank 2 is paused after step 1203 (a NaN in loss): ")
    holds.take(resumed(rank=2), 8.0)
    assert holds.due(9.0) == ["rank 2 goes on after 12 s"]
