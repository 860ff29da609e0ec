"""What the user's ssh configuration says of a host, asked of the `ssh` binary itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rdev.protocol.errors import HostUnreachable
from rdev.wire.home import machine_id

# `ssh -G` reads files, and runs what `Match exec` names.
CONFIG_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The configuration that holds for one host, all defaults filled in.

    Attributes:
        values: Of each keyword in lower case, all its values as `ssh -G` prints them.
    """

    values: Mapping[str, Sequence[str]]

    def get(self, keyword: str, default: str = "") -> str:
        """A keyword's first value; `none` is none."""
        found = self.values.get(keyword, ())
        return found[0] if found and found[0].lower() != "none" else default

    def all(self, keyword: str) -> list[str]:
        """All of a keyword's values."""
        return [value for value in self.values.get(keyword, ()) if value.lower() != "none"]

    def is_on(self, keyword: str, *, default: bool) -> bool:
        """A keyword that is yes or no."""
        return self.get(keyword, "yes" if default else "no").lower() in ("yes", "true")

    def number(self, keyword: str, default: int) -> int:
        """A keyword that is a number."""
        value = self.get(keyword)
        return int(value) if value.isdecimal() else default


def parse(text: str) -> HostConfig:
    """From the lines that `ssh -G` prints."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            values.setdefault(keyword.lower(), []).append(value)
    return HostConfig(values)


def digest_of(config: HostConfig) -> str:
    """Names a configuration by all that it says."""
    said = repr(sorted((keyword, *values) for keyword, values in config.values.items()))
    return hashlib.blake2b(f"{machine_id()}{said}".encode(), digest_size=16).hexdigest()


def words(config: str, host: str) -> list[str]:
    """The command that prints a host's configuration.

    Args:
        config: The configuration file; empty for the user's.
        host: The destination, checked.
    """
    return ["ssh", *(["-F", config] if config else []), "-G", "--", host]


async def ask_ssh(config: str, host: str) -> HostConfig:
    """Asks the `ssh` binary.

    Raises:
        HostUnreachable: It finds the configuration, or the name, wrong.
    """
    process = await asyncio.create_subprocess_exec(
        *words(config, host),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CONFIG_PATIENCE):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise config_hangs(host) from None
    return understood(host, process.returncode, stdout, stderr)


def config_hangs(host: str) -> HostUnreachable:
    """The error for a configuration that `ssh -G` does not come to an end with."""
    cause = f"`ssh -G {host}` takes longer than {CONFIG_PATIENCE:.0f} s"
    hint = "see what `Match exec` runs in the configuration"
    return HostUnreachable(f"read the ssh configuration of {host}", cause, hint=hint)


def understood(host: str, code: int | None, stdout: bytes, stderr: bytes) -> HostConfig:
    """What `ssh -G` printed, if it went well.

    Raises:
        HostUnreachable: It did not.
    """
    if code == 0:
        return parse(stdout.decode(errors="replace"))
    lines = stderr.decode(errors="replace").strip().splitlines()
    raise HostUnreachable(
        f"read the ssh configuration of {host}",
        lines[0].rstrip("\r") if lines else f"ssh ended with {code}",
        hint="mend the file and line named",
    )
