"""What clients write into a job's input: the bytes, and beside them who wrote which part.

`stdin` holds the raw bytes in the order in which they were taken, `stdin.writes` one record for
each write. The agent alone writes both: first the bytes behind the committed end, then the record,
which commits them. What a killed agent leaves behind the committed end is overwritten by the next;
what is committed never changes, and a writer that comes back learns how many of its bytes are
there. The supervisor reads only the last record, see rdev.supervisor.feed.

    open (the last record says where) --write--> bytes, record --> open
                                      --end----> record with the flag --> nothing more is taken
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from rdev.wire.files import JobFiles

# Bytes of a writer's identity.
WRITER_SIZE = 16

# writer, its offset after the write, the end of the input after it, flags, checksum of these; 64
# bytes, so that none lies across two pages and a kill cannot tear one.
_WRITE = struct.Struct("<16sQQII24x")
_WRITE_BODY = struct.Struct("<16sQQI")
WRITE_SIZE = _WRITE.size

_END = 1

# Records that are read at a time.
_BLOCK = 4096 * WRITE_SIZE


@dataclass(frozen=True, slots=True)
class Write:
    """One write, committed.

    Attributes:
        writer: Who wrote, `WRITER_SIZE` bytes.
        offset: Bytes that this writer has written, these included.
        end: Bytes that all have written, these included.
        is_end: The input ends here.
    """

    writer: bytes
    offset: int
    end: int
    is_end: bool = False

    def pack(self) -> bytes:
        """As the record."""
        values = (self.writer, self.offset, self.end, _END if self.is_end else 0)
        return _WRITE.pack(*values, zlib.crc32(_WRITE_BODY.pack(*values)))

    @classmethod
    def unpack(cls, record: bytes) -> Write | None:
        """From the record; None if it is torn."""
        if len(record) != WRITE_SIZE:
            return None
        writer, offset, end, flags, checksum = _WRITE.unpack(record)
        if checksum != zlib.crc32(_WRITE_BODY.pack(writer, offset, end, flags)):
            return None
        return cls(writer, offset, end, bool(flags & _END))


# Before anybody wrote.
_NOTHING = Write(bytes(WRITER_SIZE), 0, 0)


def last_write(descriptor: int) -> Write:
    """The last whole record of an open `stdin.writes`: up to where the input may be read."""
    position = os.fstat(descriptor).st_size // WRITE_SIZE * WRITE_SIZE
    while position > 0:
        position -= WRITE_SIZE
        found = Write.unpack(os.pread(descriptor, WRITE_SIZE, position))
        if found is not None:
            return found
    return _NOTHING


def reserve_input(files: JobFiles) -> None:
    """Makes the files and the FIFO of a job's input, nothing written yet."""
    os.mkfifo(files.input_fifo, 0o600)
    for path in (files.input, files.writes):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


class Spool:
    """Appends to a job's input; one at a time has it open, in whatever process. Blocks on the disk.

    Args:
        files: The job's directory.

    Attributes:
        end: Bytes that are committed.
        has_ended: Nothing more is taken, because somebody ended the input or the job is over.

    Raises:
        BlockingIOError: Another process has it open; it may be on its way out.
        OSError: It cannot be opened.
    """

    def __init__(self, files: JobFiles) -> None:
        self.end = 0
        self.has_ended = False
        self._count = 0
        self._offsets: dict[bytes, int] = {}
        self._data = -1
        self._writes = os.open(files.writes, os.O_RDWR | os.O_CLOEXEC)
        try:
            # flock and not a record lock: it belongs to this very descriptor.
            fcntl.flock(self._writes, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._recover()
            self._data = _open_data(files.input)
        except BaseException:
            self.close()
            raise
        self.has_ended = self.has_ended or self._data < 0

    def accepted(self, writer: bytes) -> int:
        """Bytes of that writer that are committed."""
        return self._offsets.get(writer, 0)

    def write(self, writer: bytes, data: bytes) -> None:
        """Commits all of `data`, or nothing of it; nothing happens after the end.

        Raises:
            OSError: There is no space, or the disk fails; a later write may succeed.
        """
        if self.has_ended or not data:
            return
        offset, end = self.accepted(writer) + len(data), self.end + len(data)
        self._commit(Write(writer, offset, end), data)

    def finish(self, writer: bytes) -> None:
        """Commits the end of the input; again is harmless.

        Raises:
            OSError: There is no space, or the disk fails.
        """
        if not self.has_ended:
            self._commit(Write(writer, self.accepted(writer), self.end, is_end=True), b"")

    def close(self) -> None:
        """Closes the files."""
        for descriptor in (self._data, self._writes):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._writes = -1

    def _commit(self, write: Write, data: bytes) -> None:
        position = self._count * WRITE_SIZE
        try:
            _write_all(self._data, data, self.end)
            _write_all(self._writes, write.pack(), position)
        except OSError:
            for descriptor, size in ((self._writes, position), (self._data, self.end)):
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
            raise
        self._learn(write)

    def _learn(self, write: Write) -> None:
        self._count += 1
        self._offsets[write.writer] = write.offset
        self.end, self.has_ended = write.end, write.is_end

    def _recover(self) -> None:
        for write in _writes(self._writes):
            self._learn(write)


def _writes(descriptor: int) -> Iterator[Write]:
    """All records in order, up to the first that is torn."""
    position = 0
    while content := os.pread(descriptor, _BLOCK, position):
        for start in range(0, len(content), WRITE_SIZE):
            write = Write.unpack(content[start : start + WRITE_SIZE])
            if write is None:
                return
            yield write
        position += len(content)


def _open_data(path: str) -> int:
    """The file of the bytes; -1 once the job is over, when it is removed."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, position = view[written:], position + written
