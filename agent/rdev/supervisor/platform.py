"""The system calls that Python has no name for, and the locks of keeper and supervisor."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import resource
import termios
import traceback

# linux/prctl.h
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """Names this process in ps and /proc; at most 15 bytes count."""
    _prctl(_PR_SET_NAME, name.encode())


def become_subreaper() -> None:
    """Makes this process the parent of every orphan among its descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int | bytes) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def allow_descriptors(count: int) -> int:
    """Lets this process have so many descriptors, as far as it may; returns how many it might."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return soft


def bytes_waiting(descriptor: int) -> int:
    """Bytes that a pipe holds."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def lock(path: str, *, wait: bool) -> bool:
    """Locks a file until this process ends; False if another process has it.

    A record lock, not flock: it is not inherited, so it ends with this very process and not with
    the last of its children, and others can ask for it without taking it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return False
    return True


def complain() -> None:
    """Writes the exception that is being handled into our stderr, which may be on a full disk."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
