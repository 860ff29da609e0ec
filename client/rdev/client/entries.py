"""The user's own hosts: `[hosts.NAME]` in the user's configuration file, read and written.

None is needed: any name that `ssh` knows is a host. An entry gives one a name of rdev's own, or
says how it differs:

    [hosts.gpu1]
    ssh = "me@gpu1.example.org"     what `ssh` is told; the name itself by default
    home = "/scratch/me/.rdev"      the agent's state folder there
    python = "/opt/conda"           the Python that the agent runs by
    transport = "paramiko"          or openssh
    ssh_config = "~/other_config"   instead of ~/.ssh/config

The file is edited line by line, so that comments and order stay as they are, and what comes of it
is compared with what was meant before it is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rdev.client.config import user_file
from rdev.protocol.errors import ConfigError, UsageError

TRANSPORTS = ("openssh", "paramiko")

# What may stand after `-H` without quotes, and in a table's name; no option, no path, no socket.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
_HEADER = re.compile(r"\s*\[")


@dataclass(frozen=True, slots=True)
class Entry:
    """A host as the user's file describes it; what is empty is as usual.

    Attributes:
        name: What `-H` is given.
        ssh: What `ssh` is given.
        home: The agent's state folder there.
        python: The Python that the agent shall run by.
        transport: `openssh` or `paramiko`.
        ssh_config: The ssh configuration file to use instead of the user's.
    """

    name: str
    ssh: str = ""
    home: str = ""
    python: str = ""
    transport: str = ""
    ssh_config: str = ""

    @property
    def destination(self) -> str:
        """What `ssh` is given."""
        return self.ssh or self.name


_ORDER = tuple(field.name for field in fields(Entry) if field.name != "name")


def entry_of(name: str) -> Entry:
    """What is written of a host; one that is not written is as usual.

    Raises:
        ConfigError: The file cannot be read or says something without a meaning.
    """
    return next((entry for entry in entries() if entry.name == name), Entry(name))


def entries() -> list[Entry]:
    """All hosts of the user's file, in its order.

    Raises:
        ConfigError: As `entry_of` has it.
    """
    return [_entry(name, table) for name, table in _hosts(_parsed(_text())).items()]


def default_host() -> str:
    """The host that verbs use without -H, as the user's file has it; empty if it has none."""
    return str(_parsed(_text()).get("host", ""))


def add(entry: Entry) -> None:
    """Writes a host down, in the place of an older entry of its name.

    Raises:
        UsageError: No host can have that name, or a value cannot be.
        ConfigError: The file cannot be read or edited.
    """
    _require_name(entry.name)
    if entry.transport and entry.transport not in TRANSPORTS:
        raise UsageError(f"add the host {entry.name!r}", f"{entry.transport!r} is no transport")
    body = {key: value for key in _ORDER if (value := getattr(entry, key))}
    text = _text()
    meant = _parsed(text)
    meant["hosts"] = {**_hosts(meant), entry.name: body}
    kept = _without(text, entry.name)
    lines = [f"[hosts.{_key(entry.name)}]", *(f"{key} = {_quoted(v)}" for key, v in body.items())]
    _write(kept.rstrip("\n") + ("\n\n" if kept.strip() else "") + "\n".join(lines) + "\n", meant)


def remove(name: str) -> bool:
    """Removes a host, and the default if it is that; False if the file has neither.

    Raises:
        ConfigError: The file cannot be read or edited.
    """
    text = _text()
    meant = _parsed(text)
    hosts = _hosts(meant)
    is_default = meant.get("host") == name
    if name not in hosts and not is_default:
        return False
    meant["hosts"] = {other: table for other, table in hosts.items() if other != name}
    if not meant["hosts"]:
        del meant["hosts"]
    if is_default:
        del meant["host"]
        text = _with_default(text, None)
    _write(_without(text, name), meant)
    return True


def use(name: str) -> None:
    """Makes a host the one that verbs use without -H.

    Raises:
        UsageError: No host can have that name.
        ConfigError: The file cannot be read or edited.
    """
    _require_name(name)
    text = _text()
    _write(_with_default(text, name), {**_parsed(text), "host": name})


def _require_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        cause = "a host's name has letters, digits and _ . @ - only"
        raise UsageError(f"name a host {name!r}", cause)


def _text() -> str:
    try:
        with open(user_file(), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"read {user_file()}", str(error)) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"read {user_file()}", str(error)) from error


def _hosts(parsed: Mapping[str, Any]) -> dict[str, Any]:
    hosts = parsed.get("hosts", {})
    if not isinstance(hosts, dict):
        raise ConfigError(f"use {user_file()}", "hosts is no table")
    return hosts


def _entry(name: str, table: object) -> Entry:
    action = f"use {user_file()}"
    if not isinstance(table, dict):
        raise ConfigError(action, f"hosts.{name} is no table")
    for key, value in table.items():
        if key not in _ORDER:
            known = ", ".join(sorted(_ORDER))
            raise ConfigError(action, f"{key!r} is no key of a host; it knows {known}")
        if not isinstance(value, str):
            raise ConfigError(action, f"hosts.{name}.{key} may not be {value!r}")
    if table.get("transport", TRANSPORTS[0]) not in TRANSPORTS:
        raise ConfigError(action, f"hosts.{name}.transport is {' or '.join(TRANSPORTS)}")
    return Entry(name, **table)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # TOML's basic strings are JSON's


def _without(text: str, name: str) -> str:
    """The text without a host's table; comments before the next table belong to that one."""
    header = re.compile(
        rf"\s*\[\s*hosts\s*\.\s*({re.escape(name)}|{re.escape(_quoted(name))})\s*\]"
    )
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return text
    rest = (n for n in range(start + 1, len(lines)) if _HEADER.match(lines[n]))
    following = next(rest, len(lines))
    while following > start + 1 and _is_remark(lines[following - 1]):
        following -= 1
    return "".join(lines[:start] + lines[following:])


def _is_remark(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _with_default(text: str, name: str | None) -> str:
    """The text with another `host`, which stands before all tables, or with none."""
    lines = text.splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if _HEADER.match(line)), len(lines))
    places = [n for n in range(end) if re.match(r"\s*host\s*=", lines[n])]
    given = [] if name is None else [f"host = {_quoted(name)}\n"]
    if places:
        lines[places[0] : places[0] + 1] = given
    else:
        lines[0:0] = given
    return "".join(lines)


def _write(text: str, meant: Mapping[str, Any]) -> None:
    """Writes the file whole, if it says what is meant."""
    path = os.path.realpath(user_file())  # it may be a link into somebody's dotfiles
    try:
        found: Mapping[str, Any] | None = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        found = None
    if found != meant:
        hint = "edit it by hand: docs/configuration.md says how"
        raise ConfigError(f"edit {path}", "it is written in a way that rdev cannot edit", hint=hint)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
