"""The file of a checkpoint: written whole or not at all, and read without running code of it.

With torch it is a file of `torch.save`, so `torch.load(path, weights_only=True)` reads it anywhere.
Without, it is a line that says so, the length and CRC-32 of the rest, and a pickle of nothing but
numbers, texts and containers: the reader knows no class that a foreign pickle could name.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pickle
import struct
import sys
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

# A later release reads every earlier format.
FORMAT = 1

PARTIAL = ".partial"

_HEAD = b"rdev.loop checkpoint of plain values\n"
_SIZES = struct.Struct("<QI")
_ZIP = b"PK\x03\x04"


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read, or does not fit; says which and why in one line."""


def write(path: str, body: dict[str, Any]) -> None:
    """Writes a checkpoint's file, and its folder if that is missing.

    Whoever is killed, and whatever the disk does, the file of that name is the old one or the new
    one, whole; once this returns, the new one also if the machine loses its power.

    Raises:
        CheckpointError: It could not be written; the file that was there is as it was.
    """
    folder = os.path.dirname(os.path.abspath(path))
    partial = f"{path}.{os.getpid()}{PARTIAL}"
    try:
        os.makedirs(folder, exist_ok=True)
        with _partial_file(partial) as file:
            _dump(body, _Noting(file))
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise CheckpointError(f"unable to write the checkpoint {path}: {cause}") from error


def read(path: str) -> dict[str, Any]:
    """What was written there, with its tensors on the CPU.

    Raises:
        CheckpointError: There is none, or it is cut short, damaged, foreign or of a later format.
    """
    try:
        with open(path, "rb") as file:
            body = _parse(file)
    except OSError as error:
        raise CheckpointError(f"unable to read the checkpoint {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"unable to read the checkpoint {path}: {error}") from None
    return body


def sweep(folder: str) -> None:
    """Removes what writers have left there that were killed; those at work are not disturbed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.endswith(PARTIAL):
                _remove_unlocked(os.path.join(folder, name))


@contextlib.contextmanager
def _partial_file(path: str) -> Iterator[BinaryIO]:
    with open(path, "wb") as file:
        try:
            with contextlib.suppress(OSError):  # Some network folders know no locks.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield file
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            # What is still buffered is of no use, and a full disk would refuse it again.
            with contextlib.suppress(OSError):
                file.close()
            raise


def _remove_unlocked(path: str) -> None:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Noting:
    """A file that remembers why it could not be written; torch tells something else of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401  # whatever buffer torch has
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _dump(body: dict[str, Any], file: _Noting) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        try:
            torch.save(body, file)
        except RuntimeError:
            if file.error is None:
                raise
            raise file.error from None
        return
    packed = pickle.dumps(body, protocol=4)
    file.write(_HEAD + _SIZES.pack(len(packed), zlib.crc32(packed)))
    file.write(packed)


def _parse(file: BinaryIO) -> dict[str, Any]:
    start = file.read(len(_HEAD))
    if start == _HEAD:
        body = _parse_plain(file)
    elif start.startswith(_ZIP):
        body = _parse_torch(file)
    elif _HEAD.startswith(start):
        raise ValueError("it is cut short")
    else:
        raise ValueError("it is no checkpoint")
    if not isinstance(body, dict) or body.get("by") != "rdev.loop":
        raise ValueError("it is a file of something else, not a checkpoint of rdev.loop")
    if body.get("format") != FORMAT:
        raise ValueError(f"its format is {body.get('format')}, this release reads {FORMAT}")
    return body


def _parse_plain(file: BinaryIO) -> Any:  # noqa: ANN401
    sizes = file.read(_SIZES.size)
    packed = file.read()
    if len(sizes) < _SIZES.size or len(packed) < _SIZES.unpack(sizes)[0]:
        raise ValueError("it is cut short")
    length, checksum = _SIZES.unpack(sizes)
    if len(packed) > length or zlib.crc32(packed) != checksum:
        raise ValueError("it is damaged")
    try:
        return _Reader(io.BytesIO(packed)).load()
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from None


def _parse_torch(file: BinaryIO) -> Any:  # noqa: ANN401
    torch = sys.modules.get("torch")
    if torch is None:
        raise ValueError("it was written with torch; import torch before it is read")
    _check_zip(file, checksums=getattr(torch.serialization, "get_crc32_options", lambda: True)())
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it holds more than values and tensors, and is not loaded") from None
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"it is damaged: {str(error).partition(chr(10))[0]}") from None


def _check_zip(file: BinaryIO, *, checksums: bool) -> None:
    """Reads it through: torch itself takes flipped bits for weights."""
    import zipfile  # Torch has, and who trains without it has no use for it.

    try:
        with zipfile.ZipFile(file) as members:
            damaged = members.testzip() if checksums else None
    except zipfile.BadZipFile:
        # Its directory is its end.
        raise ValueError("it is cut short") from None
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} has another checksum than it was written with")
    file.seek(0)


class _Reader(pickle.Unpickler):
    """Knows containers, numbers and texts; a pickle that names anything else runs nothing."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, and is not loaded")
