"""How a host is reached: its name as ssh takes it, and what is configured of the way there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rdev.protocol.errors import ConfigError, UsageError

TRANSPORT_VARIABLE = "RDEV_TRANSPORT"
CONFIG_VARIABLE = "RDEV_SSH_CONFIG"

OPENSSH, PARAMIKO = "openssh", "paramiko"
TRANSPORTS = (OPENSSH, PARAMIKO)

# What ssh itself takes for a host name or an address, with a user before it or as a URL. A leading
# dash would be an option of ssh's, and nothing here may reach a shell as anything but a word.
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*"
_NAME = r"[A-Za-z0-9_\[:][A-Za-z0-9_.:%\[\]-]*"
_DESTINATION = re.compile(rf"(?:{_USER}@)?{_NAME}|ssh://(?:{_USER}@)?{_NAME}/?")


@dataclass(frozen=True, slots=True)
class Settings:
    """The way to one host.

    Attributes:
        destination: What ssh is told; the host's name if empty.
        transport: `openssh` or `paramiko`; empty lets us choose.
        config: The ssh configuration file to use instead of the user's; empty for theirs.
        alive: Seconds of silence after which the host is asked whether it is still there. After
            twice as many without an answer the link is given up: within 30 s in all.
        connecting: Seconds for a connection to be made, if the configuration does not say.
    """

    destination: str = ""
    transport: str = ""
    config: str = ""
    alive: int = 8
    connecting: int = 15


DEFAULTS = Settings()


def check_destination(host: str) -> str:
    """Returns what ssh may be given as a host.

    Raises:
        UsageError: It is no host name, no `USER@HOST` and no `ssh://` URL.
    """
    if _DESTINATION.fullmatch(host) and host != "unix:":
        return host
    hint = "name a host of ~/.ssh/config, USER@HOST, ssh://USER@HOST:PORT or unix:PATH"
    raise UsageError(f"use the host {host!r}", "it is no host's name", hint=hint)


def check_transport(name: str) -> str:
    """Returns a transport's name if there is one of that name.

    Raises:
        ConfigError: There is none.
    """
    if name and name not in TRANSPORTS:
        raise ConfigError(
            "choose the transport",
            f"{name!r} is none",
            hint=f"it is {' or '.join(TRANSPORTS)}; empty chooses",
        )
    return name


def settings_of(host: str) -> Settings:
    """What is configured of the way to a host: variables beat the user's configuration file.

    A workspace's file has no say in it: what it names would be run here.

    Raises:
        UsageError: The host's name, or what ssh is told in its place, is none.
        ConfigError: The file, or a name in it, is wrong.
    """
    from rdev.client.entries import entry_of

    configured = entry_of(host)
    transport = os.environ.get(TRANSPORT_VARIABLE) or configured.transport
    config = os.environ.get(CONFIG_VARIABLE) or configured.ssh_config
    return Settings(
        destination=check_destination(configured.destination),
        transport=check_transport(transport),
        config=os.path.abspath(os.path.expanduser(config)) if config else "",
    )
