"""Ended jobs beyond what is kept are removed with all that is theirs; live ones never are."""

import asyncio
import os

import pytest
from tests.support.jobs import jobs_in, tidy

from rdev.agent.jobs.retention import Keep
from rdev.wire.job import JobState


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_the_oldest_ended_jobs_are_removed_and_live_ones_stay(jobs, tmp_path):
    live = await jobs.start("sleep", "600")
    await jobs.reach(live, JobState.RUNNING)
    ended = [await jobs.run("echo", str(number)) for number in range(3)]
    assert await jobs.manager.retire(Keep(newest=3, seconds=0)) == ()
    removed = await jobs.manager.retire(Keep(newest=1, seconds=0))
    assert set(removed) == {ended[0].id, ended[1].id}
    left = {job.id for job in await jobs.manager.list(ended=True)}
    assert left == {live.id, ended[2].id}
    assert set(os.listdir(tmp_path / "jobs")) == left


async def test_logs_that_take_too_much_are_removed(jobs):
    large = await jobs.run("head", "-c", "100000", "/dev/zero")
    small = await jobs.run("echo", "small")
    assert await jobs.manager.retire(Keep(newest=0, size=50_000)) == (large.id,)
    assert [job.id for job in await jobs.manager.list(ended=True)] == [small.id]


async def test_what_the_index_and_the_events_take_counts_and_what_was_lost_does_not(jobs):
    lost = await jobs.run("echo", "lost")
    os.truncate(jobs.files(lost).log(0, "stdout"), 1 << 40)  # all of it a hole
    chatty = await jobs.run("echo", "chatty")
    told = await jobs.run("echo", "told")
    for job, path in ((chatty, jobs.files(chatty).index), (told, jobs.files(told).events)):
        with open(path, "ab") as file:
            file.write(bytes(100_000))
            os.fsync(file.fileno())
        assert jobs.manager._store.size(job.id) > 100_000
    assert await jobs.manager.retire(Keep(newest=2, size=50_000)) == ()
    removed = await jobs.manager.retire(Keep(newest=0, size=150_000))
    assert removed == (chatty.id, lost.id)


async def test_whoever_watches_a_job_that_ends_and_is_removed_sees_its_end(jobs):
    job = await jobs.start("sleep", "600")
    await jobs.reach(job, JobState.RUNNING)
    watching = asyncio.ensure_future(jobs.end(job))
    await jobs.manager.stop(job.id, now=True)
    await jobs.end(job)
    await jobs.manager.delete(job.id)
    assert (await watching).state is JobState.CANCELLED
