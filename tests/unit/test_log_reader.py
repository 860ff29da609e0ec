"""Reading a job's output: nothing twice, nothing left out, gaps said."""

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.record import Record, everything

from rdev.agent.logs.log import CHUNK, Chunk, LogReader, Lost
from rdev.agent.logs.start import tail_offset
from rdev.wire.files import output_size

STDOUT = (0, "stdout")


def read(record, offsets=None):
    with LogReader(record.files, offsets or {}) as reader:
        return everything(reader)


def tells_what_is_in_memory(path):
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


def said(pieces):
    return [(p.stream, p.data if isinstance(p, Chunk) else p.length) for p in pieces]


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path)


def test_outputs_come_in_the_order_in_which_they_were_written(record):
    for stream, data in (("stdout", b"a"), ("stdout", b"b"), ("stderr", b"c"), ("stdout", b"d")):
        record.write(stream, data)
    pieces = read(record)
    assert said(pieces) == [("stdout", b"ab"), ("stderr", b"c"), ("stdout", b"d")]
    assert [piece.offset for piece in pieces] == [0, 0, 2]
    assert {piece.time for piece in pieces} == {1.0}


def test_a_cursor_inside_an_arrival(record):
    record.write("stdout", b"0123456789")
    record.write("stderr", b"e")
    assert said(read(record, {STDOUT: 4})) == [("stdout", b"456789"), ("stderr", b"e")]
    assert said(read(record, {STDOUT: 10})) == [("stderr", b"e")]
    assert said(read(record, {STDOUT: 99})) == [("stderr", b"e")]


def test_no_chunk_is_larger_than_the_protocol_allows(record):
    data = os.urandom(3 * CHUNK + 17)
    record.write("stdout", data)
    pieces = read(record)
    assert max(len(piece.data) for piece in pieces) == CHUNK
    assert b"".join(piece.data for piece in pieces) == data


def test_what_the_index_lacks_comes_with_the_next_arrival_or_at_the_end(record):
    record.write("stdout", b"a")
    record.write("stdout", b"b", is_indexed=False)
    record.write("stderr", b"c", is_indexed=False)
    record.write("stdout", b"d")
    record.write("stdout", b"e", is_indexed=False)
    assert b"".join(p.data for p in read(record) if p.stream == "stdout") == b"abde"
    assert b"".join(p.data for p in read(record) if p.stream == "stderr") == b"c"


def test_gaps_are_told_where_they_are(record):
    record.write("stdout", b"ab")
    record.lose("stdout", 1000)
    record.write("stdout", b"cd")
    record.lose("stdout", 7)
    pieces = read(record)
    assert said(pieces) == [("stdout", b"ab"), ("stdout", 1000), ("stdout", b"cd"), ("stdout", 7)]
    assert pieces[1] == Lost(0, "stdout", 2, 1000, "no space left on device")
    assert said(read(record, {STDOUT: 500}))[0] == ("stdout", 502)


def test_a_reader_that_is_there_while_a_gap_comes_and_goes(record):
    with LogReader(record.files, {}) as reader:
        record.write("stdout", b"ab")
        assert said(reader.read()) == [("stdout", b"ab")]
        record.lose("stdout", 5)
        assert reader.read() == []
        record.write("stdout", b"c")
        assert said(reader.read()) == [("stdout", 5), ("stdout", b"c")]


def test_bytes_that_a_crash_of_the_machine_took_are_a_gap_too(record):
    record.write("stdout", b"abcdef")
    os.truncate(record.files.log(0, "stdout"), 2)
    assert said(read(record)) == [("stdout", b"ab"), ("stdout", 4)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write unindexed", "lose", "read"]),
        st.sampled_from(["stdout", "stderr"]),
        st.integers(1, 20),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(STEPS, st.integers(0, 60))
def test_whatever_happens_every_byte_is_read_or_told_lost_exactly_once(steps, begin):
    with tempfile.TemporaryDirectory() as folder:
        record = Record(folder)
        wanted = {"stdout": b"", "stderr": b""}
        pieces = []
        with LogReader(record.files, {STDOUT: begin}) as reader:
            for number, (step, stream, length) in enumerate(steps):
                if step == "read":
                    pieces += reader.read()
                elif step == "lose":
                    record.lose(stream, length)
                    wanted[stream] += b"?" * length
                else:
                    data = bytes([65 + number]) * length
                    record.write(stream, data, is_indexed=step == "write")
                    wanted[stream] += data
            pieces += everything(reader)
    reached = {"stdout": begin, "stderr": 0}
    seen = {"stdout": wanted["stdout"][:begin], "stderr": b""}
    for piece in pieces:
        assert piece.offset == reached[piece.stream]
        data = piece.data if isinstance(piece, Chunk) else b"?" * piece.length
        reached[piece.stream] += len(data)
        seen[piece.stream] += data
    assert seen == wanted


@pytest.mark.parametrize(
    ("content", "lines", "rest"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 9, b"a\nb\n"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"x" * CHUNK + b"\n" + b"y" * CHUNK + b"\nz\n", 2, b"y" * CHUNK + b"\nz\n"),
    ],
)
def test_the_last_lines(record, content, lines, rest):
    record.write("stdout", content)
    assert content[tail_offset(record.files, STDOUT, lines) :] == rest


