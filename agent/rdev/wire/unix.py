"""Unix sockets: reached whatever the length of their path, and asked who is at their other end.

A socket's address is shorter than a path may be; a long one is named through a descriptor of its
folder. Every Python process of a job pays for what is imported here.
"""

from __future__ import annotations

import _socket
import os
import sys

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
MAX_SOCKET_PATH = 103

# A unix socket connects at once or not at all, unless its listener's queue is full.
CONNECT_SECONDS = 5.0

# SO_PEERCRED gives three numbers of four bytes: process, user and group (unix(7), struct ucred).
_CREDENTIALS = 12
_USER = slice(4, 8)


class short_socket_path:  # noqa: N801 - it is used like a function
    """A name for the socket at `path` that fits into a socket address.

    A long path is reached through a descriptor of its folder, so the name is good inside the block
    and in this process only.
    """

    # No `contextlib`: its import would be a tenth of what the dormant hook costs.
    __slots__ = ("_folder", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= MAX_SOCKET_PATH:
            return self._path
        folder = os.path.dirname(self._path)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{os.path.basename(self._path)}"

    def __exit__(self, *_: object) -> None:
        if self._folder >= 0:
            os.close(self._folder)


def connect(path: str) -> _socket.socket:
    """A non-blocking connection to the socket at `path`.

    Raises:
        OSError: Nothing listens there.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_SECONDS)
        with short_socket_path(path) as address:
            connection.connect(address)
        connection.settimeout(0)
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: _socket.socket) -> int:
    """User id of the process at the other end of a connected unix socket.

    Raises:
        OSError: The platform does not tell.
    """
    # `_socket` and not `socket`: the names are the same, and the import is cheaper.
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS)
    return int.from_bytes(credentials[_USER], sys.byteorder)
