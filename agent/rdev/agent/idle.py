"""Notices that nobody needs the agent: no call under way, and no job alive, for some time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType


class Calls:
    """The calls under way. A context manager for each of them; all in one event loop."""

    def __init__(self) -> None:
        self._under_way = 0
        self._last = time.monotonic()

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._under_way -= 1
        self._last = time.monotonic()

    def quiet_for(self) -> float:
        """Seconds since the last call ended; 0 while one is under way."""
        return 0.0 if self._under_way else time.monotonic() - self._last


async def until_idle(calls: Calls, *, has_jobs: Callable[[], bool], seconds: float) -> None:
    """Returns once nobody has needed the agent for that long.

    A job that ends counts as the end of a call: whoever started it gets as long to come back.
    """
    needed = time.monotonic()
    while True:
        if has_jobs():
            needed = time.monotonic()
        quiet = min(calls.quiet_for(), time.monotonic() - needed)
        if quiet >= seconds:
            return
        # Jobs are looked at, not waited for: a quarter more or less of such a time does not matter.
        await asyncio.sleep(min(seconds - quiet, seconds / 4))
