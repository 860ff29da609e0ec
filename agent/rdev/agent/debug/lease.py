"""The agent's view of a stop's lease: when to renew it, and when to warn whoever attends the stop.

    running --stopped--> held --continued--> running
                          | `due` says, by the clock: renew, warn

The lease itself lives in the stopped process, see `rdev.hook.lease`. It is renewed by what the
client asks for and never by its mere presence: an editor that was left open over night attends
nothing. Nothing here reads a clock or a socket.
"""

from __future__ import annotations

import enum
import math

# Typing a long expression takes longer than this; each renewal is an event of the job's.
RENEW_SECONDS = 10.0

# Time to come back from the kettle, but no more than a quarter of a short lease.
WARN_SECONDS = 60.0


class Action(enum.Enum):
    """What is to be done now."""

    RENEW = "renew"
    """The client has done something: the stop lasts a lease from now."""
    WARN = "warn"
    """The stop is about to end by itself."""


class LeaseWatch:
    """The lease of one session's stops, as far as the agent knows.

    Times are those of `time.monotonic`.

    Args:
        seconds: What the process was told that a stop may last.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._held_since: float | None = None
        self._deadline = 0.0
        self._renewed = 0.0
        self._is_active = False
        self._is_warned = False

    @property
    def is_held(self) -> bool:
        """Whether the process is stopped."""
        return self._held_since is not None

    def held(self, now: float) -> float:
        """How long the stop that is on has lasted."""
        return 0.0 if self._held_since is None else now - self._held_since

    def left(self, now: float) -> float:
        """Seconds until it goes on by itself; 0 while it runs."""
        return max(0.0, self._deadline - now) if self.is_held else 0.0

    def stopped(self, now: float) -> None:
        """A thread was stopped, which prolongs a stop that is on by nothing."""
        if self._held_since is None:
            self._held_since = self._renewed = now
            self._deadline = now + self.seconds
            self._is_active = self._is_warned = False

    def continued(self) -> None:
        """The process runs."""
        self._held_since = None

    def active(self) -> None:
        """The client has asked for something."""
        self._is_active = self.is_held

    def attended_anew(self) -> None:
        """Another client is there: the stop that is on is renewed at once."""
        self._is_active = self.is_held
        self._renewed = -math.inf

    def renewed(self, now: float, seconds: float) -> None:
        """The process was told that the stop lasts so long from now, and later ones do."""
        self.seconds = seconds
        self._deadline, self._renewed = now + seconds, now
        self._is_active = self._is_warned = False

    def due(self, now: float) -> Action | None:
        """What is to be done now, if anything; a warning is due once."""
        if not self.is_held:
            return None
        if self._is_active and now >= self._renewal():
            return Action.RENEW
        if not self._is_warned and now >= self._warning():
            self._is_warned = True
            return Action.WARN
        return None

    def wait(self, now: float) -> float | None:
        """Seconds until something may be due; None if nothing will be until something happens."""
        if not self.is_held:
            return None
        times = [self._renewal()] if self._is_active else []
        times += [] if self._is_warned else [self._warning()]
        return max(0.0, min(times) - now) if times else None

    def _renewal(self) -> float:
        # At once after a warning: the person answers it.
        pause = 0.0 if self._is_warned else min(RENEW_SECONDS, self.seconds / 4)
        return self._renewed + pause

    def _warning(self) -> float:
        return self._deadline - min(WARN_SECONDS, self.seconds / 4)
