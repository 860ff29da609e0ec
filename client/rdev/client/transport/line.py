"""A private socket here whose connections lead to a host's agent through a transport.

    gRPC --connects--> line.sock --accepted: is it us?--> Transport.join --> bridge --> agent

gRPC dials again by itself as often as it likes. A line lets one connection through each time it is
opened and refuses the rest, so a host is asked only when somebody here wants it and can be told how
it went. Where a shortcut leads to the agent, the line's path is a link to it until it is of no use.
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

# A shortcut may come to life again in the moment in which it is left.
_SLIP_PATIENCE = 0.25


class Line:
    """The socket, and the connection that it leads to.

    Attributes:
        path: Of the socket, in a folder of its own that only we may enter.
        command: Starts the bridge; may be changed between two openings.
        far: Path of the agent's socket there, as the last bridge said it; empty if none did.
    """

    def __init__(self, transport: Transport, command: str, *, shortcut: str = "") -> None:
        self.command = command
        self.far = ""
        self._shortcut = shortcut
        self._may_have_slipped = False
        self._transport = transport
        self._folder = os.path.join(_place(), f"{_ours()}{os.getpid()}-{secrets.token_hex(4)}")
        self.path = os.path.join(self._folder, "s")
        self._bound = os.path.join(self._folder, "l") if shortcut else self.path
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

    @property
    def is_short(self) -> bool:
        """Whether its path leads to the agent by a shortcut, for which nothing has to be opened."""
        return bool(self._shortcut)

    def leave_shortcut(self) -> None:
        """Has its path lead to a bridge from now on, once that is opened; may be called again."""
        if not self._shortcut:  # each stream of a connection finds out for itself that it broke
            return
        self._shortcut = ""
        self._may_have_slipped = True
        os.replace(self._bound, self.path)

    def drop(self) -> None:
        """Lets go of the connection that leads through it, because another one shall."""
        if self._near is not None:
            with contextlib.suppress(OSError):
                self._near.shutdown(socket.SHUT_RDWR)
            self._near = None

    async def open(self, dial: Callable[[], bool]) -> None:
        """Lets one connection through; returns when it leads to a bridge that is ready.

        Args:
            dial: Makes gRPC connect; true once it is connected.

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
                if await self._is_dialled(dial):
                    await opening
                self._may_have_slipped = False
            finally:
                self._opening = None
                if not opening.cancel() and not opening.cancelled():
                    opening.exception()  # it may have come when nobody waited any more

    async def _is_dialled(self, dial: Callable[[], bool]) -> bool:
        """Whether gRPC dialled; false if the shortcut let it through after all, as it was left."""
        patience = _SLIP_PATIENCE if self._may_have_slipped else _DIAL_PATIENCE
        for _ in range(round(_DIAL_PATIENCE / patience)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._dialled.wait()
                return True
            if self._may_have_slipped and dial():
                return False
        raise HostUnreachable("reach the host", "nothing was dialled")

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            make_private(_place())
            _sweep()
            os.mkdir(self._folder, 0o700)
            with short_socket_path(self._bound) as address:
                listener.bind(address)
            os.chmod(self._bound, 0o600)
            if self._shortcut:
                os.symlink(self._shortcut, self.path)
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
            self.far = await self._transport.join(self.command, near)
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
