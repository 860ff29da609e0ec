"""Whoever waits for a step is told of the ranks that they asked for."""

from __future__ import annotations

from typing import cast

import pytest

from rdev.client.connection import Connection
from rdev.client.debug.expecting import Expected
from rdev.client.debug.gating import Gate
from rdev.v1 import debug_pb2 as pb
from rdev.wire.job import CommandKind, DebugStart, Job, JobSpec, JobState

JOB = Job("0" * 12, "night", JobSpec(CommandKind.SCRIPT, "train.py"), JobState.RUNNING, ranks=3)


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (1, "step 4 is past, night is at 5: set at once"),
        (None, "step 4 is past, night is at 4: set at once"),
    ],
)
def test_a_step_that_is_past_is_told_with_where_the_rank_is_that_was_asked_for(rank, line):
    expected = Expected(DebugStart(from_step=4), rank)
    gate = Gate(cast("Connection", None), JOB, expected, lambda _line: None)
    answer = pb.SetStopsResponse(ranks=[0, 1, 2], steps=[9, 5, 4])
    assert gate._is_past(answer)
    assert gate._past(answer) == line
