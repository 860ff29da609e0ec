"""Brackets every stop of the debugger: the active clock stands still, and the stop is reported.

    running --hold()--> held --release()--> running      (held while any thread is parked)

The bracket runs in the parked thread itself, and takes no lock that user code can hold.
"""

from __future__ import annotations

import _thread

from rdev.wire.clock import hold, release

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Report = Callable[[str, Mapping[str, Any]], None]


class Stop:
    """Where a thread is parked, in the words of the `debug_paused` event.

    `lease` is the number of seconds after which it goes on by itself, or None; `unattended` says
    that no debugger is there, and that it waits for one.
    """

    # No dataclass: that import alone is half of what the dormant hook costs.
    __slots__ = ("file", "function", "lease", "line", "reason", "unattended")

    def __init__(self, file: str, line: int, function: str, reason: str) -> None:
        self.file = file
        self.line = line
        self.function = function
        self.reason = reason
        self.lease: float | None = None
        self.unattended = False


class Stops:
    """Counts the parked threads; reports where the program was stopped, and when it goes on."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = _thread.allocate_lock()
        self._parked = 0
        self.current: Stop | None = None

    def enter(self, stop: Stop) -> None:
        """A thread is about to be parked."""
        with self._lock:
            hold()
            self._parked += 1
            # All threads are parked with the one that hit; that one tells where and why.
            telling = self.current is None or self.current.reason == "pause" != stop.reason
            if telling:
                self.current = stop
        if telling:
            fields: dict[str, Any] = {"file": stop.file, "line": stop.line}
            fields["function"] = stop.function
            fields |= {"lease": stop.lease, "unattended": stop.unattended}
            self._report("debug_paused", {**fields, "reason": stop.reason})

    def leave(self, cause: str = "client") -> None:
        """The thread runs again; `cause` is one of `rdev.wire.events.ResumeCause`."""
        with self._lock:
            seconds = release()
            self._parked -= 1
            last = self._parked == 0
            if last:
                self.current = None
        if last:
            self._report("debug_resumed", {"seconds": round(seconds, 3), "cause": cause})

    def forget(self) -> None:
        """In a forked child no thread is parked, whatever its parent's threads do."""
        self._lock = _thread.allocate_lock()
        while self._parked > 0:
            release()
            self._parked -= 1
        self.current = None
