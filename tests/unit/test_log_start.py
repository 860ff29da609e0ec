"""Reading a part of a job's output: since a time, the last lines, some ranks, one attempt."""

import os
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.record import Record, everything

from rdev.agent.logs.index import Index
from rdev.agent.logs.log import CHUNK, Chunk, Lost
from rdev.agent.logs.start import Query, Reading
from rdev.protocol.errors import NotFound
from rdev.wire.job import JobState
from rdev.wire.output import ARRIVAL_SIZE, Arrival


def read(record, **query):
    with Reading(record.files, Query(**query)) as reading:
        return everything(reading)


def text(pieces, rank=0, stream="stdout"):
    mine = [piece for piece in pieces if (piece.rank, piece.stream) == (rank, stream)]
    return b"".join(piece.data if isinstance(piece, Chunk) else b"?" for piece in mine)


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path, ranks=3)


def test_since_leaves_out_what_was_recorded_before(record):
    for second in range(1, 9):
        record.write("stdout" if second % 2 else "stderr", b"%d" % second, at=second)
    pieces = read(record, since=4.5)
    assert (text(pieces), text(pieces, stream="stderr")) == (b"57", b"68")
    assert [piece.data for piece in pieces] == [b"5", b"6", b"7", b"8"], "in order of arrival"
    assert text(read(record, since=0.0)) == b"1357"
    assert read(record, since=9.0) == []


def test_since_with_what_the_index_lacks_shows_rather_than_hides(record):
    record.write("stdout", b"old", at=1)
    record.write("stdout", b"unknown", is_indexed=False)
    record.write("stdout", b"new", at=3)
    assert text(read(record, since=2)) == b"unknownnew"


def test_last_lines_of_what_was_recorded_since(record):
    record.write("stdout", b"a\n", at=1)
    record.write("stdout", b"b\nc\n", at=2)
    assert text(read(record, since=2, lines=1)) == b"c\n"
    assert text(read(record, since=2, lines=9)) == b"b\nc\n"


def test_only_some_ranks_and_streams(record):
    for rank in range(3):
        for stream in ("stdout", "stderr"):
            record.write(stream, b"%d%s\n" % (rank, stream[3:].encode()), rank=rank)
    assert [p.data for p in read(record, ranks={1, 2}, streams={"stderr"})] == [
        b"1err\n",
        b"2err\n",
    ]
    assert [p.data for p in read(record, ranks={0})] == [b"0out\n", b"0err\n"]
    assert {p.rank for p in read(record, streams={"stdout"})} == {0, 1, 2}


def test_only_a_stream_that_is_not_in_the_index(record):
    record.write("stdout", b"out")
    record.write("stderr", b"err", is_indexed=False)
    assert [p.data for p in read(record, streams={"stderr"})] == [b"err"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"ranks": {7}}, "read rank 7 of the job: it has ranks 0 to 2"),
        ({"streams": {"launcher"}}, "read launcher of the job"),
        ({"attempt": 2}, "read attempt 2 of the job: the latest one is attempt 1"),
    ],
)
def test_what_is_not_there_is_said(record, query, words):
    with pytest.raises(NotFound, match=words):
        Reading(record.files, Query(**query))


def test_one_attempt_of_three(record):
    record.write("stdout", b"one\n")
    record.retry()
    record.write("stdout", b"two\n")
    record.write("stderr", b"err\n")
    record.retry()
    record.write("stdout", b"three\n")
    assert text(read(record)) == b"one\ntwo\nthree\n"
    assert [text(read(record, attempt=n)) for n in (1, 2, 3)] == [b"one\n", b"two\n", b"three\n"]
    assert [text(read(record, attempt=n), stream="stderr") for n in (1, 2, 3)] == [
        b"",
        b"err\n",
        b"",
    ]
    assert text(read(record, attempt=2, lines=5)) == b"two\n"
    assert text(read(record, attempt=1, lines=0)) == b""
    again = read(record, attempt=2, cursors={(0, "stdout"): 6, (0, "stderr"): 4})
    assert (text(again), text(again, stream="stderr")) == (b"o\n", b"")


def test_an_attempt_that_ends_while_it_is_read_takes_nothing_of_the_next(record):
    with Reading(record.files, Query(attempt=1)) as reading:
        record.write("stdout", b"one")
        assert text(reading.read()) == b"one"
        assert not reading.is_over()
        record.write("stdout", b" end")
        record.retry()
        record.write("stdout", b"two")  # one run with the end of the first
        record.write("stdout", b"more", is_indexed=False)
        assert text(everything(reading)) == b" end"
        assert reading.is_over()


