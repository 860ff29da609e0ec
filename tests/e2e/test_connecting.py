"""Reaching the agent of this machine while it dies."""

import asyncio
import os
import socket

import pytest

from rdev.client.connection import connect
from rdev.wire.home import Home, machine_id
from rdev.wire.unix import short_socket_path


@pytest.fixture
def home(rdev, monkeypatch):
    for name in ("HOME", "RDEV_HOME"):
        monkeypatch.setenv(name, rdev.environment[name])
    home = Home(str(rdev.home / ".rdev"), machine_id())
    for folder in (home.root, os.path.dirname(home.host), home.host, home.run):
        os.mkdir(folder, 0o700)
    return home


async def test_an_agent_that_dies_before_its_first_answer_is_started_again(home):
    agent = socket.socket(socket.AF_UNIX)
    with short_socket_path(home.socket) as address:
        agent.bind(address)
    agent.listen()
    agent.setblocking(False)
    loop = asyncio.get_running_loop()

    async def die_of_the_first_question() -> None:
        while True:
            asked, _ = await loop.sock_accept(agent)
            with asked:
                if await loop.sock_recv(asked, 3) == b"PRI":  # how HTTP/2 begins
                    break
        agent.close()

    async with asyncio.timeout(25), asyncio.TaskGroup() as group:  # a call may take 30 s
        group.create_task(die_of_the_first_question())
        async with connect("local") as connection:
            assert connection.agent.home == home.root
            assert connection.agent.pid != os.getpid()
