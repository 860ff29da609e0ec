"""The active clock: monotonic time that stands still while the process is held.

A debugger stop, or a pause by `rdev ctl`, must not show up in step times, throughput or schedules
by minutes. Whoever holds the process brackets the time with `hold` and `release`.
"""

from __future__ import annotations

import time

_held_total = 0.0
_held_since: float | None = None
_holders = 0


def active_monotonic() -> float:
    """Seconds of `time.monotonic` less the time spent held; never goes back."""
    now = _held_since if _held_since is not None else time.monotonic()
    return now - _held_total


def hold() -> None:
    """Stops the clock; calls nest."""
    global _held_since, _holders
    if _holders == 0:
        _held_since = time.monotonic()
    _holders += 1


def release() -> float:
    """Undoes one `hold`; returns the seconds held once the last one is undone, else 0."""
    global _held_total, _held_since, _holders
    if _holders == 0:
        return 0.0
    _holders -= 1
    if _holders or _held_since is None:
        return 0.0
    seconds = time.monotonic() - _held_since
    _held_total += seconds
    _held_since = None
    return seconds
