"""Commands to a supervisor that is not there."""

import asyncio

import pytest

from rdev.agent.jobs.link import Link
from rdev.protocol.errors import JobNotRunning, TimedOut
from rdev.wire.files import JobFiles


@pytest.fixture
def link(tmp_path):
    return Link(JobFiles(str(tmp_path)), lambda _status: None)


async def test_a_command_to_a_job_that_ends_meanwhile_is_answered_at_once(link):
    waiting = asyncio.ensure_future(link.command("stop", {}, patience=600.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    link.finish()
    async with asyncio.timeout(10):
        with pytest.raises(JobNotRunning):
            await waiting
        with pytest.raises(JobNotRunning):
            await link.command("stop", {}, patience=600.0)


async def test_a_command_that_nobody_takes_ends_with_its_patience(link):
    with pytest.raises(TimedOut):
        await link.command("stop", {}, patience=0.01)
