"""The debug stream of one rank over the agent's connection, as a pipe of DAP bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from rdev.client.connection import Connection, translating
from rdev.protocol.errors import ConnectionLost, RdevError
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc

_Call = grpc.aio.StreamStreamCall[pb.AttachDebuggerRequest, pb.AttachDebuggerResponse]

# gRPC messages carry at most 1 MiB of data.
_CHUNK = 1 << 20

# Messages read before they are asked for; the adapter waits beyond that.
_READ_AHEAD = 64

# A detach takes half a second; a host that has gone is not waited for much longer.
_GOODBYE = 15.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was attached to.

    Attributes:
        session_id: Names the session in the agent's log.
        pid: The process on the host.
        python_version: Of that process.
        workspace: Folder on the host that the job runs in.
    """

    session_id: str
    pid: int
    python_version: str
    workspace: str


class RemotePipe:
    """A `rdev.client.debug.session.Pipe` over one call; made by `attached`."""

    def __init__(self, call: _Call, opened: Opened) -> None:
        self._call = call
        self._arrived: asyncio.Queue[bytes | RdevError] = asyncio.Queue(_READ_AHEAD)
        self.opened = opened

    async def receive(self) -> bytes:
        """The next bytes of the adapter; b"" at the end.

        Raises:
            ConnectionLost: The host went away; the job goes on without a debugger.
        """
        item = await self._arrived.get()
        if isinstance(item, RdevError):
            raise item
        return item

    async def send(self, data: bytes) -> None:
        """Sends bytes to the adapter.

        Raises:
            ConnectionLost: The session has ended.
        """
        try:
            with translating("write the debug stream"):
                for start in range(0, len(data), _CHUNK):
                    chunk = data[start : start + _CHUNK]
                    await self._call.write(pb.AttachDebuggerRequest(data=chunk))
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ConnectionLost("write the debug stream", "it has ended") from error

    async def pump(self) -> None:
        """Reads the call to its end; a task of its own, because cancelling a read ends the call."""
        try:
            with translating("read the debug stream"):
                while isinstance(response := await self._call.read(), pb.AttachDebuggerResponse):
                    await self._arrived.put(response.data)
            await self._arrived.put(b"")
        except RdevError as error:
            await self._arrived.put(error)

    async def drain(self) -> None:
        """Says goodbye and waits until the agent has detached."""
        with contextlib.suppress(RdevError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                with translating("leave the debug session"):
                    await self._call.done_writing()
                while await self.receive():
                    pass


@asynccontextmanager
async def attached(connection: Connection, job_id: str, rank: int = 0) -> AsyncIterator[RemotePipe]:
    """Attaches to a rank for as long as the block runs; leaving it waits for the full detach.

    Raises:
        DebuggerUnavailable: No debugger can be put into the process.
        DebuggerBusy: Somebody is attached already.
        JobNotRunning: The job has ended.
    """
    stub = debug_pb2_grpc.DebugServiceStub(connection.channel)
    call: _Call = stub.AttachDebugger()
    failure: RdevError | None = None
    try:
        pipe = RemotePipe(call, await _open(call, job_id, rank))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(pipe.pump())
            try:
                yield pipe
            except RdevError as error:
                failure = error  # A group would wrap it, and the caller catches it by its class.
            finally:
                await pipe.drain()
                reading.cancel()
    finally:
        call.cancel()
    if failure is not None:
        raise failure


async def _open(call: _Call, job_id: str, rank: int) -> Opened:
    with translating(f"debug job {job_id}"):
        request = pb.DebugOpen(job_id=job_id, rank=rank)
        await call.write(pb.AttachDebuggerRequest(open=request))
        response = await call.read()
        if not isinstance(response, pb.AttachDebuggerResponse):
            raise ConnectionLost(f"debug job {job_id}", "the agent said nothing")
    opened = response.opened
    return Opened(opened.session_id, opened.pid, opened.python_version, opened.workspace)
