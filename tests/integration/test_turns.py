"""Jobs that wait for their turn, because the site lets only so many live at a time."""

import asyncio
import os
import secrets

import pytest
from tests.support.jobs import DEADLINE, jobs_in, tidy

from rdev.wire.job import CommandKind, JobSpec, JobState, Reason


@pytest.fixture
async def folder(tmp_path):
    async with tidy(tmp_path / "jobs") as folder:
        yield folder


async def waiting(jobs, name: str):
    """A job that has to wait; returns it once it says so."""
    job = await jobs.start("sleep", "60", name=name)
    async with asyncio.timeout(DEADLINE):
        async for seen in jobs.manager.watch(job.id):
            assert seen.state is JobState.PENDING
            if seen.message:
                assert (
                    "waits for its turn: the site lets each user have 1 live here" in seen.message
                )
                return seen
    raise AssertionError("it ended")


async def test_jobs_take_turns_in_the_order_in_which_they_came(folder):
    async with jobs_in(folder, most=1) as jobs:
        first = await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        second, third = await waiting(jobs, "second"), await waiting(jobs, "third")
        await jobs.manager.stop(first.id, now=True)
        await jobs.reach(second, JobState.RUNNING)
        assert (await jobs.manager.get("third")).state is JobState.PENDING
        await jobs.manager.stop(second.id, now=True)
        last = await jobs.reach(third, JobState.RUNNING)
        assert last.message == ""


async def test_a_newcomer_stays_behind_those_that_wait(folder):
    async with jobs_in(folder, most=1) as jobs:
        first = await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        second = await waiting(jobs, "second")
        await jobs.manager.stop(first.id, now=True)
        await jobs.end(first)
        newcomer = await jobs.start("sleep", "60", name="newcomer")
        await jobs.reach(second, JobState.RUNNING)
        assert (await jobs.manager.get(newcomer.id)).state is JobState.PENDING


async def test_many_that_come_at_once_are_never_more_than_allowed(folder):
    async with jobs_in(folder, most=2) as jobs:
        spec = JobSpec(CommandKind.PROGRAM, "sleep", ("0.3",), grace=1.0)
        made = [jobs.manager.create(secrets.token_hex(8), spec) for _ in range(6)]
        started = await asyncio.gather(*made)
        most, over = 0, 0
        async with asyncio.timeout(DEADLINE):
            while over < len(started):
                states = [(await jobs.manager.get(job.id)).state for job in started]
                most = max(most, sum(s in (JobState.STARTING, JobState.RUNNING) for s in states))
                over = sum(state.is_final for state in states)
        assert most == 2
        assert {(await jobs.manager.get(job.id)).state for job in started} == {JobState.SUCCEEDED}


async def test_a_job_that_waits_for_its_turn_can_be_stopped(folder):
    async with jobs_in(folder, most=1) as jobs:
        await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        second = await waiting(jobs, "second")
        await jobs.manager.stop(second.id)
        over = await jobs.end(second)
        assert (over.state, over.reason) == (JobState.CANCELLED, Reason.STOPPED)


async def test_what_runs_beside_the_work_waits_for_nobody(folder):
    async with jobs_in(folder, most=1) as jobs:
        await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        beside = await jobs.start("true", aside=True)
        assert (await jobs.end(beside)).state is JobState.SUCCEEDED


async def test_the_next_agent_goes_on_with_those_that_wait(folder):
    async with jobs_in(folder, most=1) as jobs:
        first = await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        second = await waiting(jobs, "second")
    async with jobs_in(folder, most=1) as jobs:
        assert (await jobs.manager.get(second.id)).state is JobState.PENDING
        await jobs.manager.stop(first.id, now=True)
        await jobs.reach(second, JobState.RUNNING)
        environment = await jobs.python("import os; print('CUDA_VISIBLE_DEVICES' in os.environ)")
        await jobs.manager.stop(second.id, now=True)
        seen = (await jobs.printed(environment)).stdout.decode().strip()
        assert seen == str("CUDA_VISIBLE_DEVICES" in os.environ)


async def test_an_agent_without_the_limit_starts_those_that_waited(folder):
    async with jobs_in(folder, most=1) as jobs:
        await jobs.reach(await jobs.start("sleep", "60"), JobState.RUNNING)
        second = await waiting(jobs, "second")
    async with jobs_in(folder) as jobs:
        await jobs.reach(second, JobState.RUNNING)
