"""A pipe that wakes a thread out of its poll."""

from __future__ import annotations

import contextlib
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
        with contextlib.suppress(OSError):
            os.write(self._writer, b"\0")

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
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.reader = self._writer = -1
