"""When an agent is needed by nobody."""

import asyncio

import pytest

from rdev.agent.idle import Calls, until_idle

SHORT = 0.2


async def test_an_agent_without_calls_and_jobs_is_idle_after_the_time_and_not_before():
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(20):
        await until_idle(Calls(), has_jobs=lambda: False, seconds=SHORT)
    assert loop.time() - begun >= SHORT


@pytest.mark.parametrize("has_jobs", [True, False])
async def test_an_agent_with_a_job_or_a_call_is_not_idle(has_jobs):
    calls = Calls()
    with calls if not has_jobs else Calls(), pytest.raises(TimeoutError):
        async with asyncio.timeout(3 * SHORT):
            await until_idle(calls, has_jobs=lambda: has_jobs, seconds=SHORT)


async def test_a_job_that_ends_gives_whoever_started_it_the_whole_time():
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * SHORT
    async with asyncio.timeout(20):
        await until_idle(Calls(), has_jobs=lambda: loop.time() < end, seconds=SHORT)
    # Jobs are looked at four times in that time.
    assert loop.time() >= end + SHORT * 3 / 4


async def test_the_time_counts_from_the_end_of_the_last_call():
    calls = Calls()
    with calls:
        await asyncio.sleep(SHORT)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(20):
        await until_idle(calls, has_jobs=lambda: False, seconds=SHORT)
    assert loop.time() - begun >= SHORT * 0.9
