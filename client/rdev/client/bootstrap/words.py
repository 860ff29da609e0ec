"""Words for a login shell of any kind."""

from __future__ import annotations

import re

from rdev.client.known import KnownHost
from rdev.wire.home import HOME_VARIABLE

# What sh, bash, zsh, csh and fish all take as it stands. Letters of other scripts mean nothing to
# any of them; a backslash before one does to some.
_SPECIAL = re.compile(r"([^A-Za-z0-9_@%+:,./\u0080-\U0010ffff-])")


# A path with one could not be given to every shell, and would drive a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def has_no_control(text: str) -> bool:
    """Whether a host's word, such as a path, has no control characters."""
    return _CONTROL.search(text) is None


def agent_command(known: KnownHost, *words: str) -> str:
    """The command line of a host's `rdev-agent`, for its home.

    Where releases lie outside the home, what looks whether they are still the user's own comes
    first, as it does for the bridge.
    """
    program = command(f"{known.dist}/bin/rdev-agent")
    guard, is_there, _ = known.bridge.partition(program)
    before = guard.split(" ") if is_there else []
    home = command("env", f"{HOME_VARIABLE}={known.home}")
    return " ".join([home, *filter(None, before), program, command(*words)])


def command(*words: str) -> str:
    """The words as one command line, for sh, csh and fish alike.

    Quotes differ between these, and a backslash before what is neither letter nor digit does not.

    Raises:
        ValueError: A word holds a line break, which csh cannot be given.
    """
    if any(character in word for word in words for character in "\r\n\0"):
        raise ValueError("a word for a shell holds a line break")
    return " ".join(_SPECIAL.sub(r"\\\1", word) for word in words)
