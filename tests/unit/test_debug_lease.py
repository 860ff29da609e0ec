"""When a stop's lease is renewed, and when its end is announced."""

from __future__ import annotations

from rdev.agent.debug.lease import Action, LeaseWatch


def held(seconds: float = 900.0) -> LeaseWatch:
    watch = LeaseWatch(seconds)
    watch.stopped(0.0)
    return watch


def test_a_client_that_only_stays_connected_is_warned_once_and_renews_nothing():
    watch = held()
    assert watch.due(839.9) is None
    assert watch.due(840.0) is Action.WARN
    assert watch.due(841.0) is None
    assert watch.left(841.0) == 59.0
    assert watch.wait(841.0) is None


def test_what_the_client_asks_renews_the_stop_at_most_every_ten_seconds():
    watch = held()
    watch.active()
    assert watch.due(9.9) is None
    assert watch.wait(9.0) == 1.0
    assert watch.due(10.0) is Action.RENEW
    watch.renewed(10.0, 900.0)
    assert watch.due(30.0) is None
    assert watch.left(10.0) == 900.0


def test_a_short_lease_is_renewed_every_quarter_and_announced_a_quarter_before_its_end():
    watch = held(8.0)
    watch.active()
    assert (watch.due(1.9), watch.due(2.0)) == (None, Action.RENEW)
    watch.renewed(2.0, 8.0)
    assert (watch.due(7.9), watch.due(8.0)) == (None, Action.WARN)


def test_who_answers_the_warning_is_heard_at_once():
    watch = held(60.0)
    watch.due(45.0)
    watch.active()
    assert watch.due(45.1) is Action.RENEW
    watch.renewed(45.1, 60.0)
    assert watch.due(90.2) is Action.WARN


def test_nothing_is_renewed_or_announced_while_the_process_runs():
    watch = LeaseWatch(8.0)
    watch.active()
    assert (watch.due(100.0), watch.wait(100.0), watch.left(100.0)) == (None, None, 0.0)
    watch.stopped(100.0)
    watch.stopped(107.0)  # another thread, which prolongs nothing
    assert watch.left(107.0) == 1.0
    watch.continued()
    assert watch.due(200.0) is None
