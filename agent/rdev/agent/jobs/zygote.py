"""The agent's end of the zygote: asks it to fork keepers, and replaces it when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

from rdev.agent.jobs.resolve import scrubbed
from rdev.protocol.errors import InternalError
from rdev.wire import channel

# Isolated and without site-packages, so the path is set by hand; at its end, so that nothing beside
# us can stand in for a module of the standard library.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]);"
    " from rdev.supervisor.zygote import main; main(int(sys.argv[2]))"
)

# Forking a keeper takes some milliseconds; a machine that swaps may take long.
_DEADLINE = 30.0


class Zygote:
    """Starts keepers; one request at a time. Use as a context manager.

    Args:
        descriptors: How many descriptors keepers and jobs may have, the soft limit; None leaves
            them ours.
    """

    def __init__(self, descriptors: int | None = None) -> None:
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lines = channel.LineBuffer()
        self._busy = asyncio.Lock()
        self._last = 0

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._end)

    async def launch(self, directory: str) -> bool:
        """Starts a keeper for a job; False if the job has one, or needs none any more.

        Safe to repeat: a job's command is executed once, however many keepers come.
        """
        async with self._busy:
            for _attempt in range(2):
                try:
                    async with asyncio.timeout(_DEADLINE):
                        return await self._ask(directory)
                except (OSError, EOFError, channel.ChannelError):
                    await asyncio.to_thread(self._end)
                    await self._start()
        raise InternalError("start the job's keeper", "the zygote died twice")

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  # the standard library's signature
        self._socket, self._lines = ours, channel.LineBuffer()
        with theirs:
            self._process = await asyncio.to_thread(_spawn, theirs.fileno())
        if self._descriptors is not None:
            # Before it is asked to fork anything. It may have died already; then it is replaced.
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                limits = (self._descriptors, hard)
                resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, limits)

    async def _ask(self, directory: str) -> bool:
        if self._socket is None:
            raise EOFError
        self._last += 1
        loop = asyncio.get_running_loop()
        request = {"type": "keeper", "id": self._last, "directory": directory}
        await loop.sock_sendall(self._socket, channel.encode(request))
        # An answer to an earlier request comes first if whoever made that did not wait for it.
        while received := await loop.sock_recv(self._socket, 4096):
            for answer in map(channel.decode, self._lines.feed(received)):
                if answer.get("id") == self._last:
                    return bool(answer.get("taken"))
        raise EOFError

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            # The end of its socket is the end of it; kill is for one that hangs.
            try:
                self._process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(channel.__file__))))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, root, str(descriptor)],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        # Keepers are forked from it: no marker of a job may be in their environment.
        env=scrubbed(os.environ),
        start_new_session=True,
    )
