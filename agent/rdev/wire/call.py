"""One connection of a dialer to the supervisor: the hello, then lines out and lines in.

greeting (hello sent) -> open (welcome received) -> closed by either side
         '--- no welcome in time, garbage, a break ---^
"""

from __future__ import annotations

import select
import time

from rdev.wire import channel
from rdev.wire.unix import connect
from rdev.wire.wake import identity

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping
    from typing import Any
else:
    from _collections import deque  # `collections` is many times dearer, and has this one

# A supervisor answers a hello in milliseconds; one that does not is stuck, and another may come.
GREETING_SECONDS = 5.0

_READ_BYTES = 64 * 1024


class Call:
    """Connects and says hello; nothing here blocks afterwards, and one thread uses it.

    Args:
        path: The job's socket; may be longer than a socket address.
        hello: What is said first.

    Attributes:
        welcomed: Whether the supervisor has answered the hello; set by whoever reads the answer.

    Raises:
        OSError: Nothing listens there.
    """

    __slots__ = (
        "_connection",
        "_greeting_until",
        "_identity",
        "_lines",
        "_replies",
        "_unsent",
        "welcomed",
    )

    def __init__(self, path: str, hello: Mapping[str, Any]) -> None:
        self._connection = connect(path)
        self._identity = identity(self._connection.fileno())
        self._lines = channel.LineBuffer()
        self._replies: deque[bytes] = deque()
        self._unsent = channel.encode(hello)
        self._greeting_until = time.monotonic() + GREETING_SECONDS
        self.welcomed = False

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._connection.fileno()

    @property
    def interest(self) -> int:
        """What to poll the descriptor for."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    @property
    def patience(self) -> float:
        """For how many seconds the welcome may still take; at most 0 if it is overdue."""
        return self._greeting_until - time.monotonic()

    def reply(self, line: bytes) -> None:
        """Sends a line as soon as there is room, before anything that is taken."""
        self._replies.append(line)

    def send(self, take: Callable[[], bytes]) -> None:
        """Sends what there is room for.

        Args:
            take: Gives the next lines, b"" if there are none; not asked before the welcome.

        Raises:
            OSError: The connection broke.
        """
        self._check()
        while True:
            if not self._unsent:
                self._unsent = self._next_bytes(take)
                if not self._unsent:
                    return
            try:
                sent = self._connection.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have arrived whole; call it when the descriptor is readable.

        Raises:
            OSError: The connection broke or was closed.
            ChannelError: What arrived is no message.
        """
        self._check()
        data = self._connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the supervisor closed the connection")
        return [channel.decode(line) for line in self._lines.feed(data)]

    def close(self) -> None:
        """Closes it; in a forked child only the child's copy."""
        try:
            self._check()
            self._connection.close()
        except OSError:
            self._connection.detach()

    def _check(self) -> None:
        # The program may close all descriptors, and have a file of its own under this number.
        if identity(self._connection.fileno()) != self._identity:
            raise ConnectionResetError("the program closed the connection")

    def _next_bytes(self, take: Callable[[], bytes]) -> bytes:
        if self._replies:
            return self._replies.popleft()
        return take() if self.welcomed else b""
