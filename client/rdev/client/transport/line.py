"""A private socket here whose connections lead to a host's agent through a transport.

    gRPC --connects--> line.sock --accepted: is it us?--> Transport.join --> bridge --> agent

gRPC dials again by itself as often as it likes. A line lets one connection through each time it is
opened and refuses the rest, so a host is asked only when somebody here wants it and can be told how
it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rdev.client.known import state_folder
from rdev.client.transport.contract import Transport
from rdev.protocol.errors import HostUnreachable, RdevError, os_failure
from rdev.wire.home import machine_id, make_private
from rdev.wire.unix import peer_uid, short_socket_path

# gRPC connects within milliseconds of being asked; after a failure it waits for up to a second.
_DIAL_PATIENCE = 15.0


class Line:
    """The socket, and the connection that it leads to.

    Attributes:
        path: Of the socket, in a folder of its own that only we may enter.
        command: Starts the bridge; may be changed between two openings.
    """

    def __init__(self, transport: Transport, command: str) -> None:
        self.command = command
        self._transport = transport
        self._folder = os.path.join(_place(), f"{_ours()}{os.getpid()}-{secrets.token_hex(4)}")
        self.path = os.path.join(self._folder, "s")
        self._near: socket.socket | None = None
        self._opening: asyncio.Future[None] | None = None
        self._dialled = asyncio.Event()
        self._joining: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._listener = self._listen()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._joining is not None:
            self._joining.cancel()
        try:
            # The block's own error is not the group's, which would wrap it.
            await self._group.__aexit__(None, None, None)
        finally:
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_open(self) -> bool:
        """Whether a connection leads through it, as far as can be seen from here."""
        return self._near is not None and self._near.fileno() >= 0

    def drop(self) -> None:
        """Lets go of the connection that leads through it, because another one shall."""
        if self._near is not None:
            with contextlib.suppress(OSError):
                self._near.shutdown(socket.SHUT_RDWR)
            self._near = None

    async def open(self, dial: Callable[[], object]) -> None:
        """Lets one connection through; returns when it leads to a bridge that is ready.

        Args:
            dial: Makes gRPC connect.

        Raises:
            RdevError: What the transport, or the bridge, said instead.
        """
        async with self._one:
            if self.is_open:
                return
            opening = self._opening = asyncio.get_running_loop().create_future()
            self._dialled.clear()
            try:
                dial()
                await self._await_dial()
                await opening
            finally:
                self._opening = None
                if not opening.cancel() and not opening.cancelled():
                    opening.exception()  # it may have come when nobody waited any more

    async def _await_dial(self) -> None:
        try:
            async with asyncio.timeout(_DIAL_PATIENCE):
                await self._dialled.wait()
        except TimeoutError:
            raise HostUnreachable("reach the host", "nothing was dialled") from None

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            make_private(_place())
            _sweep()
            os.mkdir(self._folder, 0o700)
            with short_socket_path(self.path) as address:
                listener.bind(address)
            os.chmod(self.path, 0o600)
        except OSError as error:
            listener.close()
            raise os_failure("open a line to the host", error) from error
        listener.listen()
        listener.settimeout(0)
        return listener

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:  # whoever came has gone again
            return
        opening = self._opening
        if opening is None or opening.done() or self.is_open or not _is_ours(near):
            near.close()
            return
        self._near = near
        self._dialled.set()
        self._joining = self._group.create_task(self._join(near, opening))

    async def _join(self, near: socket.socket, opening: asyncio.Future[None]) -> None:
        error: RdevError | None = None
        try:
            await self._transport.join(self.command, near)
        except RdevError as raised:
            error = raised
        except OSError as raised:
            error = os_failure("reach the host", raised, otherwise=HostUnreachable)
        if error is not None:
            self._near = None
        _settle(opening, error)


def _settle(opening: asyncio.Future[None], error: RdevError | None) -> None:
    if opening.done():
        return
    if error is None:
        opening.set_result(None)
    else:
        opening.set_exception(error)


def _is_ours(near: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return peer_uid(near) == os.geteuid()
    return False


def _place() -> str:
    return os.path.join(state_folder(), "run")


def _ours() -> str:
    # A home may be shared by machines, each of which knows only its own processes.
    return f"line-{machine_id()}-"


def _sweep() -> None:
    """Removes what lines of processes that were killed have left."""
    for name in os.listdir(_place()):
        pid = name.removeprefix(_ours()).split("-")[0]
        if name.startswith(_ours()) and pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(os.path.join(_place(), name), ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
