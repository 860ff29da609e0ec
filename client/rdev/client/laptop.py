"""What rdev needs of the machine that it is typed on; each finding comes with its remedy."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable

from rdev.client import config
from rdev.client.bootstrap.release import cache_folder
from rdev.client.folders import CACHE_VARIABLE, STATE_VARIABLE
from rdev.client.known import state_folder
from rdev.client.session.front import VARIABLE
from rdev.client.session.running import running
from rdev.protocol.errors import RdevError
from rdev.protocol.finding import Finding

# `rdev sync --watch` takes a watch for each folder; editors beside us take many. Distributions gave
# 8,192 before kernel 5.11.
_LEAST_WATCHES = 8192

# Wheels for one kind of host take 17 MB, and a large tree's digests some more.
_LEAST_FREE = 200e6


def examine_laptop() -> list[Finding]:
    """All findings about this machine, in the order in which a person would mend them."""
    return [finding for check in _CHECKS for finding in check()]


def _client() -> list[Finding]:
    found = f"Python {platform.python_version()} at {sys.executable}"
    return [Finding("client", found)]


def _configuration() -> list[Finding]:
    try:
        config.load(os.getcwd())
    except RdevError as error:
        return [Finding("configuration", error.message, ok=False, remedy=error.hint)]
    return [Finding("configuration", "valid")]


def _watches() -> list[Finding]:
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:
            watches = int(file.read())
    except (OSError, ValueError):  # not Linux, where watching a tree costs nothing by the folder
        return []
    is_enough = watches >= _LEAST_WATCHES
    remedy = "" if is_enough else "have fs.inotify.max_user_watches set to 524288 here"
    return [Finding("watches here", f"{watches} a user", ok=is_enough, remedy=remedy)]


def _cache() -> list[Finding]:
    return [_folder("cache here", cache_folder(), CACHE_VARIABLE, least=_LEAST_FREE)]


def _state() -> list[Finding]:
    return [_folder("state here", state_folder(), STATE_VARIABLE)]


def _folder(what: str, folder: str, variable: str, *, least: float = 0) -> Finding:
    """Whether a folder, which need not exist yet, can be written and has room."""
    there = folder
    while not os.path.lexists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        remedy = f"see to the owner and the mode of {there}, or set {variable} to another folder"
        return Finding(what, f"{folder} cannot be written", ok=False, remedy=remedy)
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    remedy = "" if free >= least else f"free some space there, or set {variable} to another folder"
    said = f"{folder} has {free / 2**30:.1f} GiB free"
    return Finding(what, said, ok=free >= least, remedy=remedy)


def _session() -> list[Finding]:
    if os.environ.get(VARIABLE) == "0":
        return [Finding("session", f"none is used, by {VARIABLE}=0")]
    if not running():
        return [Finding("session", "none runs; most commands start one for the next")]
    found = ", ".join(f"process {pid}" for pid in running())
    return [Finding("session", f"{found}; `rdev down local` ends it")]


_CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    *(_client, _configuration, _session, _watches, _cache, _state),
)
