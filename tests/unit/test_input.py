"""What a writer keeps until the host has it, and how a source is read."""

import asyncio
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.input import Unacknowledged
from rdev.client.source import Source, is_given

DEADLINE = 20.0


@given(
    st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 100), st.integers(1, 9)), max_size=30)
)
def test_what_the_host_lacks_is_always_at_hand(steps):
    kept, everything = Unacknowledged(), b""
    for data, share, limit in steps:
        kept.append(data)
        everything += data
        offset = kept.start + len(kept) * share // 100
        kept.acknowledge(offset)
        assert kept.end == len(everything)
        assert kept.since(offset, limit=limit) == everything[offset : offset + limit]
        assert kept.since(kept.start, limit=len(everything)) == everything[offset:]


@pytest.mark.parametrize("offset", [2, 6])
def test_a_host_that_counts_wrong_is_noticed(offset):
    kept = Unacknowledged()
    kept.append(b"abcde")
    kept.acknowledge(3)
    with pytest.raises(ValueError, match="not within 3 and 5"):
        kept.acknowledge(offset)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_a_pipe_is_read_as_its_bytes_come(pipe):
    reading, writing = pipe
    source = Source(reading)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        first = group.create_task(source.read())
        await asyncio.sleep(0)
        os.write(writing, b"one")
        assert await first == b"one"
        os.write(writing, b"two")
        assert await source.read() == b"two"


async def test_a_pipe_that_nobody_closes_keeps_nobody(pipe):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await Source(pipe[0]).read()


async def test_a_file_is_read_to_its_end(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    with open(tmp_path / "data", "rb", buffering=0) as file:
        source, found = Source(file.fileno()), b""
        while data := await source.read():
            found += data
    assert found == b"x" * 100_000


async def test_what_is_typed_while_the_source_is_lent_is_not_its_own(pipe):
    reading, writing = pipe
    source = Source(reading)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        waiting = group.create_task(source.read())
        await asyncio.sleep(0)
        with source.lent():
            os.write(writing, b"answer")
            await asyncio.sleep(0)
            assert os.read(reading, 9) == b"answer"
        os.write(writing, b"input")
        assert await waiting == b"input"


async def test_a_source_that_is_lent_just_when_bytes_came_gives_them_to_the_borrower(pipe):
    reading, writing = pipe
    source = Source(reading)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        waiting = group.create_task(source.read())
        await asyncio.sleep(0)
        os.write(writing, b"answer")
        assert source._turn is not None
        source._turn.set_result(None)  # as the loop does once the bytes have come
        with source.lent():
            await asyncio.sleep(0)
            assert os.read(reading, 9) == b"answer"
        os.write(writing, b"input")
        assert await waiting == b"input"


async def test_a_terminal_that_was_closed_has_ended():
    ours, theirs = os.openpty()
    os.close(ours)
    try:
        assert await Source(theirs).read() == b""
    finally:
        os.close(theirs)


def test_a_pipe_a_socket_and_a_file_are_given_but_no_terminal_and_no_null_device(pipe, tmp_path):
    ours, theirs = os.openpty()
    left, right = socket.socketpair()
    with left, right, open(tmp_path / "file", "w+") as file, open(os.devnull) as null:
        given_ = [is_given(pipe[0]), is_given(left.fileno()), is_given(file.fileno())]
        refused = [is_given(theirs), is_given(null.fileno()), is_given(9999)]
    os.close(ours)
    os.close(theirs)
    assert given_ == [True] * 3
    assert refused == [False] * 3
