"""First contact as the rest of the client sees it.

    probe (sh -s) -> plan -> install (the host's Python reads the wheels) -> remembered

Nothing is started: the bridge does that. A host that is remembered is reached by its bridge alone,
and comes here again only when the bridge is gone, or when an older agent answers. What a warm
contact needs of this module imports nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from rdev.client.bootstrap.release import is_older, release_id, version_in
from rdev.client.known import KnownHost, remember
from rdev.client.transport.contract import Transport
from rdev.protocol.errors import HostChanged

Narrate = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person wants of a first contact.

    Attributes:
        home: The agent's state folder there; empty for `~/.rdev`.
        python: The Python that the agent shall run by: a path, a command, a conda prefix or `uv`;
            empty lets us look for one. A release that is there already keeps its own.
        again: Put rdev there even if it seems to be.
    """

    home: str = ""
    python: str = ""
    again: bool = False


def _silent(_line: str) -> None:
    pass


async def first_contact(
    host: str,
    transport: Transport,
    *,
    wishes: Wishes = Wishes(),
    narrate: Narrate = _silent,
) -> KnownHost:
    """Puts rdev on a host and remembers it; an agent is not started, the bridge does that.

    A host that has a later release already keeps to that.

    Args:
        host: Name as the user writes it.
        transport: Access to it.
        wishes: What the person wants of it.
        narrate: Told of each step that takes a while, one line for a person.

    Raises:
        NoPython: No Python 3.11 or later was found there.
        BootstrapFailed: Something else stands in the way; what was begun is removed.
        RdevError: What the transport raises.
    """
    from rdev.client.bootstrap.placing import place

    return await place(host, transport, wishes=wishes, narrate=narrate)


def is_outdated(version: str) -> bool:
    """Whether an agent of that version is older than the rdev that runs here.

    One that is newer, or of the same version, is spoken to by its capabilities.
    """
    return is_older(version, our_version())


def is_later(version: str) -> bool:
    """Whether an agent of that version is later than the rdev that runs here: never replaced."""
    return is_older(our_version(), version)


@functools.cache  # a process does not become another release
def our_version() -> str:
    """The version of the rdev that runs here; costs 2 ms the first time."""
    return version_in(release_id())


async def upgrade(
    host: str,
    transport: Transport,
    *,
    wishes: Wishes = Wishes(),
    narrate: Narrate = _silent,
) -> KnownHost:
    """Puts this release on a host and its agent in the place of the one that serves; jobs go on.

    Call it only where `is_outdated` says so, or a person asks for it: an agent is never put in the
    place of a newer one.

    Raises:
        BootstrapFailed: This release cannot be put there; the old agent serves on.
        AgentStartFailed: The new agent does not serve; the old one does, or the bridge starts one.
        RdevError: What the transport or the new agent says.
    """
    from rdev.client.bootstrap.placing import take_over

    known = await first_contact(host, transport, wishes=wishes, narrate=narrate)
    narrate(f"{host}: rdev {known.release} takes over from the agent that serves; jobs go on")
    await take_over(host, transport, known)
    return known


def pin(known: KnownHost, *, agent_id: str, machine_id: str, home_id: str = "") -> KnownHost:
    """The host with the agent that answered; the first one is remembered.

    A cluster's name may lead to another machine each time; that the two share the home shows in
    the id that lies there.

    Raises:
        HostChanged: Another one answered before.
        OSError: It cannot be remembered.
    """
    if known.agent_id == agent_id and known.machine_id == machine_id:
        return known
    is_sibling = bool(home_id) and home_id == known.home_id and machine_id != known.machine_id
    if known.agent_id and known.agent_id != agent_id and not is_sibling:
        cause = "another agent answers there than before"
        hint = f"if the machine was replaced, `rdev host rm {known.host}` forgets the old one"
        raise HostChanged(f"trust the host {known.host!r}", cause, hint=hint)
    pinned = replace(known, agent_id=agent_id, machine_id=machine_id)
    remember(pinned)
    return pinned
