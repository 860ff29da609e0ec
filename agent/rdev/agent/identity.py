"""Who this agent is: its pinned id, its machine, and what it can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Collection

from rdev.protocol.convert import AgentInfo
from rdev.wire.home import Home, boot_id

# Revision of the wire. Raised only when a client cannot tell by capabilities.
PROTOCOL = 1

_BASE_CAPABILITIES = frozenset(
    {"sync", "folders", "jobs", "check-job", "environments", "logs", "events"}
)


def identify(home: Home, *, traits: Collection[str] = ()) -> AgentInfo:
    """Describes the agent of `home`, making its id at the first start.

    Args:
        home: What it serves.
        traits: What a client has to know of the machine, such as `login-node`.
    """
    return AgentInfo(
        agent_id=_agent_id(os.path.join(home.host, "agent-id")),
        version=importlib.metadata.version("rdev"),
        protocol=PROTOCOL,
        capabilities=capabilities() | frozenset(traits),
        boot_id=boot_id(),
        machine_id=home.machine_id,
        pid=os.getpid(),
        uid=os.geteuid(),
        started=time.time(),
        home=home.root,
        python_version=platform.python_version(),
        dist=_dist(),
        hostname=socket.gethostname(),
        home_id=_home_id(),
    )


def _dist() -> str:
    """Folder of our release, if a first contact put it there; a checkout has none."""
    found = os.path.isfile(os.path.join(sys.prefix, "release.json"))
    return sys.prefix if found else ""


def _home_id() -> str:
    """Id of the folder of releases that we run from; empty where a first contact put nothing."""
    try:
        path = os.path.join(os.path.dirname(_dist()), "home-id")
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def capabilities() -> frozenset[str]:
    """What is offered here; `debug` needs debugpy, which `rdev[agent]` brings."""
    found = importlib.util.find_spec("debugpy") is not None
    return _BASE_CAPABILITIES | {"debug"} if found else _BASE_CAPABILITIES


def _agent_id(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        pass
    made = secrets.token_hex(16)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(made)
    return made
