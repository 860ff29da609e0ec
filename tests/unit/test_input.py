"""The spool of a job's input, on a real disk."""

import errno
import os
import resource
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdev.wire.files import JobFiles
from rdev.wire.input import WRITE_SIZE, Spool, Write, last_write, reserve_input

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def files(tmp_path):
    return made(tmp_path)


def made(folder):
    files = JobFiles(str(folder))
    os.mkdir(files.path("fifo"))
    reserve_input(files)
    return files


def last(files):
    with open(files.writes, "rb") as file:
        return last_write(file.fileno())


def content(files):
    """What a supervisor would feed."""
    with open(files.input, "rb") as file:
        return file.read(last(files).end)


def test_nothing_is_written_yet(files):
    assert (last(files).end, last(files).is_end) == (0, False)
    spool = Spool(files)
    assert (spool.end, spool.has_ended, spool.accepted(A)) == (0, False, 0)
    spool.close()


def test_each_writer_is_counted_by_itself(files):
    spool = Spool(files)
    spool.write(A, b"one ")
    spool.write(B, b"and ")
    spool.write(A, b"two")
    spool.close()
    spool = Spool(files)
    assert (spool.accepted(A), spool.accepted(B), spool.end) == (7, 4, 11)
    assert content(files) == b"one and two"
    spool.close()


def test_nothing_is_taken_after_the_end(files):
    spool = Spool(files)
    spool.write(A, b"all")
    spool.finish(A)
    spool.write(A, b"more")
    spool.finish(B)
    assert (spool.accepted(A), spool.has_ended) == (3, True)
    assert os.stat(files.writes).st_size == 2 * WRITE_SIZE
    spool.close()
    assert last(files) == Write(A, 3, 3, is_end=True)


def test_what_a_killed_agent_did_not_commit_is_overwritten(files):
    spool = Spool(files)
    spool.write(A, b"kept")
    spool.close()
    with open(files.input, "ab") as data:
        data.write(b"without its record")
    with open(files.writes, "ab") as writes:
        writes.write(Write(A, 22, 22).pack()[: WRITE_SIZE // 2])
    assert content(files) == b"kept"
    spool = Spool(files)
    assert spool.accepted(A) == 4
    spool.write(A, b", too")
    spool.close()
    assert content(files) == b"kept, too"
    assert last(files) == Write(A, 9, 9)


def test_one_at_a_time_has_it_open(files):
    first = Spool(files)
    with pytest.raises(BlockingIOError):
        Spool(files)
    first.close()
    Spool(files).close()


def test_the_input_of_a_job_that_is_over(files):
    spool = Spool(files)
    spool.write(A, b"some")
    spool.close()
    os.unlink(files.input)
    spool = Spool(files)
    assert (spool.accepted(A), spool.has_ended) == (4, True)
    spool.write(A, b"more")
    spool.close()
    assert not os.path.exists(files.input)


def test_a_write_that_finds_no_space_leaves_nothing_and_a_later_one_succeeds(files):
    spool = Spool(files)
    spool.write(A, b"x" * 1000)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
        with pytest.raises(OSError, match="File too large") as failed:
            spool.write(A, b"y" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert failed.value.errno == errno.EFBIG
    assert spool.accepted(A) == os.stat(files.input).st_size == 1000
    spool.write(A, b"z" * 10)
    spool.close()
    assert content(files) == b"x" * 1000 + b"z" * 10


STEPS = st.one_of(
    st.tuples(st.sampled_from([A, B]), st.binary(min_size=1, max_size=300)),
    st.tuples(st.just(b"killed"), st.binary(max_size=2 * WRITE_SIZE)),
)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(STEPS, max_size=12))
def test_any_writes_and_kills_leave_what_was_committed(tmp_path_factory, steps):
    files = made(tmp_path_factory.mktemp("job"))
    spool, whole, counts = Spool(files), b"", {A: 0, B: 0}
    for who, data in steps:
        if who == b"killed":
            spool.close()
            # Between the bytes and their record, or within the record.
            with open(files.input, "ab") as file:
                file.write(data)
            with open(files.writes, "ab") as file:
                file.write(data[: WRITE_SIZE - 1])
            spool = Spool(files)
        else:
            spool.write(who, data)
            whole += data
            counts[who] += len(data)
        assert content(files) == whole
        assert {writer: spool.accepted(writer) for writer in counts} == counts
    spool.close()


def test_a_torn_record_is_none():
    record = Write(A, 1, 1).pack()
    assert Write.unpack(record) == Write(A, 1, 1)
    for index in range(40):
        torn = bytearray(record)
        torn[index] ^= 1
        assert Write.unpack(bytes(torn)) is None
    assert Write.unpack(bytes(WRITE_SIZE)) is None
    assert Write.unpack(record[:-1]) is None
