"""Whose turn it is in a workspace: agents of several machines may have one home, and one folder.

A transaction clears the stage, writes the journal and renames; two at once would take each other's
files. Within an agent a thread's lock keeps them apart, between agents a lock on a file does. NFS
has such locks since Linux 2.6.12; where a file system refuses them we go without, and nobody may
sync one workspace through two machines at the same moment there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from rdev.protocol.errors import SyncFailed

# A transaction of thousands of files takes seconds on a file server.
_PATIENCE = 60.0

# Shorter than anybody notices, and a file server bears it.
_POLL = 0.01

_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


@contextlib.contextmanager
def turn(folder: str, name: str) -> Iterator[None]:
    """Has a workspace for itself, among all agents of a home, as long as the block runs.

    Args:
        folder: Holds the locks; it is made if need be.
        name: The workspace's.

    Raises:
        SyncFailed: Another machine's agent has had it for a minute.
        OSError: The lock cannot be opened.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, name)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:  # there are no locks here
                return
        else:
            return
        if time.monotonic() > deadline:
            cause = "the agent of another machine has been changing it for a minute"
            raise SyncFailed("change the workspace", cause)
        time.sleep(_POLL)
