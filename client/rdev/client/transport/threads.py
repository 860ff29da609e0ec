"""Blocking work in threads of its own: asyncio's shared ones are few, and this may wait long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result], *, abort: Callable[[], None]) -> Result:
    """Runs `work` in a thread and returns what it returns.

    When the caller is cancelled, `abort` is called, which must make the work end soon; its end is
    waited for, so that nothing runs on unseen.

    Args:
        work: Blocks.
        abort: Ends it from another thread, such as by closing what it waits on.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def finish(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if done.done() else settle())

    def body() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            failure = error
            finish(lambda: done.set_exception(failure))
        else:
            finish(lambda: done.set_result(result))

    threading.Thread(target=body, daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        abort()
        with contextlib.suppress(Exception):
            await done
        raise
