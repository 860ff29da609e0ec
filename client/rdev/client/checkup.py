"""What `rdev doctor` looks at: each check is one function that returns one finding."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rdev.client import config
from rdev.client.connection import connect
from rdev.protocol.errors import RdevError
from rdev.wire.home import check_private, this_home

# The oldest kernel whose system calls the agent relies on: openat2 and pidfd_open came before 5.6.
_OLDEST_KERNEL = (5, 6)

# Logs and snapshots need room; below this a training's output soon meets a full disk.
_LEAST_FREE = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        what: What was looked at.
        found: What was found.
        ok: Nothing needs to be done.
        remedy: What to do otherwise.
    """

    what: str
    found: str
    ok: bool = True
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return asdict(self)


async def check_up(host: str) -> list[Finding]:
    """All findings about this machine and the agent of `host`."""
    return [*(check() for check in _LOCAL), await _agent(host)]


def _client() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}"
    return Finding("client", found)


def _kernel() -> Finding:
    release = platform.release()
    parts = release.replace("-", ".").split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    return Finding(
        "kernel",
        f"{platform.system()} {release}",
        ok=platform.system() == "Linux" and version >= _OLDEST_KERNEL,
        remedy="run the agent on Linux 5.6 or later",
    )


def _home() -> Finding:
    root = this_home().root
    try:
        check_private(root)
    except FileNotFoundError:
        return Finding("agent's home", f"{root} (made at the first start)")
    except OSError as error:
        remedy = f"chmod 700 {root}, and see that it is yours"
        return Finding("agent's home", str(error), ok=False, remedy=remedy)
    return Finding("agent's home", root)


def _free_space() -> Finding:
    folder = this_home().root
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    remedy = "free some: `rdev rm -a` removes ended jobs with their logs"
    return Finding("free space", f"{free / 2**30:.1f} GiB", ok=free > _LEAST_FREE, remedy=remedy)


def _debugger() -> Finding:
    found = importlib.util.find_spec("debugpy") is not None
    remedy = "pip install 'rdev[agent]' into the agent's Python"
    return Finding("debugpy", "found" if found else "missing", ok=found, remedy=remedy)


def _python() -> Finding:
    found = shutil.which("python3")
    remedy = "give scripts an interpreter with --python or `python` in rdev.toml"
    return Finding("python3 on PATH", found or "none", ok=found is not None, remedy=remedy)


def _configuration() -> Finding:
    try:
        config.load(os.getcwd())
    except RdevError as error:
        return Finding("configuration", error.message, ok=False, remedy=error.hint)
    return Finding("configuration", "valid")


async def _agent(host: str) -> Finding:
    what = f"agent of {host}"
    try:
        async with connect(host) as connection:
            agent = connection.agent
    except RdevError as error:
        return Finding(what, error.message, ok=False, remedy=error.hint)
    found = f"rdev {agent.version}, process {agent.pid}, {', '.join(sorted(agent.capabilities))}"
    return Finding(what, found)


_LOCAL: tuple[Callable[[], Finding], ...] = (
    _client,
    _kernel,
    _home,
    _free_space,
    _debugger,
    _python,
    _configuration,
)
