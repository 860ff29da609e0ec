"""One adapter process: started with its secrets on stdin, spoken to over a socket pair, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from asyncio.subprocess import PIPE, Process
from typing import IO, Any, Self

from rdev.protocol.errors import DebuggerUnavailable

# Starting an interpreter and importing debugpy takes 0.3 s on an idle core; a busy one its share.
START_SECONDS = 20.0

# An adapter whose streams have ended leaves within milliseconds.
EXIT_SECONDS = 2.0

# A DAP message of an ordinary session fits; longer ones come in pieces.
READ_BYTES = 64 * 1024

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "adapter.py")


def _private(path: str) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


class AdapterProcess:
    """An adapter that waits for its debuggee at `socket_path`.

    Attributes:
        socket_path: Where the job's process connects, once; the file is 0600 in a 0700 folder.
        debugpy: Folder of the debugpy that adapter and process both use.
        server_token: What the adapter says to the process.
        client_token: What the process says to the adapter.
    """

    def __init__(
        self, process: Process, ours: socket.socket, *, order: dict[str, Any], log: str
    ) -> None:
        self._process = process
        self._log = log
        self._ours = ours
        self.socket_path = str(order["socket"])
        self.debugpy = str(order["debugpy"])
        self.server_token = str(order["server_token"])
        self.client_token = str(order["client_token"])

    @classmethod
    async def start(cls, job_directory: str, rank: int, debugpy: str) -> Self:
        """Starts an adapter for one rank.

        Raises:
            DebuggerUnavailable: It did not begin to listen.
        """
        try:
            return await cls._start(os.path.join(job_directory, "debug"), rank, debugpy)
        except OSError as error:  # a full disk, or no more processes
            cause = error.strerror or str(error)
            raise DebuggerUnavailable("start the debug adapter", cause) from error

    @classmethod
    async def _start(cls, folder: str, rank: int, debugpy: str) -> Self:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        ours, theirs = socket.socketpair()
        ours.settimeout(0)  # as asyncio wants it
        order: dict[str, Any] = {
            "debugpy": debugpy,
            "socket": os.path.join(folder, f"{rank}-{secrets.token_hex(4)}.sock"),
            "client": theirs.fileno(),
            # Fresh for each adapter, and never on a command line or in an environment.
            "server_token": secrets.token_hex(32),
            "client_token": secrets.token_hex(32),
        }
        log = os.path.join(folder, f"{rank}.log")
        try:
            with theirs, _private(log) as stderr:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    _SCRIPT,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=stderr,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C at the agent's terminal is the agent's
                )
        except BaseException:
            ours.close()
            raise
        adapter = cls(process, ours, order=order, log=log)
        try:
            await adapter._order(order)
        except BaseException:
            await adapter.close()
            raise
        return adapter

    @property
    def pid(self) -> int:
        """The adapter's process id."""
        return self._process.pid

    async def debuggee(self) -> int:
        """Waits until the job's process has connected and proved itself; returns its pid.

        Raises:
            DebuggerUnavailable: It did not, or the adapter ended.
        """
        message = await self._hear()
        if "debuggee" not in message:
            raise DebuggerUnavailable("attach the debugger", str(message.get("error", "it ended")))
        return int(message["debuggee"])

    async def send(self, data: bytes) -> None:
        """Sends bytes of the DAP stream; OSError if the adapter is gone."""
        await asyncio.get_running_loop().sock_sendall(self._ours, data)

    async def receive(self) -> bytes:
        """The next bytes of the DAP stream; b"" when the adapter is gone."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._ours, READ_BYTES)
        except OSError:
            return b""

    def hang_up(self) -> None:
        """Ends the DAP stream in both directions; whoever waits for bytes gets its end."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Ends the adapter and waits until it is gone."""
        self.hang_up()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._ours.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)

    async def _order(self, order: dict[str, Any]) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise DebuggerUnavailable("start the debug adapter", "it has no stdin")
        stdin.write(json.dumps(order).encode() + b"\n")
        try:
            async with asyncio.timeout(START_SECONDS):
                message = await self._hear()
        except TimeoutError as error:
            cause = f"it did not start within {START_SECONDS:g} s"
            raise DebuggerUnavailable("start the debug adapter", cause) from error
        if not message.get("listening"):
            raise DebuggerUnavailable("start the debug adapter", f"it ended; {self._log} says why")

    async def _hear(self) -> dict[str, Any]:
        if self._process.stdout is None:
            return {}
        line = await self._process.stdout.readline()
        message = json.loads(line) if line else {}
        return message if isinstance(message, dict) else {}
