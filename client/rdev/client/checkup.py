"""What `rdev doctor` looks at: the laptop, the way to a host, and what its agent says of it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable

from rdev.client import config
from rdev.client.connection import UNARY_DEADLINE, Connection, connect, translating
from rdev.client.hosts import LOCAL
from rdev.protocol.convert import timestamp
from rdev.protocol.errors import FeatureMissing, RdevError
from rdev.protocol.finding import Finding, finding_from_proto
from rdev.v1 import agent_pb2, agent_pb2_grpc
from rdev.wire.home import check_private, this_home


async def check_up(host: str) -> list[Finding]:
    """All findings about this laptop, the way to `host`, and its machine."""
    here = [check() for check in _HERE]
    if host == LOCAL:
        here += _home()
    return [*here, *await _there(host)]


def _client() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}"
    return Finding("client", found)


def _configuration() -> Finding:
    try:
        config.load(os.getcwd())
    except RdevError as error:
        return Finding("configuration", error.message, ok=False, remedy=error.hint)
    return Finding("configuration", "valid")


def _home() -> list[Finding]:
    # What keeps an agent from starting cannot be told by it.
    root = this_home().root
    try:
        check_private(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        remedy = f"chmod 700 {root}, and see that it is yours"
        return [Finding("folder of the agent", str(error), ok=False, remedy=remedy)]
    return []


async def _there(host: str) -> list[Finding]:
    what = f"agent of {host}"
    try:
        async with connect(host) as connection:
            return [_agent(what, connection), *await _machine(connection)]
    except FeatureMissing:
        remedy = f"`rdev up {host}` puts this release there"
        found = "it is of a release that cannot check its machine"
        return [Finding(what, found, ok=False, remedy=remedy)]
    except RdevError as error:
        return [Finding(what, error.message, ok=False, remedy=error.hint)]


def _agent(what: str, connection: Connection) -> Finding:
    agent = connection.agent
    offers = ", ".join(sorted(agent.capabilities))
    return Finding(what, f"rdev {agent.version}, process {agent.pid} ({offers})")


async def _machine(connection: Connection) -> list[Finding]:
    with translating("check the machine"):
        response = await agent_pb2_grpc.AgentServiceStub(connection.channel).CheckMachine(
            agent_pb2.CheckMachineRequest(now=timestamp(time.time())), timeout=UNARY_DEADLINE
        )
    return [finding_from_proto(message) for message in response.findings]


_HERE: tuple[Callable[[], Finding], ...] = (_client, _configuration)