def test_a_glance_sees_what_was_just_written_and_leaves_to_a_read_what_it_may_not_wait_for(record):
    record.write("stdout", b"seen before")
    if not tells_what_is_in_memory(record.files.index):
        pytest.skip("this file system does not tell what is in memory")
    with LogReader(record.files, {}) as reader:
        assert reader.glance() == []  # a file that was not opened yet
        assert said(reader.read()) == [("stdout", b"seen before")]
        record.write("stdout", b"a line\n")
        assert said(reader.glance()) == [("stdout", b"a line\n")]
        assert reader.glance() == []
        record.write("stdout", b"small")
        record.write("stderr", b"of a new output")
        assert said(reader.glance()) == [("stdout", b"small")]
        assert reader.is_behind
        assert said(reader.read()) == [("stderr", b"of a new output")]
        assert not reader.is_behind
        record.write("stdout", bytes(CHUNK))
        assert reader.glance() == []
        assert len(reader.read()[0].data) == CHUNK
        record.lose("stdout", 10)
        record.write("stdout", b"after the gap")
        assert reader.glance() == []
        assert said(reader.read()) == [("stdout", 10), ("stdout", b"after the gap")]


def ends_before(path, offset):
    """Forgets what a file holds from there on, and tells if that is seen by who may not wait."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), offset, 0, os.POSIX_FADV_DONTNEED)
        try:
            if os.preadv(file.fileno(), [bytearray(2)], offset - 1, os.RWF_NOWAIT) != 1:
                return False
        except OSError:
            return False
        os.pread(file.fileno(), 2, offset)  # the kernel may have begun to fetch it
        os.posix_fadvise(file.fileno(), offset, 0, os.POSIX_FADV_DONTNEED)
        return True


def test_a_glance_that_stops_before_a_page_that_is_not_in_memory_says_that_there_is_more(record):
    record.write("stdout", b"o")
    record.write("stderr", b"e")
    with LogReader(record.files, {}) as reader:
        pieces = reader.read()
        for _ in range(150):  # in 7,200 bytes of the index
            record.write("stdout", b"o")
            record.write("stderr", b"e")
        if not ends_before(record.files.index, 4096):
            pytest.skip("this file system does not tell what is in memory")
        pieces += reader.glance()
        assert reader.is_behind or sum(len(piece.data) for piece in pieces) == 302
        pieces += everything(reader)
    assert sum(len(piece.data) for piece in pieces) == 302


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("wweglr"), st.integers(1, 70_000)), min_size=1, max_size=30
    )
)
@settings(max_examples=60, deadline=None)
def test_glances_and_reads_in_any_turn_tell_everything_once(steps):
    with tempfile.TemporaryDirectory() as folder:
        record, pieces = Record(folder), []
        with LogReader(record.files, {}) as reader:
            for step, size in steps:
                if step == "w":
                    record.write("stdout", os.urandom(size))
                elif step == "e":
                    record.write("stderr", b"e" * (size % 9 + 1))
                elif step == "l":
                    record.lose("stdout", size)
                else:
                    pieces += reader.glance() if step == "g" else reader.read()
            pieces += everything(reader)
        reached = {"stdout": 0, "stderr": 0}
        for piece in pieces:
            assert piece.offset == reached[piece.stream]
            reached[piece.stream] += len(piece.data) if isinstance(piece, Chunk) else piece.length
        assert reached == {
            stream: output_size(record.files, 0, stream) for stream in ("stdout", "stderr")
        }
