"""The agent's connection to one job's supervisor: states come in, commands go out.

not connected --serve--> connected --the connection ends--> not connected
commands wait for a connection and for their answer; once the job is over they fail at once
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from rdev.protocol.errors import JobConflict, JobNotRunning, TimedOut
from rdev.wire.channel import MAX_LINE, VERSION, decode, encode
from rdev.wire.files import JobFiles
from rdev.wire.records import Status
from rdev.wire.unix import short_socket_path


class Link:
    """Commands to one supervisor; `serve` must be running for them to be answered.

    Args:
        files: The job's directory.
        on_status: Called with every status the supervisor reports.
    """

    def __init__(self, files: JobFiles, on_status: Callable[[Status], None]) -> None:
        self._files = files
        self._on_status = on_status
        self._writer: asyncio.StreamWriter | None = None
        # Set while commands can be sent, and once none ever can again.
        self._connected = asyncio.Event()
        self._is_over = False
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        # The commands told whose answers have not come, and those told once more meanwhile.
        self._told: dict[int, str] = {}
        self._again: set[str] = set()

    async def serve(self) -> None:
        """Connects and takes in states until the connection ends.

        Raises:
            OSError: Nobody listens.
        """
        reader, self._writer = await _connect(self._files)
        try:
            self._writer.write(encode({"type": "hello", "version": VERSION, "role": "agent"}))
            self._connected.set()
            # A supervisor that is killed resets the connection, or leaves a line unfinished.
            with contextlib.suppress(ConnectionResetError):
                while (line := await reader.readline()).endswith(b"\n"):
                    self._on_message(decode(line))
        finally:
            self._connected.clear()
            self._writer.close()
            self._writer = None
            self._fail_answers()
            self._told.clear()
            self._again.clear()

    def tell(self, name: str) -> None:
        """Sends a command that says no more than that there is something new; returns at once.

        Those that come before the answer are told as one after it. Without a connection nothing is
        sent: a supervisor looks by itself when it is connected.
        """
        if self._writer is None:
            return
        if name in self._told.values():
            self._again.add(name)
            return
        self._last += 1
        self._told[self._last] = name
        self._writer.write(encode({"type": "command", "id": self._last, "name": name, "args": {}}))

    def finish(self) -> None:
        """The job has ended: whoever still wants something is told so at once."""
        self._is_over = True
        self._connected.set()

    async def command(
        self, name: str, arguments: Mapping[str, Any], *, patience: float
    ) -> dict[str, Any]:
        """Sends a command and returns its result.

        Args:
            name: Of the command, see rdev.wire.channel.
            arguments: Its arguments.
            patience: Seconds to wait for a connection and for the answer.

        Raises:
            JobConflict: The supervisor, or who it was for, refuses.
            JobNotRunning: The job has ended, or the connection did before the answer came.
            TimedOut: No answer came.
        """
        try:
            async with asyncio.timeout(patience):
                await self._connected.wait()
                if self._is_over:
                    raise JobNotRunning(f"{name} the job", "it has ended")
                answer = await self._ask(name, arguments)
        except TimeoutError as error:
            raise TimedOut(f"{name} the job", "its supervisor does not answer") from error
        if not answer.get("ok"):
            raise JobConflict(f"{name} the job", str(answer.get("cause", "it was refused")))
        return {key: value for key, value in answer.items() if key not in ("type", "id", "ok")}

    async def _ask(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._last += 1
        number = self._last
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            if self._writer is None:
                raise JobNotRunning(f"{name} the job", "it has just ended")
            command = {"type": "command", "id": number, "name": name, "args": dict(arguments)}
            self._writer.write(encode(command))
            await self._writer.drain()
            return dict(await answer)
        except (ConnectionError, EOFError) as error:
            cause = "the connection to its supervisor ended"
            raise JobNotRunning(f"{name} the job", cause) from error
        finally:
            del self._answers[number]

    def _on_message(self, message: dict[str, Any]) -> None:
        if message.get("type") == "state":
            self._on_status(Status.from_json(message))
        elif message.get("type") == "result":
            number = message.get("id", 0)
            answer = self._answers.get(number)
            if answer is not None and not answer.done():
                answer.set_result(message)
            name = self._told.pop(number, "")
            if name in self._again:
                self._again.discard(name)
                self.tell(name)

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EOFError())


async def _connect(files: JobFiles) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)  # noqa: FBT003  # the standard library's signature
        with short_socket_path(files.socket) as path:
            await asyncio.get_running_loop().sock_connect(connection, path)
        return await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE + 1)
    except BaseException:
        with contextlib.suppress(OSError):
            connection.close()
        raise
