"""What a job has used: its own processes together, and nothing of ours."""

import os
import signal

import pytest
from tests.support.jobs import jobs_in, tidy

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


def seconds_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / TICKS


async def test_what_a_killed_supervisor_has_used_is_not_the_jobs(jobs):
    job = await jobs.start("sh", "-c", "echo up; sleep 600 & wait")
    await jobs.first_bytes(job)
    supervisor = jobs.supervisor(job)
    while seconds_of(supervisor) < 0.2:
        await jobs.manager.peers(job.id)
    os.kill(supervisor, signal.SIGKILL)
    await jobs.manager.signal(job.id, signal.SIGTERM)
    used = (await jobs.end(job)).usage
    assert 0.0 < used.user_seconds + used.system_seconds < 0.1
