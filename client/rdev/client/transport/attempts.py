"""How often a host's sshd is asked by one process: not so often that it takes us for an attack.

A login that was refused is not tried again at all, see `Transport`; this is about all else that can
go wrong once a server was reached, such as a bridge that does not start.
"""

from __future__ import annotations

import time
from collections import deque

from rdev.protocol.errors import HostUnreachable, RdevError

# Well below where fail2ban and MaxStartups begin.
MOST, WINDOW = 3, 60.0


class Attempts:
    """Failed attempts at one host."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=MOST)
        self._last: RdevError | None = None

    def admit(self, action: str) -> None:
        """Returns if the host may be asked now.

        Raises:
            HostUnreachable: It was asked often enough within the last minute.
        """
        if len(self._failures) < MOST or time.monotonic() - self._failures[0] > WINDOW:
            return
        last = f"; the last time: {self._last.cause}" if self._last else ""
        raise HostUnreachable(action, f"{MOST} attempts failed within a minute{last}")

    def failed(self, error: RdevError) -> None:
        """Counts an attempt that reached a server and came to nothing."""
        self._failures.append(time.monotonic())
        self._last = error

    def succeeded(self) -> None:
        """Begins anew."""
        self._failures.clear()


_by_place: dict[tuple[str, ...], Attempts] = {}


def attempts_at(*place: str) -> Attempts:
    """The attempts that this process has made at a place, such as a host by a configuration."""
    return _by_place.setdefault(place, Attempts())
