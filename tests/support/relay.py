"""A transport that can be killed: listens at one unix socket and copies bytes to and from another.

It stands for what carries a connection to another machine, such as `ssh -L` of a socket. As a
program: `python relay.py LISTEN TARGET [WORD]`; it says `ready` once it listens. The first message
in which it meets WORD, such as the name of a call, it loses, with its connection; with `WORD...` it
says `held` and passes nothing more on in that direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rdev.wire.unix import connect, short_socket_path

# As much as a pipe holds, so that a kill tears streams in the middle of their messages.
_PIECE = 64 << 10

_HOLDS = b"..."


class Relay:
    """The program, started and killed at will."""

    def __init__(self, path: Path, target: str, *, loses: str = "") -> None:
        self.path = path
        self._target = target
        self._loses = loses
        self._process: subprocess.Popen | None = None

    @property
    def host(self) -> str:
        """What `rdev -H` calls the host at the other end."""
        return f"unix:{self.path}"

    def expect_held(self) -> None:
        """Returns once the message with the word has come."""
        assert self._process.stdout.readline() == b"held\n"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Starts it; returns when it listens."""
        command = [sys.executable, __file__, self.path, self._target, self._loses]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """Kills it as a network dies: no goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def relayed(path: Path, target: str, *, loses: str = "") -> Iterator[Relay]:
    """A relay for as long as the block lasts; it loses the first message with that word."""
    relay = Relay(path, target, loses=loses)
    relay.start()
    try:
        yield relay
    finally:
        relay.kill()


async def _serve(path: str, target: str, word: str) -> None:
    words = [word.encode()] if word else []
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with short_socket_path(path) as address:
        listener.bind(address)
    listener.listen(128)
    listener.setblocking(False)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            client, _ = await loop.sock_accept(listener)
            group.create_task(_join(client, target, words))


async def _join(client: socket.socket, target: str, words: list[bytes]) -> None:
    client.setblocking(False)
    with client, contextlib.suppress(OSError), contextlib.closing(connect(target)) as agent:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(client, agent, words))
            group.create_task(_copy(agent, client, []))


async def _copy(source: socket.socket, target: socket.socket, words: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, _PIECE):
            if words and words[0].removesuffix(_HOLDS) in data:
                if words.pop().endswith(_HOLDS):
                    print("held", flush=True)
                    await asyncio.Event().wait()
                break
            await loop.sock_sendall(target, data)
    for end in (source, target):  # grpc closes both ways or none
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:4]))
