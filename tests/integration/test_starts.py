"""A job's command is executed once, whoever is killed while it starts."""

import asyncio
import contextlib
import os
import random
import signal

from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.wire.files import read_started
from rdev.wire.job import JobState

# How many jobs, how many at a time, and of how many the keeper is killed too.
JOBS, TOGETHER, KEEPERS = 60, 4, 15

# A job has started, been seen and ended within this on an idle machine.
WINDOW = 0.03


def kill(pid):
    if pid <= 0:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return 1


async def start_under_fire(jobs, marks, chance, *, with_keeper):
    """Starts a job and kills its supervisor, or its keeper with it, at some moment of the start."""
    delay = chance.uniform(0.0, WINDOW)
    job = await jobs.start("sh", "-c", f"echo $RDEV_JOB_ID >> {marks}; exit 3")
    await asyncio.sleep(delay)
    kills = 0
    if with_keeper:
        kill(jobs.keeper(job))
    async with asyncio.timeout(DEADLINE):
        while not kills and not jobs.manager.record(job.id).status.state.is_final:
            kills = kill(jobs.supervisor(job))
            await asyncio.sleep(0)
    ended = await jobs.end(job)
    await asyncio.to_thread(await_gone, jobs.keeper(job))
    return ended, kills, read_started(jobs.files(job), attempt=1)


async def test_sixty_supervisors_killed_while_they_start_and_no_command_runs_twice(tmp_path):
    marks, chance = tmp_path / "marks", random.Random(60)
    marks.touch()
    seen = []
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        for first in range(0, JOBS, TOGETHER):
            seen += await asyncio.gather(
                *(
                    start_under_fire(jobs, marks, chance, with_keeper=number < KEEPERS)
                    for number in range(first, first + TOGETHER)
                )
            )
    executed = marks.read_text().split()
    assert sum(kills for _, kills, _ in seen) >= JOBS // 2
    for number, (job, _, started) in enumerate(seen):
        if number >= KEEPERS:
            assert (job.state, job.exit_code) == (JobState.FAILED, 3)
            assert executed.count(job.id) == 1
        else:
            # It may be lost, and not even have come to it; but it is never run again.
            assert job.state in (JobState.FAILED, JobState.LOST)
            assert executed.count(job.id) <= 1
            assert executed.count(job.id) == 0 or started is not None
