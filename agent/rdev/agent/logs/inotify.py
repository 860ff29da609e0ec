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

# The first change is told at once. While more keep coming, the next ones are told together: a flood
# of wake-ups would take from the readers the time they need to keep up.
_GATHER = 0.001

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Waits for any of some files to change."""

    def __init__(self, paths: Mapping[int, str], *, is_complete: bool) -> None:
        self._paths = paths
        self._everything = frozenset(paths.values())
        self._changed: set[str] = set()
        self._event = asyncio.Event()
        self._patience = _SAFETY if is_complete else _UNWATCHED

    def note(self, number: int) -> None:
        """Wakes who waits: the file of that watch has changed, or any if there is no such."""
        self._changed |= {self._paths[number]} if number in self._paths else self._everything
        self._event.set()

    async def wait(self) -> Collection[str]:
        """Returns the files that have changed since the last call.

        After a while without a change that is all of them: a wake-up may have been lost.
        """
        changed: Collection[str] = self._everything
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._event.wait()
                changed = self._changed
        self._changed = set()
        self._event.clear()
        return changed


class Inotify:
    """The instance. Use as a context manager."""

    def __init__(self) -> None:
        self._descriptor = -1
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
        numbers = {self._add(path): path for path in paths}
        watch = Watch(numbers, is_complete=all(number >= 0 for number in numbers))
        for number in numbers:
            self._waiting.setdefault(number, set()).add(watch)
        try:
            yield watch
        finally:
            for number in numbers:
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
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._descriptor)
        self._pause = loop.call_later(_GATHER, self._listen)
        try:
            content = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        position = 0
        while position < len(content):
            number, _mask, _cookie, length = _HEAD.unpack_from(content, position)
            position += _HEAD.size + length
            # -1 says that the queue overflowed: everybody looks.
            groups = self._waiting.values() if number < 0 else [self._waiting.get(number, set())]
            for group in groups:
                for watch in group:
                    watch.note(number)
