"""The site's file, /etc/rdev/agent.toml: what a machine's owner lets every agent on it do.

    jobs = 8                  # live jobs of one user at a time; further ones wait for their turn
    store = "200G"            # contents that an agent keeps of workspaces
    log = "10G"               # what each output of a job may take; beyond it is dropped and counted
    idle_exit = "2h"          # an agent without jobs and clients ends
    hook = false              # plants no debug hook in jobs
    local_state = "auto"      # or "off", or a folder on a local disk: see rdev.agent.local
    gpus = [0, 1]             # the only ones that jobs may have: indices or UUIDs

It binds agents and no processes: whoever may log in can run anything without rdev. A file that
cannot be read as it stands is an error and no agent starts: a limit that is mistyped must not be
one that silently does not hold.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rdev.agent.jobs.gpus import VISIBLE_VARIABLE
from rdev.agent.local import AUTO, OFF
from rdev.protocol.errors import ConfigError

SITE_FILE = "/etc/rdev/agent.toml"

_HINT = "ask who looks after this machine; docs/configuration.md says what may stand there"

# A file of this many bytes is no configuration.
_MAX_SIZE = 1 << 20

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")

# `ulimit`s and queues count no further; a limit above is a mistake.
_MOST_JOBS = 100_000

# An agent that ends between two commands of one script would only be in the way.
_LEAST_IDLE = 10.0

# An output that keeps less says nothing.
_LEAST_LOG = 64 << 10


@dataclass(frozen=True, slots=True)
class Site:
    """What the owner of the machine allows; without a file everything.

    Attributes:
        jobs: Live jobs of one agent at a time; None is no limit.
        store: Bytes that the contents of workspaces may take; None is no limit.
        log: Bytes that each output of a job may take; None is no limit.
        idle_exit: Seconds without a job and without a client after which an agent ends; None never.
        hook: Whether jobs get the debug hook.
        local_state: `auto`, `off` or a folder, see `rdev.agent.local`.
        gpus: Indices or UUIDs of the GPUs that jobs may have; None means all.
    """

    jobs: int | None = None
    store: int | None = None
    log: int | None = None
    idle_exit: float | None = None
    hook: bool = True
    local_state: str = AUTO
    gpus: tuple[str, ...] | None = None


def load(path: str | None = None) -> Site:
    """The site's file; everything is allowed if there is none.

    Args:
        path: By default /etc/rdev/agent.toml.

    Raises:
        ConfigError: It cannot be read, has a key that means nothing, or a value that is none.
    """
    path = path or SITE_FILE
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_SIZE)
    except (FileNotFoundError, NotADirectoryError):
        return Site()
    except OSError as error:
        raise ConfigError(f"read {path}", error.strerror or str(error), hint=_HINT) from error
    try:
        return parse(content.decode(), path)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"use {path}", f"line {line} is not UTF-8", hint=_HINT) from error


def restricted(environment: Mapping[str, str], gpus: Collection[str] | None) -> dict[str, str]:
    """A login's environment in which CUDA sees no GPU but those that the site allows.

    Args:
        environment: The login's; of the GPUs that it names itself, the allowed ones stay.
        gpus: See `Site.gpus`.
    """
    if gpus is None:
        return dict(environment)
    words = environment.get(VISIBLE_VARIABLE)
    own = None if words is None else [word.strip() for word in words.split(",")]
    allowed = gpus if own is None else [word for word in own if word in gpus]
    # An index means the order of the PCI bus, as `nvidia-smi` has it; CUDA's own order is another.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {**environment, **order, VISIBLE_VARIABLE: ",".join(allowed)}


def parse(text: str, path: str) -> Site:
    """What a site's file says.

    Args:
        text: Its content.
        path: Its name, for errors.

    Raises:
        ConfigError: It names the file, the line and the key.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # it says the line
        raise ConfigError(f"use {path}", str(error), hint=_HINT) from error
    values: dict[str, Any] = {}
    for key, value in found.items():
        where = f"line {_line_of(key, text)}: `{key}`"
        if key not in _READERS:
            cause = f"{where} is no key; there are {', '.join(sorted(_READERS))}"
            raise ConfigError(f"use {path}", cause, hint=_HINT)
        read, meaning = _READERS[key]
        try:
            values[key] = read(value)
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise ConfigError(f"use {path}", f"{where} has to be {meaning}", hint=_HINT) from None
    return Site(**values)


def _line_of(key: str, text: str) -> int:
    pattern = re.compile(rf"\s*\[?\s*[\"']?{re.escape(key)}\b")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def _jobs(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_JOBS:
        raise ValueError
    return value


def _size(value: object) -> int:
    if isinstance(value, str):
        number, unit = _matched(_SIZE, value)
        value = int(float(number) * _UNITS[unit.upper()])
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError
    return value


def _log(value: object) -> int:
    size = _size(value)
    if size < _LEAST_LOG:
        raise ValueError
    return size


def _seconds(value: object) -> float:
    if isinstance(value, str):
        number, unit = _matched(_TIME, value)
        value = float(number) * _TIMES[unit]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not _LEAST_IDLE <= value < float("inf"):
        raise ValueError
    return float(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _place(value: object) -> str:
    if not isinstance(value, str) or not (value in (AUTO, OFF) or os.path.isabs(value)):
        raise ValueError
    return value


def _gpus(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    for each in value:
        if isinstance(each, bool) or not isinstance(each, int | str) or each == "":
            raise ValueError
        if isinstance(each, int) and each < 0:
            raise ValueError
    return tuple(str(each) for each in value)


def _matched(pattern: re.Pattern[str], value: str) -> tuple[str, str]:
    found = pattern.fullmatch(value.strip())
    if found is None:
        raise ValueError
    return found[1], found[2]


_READERS: Mapping[str, tuple[Callable[[object], Any], str]] = {
    "jobs": (_jobs, f"a number from 1 to {_MOST_JOBS}"),
    "store": (_size, 'a size such as "200G"'),
    "log": (_log, 'a size such as "10G", of 64K at least'),
    "idle_exit": (_seconds, 'a time such as "2h" or "30m", of 10 s at least'),
    "hook": (_switch, "true or false"),
    "local_state": (_place, '"auto", "off" or the absolute path of a folder'),
    "gpus": (_gpus, "a list of indices or UUIDs, such as [0, 1]"),
}
