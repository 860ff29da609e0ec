"""Jobs in terminals, with every process real."""

import os

import pytest
from tests.support.jobs import jobs_in, tidy
from tests.support.typist import Typist

from rdev.wire.job import JobState, Window


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_job_in_a_terminal(tmp_path):
    login = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    source = "tty; stty size; echo $TERM; echo no >&2"
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, environment=login) as jobs:
        job = await jobs.run("sh", "-c", source, terminal=Window(11, 22))
        lines = (await jobs.printed(job)).stdout.decode().splitlines()
    assert lines[0].startswith("/dev/")
    assert lines[1:] == ["11 22", "xterm-256color", "no"]
    assert [stream.name for stream in job.streams] == ["stdout"]


async def test_a_shell_is_typed_into(jobs):
    job = await jobs.start("bash", "--norc", "-i", terminal=Window(), environment={"PS1": "$ "})
    async with Typist(jobs, job) as typist:
        await typist.reads(b"$ ")
        await typist.types(b"echo $((6 * 7))\r")
        await typist.reads(b"42\r\n")
        await typist.types(b"exit 3\r")
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 3)
    assert b"no job control" not in (await jobs.printed(job)).stdout
