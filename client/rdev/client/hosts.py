"""Which hosts there are.

local       the agent on this machine, started on demand
unix:PATH   an agent whose socket somebody forwards to PATH, such as `ssh -L` or a shared volume
any other   what `ssh` can be told: a host of ~/.ssh/config, `user@host`, `ssh://user@host:port`,
            or one of `[hosts]` in the user's configuration file
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from rdev.protocol.errors import ConfigError
from rdev.wire.home import Home, HomeUnknownError, this_home

# The agent on this machine, started on demand; what every verb uses when no host is named.
LOCAL = "local"

_FORWARDED = "unix:"

# In a hint: a verb that acts on the host of `-H`, which is not said yet.
_COMMAND = re.compile(
    r"`rdev (?:env (?:ls|show|sync)|sync(?: (?:flush|status))?|ps|logs|attach|wait|stop|exec|debug"
    r"|stack|metrics|events|rm)(?=[ `])(?![^`]* (?:-H|--help))"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host's agent is reached.

    Attributes:
        home: Where to start an agent if none answers; None where that is not ours to do.
        forwarded: Path of the socket that somebody else sees to.
    """

    home: Home | None
    forwarded: str = ""

    @property
    def socket(self) -> str:
        """Path of the socket; an agent that is started for the first time chooses the folder."""
        return self.home.socket if self.home is not None else self.forwarded


def endpoint_of(host: str) -> Endpoint | None:
    """Where the agent of `host` is reached on this machine; None for a host that ssh leads to."""
    if host == LOCAL:
        return Endpoint(_own_home())
    if host.startswith(_FORWARDED) and (path := host.removeprefix(_FORWARDED)):
        return Endpoint(None, os.path.abspath(os.path.expanduser(path)))
    return None


def _own_home() -> Home:
    try:
        return this_home()
    except HomeUnknownError as error:
        hint = "RDEV_HOME=/a/folder/of/yours"
        raise ConfigError("find the home of this machine's agent", str(error), hint=hint) from error


def phrase(verb: str, host: str, *words: str) -> str:
    """The command line that a hint gives a person to type, with `-H` where it is needed.

    Args:
        verb: Of `rdev`, with options as in `logs -f`.
        host: Where it is to act.
        words: What follows.
    """
    where = () if host == LOCAL else ("-H", host)
    return " ".join(["rdev", verb, shlex.join([*where, *words])]).rstrip()


def aimed(hint: str, host: str) -> str:
    """A hint whose commands act on the host that was typed; an agent does not know its name.

    Args:
        hint: With commands as `rdev VERB ...` in backticks.
        host: As the person typed it.
    """
    if host == LOCAL:
        return hint
    return _COMMAND.sub(lambda found: f"{found[0]} -H {shlex.quote(host)}", hint)
