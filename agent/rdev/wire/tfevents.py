"""TensorBoard's event files: scalars as the bytes that TensorBoard reads.

A file is a sequence of records, each an `Event` message. Sources, all of tensorflow/tensorboard:

    record   uint64 length, uint32 masked crc32c of the length's bytes, the message, uint32 masked
             crc32c of the message; little-endian  (compat/tensorflow_stub/pywrap_tensorflow.py)
    mask     rotate right by 15, add 0xa282ead8    (summary/writer/record_writer.py)
    Event    1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log
             (compat/proto/event.proto)
    Summary  repeated 1 value: 1 tag string, 2 simple_value float    (compat/proto/summary.proto)

Protocol buffers are encoded by hand (protobuf.dev, "Encoding"): a key is the field's number times
eight plus its wire type, 0 a varint, 1 eight bytes, 2 a length and bytes, 5 four bytes.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from itertools import count

from rdev.wire.appending import Appender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Castagnoli's polynomial, bits reversed (RFC 3720, appendix B.4).
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8

# TensorBoard refuses a file that does not begin with this version.
_VERSION = b"brain.Event:2"

# Of `SessionLog.status`: the run (re)starts at this step, and later ones seen before are void.
_SESSION_START = 1

_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = 0x09, 0x10, 0x1A, 0x2A, 0x3A
_VALUE, _TAG, _SIMPLE_VALUE, _STATUS = 0x0A, 0x0A, 0x15, 0x08

_HEAD = struct.Struct("<QI")
_FOOT = struct.Struct("<I")
_DOUBLE = struct.Struct("<Bd")
_FLOAT = struct.Struct("<Bf")

_INT64 = (1 << 64) - 1

# Two files of one process and second have names of their own.
_numbers = count()


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The cyclic redundancy check of RFC 3720."""
    value = 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def record(message: bytes) -> bytes:
    """A message as it stands in a file, with its length and both checks."""
    length = len(message).to_bytes(8, "little")
    head = _HEAD.pack(len(message), _masked(crc32c(length)))
    return head + message + _FOOT.pack(_masked(crc32c(message)))


def version(wall_time: float) -> bytes:
    """The record that each file begins with."""
    return record(_DOUBLE.pack(_WALL_TIME, wall_time) + _sized(_FILE_VERSION, _VERSION))


def restart(wall_time: float, step: int) -> bytes:
    """The record that makes TensorBoard forget what the folder's files say of later steps.

    Args:
        wall_time: Seconds since the epoch.
        step: The first step that comes anew.
    """
    status = bytes((_STATUS, _SESSION_START))
    return record(_begun(wall_time, step) + _sized(_SESSION_LOG, status))


def scalars(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """The record of one step's values.

    Args:
        wall_time: Seconds since the epoch.
        step: Their step.
        values: By tag; TensorBoard keeps 32 bits of each.
    """
    summary = b"".join(_value(tag, value) for tag, value in values.items())
    return record(_begun(wall_time, step) + _sized(_SUMMARY, summary))


class EventFile:
    """One event file of a log folder; a disk that is full tears no record.

    Args:
        folder: Made if it is missing; TensorBoard is given this one or one above it.
        purge: The first step that a resumed run makes anew; None if it is no resumed one.

    Raises:
        OSError: The folder or file cannot be made; `write` and `flush` raise it as well.
    """

    def __init__(self, folder: str, *, purge: int | None = None) -> None:
        now = time.time()
        os.makedirs(folder, exist_ok=True)
        # TensorBoard reads files with these words in the order of their names: seconds come first.
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appender(os.path.join(folder, f"{name}.{next(_numbers)}"))
        self._file.add(version(now))
        if purge is not None:
            self.restart(purge)

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._file.path

    def write(self, step: int, values: Mapping[str, float], *, wall_time: float) -> None:
        """Takes in the values of a step; see `scalars`."""
        self._file.add(scalars(wall_time, step, values))

    def restart(self, step: int) -> None:
        """Makes TensorBoard forget what came before of this step and of later ones."""
        self._file.add(restart(time.time(), step))

    def flush(self) -> None:
        """Lets TensorBoard see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Writes what is left and closes the file, which it also does if that fails."""
        self._file.close()


def _masked(check: int) -> int:
    return ((check >> 15 | check << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _begun(wall_time: float, step: int) -> bytes:
    return _DOUBLE.pack(_WALL_TIME, wall_time) + bytes((_STEP,)) + _varint(step & _INT64)


def _value(tag: str, value: float) -> bytes:
    try:
        number = _FLOAT.pack(_SIMPLE_VALUE, value)
    except OverflowError:
        number = _FLOAT.pack(_SIMPLE_VALUE, float("inf") if value > 0 else float("-inf"))
    return _sized(_VALUE, _sized(_TAG, tag.encode(errors="replace")) + number)


def _sized(key: int, content: bytes) -> bytes:
    return bytes((key,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
