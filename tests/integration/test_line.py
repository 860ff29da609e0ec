"""The private socket that gRPC dials, before a transport that does as it is told."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys

import pytest

from rdev.client.transport.line import Line
from rdev.protocol.errors import CommandNotFound, HostUnreachable, LoginRefused
from rdev.wire.unix import short_socket_path


class Told:
    """A transport that joins what it is given to an echo, or fails; it counts how often."""

    name = "told"

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.error: Exception | None = None
        self.ends: list[socket.socket] = []

    async def join(self, command: str, near: socket.socket) -> str:
        self.commands.append(command)
        if self.error is not None:
            near.close()
            raise self.error
        near.sendall(b"ready")
        self.ends.append(near)
        return ""


@pytest.fixture
def transport(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("a" * 60)))
    told = Told()
    yield told
    for end in told.ends:
        end.close()


def dial(line) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    with short_socket_path(line.path) as path:
        connection.connect(path)
    connection.settimeout(10)
    return connection


@contextlib.asynccontextmanager
async def dialled(line):
    made = []
    await line.open(lambda: bool(made.append(dial(line))))
    try:
        yield made[0]
    finally:
        made[0].close()


async def test_one_connection_is_let_through_each_time_it_is_opened(transport):
    async with Line(transport, "bridge") as line:
        async with dialled(line) as connection:
            assert await asyncio.to_thread(connection.recv, 10) == b"ready"
            with dial(line) as uninvited:  # gRPC, by itself
                assert await asyncio.to_thread(uninvited.recv, 10) == b""
            await line.open(lambda: pytest.fail("it is open"))
        assert transport.commands == ["bridge"]
        transport.ends.pop().close()
        with dial(line) as uninvited:
            assert await asyncio.to_thread(uninvited.recv, 10) == b""
        line.command = "another"
        async with dialled(line):
            assert transport.commands == ["bridge", "another"]


@pytest.mark.parametrize("error", [LoginRefused("log in"), CommandNotFound("start")])
async def test_what_the_transport_says_is_raised_and_it_may_be_opened_again(transport, error):
    async with Line(transport, "bridge") as line:
        transport.error = error
        with pytest.raises(type(error)):
            async with dialled(line):
                pass
        transport.error = None
        async with dialled(line) as connection:
            assert await asyncio.to_thread(connection.recv, 10) == b"ready"


async def test_an_error_of_the_block_is_raised_as_it_is(transport):
    with pytest.raises(HostUnreachable, match="my own"):
        async with Line(transport, "bridge"):
            raise HostUnreachable("do", "my own")


async def test_what_was_let_through_can_be_dropped(transport):
    async with Line(transport, "bridge") as line, dialled(line) as connection:
        assert await asyncio.to_thread(connection.recv, 10) == b"ready"
        line.drop()
        assert not line.is_open
        assert await asyncio.to_thread(connection.recv, 10) == b""


async def test_its_socket_is_ours_alone_and_goes_with_it(transport):
    async with Line(transport, "bridge") as line:
        folder = os.path.dirname(line.path)
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(line.path).st_mode) == 0o600
    assert not os.path.exists(folder)


async def test_what_a_killed_process_left_is_removed_by_the_next(transport):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    async with Line(transport, "bridge") as line:
        place, own = os.path.split(os.path.dirname(line.path))
        left = os.path.join(place, own.replace(f"-{os.getpid()}-", f"-{gone}-"))
        os.mkdir(left)
        elsewhere = os.path.join(place, f"line-0123456789abcdef-{gone}-00000000")
        os.mkdir(elsewhere)
        async with Line(transport, "bridge"):
            assert not os.path.exists(left)
            assert os.path.exists(elsewhere)
            assert os.path.exists(line.path)


@pytest.fixture
def end(tmp_path):
    """What a shortcut leads to."""
    with socket.socket(socket.AF_UNIX) as listener, short_socket_path(str(tmp_path / "e")) as path:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        yield str(tmp_path / "e"), listener


async def test_its_path_is_a_shortcuts_until_that_is_left(transport, end):
    shortcut, listener = end
    async with Line(transport, "bridge", shortcut=shortcut) as line:
        assert line.is_short
        with dial(line):
            listener.accept()[0].close()
        for _ in range(2):  # by each stream that broke
            line.leave_shortcut()
        assert not line.is_short
        async with dialled(line) as connection:
            assert await asyncio.to_thread(connection.recv, 10) == b"ready"
    assert transport.commands == ["bridge"]
    assert os.path.exists(shortcut)


async def test_who_got_through_as_the_shortcut_was_left_needs_no_bridge(transport, end):
    shortcut, listener = end
    async with Line(transport, "bridge", shortcut=shortcut) as line:
        with dial(line):  # such as gRPC, by itself
            listener.accept()[0].close()
            line.leave_shortcut()
            await line.open(lambda: True)
        assert transport.commands == []
        async with dialled(line):  # it broke: this is an ordinary return
            assert transport.commands == ["bridge"]


async def test_another_user_is_not_let_through(transport, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    async with Line(transport, "bridge") as line:
        os.chmod(os.path.dirname(line.path), 0o711)  # as if the doors had been left open
        os.chmod(line.path, 0o666)
        monkeypatch.chdir(os.path.dirname(line.path))
        foreign = socket.socket(socket.AF_UNIX)
        foreign.settimeout(10)

        def come() -> None:
            os.seteuid(65534)  # the kernel notes who connects at that moment
            try:
                foreign.connect("s")
            finally:
                os.seteuid(0)

        opening = asyncio.ensure_future(line.open(come))
        await asyncio.sleep(0)
        with foreign:
            assert await asyncio.to_thread(foreign.recv, 10) == b""
        assert transport.commands == []
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
