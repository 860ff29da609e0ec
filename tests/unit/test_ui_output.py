"""What is said beside a job's output, where nobody reads the one or the other just now."""

import asyncio
import contextlib
import os

import pytest

from rdev.client.logs import Chunk
from rdev.client.ui.output import RawOutput

DEADLINE = 20.0
LARGE = Chunk(rank=0, stream="stdout", offset=0, data=b"x" * (256 << 10), time=0.0)


@contextlib.contextmanager
def leading_to(*targets: int):
    """Our stdout and stderr lead there."""
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    for descriptor, target in zip((1, 2), targets, strict=True):
        os.dup2(target, descriptor)
    try:
        yield
    finally:
        for descriptor, before in zip((1, 2), saved, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


@pytest.fixture
def pipes():
    """Two of them: the ends to read, the ends to write."""
    (reading, writing), (other_reading, other_writing) = os.pipe(), os.pipe()
    ends = (reading, other_reading), (writing, other_writing)
    yield ends
    for end in (*ends[0], *ends[1]):
        with contextlib.suppress(OSError):
            os.close(end)


async def read(end: int, size: int) -> bytes:
    got, loop = b"", asyncio.get_running_loop()
    readable = asyncio.Event()
    os.set_blocking(end, False)
    loop.add_reader(end, readable.set)
    try:
        async with asyncio.timeout(DEADLINE):
            while len(got) < size:
                readable.clear()
                await readable.wait()
                with contextlib.suppress(BlockingIOError):  # it was, before the last read
                    got += os.read(end, size - len(got))
    finally:
        loop.remove_reader(end)
    return got


async def test_a_stdout_that_is_not_read_just_now_keeps_nothing_from_stderr(pipes):
    (stdout, stderr), ends = pipes
    with leading_to(*ends):
        output = RawOutput()
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(output.write(LARGE))
            await read(stdout, 1000)  # it is being written, and is more than a pipe holds
            async with asyncio.timeout(DEADLINE):
                await output.say("it waits")
            assert await read(stderr, 15) == b"rdev: it waits\n"
            assert not writing.done()
            await read(stdout, len(LARGE.data) - 1000)


async def test_where_both_lead_to_one_pipe_nothing_is_said_amid_what_is_written(pipes):
    (reading, _), (end, _) = pipes
    with leading_to(end, end):
        output = RawOutput()
        async with asyncio.TaskGroup() as group:
            group.create_task(output.write(LARGE))
            await read(reading, 1000)
            saying = group.create_task(output.say("it waits"))
            rest = await read(reading, len(LARGE.data) - 1000 + 15)
            await saying
    assert rest == LARGE.data[1000:] + b"rdev: it waits\n"


async def test_a_question_is_asked_though_a_pipe_takes_nothing(pipes):
    (stdout, stderr), ends = pipes
    with leading_to(*ends):
        output = RawOutput()
        async with asyncio.TaskGroup() as group:
            group.create_task(output.write(LARGE))
            await read(stdout, 1000)
            async with asyncio.timeout(DEADLINE), output.held():
                saying = group.create_task(output.say("later"))
                await asyncio.sleep(0)
                assert not saying.done()
            assert await read(stderr, 12) == b"rdev: later\n"
            await read(stdout, len(LARGE.data) - 1000)
