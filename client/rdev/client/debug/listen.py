"""A port on this machine's loopback for an IDE: one client at a time, and only this user's.

Loopback is no boundary on a machine with several users, so the peer's uid is looked up in the
kernel's table of connections before a byte is passed on.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rdev.client.debug.editor import EditorSession, Opening

_LOOPBACK = "127.0.0.1"
_READ_BYTES = 64 * 1024

# A client that has said goodbye hangs up within its next turn.
_HANG_UP_SECONDS = 1.0


class IdePort:
    """Listens on the loopback and joins each client with a session of its own; see `port_of`."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        opening: Opening,
        say: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._opening = opening
        self._say = say
        self._served: tuple[socket.socket, asyncio.Task[None]] | None = None
        self.port: int = listener.getsockname()[1]

    async def serve(self) -> None:
        """Serves one client after the other, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                client, address = await loop.sock_accept(self._listener)
                await self._let_leave()
                refusal = self._refusal(client, address)
                if refusal:
                    self._say(refusal)
                    client.close()
                    continue
                self._served = (client, group.create_task(self._serve(client)))

    async def _let_leave(self) -> None:
        """Waits for the client that is served, if it is leaving.

        An IDE restarts its session sooner than the old one is off the job, and may connect before
        it has hung up.
        """
        if self._served is None:
            return
        before, task = self._served
        if not _has_left(before):
            await asyncio.wait({task}, timeout=_HANG_UP_SECONDS)
        if _has_left(before):
            await asyncio.wait({task})

    def _refusal(self, client: socket.socket, address: tuple[str, int]) -> str:
        uid = peer_uid_of_tcp(client.getsockname(), address)
        if uid is not None and uid != os.geteuid():
            return f"refused a client of user {uid}"
        return "refused a second client while the first is connected" if self._served else ""

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.settimeout(0)  # as asyncio wants it
                await self._join(client)
        finally:
            self._served = None

    async def _join(self, client: socket.socket) -> None:
        self._say("the IDE has connected")
        await EditorSession(_SocketStream(client), self._opening).run()
        self._say("the IDE has left")


class _SocketStream:
    """See `rdev.client.debug.editor.Stream`."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._client, _READ_BYTES)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._client, data)


def _has_left(client: socket.socket) -> bool:
    """True if the other end has closed, though not all that it sent may have been read."""
    if client.fileno() < 0:
        return True
    hung_up = getattr(select, "POLLRDHUP", select.POLLHUP)
    poll = select.poll()
    poll.register(client, hung_up)
    return bool(poll.poll(0))


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
async def port_of(
    port: int,
    *,
    opening: Opening,
    say: Callable[[str], None],
) -> AsyncIterator[IdePort]:
    """Opens a port; 0 lets the kernel choose one.

    Args:
        port: Where to listen on the loopback.
        opening: Opens a debug session of the job.
        say: Shows a line to the person.

    Raises:
        OSError: The port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LOOPBACK, port))
        listener.listen(1)
        listener.settimeout(0)  # as asyncio wants it
        yield IdePort(listener, opening=opening, say=say)


async def serving(ports: Sequence[IdePort]) -> None:
    """Serves all of them, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for port in ports:
            group.create_task(port.serve())
