"""A port on this machine's loopback for an IDE: one client at a time, and only this user's.

Loopback is no boundary on a machine with several users, so the peer's uid is looked up in the
kernel's table of connections before a byte is passed on.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from rdev.client.debug.places import Sources
from rdev.client.debug.remote import RemotePipe
from rdev.protocol.dap import DapError, Framer, Message, encode
from rdev.protocol.errors import RdevError

Attach = Callable[[], AbstractAsyncContextManager[RemotePipe]]

_LOOPBACK = "127.0.0.1"
_READ_BYTES = 64 * 1024


def launch_configuration(name: str, port: int, sources: Sources) -> dict[str, Any]:
    """What goes into `.vscode/launch.json` under `configurations`."""
    # VS Code's extension maps the folder to itself for a local port that comes without a mapping.
    local = sources.local or "${workspaceFolder}"
    return {
        "name": f"rdev: {name}",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": _LOOPBACK, "port": port},
        "pathMappings": [{"localRoot": local, "remoteRoot": sources.remote}],
        "justMyCode": True,
    }


def with_path_mappings(message: Message, sources: Sources) -> Message:
    """An `attach` request that knows where the workspace is here and there; others unchanged."""
    if message.get("type") != "request" or message.get("command") != "attach":
        return message
    arguments = message.get("arguments")
    arguments = dict(arguments) if isinstance(arguments, dict) else {}
    if sources.local and not arguments.get("pathMappings"):
        mapping = {"localRoot": sources.local, "remoteRoot": sources.remote}
        arguments["pathMappings"] = [mapping]
    return {**message, "arguments": arguments}


class IdePort:
    """Listens on the loopback and joins each client with a session of its own; see `listening`."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        attach: Attach,
        sources: Callable[[str], Sources],
        say: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._attach = attach
        self._sources = sources
        self._say = say
        self._busy = False
        self.port: int = listener.getsockname()[1]

    async def serve(self) -> None:
        """Serves one client after the other, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                client, address = await loop.sock_accept(self._listener)
                refusal = self._refusal(client, address)
                if refusal:
                    self._say(refusal)
                    client.close()
                    continue
                self._busy = True
                group.create_task(self._serve(client))

    def _refusal(self, client: socket.socket, address: tuple[str, int]) -> str:
        uid = peer_uid_of_tcp(client.getsockname(), address)
        if uid is not None and uid != os.geteuid():
            return f"refused a client of user {uid}"
        return "refused a second client while the first is connected" if self._busy else ""

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.settimeout(0)  # as asyncio wants it
                await self._join(client)
        finally:
            self._busy = False

    async def _join(self, client: socket.socket) -> None:
        self._say("the IDE has connected")
        try:
            async with self._attach() as pipe, asyncio.TaskGroup() as group:
                sources = self._sources(pipe.opened.workspace)
                back = group.create_task(_to_client(pipe, client))
                await _to_adapter(client, pipe, sources)
                back.cancel()
        except* (RdevError, DapError, OSError) as group_of_errors:
            for error in group_of_errors.exceptions:
                self._say(error.message if isinstance(error, RdevError) else str(error))
        self._say("the IDE has left")


async def _to_adapter(client: socket.socket, pipe: RemotePipe, sources: Sources) -> None:
    loop, framer = asyncio.get_running_loop(), Framer()
    while data := await loop.sock_recv(client, _READ_BYTES):
        for message in framer.feed(data):
            await pipe.send(encode(with_path_mappings(message, sources)))


async def _to_client(pipe: RemotePipe, client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await pipe.receive():
        await loop.sock_sendall(client, data)
    client.shutdown(socket.SHUT_RDWR)  # the IDE sees the end, and so does its reader here


def peer_uid_of_tcp(ours: tuple[str, int], theirs: tuple[str, int]) -> int | None:
    """The user at the other end of a loopback connection; None where the kernel has no table."""
    try:
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
    except FileNotFoundError:
        return None
    wanted = (_table_address(theirs), _table_address(ours))
    for row in rows:
        if (row[1], row[2]) == wanted:
            return int(row[7])
    return -1  # a connection that the table lacks is nobody's of ours


def _table_address(address: tuple[str, int]) -> str:
    # The table shows the address as a number in the machine's byte order.
    number = int.from_bytes(socket.inet_aton(address[0]), "little")
    return f"{number:08X}:{address[1]:04X}"


@asynccontextmanager
async def listening(
    port: int,
    *,
    attach: Attach,
    sources: Callable[[str], Sources],
    say: Callable[[str], None],
) -> AsyncIterator[IdePort]:
    """Opens a port; 0 lets the kernel choose one.

    Args:
        port: Where to listen on the loopback.
        attach: Opens a debug session of the job.
        sources: Where files are, given the workspace's folder on the host.
        say: Shows a line to the person.

    Raises:
        OSError: The port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LOOPBACK, port))
        listener.listen(1)
        listener.settimeout(0)  # as asyncio wants it
        yield IdePort(listener, attach=attach, sources=sources, say=say)


def paste(name: str, port: int, sources: Sources) -> str:
    """The text to paste into `.vscode/launch.json`."""
    return json.dumps(launch_configuration(name, port, sources), indent=2)
