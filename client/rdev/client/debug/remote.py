"""The debug stream of one rank over the agent's connection, as a pipe of DAP bytes.

opened --the connection breaks--> away --the host is back--> opened     either --> over

Bytes are counted both ways, so that a session goes on exactly where a break cut it: at the same
stop of the job, with what was on its way sent again. Whoever uses the pipe only waits longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration

from rdev.client.connection import REFUSALS, Backoff, Connection, translating
from rdev.client.debug.session import Inherited
from rdev.client.debug.terms import Terms
from rdev.client.identity import owner
from rdev.protocol.errors import (
    ConnectionLost,
    DebugSessionLost,
    HostUnreachable,
    RdevError,
)
from rdev.protocol.resend import Unacknowledged
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc

_Call = grpc.aio.StreamStreamCall[pb.AttachDebuggerRequest, pb.AttachDebuggerResponse]

# gRPC messages carry at most 1 MiB of data.
_CHUNK = 1 << 20

# Messages read before they are asked for; the adapter waits beyond that.
_READ_AHEAD = 64

# Of our own stream: requests have some 200 bytes each, and the agent acknowledges each 64 KiB.
_MOST_KEPT = 1 << 20

# Well below what the agent keeps for us, so that it never waits for our word.
_ACKNOWLEDGED_EVERY = 256 << 10

# A detach takes half a second; a host that has gone is not waited for much longer.
_GOODBYE = 15.0

# Who leaves while the host is away wants their prompt; the job goes on by itself.
_LAST_TRY = 3.0

# An agent that is older than sessions which wait says no time.
_LEAST_GRACE = 60.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was attached to.

    Attributes:
        session_id: Names the session.
        pid: The process on the host.
        python_version: Of that process.
        workspace: Folder on the host that the job runs in.
        lease: Seconds that a stop lasts after the last word from here.
        grace: Seconds that the session waits for us after a break; at a stop, as long as it lasts.
        warnings: What the person should know before the first stop, a line each.
        inherited: What another client has left, if the session was its.
    """

    session_id: str
    pid: int
    python_version: str
    workspace: str
    lease: float = 0.0
    grace: float = 0.0
    warnings: tuple[str, ...] = ()
    inherited: Inherited | None = None


