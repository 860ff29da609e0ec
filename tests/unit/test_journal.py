"""The record of events: each once, whole lines, whoever was killed meanwhile."""

import os

import pytest

from rdev.agent.logs.events import EventReader, end_of
from rdev.protocol.errors import InvalidRequest
from rdev.supervisor.journal import Journal
from rdev.wire.events import Event
from rdev.wire.files import JobFiles


@pytest.fixture
def files(tmp_path):
    return JobFiles(str(tmp_path))


def event(seq, *, pid=1, rank=0, kind="metric"):
    return Event(kind, 1.0, rank=rank, pid=pid, seq=seq, fields={"step": seq})


def lines(files):
    with open(files.events, "rb") as file:
        return [Event.from_json(line) for line in file]


def test_an_event_that_comes_again_is_left_out(files):
    journal = Journal(files)
    assert [journal.add(event(seq)) for seq in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert journal.add(event(1, pid=2))
    assert journal.add(event(1, rank=1))
    journal.close()
    assert [(e.rank, e.pid, e.seq) for e in lines(files)] == [
        (0, 1, 1),
        (0, 1, 2),
        (0, 1, 3),
        (0, 2, 1),
        (1, 1, 1),
    ]


def test_a_successor_knows_what_is_recorded(files):
    journal = Journal(files)
    for seq in range(1, 1000):
        journal.add(event(seq, pid=1 + seq % 3))
    journal.close()
    again = Journal(files)
    assert [again.acknowledged(0, pid) for pid in (1, 2, 3, 4)] == [999, 997, 998, 0]
    assert not again.add(event(998, pid=3))
    again.close()
    assert len(lines(files)) == 999


def test_a_torn_line_is_cut_off_and_its_event_recorded_when_it_comes_again(files):
    journal = Journal(files)
    journal.add(event(1))
    journal.close()
    with open(files.events, "ab") as file:
        file.write(event(2).to_json().encode()[:-3])
    again = Journal(files)
    assert again.acknowledged(0, 1) == 1
    assert again.add(event(2))
    again.close()
    assert [e.seq for e in lines(files)] == [1, 2]


def test_a_torn_line_longer_than_a_block_is_cut_off(files):
    journal = Journal(files)
    journal.add(event(1))
    journal.close()
    whole = os.stat(files.events).st_size
    for torn in (b"x" * 3_000_000, b"", b"y"):
        with open(files.events, "ab") as file:
            file.write(torn)
        Journal(files).close()
        assert os.stat(files.events).st_size == whole
    with open(files.events, "wb") as file:
        file.write(b"x" * 3_000_000)
    Journal(files).close()
    assert os.stat(files.events).st_size == 0


def test_a_long_record_is_read_when_it_is_asked_for_and_not_at_once(files):
    count, breaths = 40_000, []
    with open(files.events, "w") as file:
        file.writelines(event(seq, pid=1 + seq % 2).to_json() + "\n" for seq in range(count))
    journal = Journal(files, breathe=lambda: breaths.append(1))
    assert not breaths
    assert (journal.acknowledged(0, 1), journal.acknowledged(0, 2)) == (count - 2, count - 1)
    # Others have their turn after every MiB.
    assert len(breaths) > os.stat(files.events).st_size >> 20 > 1
    before = len(breaths)
    assert journal.add(event(count, pid=1))
    journal.close()
    assert len(breaths) == before


def test_who_an_event_is_from_is_not_what_it_tells_of_another(files):
    journal = Journal(files)
    told = {"other": {"rank": 0, "pid": 9, "seq": 50}}
    journal.add(Event("metric", 1.0, rank=0, pid=1, seq=3, fields=told))
    journal.close()
    again = Journal(files)
    assert (again.acknowledged(0, 9), again.acknowledged(0, 1)) == (0, 3)
    again.close()


def test_a_reader_takes_whole_lines_and_goes_on_from_any_of_them(files):
    journal = Journal(files)
    for seq in (1, 2, 3):
        journal.add(event(seq, kind="metric" if seq != 2 else "debug_paused"))
    journal.close()
    with open(files.events, "ab") as file:
        file.write(b'{"kind": "torn')
    with EventReader(files, 0) as reader:
        read = reader.read()
        assert [Event.from_json(recorded.line).seq for recorded in read] == [1, 2, 3]
        assert reader.read() == reader.rest() == []
    with EventReader(files, read[0].next_offset, kinds=["metric"]) as reader:
        assert [Event.from_json(recorded.line).seq for recorded in reader.read()] == [3]


def test_who_begins_at_the_end_gets_what_comes_later_and_a_torn_line_once_it_is_whole(files):
    assert end_of(files) == 0
    journal = Journal(files)
    journal.add(Event("metric", 1.0, seq=1, fields={"text": "x" * 900_000}))
    journal.close()
    whole = os.stat(files.events).st_size
    later = event(2).to_json().encode()
    with open(files.events, "ab") as file:
        file.write(later[:9])
    assert end_of(files) == whole
    with open(files.events, "ab") as file:
        file.write(later[9:] + b"\n")
    with EventReader(files, whole) as reader:
        assert [Event.from_json(recorded.line).seq for recorded in reader.read()] == [2]


@pytest.mark.parametrize("offset", [5, 10_000])
def test_an_offset_inside_an_event_is_refused(files, offset):
    journal = Journal(files)
    journal.add(event(1))
    journal.close()
    with pytest.raises(InvalidRequest):
        EventReader(files, offset)


def test_a_long_event_is_read_whole(files):
    journal = Journal(files)
    journal.add(Event("metric", 1.0, seq=1, fields={"text": "x" * 900_000}))
    journal.add(event(2))
    journal.close()
    with EventReader(files, 0) as reader:
        read = reader.read() + reader.read()
    assert [Event.from_json(recorded.line).seq for recorded in read] == [1, 2]
    assert read[-1].next_offset == os.stat(files.events).st_size
