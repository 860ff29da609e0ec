"""Connecting to a unix socket whose path may be longer than a socket address can be."""

from __future__ import annotations

import _socket
import os

# The kernel's limit is 108 bytes on Linux and 104 on macOS, both with a closing zero.
MAX_SOCKET_PATH = 103

# A unix socket connects at once or not at all, unless its listener's queue is full.
CONNECT_SECONDS = 5.0


def connect(path: str) -> _socket.socket:
    """A non-blocking connection to `path`, through its folder's descriptor if that is too long.

    Raises:
        OSError: Nothing listens there.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    folder = -1
    try:
        address = path
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(address)
        connection.settimeout(0)
    except BaseException:
        connection.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)
    return connection
