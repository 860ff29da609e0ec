"""A fork waits for an attach or a detach that is under way, and both sides go on."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from rdev.hook.session import Session


def test_a_fork_waits_for_what_is_under_way_and_lets_the_next_one_in():
    session = Session(lambda *_: None)
    order = []
    with session._lock:  # as an attach does, for the half second of its imports
        fork = threading.Thread(target=lambda: (session.before_fork(), order.append("forked")))
        fork.start()
        fork.join(0.2)
        assert fork.is_alive()
        order.append("attached")
    fork.join(5)
    assert order == ["attached", "forked"]
    # Until the fork is over nothing else begins, in the parent and, anew, in the child.
    assert not session._lock.acquire(blocking=False)
    session.after_fork()
    with session._lock:
        pass
    session.before_fork()
    session.after_fork_in_child()
    with session._lock:
        pass
    session.after_fork()  # nothing is held, and nothing is let go twice


def test_what_a_command_failed_with_is_not_kept():
    session = Session(lambda *_: None)
    gc.disable()  # as trainings do
    try:
        seen = evaluated(session)
        assert seen() is None, "the frames of the failure keep it"
    finally:
        gc.enable()


def evaluated(session):
    class Tensor:
        pass

    def fail(args):
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        raise ValueError(args)

    seen = []
    session._groups.disarm = fail
    with pytest.raises(RuntimeError, match="ValueError"):
        session.command("disarm", {})
    return seen[0]
