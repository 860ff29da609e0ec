"""The laptop's own folders, and what helps where one of them cannot be written."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

CACHE_VARIABLE = "XDG_CACHE_HOME"
STATE_VARIABLE = "XDG_STATE_HOME"

# A home that is mounted read-only, belongs to somebody else, or is a file such as /dev/null.
_ELSEWHERE_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT})


@contextlib.contextmanager
def movable(variable: str) -> Iterator[None]:
    """Notes on a failure to write what to do: another folder can be named.

    Args:
        variable: Names another folder.

    Raises:
        OSError: As in the block; `rdev.protocol.errors.os_failure` makes the note its hint.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _ELSEWHERE_ERRNOS:
            error.add_note(f"see that it can be written, or set {variable} to a folder that can")
        raise
