"""Chooses the transport for a host."""

from __future__ import annotations

import shutil

from rdev.client.known import recall
from rdev.client.transport.contract import Transport
from rdev.client.transport.settings import (
    OPENSSH,
    PARAMIKO,
    check_transport,
    settings_of,
)


def open_transport(host: str, *, transport: str = "") -> Transport:
    """Access to a host that is reached by ssh; nothing is connected yet.

    Args:
        host: Destination as the user writes it.
        transport: `openssh` or `paramiko`; empty takes what is configured, else what was used the
            last time, else the `ssh` binary where there is one.

    Raises:
        UsageError: `host` is no destination.
        ConfigError: The configuration is wrong.
    """
    settings = settings_of(host)
    known = recall(host)
    name = check_transport(transport) or settings.transport or (known.transport if known else "")
    if not name:
        name = OPENSSH if shutil.which("ssh") else PARAMIKO
    if name == OPENSSH:
        from rdev.client.transport.openssh import OpenSsh

        return OpenSsh(host, settings)
    from rdev.client.transport.inprocess import Paramiko  # costs 0.1 s and more

    return Paramiko(host, settings)
