"""Reads the ssh configuration where there is no `ssh` binary to ask."""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import paramiko

from rdev.client.transport.sshconfig import HostConfig
from rdev.protocol.errors import HostUnreachable

# As in OpenSSH's readconf.c.
_DEEPEST = 16

_SYSTEM = "/etc/ssh/ssh_config"
_LINE = re.compile(r"\s*(?P<keyword>\w+)(?:\s*=\s*|\s+)(?P<rest>.*?)\s*$")
_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")


def user_home() -> str:
    """The home folder as ssh knows it: the passwd file's, whatever HOME says."""
    return pwd.getpwuid(os.getuid()).pw_dir


def expand(path: str, config: HostConfig | None = None) -> str:
    """A path of the configuration with `~` and its tokens replaced; see TOKENS in ssh_config(5)."""
    if path.startswith("~/") or path == "~":
        path = user_home() + path[1:]
    if config is None:
        return path
    tokens = {
        "%": "%",
        "d": user_home(),
        "h": config.get("hostname"),
        "n": config.get("host") or config.get("hostname"),
        "p": config.get("port", "22"),
        "r": config.get("user"),
        "u": getpass.getuser(),
    }
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), path)


def read_config(file: str, destination: str) -> HostConfig:
    """What the files say of a host, with OpenSSH's defaults for what rdev looks at.

    Args:
        file: The configuration file; empty for the user's and the system's.
        destination: As ssh takes it.

    Raises:
        HostUnreachable: A file cannot be understood.
    """
    user, host, port = split_destination(destination)
    files = [file] if file else [f"{user_home()}/.ssh/config", _SYSTEM]
    text = "\nHost *\n".join("\n".join(_expanded(name, depth=0)) for name in files)
    try:
        found = paramiko.SSHConfig.from_text(text).lookup(host)
    except (paramiko.SSHException, ImportError, ValueError) as error:
        action = f"read the ssh configuration of {destination}"
        raise HostUnreachable(action, str(error), hint="mend it, or install ssh") from error
    values = {key: value if isinstance(value, list) else [value] for key, value in found.items()}
    values |= {"user": [user]} if user else {}
    values |= {"port": [port]} if port else {}
    return HostConfig({**_defaults(), **values, "host": [host]})


def split_destination(destination: str) -> tuple[str, str, str]:
    """User, host and port of a destination; what it does not say is empty."""
    if destination.startswith("ssh://"):
        parts = urlsplit(destination)
        return parts.username or "", parts.hostname or "", str(parts.port or "")
    user, _, host = destination.rpartition("@")
    return user, host, ""


def _defaults() -> dict[str, list[str]]:
    folder = f"{user_home()}/.ssh"
    return {
        "user": [getpass.getuser()],
        "port": ["22"],
        "identityfile": [f"{folder}/{name}" for name in _KEYS],
        "userknownhostsfile": [f"{folder}/known_hosts {folder}/known_hosts2"],
        "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
        "stricthostkeychecking": ["ask"],
    }


def _expanded(file: str, *, depth: int) -> Iterator[str]:
    """The lines of a file with those of the files that it includes."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            lines = opened.read().splitlines()
    except OSError:  # as ssh does without -F: no file, no say
        return
    block = "Host *"
    for line in lines:
        found = _LINE.match(line)
        keyword = found["keyword"].lower() if found else ""
        if keyword in ("host", "match"):
            block = line
        if keyword != "include" or found is None:
            yield line
            continue
        if depth < _DEEPEST:
            for pattern in found["rest"].split():
                for included in sorted(glob.glob(_included(pattern.strip('"'), file))):
                    yield from _expanded(included, depth=depth + 1)
        yield block  # the included files' own blocks end with them


def _included(pattern: str, file: str) -> str:
    folder = os.path.dirname(_SYSTEM) if file == _SYSTEM else f"{user_home()}/.ssh"
    return os.path.join(folder, expand(pattern))
