"""Events in words, as a terminal shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rdev.client.ui.events import in_words
from rdev.wire.events import Event
from rdev.wire.job import CommandKind, Job, JobSpec, JobState

JOB = Job("0" * 12, "train", JobSpec(CommandKind.SCRIPT, "train.py"), JobState.RUNNING)
ASKED = {"id": "x", "by": "ada@laptop", "step": 12, "epoch": 1, "phase": ""}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (
            "controlled",
            {
                **ASKED,
                "verb": "set",
                "args": {"path": "lr", "value": 0.01},
                "answer": {"path": "lr", "before": 0.1, "after": 0.01},
            },
            "ada@laptop asked: set lr=0.01, after step 12: 0.1 -> 0.01",
        ),
        (
            "controlled",
            {**ASKED, "verb": "step", "args": {"steps": 2}, "answer": {"steps": 2}},
            "ada@laptop asked: step 2, after step 12",
        ),
        (
            "controlled",
            {**ASKED, "verb": "reload", "args": {"module": "m"}, "cause": "no module 'm'"},
            "ada@laptop asked: reload m, after step 12: refused, no module 'm'",
        ),
        (
            "controlled",
            {**ASKED, "by": "", "verb": "stop", "args": {}, "answer": {}},
            "the script asked: stop, after step 12",
        ),
        (
            "loop_paused",
            {"step": 12, "phase": "critic", "reason": "paused by ada@laptop"},
            "paused in step 12, after its phase critic (rdev ctl, ada@laptop)",
        ),
        (
            "loop_resumed",
            {"step": 12, "seconds": 12.34},
            "goes on after step 12, held for 12 s",
        ),
        (
            "metric",
            {"step": 12, "phase": "", "values": {"loss": 0.123456789, "accuracy": 1.0}},
            "metric after step 12: loss 0.123457, accuracy 1",
        ),
        ("checkpoint_saved", {"step": 12, "path": "a.pt"}, "checkpoint saved: step 12, path a.pt"),
        ("probe_disarmed", {}, "probe disarmed"),
    ],
)
def test_an_event_is_a_line(kind, fields, words):
    line = in_words(Event(kind, 1e9, fields=fields), JOB)
    assert line[:8].count(":") == 2
    assert line[9:] == words


def test_of_several_ranks_the_line_says_which_and_nothing_in_it_breaks_the_line():
    event = Event("guarded", 1e9, rank=3, fields={"reason": "a\nb\x1b[2J"})
    line = in_words(event, replace(JOB, ranks=4))
    assert line[9:].startswith("rank 3 guarded: reason ")
    assert line.isprintable()


def test_a_sender_of_another_release_breaks_nothing():
    fields = {"verb": 7, "args": [], "step": "x", "answer": 3, "by": None}
    assert in_words(Event("controlled", 1e9, fields=fields), JOB).endswith("after step 0")
    assert in_words(Event("metric", 1e9, fields={"values": 3}), JOB)
