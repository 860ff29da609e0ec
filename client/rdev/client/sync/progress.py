"""How far a sending has come, said ever more seldom; one that is soon over says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from rdev.client.narration import narrator
from rdev.client.ui.sizes import human_size

# A person begins to wonder after some seconds; who waits for an hour wants no thousand lines.
_FIRST = 3.0
_SELDOM = 60.0


class Progress:
    """Tells the narrator how much was sent.

    Args:
        total: Bytes that there are to send.
        clock: Gives the time in seconds.
    """

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._begun = clock()
        self._sent = 0
        self._pause = _FIRST
        self._due = self._begun + _FIRST

    def add(self, size: int) -> None:
        """Notes that so many more bytes were sent."""
        self._sent += size
        now = self._clock()
        if now < self._due or self._sent >= self._total:
            return
        far = f"{human_size(self._sent)} of {human_size(self._total)}"
        narrator.get()(f"syncing: {far} sent after {now - self._begun:.0f} s")
        self._pause = min(2 * self._pause, _SELDOM)
        self._due = now + self._pause
