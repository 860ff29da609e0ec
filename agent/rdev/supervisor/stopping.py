"""How the processes of a job are ended: TERM, grace, KILL until nobody is left.

    idle --begin--> TERM sent --grace over--> KILL, again and again --nobody left--> done

A job that is stopped loses all its processes. One that ended by itself loses only what is left in
its main process's session: what has made itself a daemon was meant to stay.
"""

from __future__ import annotations

import math
import os
import signal
import time

from rdev.supervisor.processes import Process, is_alive, members, send_all
from rdev.wire.records import Launch, Started

# How often /proc is looked through while processes are being ended; only then.
_LOOK = 0.05

# A process in an uninterruptible call ends when the kernel lets it; the job's end does not wait.
_GIVE_UP = 10.0


class Sweep:
    """Ends the processes of one job.

    Attributes:
        keeper: The keeper, whose descendants are the job's; 0 once it has gone.
        main: The main process; None until it is known.
    """

    def __init__(self, launch: Launch, *, keeper: int) -> None:
        self.keeper = keeper
        self.main: Started | None = None
        self._launch = launch
        self._has_begun = False
        self._kill_at = math.inf
        self._next = 0.0
        self._is_narrow = False
        self._is_over = False

    def begin(self, *, kill_at: float) -> None:
        """Sends TERM to all of the job; again may only hasten KILL.

        Args:
            kill_at: When KILL follows, on CLOCK_MONOTONIC.
        """
        self.hasten(kill_at=kill_at)
        if not self._has_begun:
            self._has_begun, self._next = True, self._kill_at
            self._terminate(self._members())

    def hasten(self, *, kill_at: float) -> None:
        """KILL follows no later than then, whenever and for whatever reason TERM is sent."""
        self._kill_at = min(self._kill_at, kill_at)
        self._next = min(self._next, kill_at)

    def next_look(self) -> float | None:
        """When `step` wants to be called, on CLOCK_MONOTONIC; None while nothing is ended."""
        return self._next if self._has_begun else None

    def step(self, *, is_over: bool) -> bool:
        """Does what is due; True once the main process and all who have to go are gone.

        Args:
            is_over: The main process has ended.
        """
        now = time.monotonic()
        if is_over and not self._is_over:
            self._is_over = True
            self._next = now
        if not self._has_begun:
            return is_over and self._leave(now)
        if now < self._next:
            return False
        left = self._members()
        if now >= self._kill_at:
            send_all(left, signal.SIGKILL)
        is_waiting = now < self._kill_at and not is_over
        self._next = self._kill_at if is_waiting else now + _LOOK
        return is_over and (not left or now >= self._kill_at + _GIVE_UP)

    def _leave(self, now: float) -> bool:
        """The job ended by itself; True if nobody of its session is left."""
        self._is_narrow = True
        left = self._members()
        if not left:
            return True
        self._terminate(left)
        self._has_begun = True
        self._kill_at = min(self._kill_at, now + self._launch.grace)
        self._next = now + _LOOK
        return False

    def _members(self) -> list[Process]:
        return members(
            self._launch.id, keeper=self.keeper, main=self.main, in_session=self._is_narrow
        )

    def _terminate(self, processes: list[Process]) -> None:
        send_all(processes, signal.SIGTERM)
        # One that stands still would not notice.
        send_all(processes, signal.SIGCONT)


def open_process(started: Started) -> int | None:
    """A descriptor that is readable once the main process is gone; None if it is gone already."""
    try:
        handle = os.pidfd_open(started.pid)
    except ProcessLookupError:
        return None
    if is_alive(started.pid, ticks=started.ticks):
        return handle
    os.close(handle)
    return None
