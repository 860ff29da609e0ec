"""Every event is received once or counted as dropped once, whatever breaks."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdev.wire.events import EVENTS_DROPPED
from rdev.wire.outbox import Outbox


def event(number):
    return json.dumps({"number": number}).encode()


def report(count):
    return json.dumps({"count": count}).encode()


class Peer:
    """Records like the supervisor: by sequence number, each once; knows the highest."""

    def __init__(self, highest=0):
        self.lines = {highest: {}} if highest else {}
        self.order = []

    def receive(self, data):
        for line in data.splitlines():
            message = json.loads(line)
            if message["seq"] not in self.lines:
                self.order.append(message["seq"])
            self.lines[message["seq"]] = message

    @property
    def highest(self):
        return max(self.lines, default=0)

    @property
    def numbers(self):
        return [line["number"] for line in self.lines.values() if "number" in line]

    @property
    def missing(self):
        return sum(line.get("count", 0) for line in self.lines.values())


def drain(box, peer):
    while data := box.take():
        peer.receive(data)
        box.acknowledge(peer.highest)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["take", "deliver", "ack", "break", "break early"]), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(capacity=st.integers(1, 8), before=st.integers(0, 50), actions=ACTIONS)
def test_received_and_dropped_events_add_up_to_those_emitted(capacity, before, actions):
    box, peer, added, wire = Outbox(report, capacity=capacity), Peer(before), 0, b""
    for _ in range(3):
        added += 1
        box.add(event(added))
    box.reconnected(peer.highest)
    for action, count in actions:
        if action == "add":
            for _ in range(count):
                added += 1
                box.add(event(added))
        elif action == "take":
            wire += box.take()
        elif action == "deliver":
            peer.receive(wire)
            wire = b""
        elif action == "ack":
            box.acknowledge(peer.highest)
        else:
            if action == "break":
                peer.receive(wire)
            wire = b""
            box.reconnected(peer.highest)
    peer.receive(wire)
    drain(box, peer)
    box.reconnected(peer.highest)
    drain(box, peer)
    assert len(peer.numbers) + peer.missing == added
    assert len(set(peer.numbers)) == len(peer.numbers)
    assert peer.order == sorted(peer.order)
    assert peer.numbers == sorted(peer.numbers)
    assert box.unacknowledged == 0


def test_a_new_connection_gets_again_what_was_not_acknowledged_and_nothing_else():
    box = Outbox(report)
    box.reconnected(0)
    for number in range(5):
        box.add(event(number))
    assert box.take()
    assert box.take() == b""
    box.reconnected(3)
    assert [json.loads(line)["seq"] for line in box.take().splitlines()] == [4, 5]


def test_the_newest_stay_and_the_report_says_how_many_went():
    box, peer = Outbox(report, capacity=10), Peer()
    for number in range(100):
        box.add(event(number))
    drain(box, peer)
    assert peer.numbers == list(range(91, 100))
    assert peer.missing == 91


def test_a_dropped_report_is_counted_with_what_it_reported():
    box, peer = Outbox(report, capacity=2), Peer()
    box.reconnected(0)
    for number in range(10):
        box.add(event(number))
    box.take()
    box.reconnected(0)
    for number in range(10, 20):
        box.add(event(number))
    drain(box, peer)
    assert len(peer.numbers) + peer.missing == 20


def test_a_process_of_a_known_number_goes_on_counting_where_its_predecessor_ended():
    box, peer = Outbox(report), Peer(highest=7)
    for number in range(3):
        box.add(event(number))
    box.reconnected(peer.highest)
    drain(box, peer)
    assert peer.order == [8, 9, 10]
    assert peer.numbers == [0, 1, 2]
    assert box.unacknowledged == 0


def test_a_batch_is_bounded():
    box = Outbox(report)
    for _ in range(100):
        box.add(event("x" * 10_000))
    assert len(box.take()) <= 80_000


@pytest.mark.parametrize("capacity", [1, 2, 65_536])
def test_the_numbers_have_no_gap_while_nothing_is_dropped(capacity):
    box, peer = Outbox(report, capacity=capacity), Peer()
    for number in range(200):
        box.add(event(number))
        drain(box, peer)
    assert peer.order == list(range(1, 201))
    assert peer.missing == 0


def test_the_kind_of_a_drop_report_is_that_of_the_events_table():
    from rdev.wire import dial

    assert dial.EVENTS_DROPPED == EVENTS_DROPPED
