"""Jobs as people read them."""

import pytest

from rdev.client.ui.jobs import as_json, closing_line, duration, state_words, table
from rdev.wire.job import CommandKind, DebugStop, Job, JobSpec, JobState, Reason

SPEC = JobSpec(CommandKind.SCRIPT, "train.py", ("--lr", "3"), snapshot="9f3c0000aa")


def job(state=JobState.SUCCEEDED, **fields):
    fields = {"exit_code": 0, "created": 100.0, "started": 101.0, "ended": 105.0, **fields}
    return Job("0123456789ab", "train", SPEC, state, **fields)


def test_a_table_is_aligned_and_says_what_matters():
    heading, row = table([job()], now=160.0).splitlines()
    assert heading.split() == ["ID", "NAME", "STATE", "AGE", "TOOK", "SNAPSHOT", "COMMAND"]
    assert row.split() == [
        "0123456789ab", "train", "SUCCEEDED", "1m00s", "4.0s", "9f3c0000", "train.py", "--lr", "3",
    ]  # fmt: skip
    assert heading.index("COMMAND") == row.index("train.py")


@pytest.mark.parametrize(
    ("fields", "words", "line"),
    [
        ({}, "SUCCEEDED", "succeeded"),
        ({"state": JobState.FAILED, "exit_code": 7}, "FAILED 7", "failed with exit code 7"),
        (
            {"state": JobState.FAILED, "exit_code": 137, "signal": 9},
            "FAILED SIGKILL",
            "was killed by SIGKILL",
        ),
        (
            {"state": JobState.FAILED, "reason": Reason.TIMEOUT, "exit_code": 143, "signal": 15},
            "FAILED timeout",
            "was stopped by its timeout",
        ),
        ({"state": JobState.CANCELLED, "exit_code": 143, "signal": 15}, "CANCELLED", "was stopped"),
        (
            {"state": JobState.LOST, "exit_code": None, "message": "the machine rebooted"},
            "LOST",
            "is lost: the machine rebooted",
        ),
        (
            {"state": JobState.FAILED, "reason": Reason.START_FAILED, "message": "no such file"},
            "FAILED 0",
            "did not start: no such file",
        ),
    ],
)
def test_how_a_job_ended(fields, words, line):
    ended = job(**fields)
    assert state_words(ended) == words
    assert line in closing_line(ended)


def test_a_held_job_says_where():
    stop = DebugStop(0, 7, "/ws/train.py", 42, "step", "breakpoint", 103.0)
    held = job(JobState.RUNNING, exit_code=None, ended=0.0, stops=(stop,), directory="/ws")
    assert state_words(held) == "RUNNING, PAUSED train.py:42"
    assert as_json(held)["paused"][0]["line"] == 42


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.44, "0.4s"), (12.9, "12s"), (200, "3m20s"), (18120, "5h02m"), (8e5, "9d")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_json_says_null_for_what_is_not_there():
    body = as_json(job(JobState.RUNNING, exit_code=None, ended=0.0))
    assert (body["ended"], body["exit_code"], body["reason"]) == (None, None, None)
    assert body["created"] == "1970-01-01T00:01:40Z"
