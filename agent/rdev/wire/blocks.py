"""Files that are there whole or not at all, and blocks that can be written on a full disk.

A block is a file whose space is taken when the job is created, so that it can be written on a full
disk. It has two slots that are written in turn, each with a checksum: a torn write leaves the
record before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

FORMAT = 1

_MODE = 0o600


class FilesError(ValueError):
    """A file of a job's directory is not what its format says."""


def write_file(path: str, body: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is there whole or not at all, and stays.

    Raises:
        OSError: It could not; nothing is left behind.
    """
    scratch = f"{path}.new"
    try:
        with open(scratch, "wb", opener=private) as file:
            file.write(json.dumps({"format": FORMAT, **body}).encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def read_file(path: str) -> dict[str, Any]:
    """Reads what `write_file` wrote.

    Raises:
        FilesError: It is not JSON, or of a later format.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        body = json.loads(content)
        if not isinstance(body, dict) or not 0 < int(body["format"]) <= FORMAT:
            raise FilesError(f"{path} is of a format that this release does not know")
    except (KeyError, TypeError, ValueError) as error:
        raise FilesError(f"{path} is damaged: {error}") from error
    return body


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reserve_block(path: str, slot: int) -> None:
    """Makes an empty block of two slots of that many bytes, its space taken."""
    with open(path, "xb", opener=private) as file:
        file.write(b" " * (2 * slot))
        file.flush()
        os.fsync(file.fileno())


class Block:
    """Writes one block; the process that may write it is named in the module's table."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._slot = os.fstat(self._file).st_size // 2
        self._sequence = _newest(os.pread(self._file, 2 * self._slot, 0))[0]

    def write(self, body: Mapping[str, Any]) -> None:
        """Replaces the record and returns once it is durable.

        Raises:
            FilesError: It is larger than a slot.
            OSError: It cannot be written, or not whole; the record before it stays.
        """
        sequence = self._sequence + 1
        text = json.dumps({"format": FORMAT, "sequence": sequence, **body}).encode()
        record = b"%08x %s\n" % (zlib.crc32(text), text)
        if len(record) > self._slot:
            raise FilesError(f"a record of {len(record)} bytes does not fit in its block")
        written, begin = 0, (sequence % 2) * self._slot
        while written < len(record):  # at a limit it is cut, and only what follows fails
            written += os.pwrite(self._file, record[written:], begin + written)
        os.fdatasync(self._file)
        self._sequence = sequence

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def write_block(path: str, body: Mapping[str, Any]) -> None:
    """Replaces a block's record once, durably."""
    block = Block(path)
    try:
        block.write(body)
    finally:
        block.close()


def read_block(path: str) -> dict[str, Any] | None:
    """The newest whole record of a block; None if it has none.

    Raises:
        FilesError: It is of a later format.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        body = _newest(file.read())[1]
    if body is not None and body["format"] > FORMAT:
        raise FilesError(f"{path} is of a format that this release does not know")
    return body


def _newest(content: bytes) -> tuple[int, dict[str, Any] | None]:
    half = len(content) // 2
    newest: tuple[int, dict[str, Any] | None] = (0, None)
    for slot in (content[:half], content[half:]):
        checksum, _, text = slot.partition(b"\n")[0].partition(b" ")
        if len(checksum) != 8 or checksum != b"%08x" % zlib.crc32(text):
            continue
        body = json.loads(text)
        if body["sequence"] > newest[0]:
            newest = (body["sequence"], body)
    return newest


def private(path: str, flags: int) -> int:
    """An opener for `open`: the file is ours alone and stays in this process."""
    return os.open(path, flags | os.O_CLOEXEC, _MODE)
