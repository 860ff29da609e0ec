"""Commands to a supervisor that is not there."""

import asyncio
import select
import socket

import pytest

from rdev.agent.jobs.link import Link
from rdev.protocol.errors import JobNotRunning, TimedOut
from rdev.wire.files import JobFiles
from rdev.wire.unix import short_socket_path


@pytest.fixture
def link(tmp_path):
    return Link(JobFiles(str(tmp_path)), lambda _status: None)


async def test_a_command_to_a_job_that_ends_meanwhile_is_answered_at_once(link):
    waiting = asyncio.ensure_future(link.command("stop", {}, patience=600.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    link.finish()
    async with asyncio.timeout(40):
        with pytest.raises(JobNotRunning):
            await waiting
        with pytest.raises(JobNotRunning):
            await link.command("stop", {}, patience=600.0)


async def test_a_command_that_nobody_takes_ends_with_its_patience(link):
    with pytest.raises(TimedOut):
        await link.command("stop", {}, patience=0.01)


@pytest.mark.parametrize("last", [b"", b'{"type": "sta'])
async def test_a_supervisor_that_is_killed_ends_the_connection_and_is_no_error(
    link, tmp_path, last
):
    with socket.socket(socket.AF_UNIX) as listener:
        with short_socket_path(str(tmp_path / "job.sock")) as path:
            listener.bind(path)
        listener.listen()
        serving = asyncio.ensure_future(link.serve())
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            # What it has not read resets the connection.
            await asyncio.to_thread(select.select, [connection], [], [])
            connection.sendall(last)
        async with asyncio.timeout(40):
            await serving
