"""Several people wait for one process, each for what they asked for."""

from __future__ import annotations

import threading

from rdev.hook.asks import JOB, Ask, Asks, asked_at_start
from rdev.hook.lease import Lease
from rdev.hook.stops import Stops
from rdev.hook.waiting import Waiting
from rdev.loop.state import State
from rdev.wire import gate


def test_whatever_comes_first_is_stopped_at_and_the_rest_is_still_waited_for():
    asks = Asks()
    asks.put(JOB, asked_at_start(["start", "exception", "step=90"]))
    asks.put("ada", Ask({"step": 20}))
    asks.put("bob", Ask({"from_step": 20, "nan": True}))
    asks.put("eve", Ask({"from_step": 50}))
    assert asks.step == 20
    assert asks.reach(20) == (True, {"ada", "bob"})
    assert asks.step == 50
    assert asks.reach(50) == (False, {"eve"})
    assert (asks.step, asks.exception, asks.nan) == (90, True, True)
    assert asks.found() == {"bob"}
    assert (asks.step, asks.exception, asks.nan) == (90, True, False)


def test_what_one_takes_back_is_still_waited_for_by_another():
    asks = Asks()
    asks.put("ada", Ask({"exception": True, "step": 20}))
    asks.put("bob", Ask({"exception": True}))
    asks.put("ada", Ask({}))
    assert (asks.exception, asks.step) == (True, 0)
    asks.put("bob", Ask({}))
    assert not asks.exception


def test_what_nobody_asks_for_again_is_forgotten_and_what_has_come_is_not_waited_for_anew():
    asks = Asks()
    asks.put(JOB, asked_at_start(["step=90"]))
    asks.put("ada", Ask({"nan": True, "step": 20}), 600.0)
    asks.put("bob", Ask({"exception": True}), 1e-9)
    assert asks.found() == {"ada"}
    assert asks.reach(20) == (True, {"ada"})
    asks.put("ada", Ask({"nan": True, "step": 20}), 600.0)
    assert (asks.nan, asks.step) == (False, 90)
    while not asks.drop_overdue():  # until the clock has gone on
        pass
    assert (asks.exception, asks.step) == (False, 90)
    asks.put("bob", Ask({"exception": True}), 600.0)  # back after a night's sleep
    assert asks.exception
    assert not asks.drop_overdue()


class NoDebugger:
    def is_ready(self) -> bool:
        return False


def test_a_step_that_is_held_for_breakpoints_begins_when_they_are_taken_back():
    is_held = threading.Event()

    def report(kind, _fields):
        if kind == "debug_paused":
            is_held.set()

    waiting = Waiting(Stops(report, Lease(lambda: None)), report, NoDebugger(), gate=60.0)
    waiting.stop_at({"from_step": 3, "token": "ada"})
    training = threading.Thread(target=lambda: gate.passing(3))
    training.start()
    assert is_held.wait(10)
    waiting.stop_at({"token": "bob"})
    assert training.is_alive()
    waiting.stop_at({"token": "ada"})
    training.join(10)
    assert not training.is_alive()
    assert not gate.is_closed()


def test_a_step_and_a_nan_that_somebody_waited_for_who_is_gone_hold_nothing():
    told: list[str] = []

    def report(kind, _fields):
        told.append(kind)

    waiting = Waiting(Stops(report, Lease(lambda: None)), report, NoDebugger(), attendance=600.0)
    waiting.stop_at({"step": 3, "nan": True, "token": "ada", "kept": 1e-9})
    state = State()
    state.step, state.loss = 2, float("nan")
    gate.passing(2, state)
    gate.passing(3, state)
    assert told == []
    assert not gate.is_closed()
