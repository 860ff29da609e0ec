"""One value for all ranks: of which steps it is given, and of whom."""

import json
import math

import pytest

from rdev.client.ui.metrics import Board, reduced_line, reduced_rows
from rdev.client.ui.reducing import Reducer, Reduction
from rdev.wire.events import Event


def begun(rank, *, pid=None):
    return Event("run_started", 0.0, rank=rank, pid=pid or rank + 100)


def metric(rank, step, value=1.0, *, time=1.0, phase="", pid=None, **values):
    fields = {"step": step, "epoch": 1, "phase": phase, "values": {"loss": value, **values}}
    return Event("metric", time, rank=rank, pid=pid or rank + 100, fields=fields)


def reduced(events, *, ranks=2, reduction=Reduction.MEAN):
    """(step, values, ranks) in the order in which they are given, and how many before the end."""
    reducer = Reducer(reduction, ranks=ranks)
    live = [found for event in events for found in reducer.add(event)]
    return [
        (found.step, dict(found.values), found.ranks) for found in [*live, *reducer.finish()]
    ], len(live)


@pytest.mark.parametrize(("reduction", "value"), [("mean", 2.0), ("min", 1.0), ("max", 3.0)])
def test_values_of_one_step_become_one(reduction, value):
    events = [begun(0), metric(0, 1, 1.0), begun(1), metric(1, 1, 3.0)]
    assert reduced(events, reduction=Reduction(reduction)) == ([(1, {"loss": value}, (0, 1))], 1)


def test_values_of_different_steps_never_do():
    events = [metric(0, 1), metric(1, 1), metric(0, 5), metric(1, 6), metric(0, 8), metric(1, 8)]
    assert [step for step, *_ in reduced(events)[0]] == [1, 8]


def test_a_rank_that_lags_is_waited_for():
    ahead = [metric(0, step, 0.0) for step in (1, 64, 128)]
    behind = [metric(1, step, 1.0) for step in (1, 32, 64, 128)]
    found, live = reduced(ahead + behind)
    assert found == [(step, {"loss": 0.5}, (0, 1)) for step in (1, 64, 128)]
    assert live == 3


def test_what_only_rank_0_logs_is_of_rank_0():
    events = [e for s in (1, 2) for e in (metric(0, s, accuracy=0.5), metric(1, s, 3.0))]
    events.append(metric(0, 2, phase="test"))
    found, live = reduced([*events, metric(0, 3), metric(1, 3)])
    assert found[0] == (1, {"loss": 2.0}, (0, 1))
    assert found[1] == (1, {"accuracy": 0.5}, (0,))
    assert (2, {"loss": 1.0}, (0,)) in found
    assert live == 6


def test_a_rank_that_reports_nothing_is_waited_for_some_seconds_only():
    soon = [metric(0, step, time=1.0 + step / 10) for step in range(1, 10)]
    assert reduced(soon)[1] == 0
    late = [metric(0, step, time=1.0 + step) for step in range(1, 20)]
    found, live = reduced(late)
    assert live > 5
    assert found == [(step, {"loss": 1.0}, (0,)) for step in range(1, 20)]


def test_a_restarted_job_is_not_mixed_with_its_earlier_attempt():
    first = [begun(0), begun(1), metric(0, 1, 0.0), metric(1, 1, 0.0), metric(0, 2, 0.0)]
    again = [begun(0, pid=7), begun(1, pid=8), metric(0, 1, 4.0, pid=7), metric(1, 1, 6.0, pid=8)]
    found, _ = reduced([*first, *again, metric(0, 2, 1.0, pid=7), metric(1, 2, 1.0, pid=8)])
    assert found == [
        (1, {"loss": 0.0}, (0, 1)),
        (1, {"loss": 5.0}, (0, 1)),
        (2, {"loss": 1.0}, (0, 1)),
    ]


def test_two_loops_in_one_process_are_two_runs():
    events = [begun(0), begun(1), metric(0, 1, 0.0), begun(0), metric(0, 1, 1.0)]
    events += [metric(1, 1, 0.0), begun(1), metric(1, 1, 1.0)]
    assert [values["loss"] for _, values, _ in reduced(events)[0]] == [0.0, 1.0]


def test_one_rank_without_a_number_is_not_averaged_away():
    events = [metric(0, 1, 1.0), metric(1, 1, math.nan)]
    for reduction in Reduction:
        ((_, values, _),) = reduced(events, reduction=reduction)[0]
        assert math.isnan(values["loss"])
    huge = [metric(0, 1, 1.7e308), metric(1, 1, 1.7e308)]
    assert reduced(huge)[0][0][1] == {"loss": 1.7e308}


def test_a_record_in_which_no_step_is_common_stays_bounded():
    events = (metric(rank, 2 * n + rank) for n in range(30_000) for rank in (0, 1))
    reducer = Reducer(Reduction.MEAN, ranks=2)
    for event in events:
        list(reducer.add(event))
    assert len(reducer._steps) < 10


def test_reduced_values_look_like_others_and_say_what_they_are():
    reducer = Reducer(Reduction.MEAN, ranks=2)
    list(reducer.add(metric(0, 4, 1.0, phase="critic")))
    (found,) = reducer.add(metric(1, 4, 3.0, phase="critic"))
    assert reduced_line(found) == "[mean of 2]  step 4  epoch 1  critic.loss 2"
    assert list(reduced_rows(found)) == [(1.0, "mean", 4, 1, "critic", "loss", 2.0)]
    line = json.loads(found.to_json())
    assert (line["reduce"], line["ranks"], line["values"]) == ("mean", [0, 1], {"loss": 2.0})
    board = Board()
    board.add(metric(0, 4, 1.0))
    board.add_reduced(found)
    assert [row.split("  ")[0] for row in board.table().splitlines()] == [
        "METRIC",
        "[mean] critic.loss",
        "[rank 0] loss",
    ]
