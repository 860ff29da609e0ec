"""What the laptop remembers of each host it has been in contact with.

    $XDG_STATE_HOME/rdev/hosts/<host>.json    0600, one a host

A host that is remembered is reached without a question: the bridge is started by the path that is
written here. What was forgotten or became wrong costs a new first contact, and no job.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from rdev.client.folders import STATE_VARIABLE, movable

# What `urllib.parse.quote` leaves as it is.
_PLAIN = re.compile(r"[A-Za-z0-9_.~@-]*")


@dataclass(frozen=True, slots=True)
class KnownHost:
    """A host that an agent was put on.

    Attributes:
        host: Name as the user writes it.
        agent_id: The agent's id, pinned; another one under this name is refused.
        machine_id: Of its machine.
        home: The agent's state folder there, absolute.
        bridge: Command that starts a bridge there: words for any login shell, without quotes.
        dist: Folder of the release there.
        release: What was put there: rdev's version and the digest of its wheel.
        transport: `openssh` or `paramiko`; empty lets us choose.
        uname: System and architecture, such as `Linux x86_64`.
        home_id: Of the folder of releases there. Machines that share a home have it in common, and
            one name may lead to several of them, each with an agent of its own.
    """

    host: str
    agent_id: str
    machine_id: str
    home: str
    bridge: str
    dist: str
    release: str
    transport: str = ""
    uname: str = ""
    home_id: str = ""


def state_folder() -> str:
    """The laptop's state folder; it may not exist."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "rdev")


def recall(host: str) -> KnownHost | None:
    """What is known of a host; None if nothing is, or it cannot be understood."""
    try:
        with open(_path(host), encoding="utf-8") as file:
            return _from_json(json.load(file))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remember(known: KnownHost) -> None:
    """Writes down a host, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(known.host)
    temporary = f"{path}.{os.getpid()}"
    with movable(STATE_VARIABLE):
        for folder in (state_folder(), _folder()):  # a mode is given to a path's last part only
            os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(known), file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def forget(host: str) -> bool:
    """Forgets a host; False if nothing was known of it."""
    try:
        os.unlink(_path(host))
    except FileNotFoundError:
        return False
    return True


def known_hosts() -> list[KnownHost]:
    """All hosts that are remembered, by name."""
    try:
        names = sorted(os.listdir(_folder()))
    except FileNotFoundError:
        return []
    from urllib.parse import unquote

    hosts = (recall(unquote(name.removesuffix(".json"))) for name in names)
    return [known for known in hosts if known is not None]


def _folder() -> str:
    return os.path.join(state_folder(), "hosts")


def _path(host: str) -> str:
    if not _PLAIN.fullmatch(host):
        from urllib.parse import quote  # costs more than all else here

        host = quote(host, safe="@")
    return os.path.join(_folder(), f"{host}.json")


def _from_json(body: dict[str, Any]) -> KnownHost:
    known = {field.name for field in fields(KnownHost)}
    return KnownHost(**{name: value for name, value in body.items() if name in known})
