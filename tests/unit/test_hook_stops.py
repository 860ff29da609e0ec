"""Stops that are reported and bounded, and what may come between."""

from __future__ import annotations

import signal

import pytest

from rdev.hook.lease import Lease
from rdev.hook.session import Session
from rdev.hook.stops import Stop, Stops
from rdev.hook.waiting import Waiting
from rdev.wire.gate import close, passing


@pytest.fixture
def told():
    return []


@pytest.fixture
def report(told):
    return lambda kind, fields: told.append((kind, fields.get("reason")))


class Interrupted(Lease):
    """A lease during whose beginning a signal arrives."""

    def begin(self) -> float:
        signal.raise_signal(signal.SIGUSR1)
        return super().begin()


@pytest.mark.timeout(20)
def test_a_signal_handler_that_stops_while_a_stop_begins_does_not_wait_for_it(told, report):
    lease = Interrupted(lambda: None)
    stops = Stops(report, lease)

    def handler(_number, _frame):
        within = Stop("handler.py", 1, "handler", "breakpoint")
        within.unattended = True
        stops.enter(within)
        stops.leave()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        stops.enter(Stop("train.py", 1, "train", "breakpoint"))
        stops.leave()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [kind for kind, _ in told] == ["debug_paused", "debug_resumed"] * 2
    assert not stops.parked


@pytest.fixture
def waiting(report):
    yield Waiting(Stops(report, Lease(lambda: None)), report, Session(report), attendance=0.02)
    close(0, lambda: None)


def test_a_step_that_was_asked_for_and_taken_back_leaves_the_one_of_the_start(waiting, told):
    waiting.arm({"RDEV_JOB_DEBUG": "step=5"})
    waiting.stop_at({"step": 9})
    waiting.stop_at({})
    for step in range(1, 12):
        passing(step)
    assert [reason for kind, reason in told if kind == "debug_paused"] == ["step 5"]


def test_a_step_of_the_start_and_one_that_was_asked_for_are_both_held(waiting, told):
    waiting.arm({"RDEV_JOB_DEBUG": "step=5"})
    waiting.stop_at({"step": 3})
    for step in range(1, 12):
        passing(step)
    assert [reason for kind, reason in told if kind == "debug_paused"] == ["step 3", "step 5"]
