"""One inotify instance for the whole agent: wakes whoever reads a file when it has grown.

Where the kernel gives us no instance or no watch (both are limited per user), readers look by
themselves, often; everywhere they look by themselves now and then, so a lost wake-up costs time and
never bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Self

_IN_MODIFY = 0x2
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_HEAD = struct.Struct("iIII")

# Long enough that a hundred idle followers cost nothing, short enough that nobody gives up waiting.
_SAFETY = 5.0
# Without a watch a reader is as quick as a person expects of a terminal.
_UNWATCHED = 0.1

# A change after a pause is told at once. While more keep coming, the next ones are told together: a
# flood of wake-ups would take from the readers the time they need to keep up.
_GATHER = 0.001

# Changes follow one another closely if one comes this soon after we have begun to listen again; it
# leaves alone what comes one by one, where turning the listening off and on is part of the way.
_SOON = 2 * _GATHER

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Waits for any of some files to change."""

    def __init__(self, numbers: Mapping[int, str], paths: Collection[str]) -> None:
        self._numbers = numbers
        self._everything = frozenset(paths)
        self._changed: Collection[str] = frozenset()
        self._waiter: asyncio.Future[None] | None = None
        self._patience = _SAFETY if len(numbers) == len(self._everything) else _UNWATCHED

    def note(self, number: int) -> None:
        """Wakes who waits: the file of that watch has changed, or any if there is no such."""
        changed = {self._numbers[number]} if number in self._numbers else self._everything
        self._changed = {*self._changed, *changed}
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> Collection[str]:
        """Returns the files that have changed since the last call.

        After a while without a change that is all of them: a wake-up may have been lost.
        """
        if not self._changed:
            # No asyncio.timeout: what it does after the wake-up is a tenth of a line's way here.
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(self._patience, self.note, -1)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        changed, self._changed = self._changed, frozenset()
        return changed


class Inotify:
    """The instance. Use as a context manager."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._told = 0.0
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: dict[int, set[Watch]] = {}

    async def __aenter__(self) -> Self:
        self._descriptor = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def watch(self, *paths: str) -> Iterator[Watch]:
        """Watches files inside the block; what changed before it began is not told."""
        found = {self._add(path): path for path in paths}
        numbers = {number: path for number, path in found.items() if number >= 0}
        watch = Watch(numbers, paths)
        for number in found:
            self._waiting.setdefault(number, set()).add(watch)
        try:
            yield watch
        finally:
            for number in found:
                self._forget(number, watch)

    def _add(self, path: str) -> int:
        """The watch of a file, shared by all its readers; -1 if there is none to be had."""
        if self._descriptor < 0:
            return -1
        return int(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY))

    def _forget(self, number: int, watch: Watch) -> None:
        watches = self._waiting.get(number, set())
        watches.discard(watch)
        if not watches:
            self._waiting.pop(number, None)
            if number >= 0 and self._descriptor >= 0:
                _libc.inotify_rm_watch(self._descriptor, number)

    def _listen(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_events)

    def _on_events(self) -> None:
        try:
            content = os.read(self._descriptor, 1 << 12)
        except BlockingIOError:
            return
        self._tell(content)
        now, before = time.monotonic(), self._told
        self._told = now
        if now - before < _SOON:
            # After those who were woken have done their work.
            asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        if self._descriptor >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._descriptor)
            self._pause = loop.call_later(_GATHER, self._listen)

    def _tell(self, content: bytes) -> None:
        position = 0
        while position < len(content):
            number, _mask, _cookie, length = _HEAD.unpack_from(content, position)
            position += _HEAD.size + length
            # -1 says that the queue overflowed: everybody looks.
            groups = self._waiting.values() if number < 0 else [self._waiting.get(number, set())]
            for group in groups:
                for watch in group:
                    watch.note(number)
