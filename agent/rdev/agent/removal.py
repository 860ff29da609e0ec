"""Removes folders whatever jobs made of them: unreadable ones, and ones that change meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable

# Whoever still writes into a folder that is being removed is about to end; this many times its
# latest files are removed after it.
_MOST_ROUNDS = 5


def remove(path: str) -> None:
    """Removes a file, a link or a folder with all that is in it; what is gone already is no error.

    Raises:
        OSError: It cannot be removed, as with what belongs to another user.
    """
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    for _ in range(_MOST_ROUNDS):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
        _open_up(path)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)  # says what is in the way


def size_of(paths: Iterable[str]) -> int:
    """Bytes that files and folders take on their disks; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            _note(os.lstat(path), seen)
        for place, folders, files in os.walk(path):
            for name in (*folders, *files):
                with contextlib.suppress(OSError):
                    _note(os.lstat(os.path.join(place, name)), seen)
    return sum(seen.values())


def _note(status: os.stat_result, seen: dict[tuple[int, int], int]) -> None:
    seen[(status.st_dev, status.st_ino)] = status.st_blocks * 512


def _open_up(top: str) -> None:
    """Lets us into all folders from one down, where they are ours."""
    _let_in(top)
    for place, folders, _ in os.walk(top):
        for name in folders:
            _let_in(os.path.join(place, name))


def _let_in(folder: str) -> None:
    # What is not ours cannot be changed, and the removal says so.
    with contextlib.suppress(OSError):
        mode = os.lstat(folder).st_mode
        if stat.S_ISDIR(mode) and stat.S_IMODE(mode) & 0o700 != 0o700:
            os.chmod(folder, stat.S_IMODE(mode) | 0o700)
