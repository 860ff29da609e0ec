"""What clients write into a job's input, with every process real."""

import hashlib
import os
import random

import pytest
from tests.support.jobs import jobs_in, tidy

from rdev.wire.job import JobState

WRITER = "0123456789abcdef" * 2
COUNTS = (
    "import hashlib, sys\n"
    "data = sys.stdin.buffer.read()\n"
    "print(len(data), hashlib.sha256(data).hexdigest())\n"
)


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_job_reads_what_is_written_and_then_the_end(jobs):
    data = random.Random(3).randbytes(1 << 20)
    job = await jobs.python(COUNTS, stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        for start in range(0, len(data), 100_000):
            await writer.write(data[start : start + 100_000])
        assert (writer.accepted, writer.has_ended) == (len(data), False)
        await writer.end()
        assert writer.has_ended
    assert (await jobs.end(job)).state is JobState.SUCCEEDED
    printed = (await jobs.printed(job)).stdout.decode().split()
    assert printed == [str(len(data)), hashlib.sha256(data).hexdigest()]
