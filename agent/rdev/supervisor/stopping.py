"""How the processes of a job are ended: TERM, grace, KILL until nobody is left.

    idle --begin--> TERM sent --grace over--> KILL, again and again --nobody left--> done

A job that is stopped, or that is about to be started again, loses all its processes but those that
`rdev.supervisor.membership` spares. One that ended by itself loses only what is left in its main
process's session and in its ranks': what has made itself a daemon was meant to stay.
"""

from __future__ import annotations

import math
import os
import signal
import time

from rdev.supervisor.membership import Membership, Scope
from rdev.supervisor.processes import Process, is_alive, send_all
from rdev.wire.records import Launch, Started

# How often /proc is looked through while processes are being ended; only then. On a machine of very
# many processes the looks take no more than this part of a processor.
_LOOK = 0.05
_SHARE = 0.25

# A process in an uninterruptible call ends when the kernel lets it; the job's end does not wait.
_GIVE_UP = 10.0

# They have to fit in the status, see rdev.wire.files.
_MAX_SPARED = 32


class Sweep:
    """Ends the processes of one job.

    Args:
        launch: How it was started.
        keeper: The keeper.
        home: The state folder of the agent that serves it; empty if that is not known.

    Attributes:
        keeper: The keeper, whose descendants are the job's; 0 once it has gone.
        main: The main process; None until it is known.
        is_thorough: The job's end is not the last word: then nobody of it may be left.
        spared: What the last look left alone, one phrase each.
    """

    def __init__(self, launch: Launch, *, keeper: int, home: str = "") -> None:
        self.keeper = keeper
        self.main: Started | None = None
        self.is_thorough = False
        self.spared: tuple[str, ...] = ()
        self._launch = launch
        self._membership = Membership(launch.id, home=home)
        self._scope = Scope.JOB
        self._has_begun = False
        self._kill_at = math.inf
        self._next = 0.0
        self._is_over = False

    def begin(self, *, kill_at: float, is_all: bool = False) -> None:
        """Sends TERM to all of the job; again may only hasten KILL and reach more processes.

        Args:
            kill_at: When KILL follows, on CLOCK_MONOTONIC.
            is_all: Those go, too, that a stop spares otherwise.
        """
        self.hasten(kill_at=kill_at)
        is_wider = is_all and self._scope is not Scope.EVERYTHING
        if is_wider:
            self._scope = Scope.EVERYTHING
        if not self._has_begun or is_wider:
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
        looked = time.monotonic()
        self._next = self._kill_at if is_waiting else looked + max(_LOOK, (looked - now) / _SHARE)
        if looked < self._kill_at:
            self._next = min(self._next, self._kill_at)
        return is_over and (not left or now >= self._kill_at + _GIVE_UP)

    def _leave(self, now: float) -> bool:
        """The job ended by itself; True if nobody is left who has to go."""
        if not self.is_thorough:
            if self._launch.keep_children:
                return True
            self._scope = Scope.SESSION
        left = self._members()
        if not left:
            return True
        self._terminate(left)
        self._has_begun = True
        self._kill_at = min(self._kill_at, now + self._launch.grace)
        self._next = now + _LOOK
        return False

    def signal_ranks(self, number: int) -> None:
        """Signals what the job's launcher has started."""
        if self.main is not None:
            send_all(self._membership.ranks(self.main), number)

    def _members(self) -> list[Process]:
        look = self._membership.look(keeper=self.keeper, main=self.main, scope=self._scope)
        self.spared = tuple(look.spared[:_MAX_SPARED])
        return look.members

    def _terminate(self, processes: list[Process]) -> None:
        send_all(processes, signal.SIGTERM)
        if self._launch.terminal is not None:
            # As when its window is closed: an interactive shell ignores TERM.
            send_all(processes, signal.SIGHUP)
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
