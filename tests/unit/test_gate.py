"""The gate before a step: held exactly once, on the training's thread, and free while open."""

from __future__ import annotations

import threading

import pytest

from rdev.loop import Callback, Loop
from rdev.wire import gate


@pytest.fixture(autouse=True)
def open_gate():
    yield
    gate.close(0, lambda: None)


def steps_before(hold_at: int, *, steps: int = 10, closed_in: int = 0) -> list[int]:
    """The steps that had begun when the gate held; it is closed in a step, or before the run."""
    held: list[int] = []
    begun: list[int] = []

    def hold() -> None:
        held.append(len(begun))
        assert threading.current_thread() is threading.main_thread()

    def step(state):
        begun.append(state.step)
        if state.step == closed_in:
            gate.close(hold_at, hold)

    if not closed_in:
        gate.close(hold_at, hold)
    Loop(step, range(steps)).run()
    assert len(begun) == steps
    return held


@pytest.mark.parametrize("hold_at", [1, 2, 7, 10])
def test_the_training_is_held_before_the_step_and_only_then(hold_at):
    assert steps_before(hold_at) == [hold_at - 1]


def test_a_gate_that_is_closed_in_a_running_training_holds_exactly_there():
    assert steps_before(6, closed_in=3) == [5]


def test_a_step_that_has_begun_already_is_held_at_the_next_one():
    assert steps_before(2, closed_in=5) == [5]


def test_a_step_that_is_never_reached_holds_nobody():
    # After the last step nobody knows that there is none, so 11 would be held at the end of 10.
    assert steps_before(12) == []


def test_reports_do_not_come_faster_because_a_gate_is_closed():
    told = []

    class Told(Callback):
        def pause(self, state):
            told.append(state.step)

    gate.close(10_000, lambda: None)
    Loop(lambda _: None, range(1000), callbacks=[Told()]).run()
    assert told == []


def test_who_counts_steps_is_known_for_as_long_as_it_lives():
    Loop(lambda _: gate.counted() or pytest.fail("nobody counts"), range(1)).run()
