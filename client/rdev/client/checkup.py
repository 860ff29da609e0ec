"""What `rdev doctor` looks at: the laptop, the way to a host, and what its agent says of it.

laptop -> way (ssh) -> agent -> what the agent says of its machine
             |           '-- none can be put there: what a look by ssh alone says of it
             '-- no way: nothing more is asked, least of all twice
"""

from __future__ import annotations

import os
import shutil
import time

from rdev.client.connection import UNARY_DEADLINE, Connection, connect, translating
from rdev.client.hosts import LOCAL, endpoint_of
from rdev.client.laptop import examine_laptop
from rdev.protocol.convert import timestamp
from rdev.protocol.errors import FeatureMissing, RdevError
from rdev.protocol.finding import Finding, finding_from_proto
from rdev.v1 import agent_pb2, agent_pb2_grpc
from rdev.wire.home import check_private, this_home

# A first command on a fresh login is answered within seconds, or something holds it up.
_PATIENCE = 30.0


async def check_up(host: str) -> list[Finding]:
    """All findings about this laptop, the way to `host`, and its machine."""
    way = _home() if host == LOCAL else []
    if endpoint_of(host) is None:
        way = [await _way(host)]
    there = await _agent(host) if host == LOCAL or all(finding.ok for finding in way) else []
    return [*examine_laptop(), *way, *there]


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


async def _way(host: str) -> Finding:
    """Whether ssh leads there, by which configuration, and how long a command takes."""
    from rdev.client.transport.opening import open_transport

    what = f"ssh to {host}"
    try:
        transport = open_transport(host)
        try:
            await transport.login()
            await transport.run("true", patience=_PATIENCE)
            begun = time.monotonic()
            await transport.run("true", patience=_PATIENCE)
            took = time.monotonic() - begun
        finally:
            await transport.close()
        where = await _configured(host)
    except RdevError as error:
        return Finding(what, error.message, ok=False, remedy=error.hint)
    return Finding(what, f"{transport.name} to {where}; a command takes {took * 1000:.0f} ms")


async def _configured(host: str) -> str:
    """Where ssh leads, and by which file."""
    from rdev.client.transport.settings import settings_of
    from rdev.client.transport.sshconfig import ask_ssh

    settings = settings_of(host)
    destination = settings.destination or host
    by = _file(settings.config)
    if shutil.which("ssh") is None:
        return f"{destination}, {by}"
    found = await ask_ssh(settings.config, destination)
    jump = f" through {found.get('proxyjump')}" if found.get("proxyjump") else ""
    user, name, port = (found.get(key) for key in ("user", "hostname", "port"))
    return f"{user}@{name} port {port}{jump}, {by}"


def _file(config: str) -> str:
    file = config or os.path.expanduser("~/.ssh/config")
    return f"by {file}" if os.path.exists(file) else "by no configuration file"


async def _agent(host: str) -> list[Finding]:
    what = f"agent of {host}"
    try:
        async with connect(host) as connection:
            said = [_answering(what, connection), _releases(host, connection)]
            try:
                return [*said, *await _machine(connection)]
            except FeatureMissing:
                remedy = f"`rdev up {host}` puts this release there"
                found = "it is of a release that cannot check its machine"
                return [*said, Finding("machine", found, ok=False, remedy=remedy)]
    except RdevError as error:
        failed = Finding(what, error.message, ok=False, remedy=error.hint)
        return [failed, *(await _looked_at(host) if endpoint_of(host) is None else [])]


def _answering(what: str, connection: Connection) -> Finding:
    agent = connection.agent
    offers = ", ".join(sorted(agent.capabilities))
    return Finding(what, f"process {agent.pid}, Python {agent.python_version} ({offers})")


def _releases(host: str, connection: Connection) -> Finding:
    """Which rdev runs at either end; of one that no contact put there only the version is told."""
    from rdev.client.bootstrap.contact import is_later, is_outdated
    from rdev.client.bootstrap.release import release_id, version_in

    agent = connection.agent
    there = os.path.basename(agent.dist) if agent.dist else agent.version
    here = release_id() if agent.dist else version_in(release_id())
    found = f"rdev {here} here, {there} there"
    if is_outdated(agent.version):
        verb = "`rdev-agent upgrade`" if host == LOCAL else f"`rdev up {host}`"
        remedy = f"{verb} puts the one that is here in its place; jobs go on"
        return Finding("releases", found, ok=False, remedy=remedy)
    if is_later(agent.version):
        found += ": the later one is spoken to by what it has in common with this"
    return Finding("releases", found)


async def _machine(connection: Connection) -> list[Finding]:
    with translating("check the machine"):
        response = await agent_pb2_grpc.AgentServiceStub(connection.channel).CheckMachine(
            agent_pb2.CheckMachineRequest(now=timestamp(time.time())), timeout=UNARY_DEADLINE
        )
    return [finding_from_proto(message) for message in response.findings]


async def _looked_at(host: str) -> list[Finding]:
    """What can be seen of a machine without an agent."""
    from rdev.client.bootstrap.facts import facts
    from rdev.client.transport.opening import open_transport

    transport = open_transport(host)
    try:
        return await facts(host, transport)
    finally:
        await transport.close()
