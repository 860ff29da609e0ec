"""Blocking work in a thread: what nothing may follow until it is done, and what may never be."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


async def to_its_end(work: Callable[[], _Result]) -> _Result:
    """Runs blocking work in a thread, and stays until it is done however often it is cancelled.

    Whoever holds a lock or closes a file after it can rely on no thread being at work any more.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            # Unlike a shield, it raises nothing but the cancellation.
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    future.exception()  # taken note of: nobody is there to hear it
    raise cancelled


def in_daemon(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Runs blocking work that may hang in a thread that keeps no process from ending."""
    promise: concurrent.futures.Future[_Result] = concurrent.futures.Future()

    def run() -> None:
        # From here on it cannot be cancelled, so that what comes of it can be set.
        if not promise.set_running_or_notify_cancel():
            return
        try:
            promise.set_result(work())
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            promise.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    future = asyncio.wrap_future(promise)
    # Nobody may be waiting any more.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
