"""Where a job's input comes from at this end: a descriptor, read without ever being stuck in it.

A pipe, a socket and a terminal are waited for in the event loop, so that an end of the job ends us
even though nobody has typed or closed anything; a file, which never keeps anybody waiting, is read
in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator

_READ_BYTES = 64 << 10


def is_given(descriptor: int) -> bool:
    """True if somebody connected that descriptor to something: a pipe, a socket or a file."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


class Source:
    """Reads a descriptor for one reader at a time, and can be lent to somebody who asks a question.

    Args:
        descriptor: Open for reading; not closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn: asyncio.Future[None] | None = None
        self._free = asyncio.Event()
        self._free.set()

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, and when the terminal has gone."""
        while True:
            await self._free.wait()
            try:
                if await self._is_ready():
                    return _read(self._descriptor)
            except PermissionError:  # so epoll refuses what is always ready
                return await asyncio.to_thread(_read, self._descriptor)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Leaves the descriptor to somebody else for as long as the block runs."""
        self._free.clear()
        turn, self._turn = self._turn, None
        if turn is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            _settle(turn)
        try:
            yield
        finally:
            self._free.set()

    async def _is_ready(self) -> bool:
        """Waits until there is something to read; False if the descriptor was lent meanwhile."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _settle, turn)
        self._turn = turn
        try:
            await turn
            return self._turn is turn
        finally:
            if self._turn is turn:
                loop.remove_reader(self._descriptor)
                self._turn = None


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:  # EIO: the terminal was closed
        return b""