def test_an_end_that_is_not_in_the_index_belongs_to_its_attempt(record):
    with Reading(record.files, Query(attempt=1)) as reading:
        record.write("stdout", b"one", is_indexed=False)
        record.retry()
        record.write("stdout", b"two")
        assert text(everything(reading)) == b"one"


def test_a_gap_over_the_end_of_an_attempt_is_counted_in_both(record):
    record.write("stdout", b"a")
    record.lose("stdout", 10)
    record.retry()
    record.lose("stdout", 5)
    record.write("stdout", b"b")
    lost = [[p.length for p in read(record, attempt=n) if isinstance(p, Lost)] for n in (1, 2)]
    assert lost == [[10], [5]]


def test_the_running_attempt_is_over_with_the_job(record):
    record.retry()
    with Reading(record.files, Query(attempt=2)) as reading:
        assert not reading.is_over()
        record.tell(state=JobState.FAILED)
        assert reading.is_over()


def test_timed_pieces_join_only_what_came_at_once(record):
    for milliseconds in (0, 4, 9, 11, 500, 505):
        record.write("stdout", b"%d " % milliseconds, at=1 + milliseconds / 1e3)
    assert [piece.data for piece in read(record)] == [b"0 4 9 11 500 505 "]
    timed = read(record, timed=True)
    assert [piece.data for piece in timed] == [b"0 4 9 ", b"11 ", b"500 505 "]
    assert [round(piece.time, 3) for piece in timed] == [1.009, 1.011, 1.505]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "unindexed", "lose", "retry"]),
        st.integers(0, 1),
        st.sampled_from(["stdout", "stderr"]),
        st.integers(1, 20),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=80)
@given(STEPS)
def test_attempts_are_whole_and_apart_whatever_happens(steps):
    with tempfile.TemporaryDirectory() as folder:
        record = Record(folder, ranks=2)
        wanted = [dict.fromkeys(record.sizes, 0)]
        for step, rank, stream, length in steps:
            if step == "retry":
                record.retry()
                wanted.append(dict.fromkeys(record.sizes, 0))
                continue
            if step == "lose":
                record.lose(stream, length, rank=rank)
            else:
                record.write(stream, b"x" * length, rank=rank, is_indexed=step == "write")
            wanted[-1][rank, stream] += length
        for number, sizes in enumerate(wanted, 1):
            found = dict.fromkeys(sizes, 0)
            for piece in read(record, attempt=number):
                size = len(piece.data) if isinstance(piece, Chunk) else piece.length
                found[piece.rank, piece.stream] += size
            assert found == sizes


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["stdout", "stderr"])), max_size=60),
    st.data(),
)
def test_a_place_leaves_out_nothing_and_as_much_as_it_can(arrivals, data):
    with tempfile.TemporaryDirectory() as folder:
        record = Record(folder, ranks=2)
        for second, (rank, stream) in enumerate(arrivals):
            record.write(stream, b"ab", rank=rank, at=second)
        offsets = {o: data.draw(st.integers(0, size)) for o, size in record.sizes.items()}
        reached, first = dict.fromkeys(record.sizes, 0), len(arrivals)
        for number, output in enumerate(arrivals):
            reached[output] += 2
            if reached[output] > offsets[output]:
                first = min(first, number)
        with Index(record.files) as index:
            begun = {output: offset for output, offset in offsets.items() if record.sizes[output]}
            place = index.place_of(begun) // ARRIVAL_SIZE
        assert place <= first
        if 0 not in begun.values():
            assert place == first


def test_a_long_silent_output_costs_a_late_reader_little(tmp_path):
    record = Record(tmp_path)
    record.write("stderr", b"begun\n")
    size = 64
    with open(record.files.log(0, "stdout"), "wb") as log:
        log.truncate(500_000 * size)
    flood = (
        Arrival(2 * 10**9 + n * 1000, n * size, size, 0, "stdout").pack() for n in range(500_000)
    )
    record.append(record.files.index, b"".join(flood))
    costs = []
    for _ in range(3):  # the garbage of a whole test run may be collected in one of them
        begun = time.thread_time()
        with Reading(record.files, Query(since=2.499_991)) as reading:
            pieces = reading.read()
        costs.append(time.thread_time() - begun)
        assert sum(len(piece.data) for piece in pieces) == 10 * size
    assert min(costs) < 0.2, "half a million records are not unpacked one by one"
    assert os.path.getsize(record.files.log(0, "stdout")) > 100 * CHUNK
