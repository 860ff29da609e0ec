"""A file that only grows, by whole pieces: what a full disk tears off comes with the next write.

A training that writes beside its work must outlive a disk that is full for an hour, and leave a
file that can be read: so pieces that were accepted are kept until they are written, a piece that
was half written is ended before another begins, and what finds no room in memory is dropped whole.
"""

from __future__ import annotations

import os

# What is kept for a disk that takes nothing: hours of a run's scalars.
_KEPT_BYTES = 4 << 20

# Written without being asked for from here on, so that a burst does not stay in memory.
_FLUSH_BYTES = 64 << 10


class Appender:
    """Appends to a file.

    Args:
        path: Made if it is missing; its folder is there.

    Raises:
        OSError: It cannot be opened; `add` and `flush` raise what a write does.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.dropped = 0
        self._waiting = bytearray()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o666)

    def add(self, piece: bytes) -> None:
        """Takes in a piece; `dropped` counts those for which there was no room."""
        if len(self._waiting) + len(piece) > _KEPT_BYTES:
            self.dropped += 1
        else:
            self._waiting += piece
        if len(self._waiting) >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        try:
            while self._waiting:
                written = os.write(self._file, self._waiting)
                del self._waiting[:written]
        except OSError as error:
            error.filename = self.path  # A descriptor has no name to tell.
            raise

    def close(self) -> None:
        """Writes what waits and closes the file, which it also does if that fails."""
        if self._file < 0:
            return
        try:
            self.flush()
        finally:
            file, self._file = self._file, -1
            os.close(file)
