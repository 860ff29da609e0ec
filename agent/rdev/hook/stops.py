"""Brackets every stop of the debugger: the active clock stands still, and the stop is reported.

    running --enter--> held --leave--> running           (held while any thread is parked)

The bracket runs in the parked thread itself, and takes no lock that user code can hold.
"""

from __future__ import annotations

import _thread

from rdev.wire.clock import hold, release

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rdev.hook.lease import Lease

    Report = Callable[[str, Mapping[str, Any]], None]


class Stop:
    """Where a thread is parked, in the words of the `debug_paused` event.

    `lease` is the number of seconds after which it goes on by itself, or None; `unattended` says
    that no debugger is there, and that it waits for one.
    """

    # No dataclass: what makes one would cost every process of a job its start.
    __slots__ = ("file", "function", "lease", "line", "reason", "unattended")

    def __init__(self, file: str, line: int, function: str, reason: str) -> None:
        self.file = file
        self.line = line
        self.function = function
        self.reason = reason
        self.lease: float | None = None
        self.unattended = False


class Stops:
    """Counts the parked threads; reports where the program was stopped, and when it goes on.

    Args:
        report: Called with the kind and the fields of an event.
        lease: Bounds each stop of the debugger; one that is unattended bounds itself.

    Attributes:
        current: The stop that is on, if one is.
        parked: The threads that are held, by their identifiers.
        ending: Why the debugger is leaving; from then on no thread is parked any more.
    """

    def __init__(self, report: Report, lease: Lease) -> None:
        self._report = report
        self._lease = lease
        # A signal handler of the program's may stop on a thread that is in here.
        self._lock = _thread.RLock()
        self.parked: dict[int, Stop] = {}
        self.current: Stop | None = None
        self.ending = ""

    def enter(self, stop: Stop) -> None:
        """A thread, which is the one that calls, is about to be parked."""
        with self._lock:
            hold()
            if not stop.unattended:
                # The first thread's: those that are parked with it, or later, prolong nothing.
                left = self._lease.left
                stop.lease = self._lease.begin() if left is None else round(left, 3)
            self.parked[_thread.get_ident()] = stop
            # All threads are parked with the one that hit; that one tells where and why.
            telling = self.current is None or self.current.reason == "pause" != stop.reason
            if telling:
                self.current = stop
        if telling:
            fields: dict[str, Any] = {"file": stop.file, "line": stop.line}
            fields["function"] = stop.function
            fields |= {"lease": stop.lease, "unattended": stop.unattended}
            self._report("debug_paused", {**fields, "reason": stop.reason})

    def leave(self, cause: str = "") -> None:
        """The thread runs again.

        Args:
            cause: One of `rdev.wire.events.ResumeCause`; by default what `end` was told, else that
                the client said so.
        """
        with self._lock:
            seconds = release()
            self.parked.pop(_thread.get_ident(), None)
            last = not self.parked
            if last:
                self.current = None
            if all(stop.unattended for stop in self.parked.values()):
                self._lease.end()
        if last:
            fields = {"seconds": round(seconds, 3), "cause": cause or self.ending or "client"}
            self._report("debug_resumed", fields)

    def begin(self) -> None:
        """A debugger comes, and threads may be parked."""
        self.ending = ""

    def end(self, cause: str) -> None:
        """The debugger leaves, and nothing is parked any more; the first cause is the true one."""
        self.ending = self.ending or cause

    def forget(self) -> None:
        """In a forked child no thread is parked, whatever its parent's threads do."""
        self._lock = _thread.RLock()
        while self.parked:
            release()
            self.parked.popitem()
        self.current = None
        self.ending = ""
