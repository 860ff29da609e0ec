"""A pipe that wakes a thread out of its poll."""

from __future__ import annotations

import os


class WakePipe:
    """Wakes whoever polls `reader`; a wake-up that finds the pipe full is not needed any more."""

    __slots__ = ("_writer", "reader")

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def wake(self) -> None:
        """Makes `reader` readable; does nothing once the pipe is closed."""
        try:
            os.write(self._writer, b"\0")
        except OSError:
            return

    def swallow(self) -> bool:
        """Makes `reader` unreadable again; False if the program closed the descriptor."""
        try:
            os.read(self.reader, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Gives back both descriptors; again is harmless."""
        for descriptor in (self.reader, self._writer):
            _close(descriptor)
        self.reader = self._writer = -1


def _close(descriptor: int) -> None:
    # Every Python process of a job pays for what is imported here, so not by `contextlib`.
    try:
        os.close(descriptor)
    except OSError:
        return
