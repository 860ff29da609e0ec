"""The sessions of this user that take commands: looked up for people, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

from rdev.client.session import place

_LOCK = ".lock"


def running() -> list[int]:
    """Process ids of the sessions that run; those of other interpreters and releases too."""
    folder = place.folder()
    if not place.is_private(folder):
        return []
    names = sorted(name for name in os.listdir(folder) if name.endswith(_LOCK))
    found = (_holder(os.path.join(folder, name)) for name in names)
    return [pid for pid in found if pid]


def end_all() -> list[int]:
    """Has each of them take no more commands, and end with the last that it runs.

    Returns:
        Their process ids.
    """
    found = running()
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return found


def _holder(path: str) -> int:
    """Whoever has locked that file; 0 if nobody has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.read(descriptor, 32).strip()
        return int(said) if said.isdigit() else 0
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return 0
