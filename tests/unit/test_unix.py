"""Unix sockets with long paths, and who is at their other end."""

from __future__ import annotations

import os
import socket

import pytest

from rdev.wire.unix import MAX_SOCKET_PATH, connect, peer_uid, short_socket_path


@pytest.mark.parametrize("length", [1, 200])
def test_a_socket_is_bound_and_reached_however_long_its_path_is(tmp_path, length):
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        with short_socket_path(path) as address:
            assert len(address) <= MAX_SOCKET_PATH
            listener.bind(address)
        listener.listen()
        connection = connect(path)
        try:
            assert peer_uid(connection) == os.geteuid()
        finally:
            connection.close()


def test_a_path_where_nobody_listens_leaves_nothing_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / ("x" * 200) / "s"))
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / "s"))
    assert os.listdir("/proc/self/fd") == before
