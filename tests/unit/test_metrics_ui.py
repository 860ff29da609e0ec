"""How metric events look: tables, lines, sparklines, plots."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.ui.metrics import Board, Series, csv_rows, metric_line, plot, sparkline
from rdev.wire.events import Event


def metric(step, values, *, phase="", rank=0):
    fields = {"step": step, "epoch": 1, "phase": phase, "values": values}
    return Event("metric", 1.5, rank=rank, fields=fields)


def test_the_table_shows_latest_value_and_extremes_of_each_series():
    board = Board()
    for step, loss in enumerate([3.0, 1.0, 2.0], start=1):
        board.add(metric(step, {"loss": loss}))
    board.add(metric(3, {"loss": 9.0}, phase="critic"))
    heading, plain, critic = board.table().splitlines()
    assert heading.split() == ["METRIC", "VALUE", "MIN", "MAX", "STEP", "TREND"]
    assert plain.split() == ["loss", "2", "1", "3", "3", "█▁▅"]
    assert critic.split()[:2] == ["critic.loss", "9"]


def test_ranks_are_told_apart_once_there_are_several():
    board = Board()
    board.add(metric(1, {"loss": 1.0}))
    assert "rank" not in board.table()
    board.add(metric(1, {"loss": 2.0}, rank=1))
    assert "[rank 0] loss" in board.table()
    assert "[rank 1] loss" in board.table()


def test_a_line_says_step_epoch_and_values():
    assert metric_line(metric(7, {"loss": 0.123456, "lr": 1e-5})) == (
        "step 7  epoch 1  loss 0.12346  lr 1e-05"
    )
    assert metric_line(metric(7, {"loss": 1}, phase="critic", rank=2)).startswith("[rank 2]")


def test_values_that_are_not_finite_are_shown_and_do_not_spoil_the_scale():
    board = Board()
    for step, loss in enumerate([1.0, math.nan, 2.0, math.inf], start=1):
        board.add(metric(step, {"loss": loss}))
    row = board.table().splitlines()[1].split()
    assert row == ["loss", "inf", "1", "2", "4", "▁!█!"]


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal():
    event = metric(1, {"\x1b]0;owned\x07loss": 1.0}, phase="\x1b[2J")
    board = Board()
    board.add(event)
    assert "\x1b" not in board.table() + metric_line(event) + board.plots(width=60)


@pytest.mark.parametrize("fields", [{}, {"values": None}, {"values": {"a": "x"}, "step": None}])
def test_an_event_of_another_shape_is_no_error(fields):
    board = Board()
    board.add(Event("metric", 0.0, fields=fields))
    assert not board.series
    assert list(csv_rows(Event("metric", 0.0, fields=fields))) == []


def test_a_row_of_csv_has_every_column():
    assert list(csv_rows(metric(3, {"loss": 0.5}, phase="p", rank=1))) == [
        (1.5, 1, 3, 1, "p", "loss", 0.5)
    ]


def test_a_long_series_stays_bounded_and_keeps_its_latest_value():
    series = Series()
    for step in range(100_000):
        series.add(step, float(step))
    assert len(series.points) <= 1024
    assert series.latest == (99_999, 99_999.0)
    assert (series.least, series.greatest) == (0.0, 99_999.0)
    assert series.points == sorted(series.points)


NUMBERS = st.lists(st.floats(), min_size=1, max_size=200)


@given(values=NUMBERS, width=st.integers(1, 80))
def test_a_sparkline_is_never_wider_than_asked(values, width):
    assert len(sparkline(values, width=width)) == min(width, len(values))


@given(values=NUMBERS, width=st.integers(24, 120), height=st.integers(1, 12))
def test_a_plot_of_any_values_keeps_to_its_frame(values, width, height):
    lines = plot(list(enumerate(values)), width=width, height=height).splitlines()
    finite = set(filter(math.isfinite, values))
    if finite:
        assert len(lines) == (height if len(finite) > 1 else 1) + 1
        assert max(map(len, lines)) <= width


def test_a_single_value_takes_one_row():
    assert plot([(7, 0.5)], width=40, height=8).splitlines()[1].split() == ["7"]
    assert len(plot([(1, 0.1), (9, 0.1)], width=40, height=8).splitlines()) == 2


def test_a_hole_in_a_plot_is_explained_and_extremes_of_nothing_are_not_infinite():
    board = Board()
    for step, value in enumerate([1.0, math.nan, math.inf, 2.0]):
        board.add(metric(step, {"loss": value, "bad": math.nan}))
    assert "\nloss  2 of 4 values not finite\n" in board.plots(width=60)
    assert board.table().splitlines()[1].split() == ["bad", "nan", "-", "-", "3", "!!!!"]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    lines = plot([(step, float(step)) for step in range(100)], width=40, height=4).splitlines()
    assert lines[0].startswith("99 ┤⠀")
    assert not lines[0].endswith("⠀")
    assert lines[3].startswith(" 0 ┤")
    assert lines[3][4] != "⠀"
    assert lines[4].split() == ["0", "99"]
