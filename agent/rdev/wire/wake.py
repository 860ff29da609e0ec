"""A pipe that wakes a thread out of its poll."""

from __future__ import annotations

import os


class WakePipe:
    """Wakes whoever polls `reader`; a wake-up that finds the pipe full is not needed any more.

    A program may close every descriptor it did not open, as daemons do, and then has files of its
    own under the numbers of the pipe; these are never written, read or closed.
    """

    __slots__ = ("_identity", "_writer", "reader")

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self._identity = identity(self.reader)  # both ends have the same
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def wake(self) -> bool:
        """Makes `reader` readable; False, and nothing is done, once the pipe is closed."""
        if identity(self._writer) != self._identity:
            return False
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def swallow(self) -> bool:
        """Makes `reader` unreadable again; False if the program closed the descriptor."""
        if identity(self.reader) != self._identity:
            return False
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
            if identity(descriptor) == self._identity:
                _close(descriptor)
        self.reader = self._writer = -1


def identity(descriptor: int) -> tuple[int, int] | None:
    """What a descriptor stands for, as a device and a number on it; None if for nothing."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(descriptor: int) -> None:
    # Every Python process of a job pays for what is imported here, so not by `contextlib`.
    try:
        os.close(descriptor)
    except OSError:
        return
