"""The lease of a stop: kept in the stopped process, so whoever else dies, the program goes on.

    closed --open--> idle --begin--> leased --end--> idle --close--> closed
                                       | time is up: `on_expired` is called, on the lease's thread

The thread is there while a debugger is. It counts on `time.monotonic`, runs through every stop, and
takes no lock but its own: whatever the stopped threads hold, they are let go.
"""

from __future__ import annotations

import _thread
import time

from rdev.wire.thread import ChannelThread

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable

# Unless whoever attaches asks for another: time to fetch a colleague, and no night of a GPU.
LEASE_SECONDS = 900.0

# What could not be done at the end of a lease is tried again after so long.
AGAIN_SECONDS = 1.0

# A thread that was told to leave is between two of its instructions.
LEAVE_SECONDS = 1.0


class Lease:
    """The deadline of the stop that is on, if one is.

    Args:
        on_expired: Called when nobody has renewed it in time; may call `close`.

    Attributes:
        seconds: How long the next stop may last.
    """

    seconds: float
    _lock: _thread.LockType
    _wake: _thread.LockType | None
    _deadline: float | None
    _watcher: ChannelThread | None

    def __init__(self, on_expired: Callable[[], None]) -> None:
        self._on_expired = on_expired
        self.forget()

    @property
    def left(self) -> float | None:
        """Seconds until the deadline; None while nothing is stopped."""
        deadline = self._deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def open(self, seconds: float | None) -> None:
        """A debugger comes: its stops last so long, or `LEASE_SECONDS`."""
        self.seconds = LEASE_SECONDS if seconds is None else seconds
        wake = _thread.allocate_lock()
        wake.acquire()
        self._wake = wake
        # Not at the stop: starting a thread takes a lock that the stopped program may hold.
        self._watcher = ChannelThread(lambda: self._watch(wake), name="rdev-lease")
        self._watcher.start()

    def close(self) -> None:
        """The debugger is leaving; the thread ends, and `join` waits for that."""
        with self._lock:
            wake, self._wake = self._wake, None
            self._deadline = None
            if wake is not None and wake.locked():
                wake.release()

    def join(self) -> None:
        """Waits until the thread is gone, unless it is the one that asks."""
        thread = self._watcher
        if thread is not None and thread.ident != _thread.get_ident() and self._wake is None:
            thread.leave(LEAVE_SECONDS)
            self._watcher = None

    def begin(self) -> float:
        """A stop begins, on the thread that calls; returns how long it may last."""
        self._set(self.seconds)
        return self.seconds

    def renew(self, seconds: float) -> bool:
        """Later stops last so long, and the one that is on does from now; False if none is."""
        self.seconds = seconds
        is_on = self._deadline is not None
        if is_on:
            self._set(seconds)
        return is_on

    def end(self) -> None:
        """The stop is over."""
        self._deadline = None

    def hurry(self) -> None:
        """The debugger has to go now, whether a stop is on or not."""
        self._set(0.0)

    def forget(self) -> None:
        """In a forked child: nothing is stopped, and the thread is its parent's."""
        self.seconds = LEASE_SECONDS
        self._lock = _thread.allocate_lock()
        self._wake = None
        self._deadline = None
        self._watcher = None

    def _set(self, seconds: float) -> None:
        with self._lock:
            self._deadline = time.monotonic() + max(0.0, seconds)
            if self._wake is not None and self._wake.locked():
                self._wake.release()

    def _watch(self, wake: _thread.LockType) -> None:
        while self._wake is wake:
            left = self.left
            if left == 0.0:
                self._expire()
                continue
            wake.acquire(timeout=-1 if left is None else min(left, _thread.TIMEOUT_MAX))

    def _expire(self) -> None:
        self._deadline = None
        try:
            self._on_expired()
        except Exception:  # noqa: BLE001 - whatever went wrong, the stop must end
            self._set(AGAIN_SECONDS)
