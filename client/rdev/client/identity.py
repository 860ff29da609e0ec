"""Who a person is to those who share a login with them."""

from __future__ import annotations

import getpass
import os
import socket

from rdev.client import config


def owner() -> str:
    """`user@laptop`, or what `[user] owner` in the user's configuration says instead.

    The laptop's name is without its domain, which changes with the network.

    Raises:
        ConfigError: The user's configuration cannot be read.
    """
    chosen = config.load(None).owner
    return chosen or _text(f"{_user()}@{socket.gethostname().partition('.')[0] or 'laptop'}")


def _text(name: str) -> str:
    """A name as it can travel: $USER and a host's name may hold anything."""
    readable = name.encode(errors="replace").decode()
    shown = (letter if letter.isprintable() else "?" for letter in readable[: config.MAX_OWNER])
    return "".join(shown)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run us as a user that nothing knows.
        return f"uid{os.getuid()}"
