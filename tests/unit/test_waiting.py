"""Stops that nobody attends: they end, say so, and do not come again."""

from __future__ import annotations

import signal
import sys
import threading
import time
import types

import pytest

from rdev.hook.lease import Lease
from rdev.hook.stops import Stops
from rdev.hook.waiting import Waiting
from rdev.wire.clock import active_monotonic


class Debugger:
    """A process without a debugger, or with one that is there at once."""

    def __init__(self, *, ready: bool) -> None:
        self.ready = ready
        self.stopped: list[int] = []

    def is_ready(self) -> bool:
        return self.ready

    def stop_here(self, frame) -> None:
        self.stopped.append(frame.f_lineno)

    def stop_at_exception(self, error) -> None:
        self.stopped.append(error.__traceback__.tb_lineno)


class Process:
    """What a process reports, with the waiting under test."""

    def __init__(self, *, ready: bool = False) -> None:
        self.events: list[tuple[str, dict]] = []
        self.debugger = Debugger(ready=ready)

        def report(kind, fields):
            self.events.append((kind, dict(fields)))

        self.waiting = Waiting(
            Stops(report, Lease(lambda: None)),
            report,
            self.debugger,
            attendance=0.1,
            post_mortem=0.1,
        )

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


@pytest.fixture
def process(monkeypatch):
    return serving(Process(), monkeypatch)


def serving(process, monkeypatch):
    """`breakpoint()` goes to the process's waiting, as the hook has it."""

    def hook():
        process.waiting.breakpoint(sys._getframe(1))

    monkeypatch.setattr(sys, "breakpointhook", hook)
    return process


def test_a_stop_waits_longer_for_somebody_who_is_on_the_way(process):
    assert process.waiting.prolong(60.0) is None
    seen: list[float | None] = []

    def arrive() -> None:
        while not process.events:
            time.sleep(0.005)
        seen.extend([process.waiting.prolong(60.0), process.waiting.prolong(1.0)])
        time.sleep(0.3)  # three times what it waits for nobody
        process.debugger.ready = True

    coming = threading.Thread(target=arrive)
    coming.start()
    breakpoint()  # noqa: T100  # it is what is tested
    coming.join()
    assert [left is not None and 50 < left <= 60 for left in seen] == [True, True], seen
    assert len(process.debugger.stopped) == 1
    assert process.events[-1][1]["cause"] == "client"


def test_a_breakpoint_that_nobody_attends_goes_on_and_is_off_for_good(process):
    began, active = time.monotonic(), active_monotonic()
    for _ in range(3):
        breakpoint()  # noqa: T100  # it is what is tested
    took = time.monotonic() - began
    assert 0.1 <= took < 5
    assert active_monotonic() - active < took - 0.09, "the active clock did not stand still"
    assert process.kinds == ["debug_paused", "debug_resumed"]
    assert process.events[0][1]["unattended"] is True
    assert process.events[1][1]["cause"] == "unattended"
    assert process.debugger.stopped == []


def test_another_breakpoint_of_the_same_job_waits_for_itself(process):
    breakpoint()  # noqa: T100
    breakpoint()  # noqa: T100
    assert process.kinds == ["debug_paused", "debug_resumed"] * 2


def test_a_breakpoint_with_a_debugger_attached_stops_at_once(monkeypatch):
    process = serving(Process(ready=True), monkeypatch)
    breakpoint()  # noqa: T100
    assert len(process.debugger.stopped) == 1
    assert process.events == []


@pytest.mark.parametrize("words", ["", "nonsense", "step=", "step=-3", "step=x"])
def test_what_the_variable_does_not_say_is_not_waited_for(words):
    process = Process()
    process.waiting.arm({"RDEV_JOB_DEBUG": words})
    assert sys.getprofile() is None
    assert process.events == []


def test_children_do_not_wait_at_their_start():
    process, environment = Process(), {"RDEV_JOB_DEBUG": "start,exception"}
    try:
        process.waiting.arm(environment)
    finally:
        sys.setprofile(None)
        process.waiting.stop_at({})
    assert environment == {"RDEV_JOB_DEBUG": "exception"}


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not today")


def test_an_exception_that_cannot_be_told_is_waited_for_all_the_same(process):
    try:
        raise Unspeakable
    except Unspeakable as error:
        process.waiting.stop_at({"exception": True})
        sys.audit("sys.excepthook", sys.excepthook, type(error), error, error.__traceback__)
    finally:
        process.waiting.stop_at({})
    assert process.kinds == ["exception_raised", "debug_paused", "debug_resumed"]
    assert process.events[0][1]["message"] == "<its str raised RuntimeError>"


def test_what_goes_wrong_at_an_exception_does_not_swallow_the_programs_traceback(process):
    class Broken(Debugger):
        def is_ready(self):
            raise RuntimeError("can't start new thread")

    process.waiting._debugger = Broken(ready=False)
    try:
        raise ValueError
    except ValueError as error:
        process.waiting.stop_at({"exception": True})
        sys.audit("sys.excepthook", sys.excepthook, type(error), error, error.__traceback__)
    finally:
        process.waiting.stop_at({})
    assert process.kinds[0] == "exception_raised"


def test_groups_that_cannot_be_asked_do_not_break_the_program_at_its_breakpoint(
    process, monkeypatch
):
    # As while another thread takes the default group down.
    class Gone:
        def rank(self):
            raise RuntimeError("the process group has been destroyed")

    module = types.ModuleType("torch.distributed.distributed_c10d")
    module._world = types.SimpleNamespace(default_pg=Gone(), pg_map={})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    breakpoint()  # noqa: T100
    assert process.kinds == ["debug_paused", "debug_resumed"]


def test_threads_that_wait_at_the_same_time_go_on_each_by_itself(process):
    ends: list[str] = []

    def stop(name: str) -> None:
        process.waiting.breakpoint(sys._getframe())
        ends.append(name)

    def meanwhile(*_: object) -> None:
        # As a signal handler does, on the thread that waits.
        stop("nested")

    threads = [threading.Thread(target=stop, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
        process.waiting._off.clear()
    before = signal.signal(signal.SIGALRM, meanwhile)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        process.waiting.breakpoint(sys._getframe())
    finally:
        signal.signal(signal.SIGALRM, before)
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["nested", "one", "two"]
