"""A transport without a network: commands are given to a shell of this machine, as sshd does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from rdev.client.transport.contract import Ran
from rdev.protocol.errors import TimedOut


class ShellTransport:
    """Runs what it is given by a shell, in a home of its own, and counts.

    Attributes:
        commands: All that were given.
    """

    name = "shell"

    def __init__(
        self, home: Path, *, shell: str = "/bin/sh", path: str = "/usr/bin:/bin", **variables
    ):
        self.home = home
        self.shell = shell
        self.commands: list[str] = []
        self._environment = {"HOME": str(home), "PATH": path, "SHELL": shell, **variables}

    async def run(self, command: str, *, feed: bytes = b"", patience: float = 60.0) -> Ran:
        self.commands.append(command)
        process = await asyncio.create_subprocess_exec(
            self.shell,
            "-c",
            command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self.home,
        )
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(feed), patience)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise TimedOut(f"run {command}", "it took longer") from None
        return Ran(process.returncode or 0, stdout, stderr)

    async def join(self, command: str, near: socket.socket) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass
