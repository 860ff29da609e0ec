"""First contact as the rest of the client sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rdev.client.known import KnownHost
from rdev.client.transport.contract import Transport
from rdev.protocol.errors import BootstrapFailed


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person wants of a first contact.

    Attributes:
        home: The agent's state folder there; empty for `~/.rdev`.
        python: The Python that the agent shall run by; empty lets us look for one.
        again: Put rdev there even if it seems to be.
    """

    home: str = ""
    python: str = ""
    again: bool = False


async def first_contact(
    host: str,
    transport: Transport,
    *,
    wishes: Wishes = Wishes(),
    narrate: Callable[[str], None] = lambda _line: None,
) -> KnownHost:
    """Puts rdev on a host and remembers it; an agent is not started, the bridge does that.

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
    raise BootstrapFailed(f"reach the host {host!r}", "this release cannot put rdev on a host yet")
