"""Threads beside the program at the process' end: none runs on, none comes late."""

import os
import sys
import threading
from types import ModuleType

import pytest

from rdev.hook import aside

ROUNDS = 100


@pytest.fixture
def room():
    """The module as in a process that has just begun, and threads that take turns all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield aside
    finally:
        sys.setswitchinterval(interval)
        aside._begin()


class Running(aside.Aside):
    """Tells when it runs."""

    def __init__(self, told: list[str]) -> None:
        super().__init__("aside")
        self._told = told

    def run(self) -> None:
        self._told.append("begins")
        self._told.append("ends")


def start_until_refused(told: list[str], begun: threading.Event) -> None:
    while True:
        begun.set()
        try:
            Running(told).start()
        except RuntimeError:
            return


def test_none_is_in_the_midst_of_its_start_once_the_end_has_come(room: ModuleType):
    for _ in range(ROUNDS):
        room._begin()
        told: list[str] = []
        begun = threading.Event()
        starter = threading.Thread(target=start_until_refused, args=(told, begun))
        starter.start()
        begun.wait()
        assert room.finish(60.0)
        seen = list(told)
        starter.join()
        assert told == seen
        assert told.count("begins") == told.count("ends")


def test_a_forked_child_starts_its_own(room: ModuleType):
    with room._starting:  # as if another thread were starting one
        pid = os.fork()
        if not pid:
            told: list[str] = []
            thread = Running(told)
            thread.start()
            thread.join()
            os._exit(0 if told == ["begins", "ends"] and room.finish(1.0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
