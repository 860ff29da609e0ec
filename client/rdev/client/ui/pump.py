"""Writing to a descriptor that may take nothing for ever, such that we can leave all the same.

A thread in write(2) cannot be cancelled, and asyncio joins its own at exit; nobody joins these.
O_NONBLOCK is no way out: other processes share the open file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable


class _Pump:
    """Writes what is put, in order, in a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue = queue.SimpleQueue[tuple[bytes, Callable[[OSError | None], None]]]()
        threading.Thread(target=self._run, name=f"pump-{descriptor}", daemon=True).start()

    def put(self, data: bytes, then: Callable[[OSError | None], None]) -> None:
        """Writes later, and calls `then` in the thread."""
        self._queue.put((data, then))

    def _run(self) -> None:
        while True:
            data, then = self._queue.get()
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                then(error)
            else:
                then(None)


_pumps: dict[int, _Pump] = {}


def _pump_of(descriptor: int) -> _Pump:
    if descriptor not in _pumps:
        _pumps[descriptor] = _Pump(descriptor)
    return _pumps[descriptor]


def write_all(descriptor: int, data: bytes) -> None:
    """Writes it all, here and now."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def write_soon(descriptor: int, data: bytes) -> None:
    """Writes it all, after what is being written; cancelled, it returns at once.

    Raises:
        OSError: It could not be written.
    """
    loop = asyncio.get_running_loop()
    written = loop.create_future()

    def settle(error: OSError | None) -> None:
        if written.done():
            return
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)

    def then(error: OSError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we have left
            loop.call_soon_threadsafe(settle, error)

    _pump_of(descriptor).put(data, then)
    await written


def write_within(descriptor: int, data: bytes, *, seconds: float) -> bool:
    """Writes it all, after what is being written; gives up waiting after so many seconds.

    Returns:
        True if it was written; what was not may still be, for as long as we live.
    """
    settled = threading.Event()
    errors: list[OSError | None] = []

    def then(error: OSError | None) -> None:
        errors.append(error)
        settled.set()

    _pump_of(descriptor).put(data, then)
    return settled.wait(seconds) and errors == [None]