class RemotePipe:
    """A `rdev.client.debug.session.Pipe` that outlives the calls it is made of; see `attached`.

    Attributes:
        opened: What was attached to.
    """

    opened: Opened

    def __init__(
        self,
        connection: Connection,
        opening: pb.DebugOpen,
        tell: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._opening = opening
        self._tell = tell
        self._sent = Unacknowledged()
        self._received = self._acknowledged = 0
        self._arrived: asyncio.Queue[bytes | RdevError] = asyncio.Queue(_READ_AHEAD)
        self._bell = asyncio.Event()
        self._is_leaving = False
        self._is_over = asyncio.Event()

    async def receive(self) -> bytes:
        """The next bytes of the adapter; b"" at the end.

        Raises:
            ConnectionLost: The host has been away for too long; the job goes on by itself.
            DebugSessionLost: The session is no more, as when the agent was restarted.
        """
        if self._is_over.is_set() and self._arrived.empty():
            return b""
        item = await self._arrived.get()
        if isinstance(item, RdevError):
            raise item
        return item

    async def send(self, data: bytes) -> None:
        """Sends bytes to the adapter, or keeps them until the host is back.

        Raises:
            ConnectionLost: The session has ended.
        """
        while len(self._sent) > _MOST_KEPT and not self._is_over.is_set():
            await self._bell.wait()
        if self._is_over.is_set():
            raise ConnectionLost("write the debug stream", "it has ended")
        self._sent.append(data)
        self._ring()

    # --- of `attached`

    async def open(self) -> _Call:
        """Attaches, or returns to the session; the call is to be given to `run`."""
        stub = debug_pb2_grpc.DebugServiceStub(self._connection.channel)
        call: _Call = stub.AttachDebugger()
        try:
            with translating(f"debug job {self._opening.job_id}"):
                await call.write(pb.AttachDebuggerRequest(open=self._opening))
                while isinstance(response := await call.read(), pb.AttachDebuggerResponse):
                    if response.WhichOneof("item") == "opened":
                        self._take_opened(response.opened)
                        return call
                    self._tell(response.notice)
            raise ConnectionLost(f"debug job {self._opening.job_id}", "the agent said nothing")
        except BaseException:
            call.cancel()
            raise

    async def run(self, call: _Call) -> None:
        """Carries bytes until the session is over; a task of its own."""
        try:
            while (broken := await self._serve(call)) is not None:
                call = await self._return(broken)
            await self._arrived.put(b"")
        except RdevError as error:
            await self._arrived.put(error)
        finally:
            self._is_over.set()
            self._ring()

    async def drain(self) -> None:
        """Says goodbye and waits until the agent has detached."""
        self._is_leaving = True
        self._ring()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                while not self._is_over.is_set():
                    while not self._arrived.empty():
                        self._arrived.get_nowait()
                    await self._bell.wait()

    # --- one call

    def _take_opened(self, opened: pb.DebugOpened) -> None:
        if not self._opening.session_id:
            self.opened = Opened(
                opened.session_id,
                opened.pid,
                opened.python_version,
                opened.workspace,
                lease=_seconds(opened.lease),
                grace=_seconds(opened.grace),
                warnings=tuple(opened.warnings),
                inherited=_inherited(opened),
            )
        try:
            self._sent.acknowledge(opened.received)
        except ValueError as error:
            raise DebugSessionLost("continue the debug session", str(error)) from error

    async def _serve(self, call: _Call) -> ConnectionLost | None:
        """Carries bytes until the call ends; why it broke, or None at the session's end."""
        broken: ConnectionLost | None = None
        failure: RdevError | None = None
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(call))
            try:
                await self._read(call)
            except ConnectionLost as error:
                broken = error
            except RdevError as error:  # a group would wrap it
                failure = error
            finally:
                writing.cancel()
                call.cancel()
        if failure is not None:
            raise failure
        return broken

    async def _read(self, call: _Call) -> None:
        with translating("read the debug stream"):
            while isinstance(response := await call.read(), pb.AttachDebuggerResponse):
                match response.WhichOneof("item"):
                    case "data":
                        await self._arrived.put(response.data)
                        self._received += len(response.data)
                    case "received":
                        self._sent.acknowledge(response.received)
                    case "notice":
                        self._tell(response.notice)
                self._ring()

    async def _write(self, call: _Call) -> None:
        # Whatever goes wrong here shows to the reader, which knows why.
        place = self._sent.begin
        with contextlib.suppress(
            grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError
        ):
            while True:
                if data := self._sent.since(place, _CHUNK):
                    place += len(data)
                    await call.write(pb.AttachDebuggerRequest(data=data))
                elif self._received - self._acknowledged >= _ACKNOWLEDGED_EVERY:
                    self._acknowledged = self._received
                    await call.write(pb.AttachDebuggerRequest(received=self._acknowledged))
                elif self._is_leaving:
                    await call.write(pb.AttachDebuggerRequest(close=pb.DebugClose()))
                    await call.done_writing()
                    return
                else:
                    await self._bell.wait()

    # --- a break

    async def _return(self, broken: ConnectionLost) -> _Call:
        """Returns to the session, as long as it waits for us.

        Raises:
            ConnectionLost: The host does not come back.
            DebugSessionLost: The session is no more.
        """
        self._opening.session_id = self.opened.session_id
        waits = max(self.opened.grace, self.opened.lease, _LEAST_GRACE)
        host = self._connection.host
        is_told = False
        # The clock of what this machine is awake: a laptop that slept has its whole time.
        began, delays = time.monotonic(), Backoff()
        while time.monotonic() - began < (_LAST_TRY if self._is_leaving else waits):
            await self._pause(delays.next_delay())
            self._opening.received = self._received
            try:
                await self._connection.recover()
                call = await self.open()
            except (*REFUSALS, DebugSessionLost):
                raise
            except HostUnreachable:
                if not is_told and not self._is_leaving:  # a blink is no news
                    self._tell(f"the connection to {host} broke; the debugger waits there")
                is_told = True
                continue
            if is_told and not self._is_leaving:
                self._tell(f"back at {host}: the debugger goes on where it was")
            return call
        hint = "the job goes on by itself when the lease of its stop ends"
        raise ConnectionLost("return to the debug session", broken.cause, hint=hint)

    async def _pause(self, seconds: float) -> None:
        """Waits, but not for whoever wants to leave."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds):
                while time.monotonic() < deadline and not self._is_leaving:
                    await self._bell.wait()

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()


def _nothing(_line: str) -> None:
    """Tells nobody."""


def _never() -> bool:
    """Whoever ends the block leaves."""
    return False


@asynccontextmanager
async def attached(
    connection: Connection,
    job_id: str,
    rank: int = 0,
    *,
    terms: Terms | None = None,
    tell: Callable[[str], None] = _nothing,
    is_lost: Callable[[], bool] = _never,
) -> AsyncIterator[RemotePipe]:
    """Attaches to a rank for as long as the block runs; leaving it waits for the full detach.

    A connection that breaks meanwhile is made again, and the session goes on where it was.

    Args:
        connection: Where the job is.
        job_id: Full id.
        rank: The rank.
        terms: What the session may do; the usual if None.
        tell: Shows a line to the person: what takes its time, warnings, breaks.
        is_lost: Asked when the block ends: nobody has left, so the session waits on the host for
            whoever comes next, as after a break.

    Raises:
        DebuggerUnavailable: No debugger can be put into the process.
        DebuggerBusy: Somebody is attached already.
        JobNotRunning: The job has ended.
    """
    pipe = RemotePipe(connection, await _opening(job_id, rank, terms or Terms()), tell)
    call = await pipe.open()
    for warning in pipe.opened.warnings:
        tell(warning)
    failure: RdevError | None = None
    async with asyncio.TaskGroup() as group:
        carrying = group.create_task(pipe.run(call))
        try:
            yield pipe
        except RdevError as error:
            failure = error  # A group would wrap it, and the caller catches it by its class.
        finally:
            if not is_lost():
                await pipe.drain()
            carrying.cancel()
    if failure is not None:
        raise failure


async def _opening(job_id: str, rank: int, terms: Terms) -> pb.DebugOpen:
    opening = pb.DebugOpen(
        job_id=job_id,
        rank=rank,
        allow_kill=terms.allow_kill,
        unsafe=terms.unsafe,
        owner=await asyncio.to_thread(owner),
        client_pid=os.getpid(),
        takes_over=terms.takes_over,
    )
    if terms.lease is not None:
        whole = int(terms.lease)
        nanos = int((terms.lease - whole) * 1e9)
        opening.lease.CopyFrom(Duration(seconds=whole, nanos=nanos))
    return opening


def _inherited(opened: pb.DebugOpened) -> Inherited | None:
    if not opened.HasField("taken_over"):
        return None
    taken = opened.taken_over
    return Inherited(
        taken.first_sequence, tuple(taken.files), is_held=taken.held, away=_seconds(taken.away)
    )


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9
