"""Ends of a command at a terminal: Ctrl-C, a closed window, a shutdown; the job runs on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable

# What ends us in somebody's name; a terminal's modes must be put back all the same.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _nothing() -> None:
    """A closed terminal is as an end of any other kind."""


async def until_interrupted(
    work: Coroutine[None, None, None],
    *,
    signals: Iterable[signal.Signals] = (signal.SIGINT,),
    hung_up: Callable[[], None] = _nothing,
) -> bool:
    """Runs `work`; Ctrl-C, a shutdown or a closed terminal cancel it, which leaves the job running.

    Args:
        work: What to run.
        signals: Those that cancel it, besides SIGTERM and SIGHUP.
        hung_up: Called before SIGHUP cancels it.

    Returns:
        False if it was cancelled.
    """
    loop = asyncio.get_running_loop()
    heard = (*signals, *_ENDING)

    def hang_up() -> None:
        hung_up()
        task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            for number in heard:
                ending = hang_up if number == signal.SIGHUP else task.cancel
                loop.add_signal_handler(number, ending)
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
    return not task.cancelled()
