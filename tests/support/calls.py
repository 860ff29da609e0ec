"""A debug session's calls without the client's own comfort: they break, and are counted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from rdev.agent.debug.manager import DebugManager
from rdev.agent.debug.strangers import Strangers
from rdev.agent.interceptor import ErrorInterceptor
from rdev.agent.services.debug import DebugService
from rdev.client.connection import translating
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc
from rdev.wire.unix import short_socket_path

JOB = "0" * 12


class CallPipe:
    """A client's end of one call after the other; see `rdev.client.debug.session.Pipe`.

    Attributes:
        opened: What the agent said of the session.
        received: How many bytes of the session's stream it has, and `stream` those.
        notices: Lines for the person.
        acknowledges: Whether the agent is told what was received.
    """

    def __init__(self, stub: debug_pb2_grpc.DebugServiceStub) -> None:
        self._stub = stub
        self._is_open = asyncio.Event()
        self.opened = pb.DebugOpened()
        self.received = self._acknowledged = 0
        self._writing = asyncio.Lock()
        self.stream = b""
        self.notices: list[str] = []
        self.acknowledges = True

    async def open(self, **options) -> pb.DebugOpened:
        """Attaches, or goes on with the session if there was one."""
        call = self._stub.AttachDebugger()
        options = {"session_id": self.opened.session_id, "received": self.received, **options}
        with translating("debug"):
            opening = pb.DebugOpen(job_id=JOB, **options)
            await call.write(pb.AttachDebuggerRequest(open=opening))
            while (response := await call.read()).WhichOneof("item") != "opened":
                self.notices.append(response.notice)
        self.call, self.opened = call, response.opened
        self._is_open.set()
        return self.opened

    def tear(self) -> None:
        """Breaks the call, as a network that is gone."""
        self._is_open.clear()
        self.call.cancel()

    async def receive(self) -> bytes:
        """The next bytes; waits for the next call where one was torn."""
        while True:
            try:
                response = await self.call.read()
            except asyncio.CancelledError:
                if self._is_open.is_set():
                    raise
                await self._is_open.wait()
                continue
            if not isinstance(response, pb.AttachDebuggerResponse):
                return b""
            if response.notice:
                self.notices.append(response.notice)
            if response.data:
                self.received += len(response.data)
                self.stream += response.data
                if self.acknowledges and self.received - self._acknowledged > 64 << 10:
                    await self.acknowledge()
                return response.data

    async def acknowledge(self) -> None:
        """Tells the agent what was received."""
        self._acknowledged = self.received
        await self.write(received=self.received)

    async def send(self, data: bytes) -> None:
        await self.write(data=data)

    async def write(self, **item) -> None:
        """Sends one message: gRPC takes them one at a time."""
        async with self._writing:
            await self.call.write(pb.AttachDebuggerRequest(**item))


@asynccontextmanager
async def served(manager: DebugManager, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of the manager's sessions."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    service = DebugService(manager, Strangers(str(folder / "strangers"), manager), manager)
    debug_pb2_grpc.add_DebugServiceServicer_to_server(service, server)
    with short_socket_path(str(folder / "agent.sock")) as path:
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                yield channel
        finally:
            await server.stop(0)
