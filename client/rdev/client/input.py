"""Writes a job's input so that every byte arrives once and in order, whatever breaks on the way.

    opening --says how much is there--> sending <--data, acknowledgements-->
       ^                                   |--the end is acknowledged, the job has ended--> over
       '--back-off-- the connection breaks, or the host's disk is full

What is not acknowledged is kept and sent again from where the host says it stands, see job.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

import grpc

from rdev.client.connection import Backoff, Connection, translating
from rdev.protocol.errors import (
    ConnectionLost,
    DiskFull,
    HostUnreachable,
    JobNotFound,
    JobNotRunning,
    RdevError,
)
from rdev.v1 import job_pb2 as pb
from rdev.v1 import job_pb2_grpc

_Call = grpc.aio.StreamStreamCall[pb.WriteInputRequest, pb.WriteInputResponse]

# Kept until it is acknowledged; beyond that the source waits. Some seconds of a slow uplink, and
# far more than anybody types.
_MOST_KEPT = 1 << 20

# What one message may carry, see job.proto.
_MOST_SENT = 256 << 10

# A disk does not become free within milliseconds, and asking costs the host a write.
_DISK_PATIENCE = 2.0


class Unacknowledged:
    """The bytes that the host may not have yet, by their offset in all that was written."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.start = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def end(self) -> int:
        """Offset after the last byte written."""
        return self.start + len(self._kept)

    def append(self, data: bytes) -> None:
        """Adds bytes at the end."""
        self._kept += data

    def acknowledge(self, offset: int) -> None:
        """Forgets what lies before `offset`.

        Raises:
            ValueError: The offset is of bytes that were never written, or that were forgotten.
        """
        if not self.start <= offset <= self.end:
            raise ValueError(f"{offset} is not within {self.start} and {self.end}")
        del self._kept[: offset - self.start]
        self.start = offset

    def since(self, offset: int, *, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on."""
        first = offset - self.start
        return bytes(self._kept[first : first + limit])


class Input:
    """The input of one job by one writer.

    `run` does the writing, in a task of its own, while `write` is called from another one; it is
    cancelled when nobody cares for the input any more.

    Args:
        connection: Where the job is.
        job_id: Full id.
        on_wait: Told once what it waits for when the host has no room.
        on_break: Told of each break of the connection.
        on_open: Told whenever the host answers, at first and again after a break.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        on_wait: Callable[[str], Awaitable[None]] | None = None,
        on_break: Callable[[], None] = lambda: None,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._stub = job_pb2_grpc.JobServiceStub(connection.channel)
        self._opening = pb.InputOpen(job_id=job_id, writer_id=secrets.token_hex(16))
        self._on_wait, self._on_break, self._on_open = on_wait, on_break, on_open
        self._kept = Unacknowledged()
        self._sent = 0
        self._is_complete = False
        self._has_sent_end = False
        self._is_over = False
        self._is_waiting = False
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._clean = asyncio.Event()
        self._clean.set()
        self._delays = Backoff()

    @property
    def unacknowledged(self) -> int:
        """Bytes that the host has not acknowledged."""
        return len(self._kept)

    async def write(self, data: bytes) -> None:
        """Takes bytes; waits while too many are not acknowledged. Dropped once it is over."""
        await self._room.wait()
        if self._is_over:
            return
        self._kept.append(data)
        self._measure()
        self._more.set()

    def end(self) -> None:
        """Ends the input after all that was written."""
        self._is_complete = True
        self._more.set()

    async def drained(self) -> None:
        """Returns once everything written is acknowledged, or the job takes no more."""
        await self._clean.wait()

    async def run(self) -> None:
        """Sends what is written until its end is acknowledged or the job takes no more.

        Raises:
            ConnectionLost: The host has been away for a minute.
        """
        while not self._is_over:
            try:
                await self._attempt()
            except ConnectionLost:
                self._on_break()
                await self._delays.wait()
                with contextlib.suppress(HostUnreachable):
                    await self._connection.recover()
                    self._delays.answered()
            except DiskFull as error:
                if not self._is_waiting:
                    self._is_waiting = True
                    await self._tell_wait(error)
                await asyncio.sleep(_DISK_PATIENCE)
            except (JobNotRunning, JobNotFound):
                self._finish()

    async def _tell_wait(self, error: RdevError) -> None:
        if self._on_wait is not None:
            await self._on_wait(f"the input waits: {error.cause}; {error.hint}")

    async def _attempt(self) -> None:
        call: _Call = self._stub.WriteInput()
        try:
            with translating("write the job's input"):
                await call.write(pb.WriteInputRequest(open=self._opening))
                self._has_sent_end = False
                await self._take_next(call)
            self._on_open()
            self._sent = self._kept.start
            await self._exchange(call)
        except asyncio.InvalidStateError:  # so grpc tells a writer that the call has ended
            raise await _failure(call) from None
        finally:
            call.cancel()

    async def _exchange(self, call: _Call) -> None:
        failure: RdevError | None = None
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(call))
            try:
                with translating("write the job's input"):
                    while not self._is_over:
                        await self._take_next(call)
            except RdevError as error:
                failure = error  # a group would wrap it, and the caller catches it by its class
            sending.cancel()
        if failure is not None:
            raise failure

    async def _send(self, call: _Call) -> None:
        # A call that has failed tells its reader why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                self._more.clear()
                while data := self._kept.since(self._sent, limit=_MOST_SENT):
                    self._sent += len(data)
                    await call.write(pb.WriteInputRequest(data=data))
                if self._is_complete:
                    self._has_sent_end = True
                    await call.write(pb.WriteInputRequest(end=pb.InputEnd()))
                    return
                await self._more.wait()

    async def _take_next(self, call: _Call) -> None:
        response = await call.read()
        if isinstance(response, pb.WriteInputResponse):
            self._take(response)
        elif self._has_sent_end and not self._kept:
            self._finish()  # a terminal's input has no end, and ours has arrived
        else:
            # Only `ended` says that nothing more is taken; a stream that just stops says nothing.
            raise ConnectionLost("write the job's input", "the host ended the stream")

    def _take(self, response: pb.WriteInputResponse) -> None:
        if response.ended:
            self._finish()
            return
        if response.accepted > self._kept.start:
            self._is_waiting = False
        try:
            self._kept.acknowledge(response.accepted)
        except ValueError as error:
            raise RdevError("write the job's input", f"the host miscounted: {error}") from error
        self._delays.reset()
        self._measure()

    def _measure(self) -> None:
        for event, most in ((self._room, _MOST_KEPT - 1), (self._clean, 0)):
            if len(self._kept) <= most or self._is_over:
                event.set()
            else:
                event.clear()

    def _finish(self) -> None:
        self._is_over = True
        self._measure()  # nobody need wait any more


async def _failure(call: _Call) -> RdevError:
    try:
        with translating("write the job's input"):
            await call.read()
    except RdevError as error:
        return error
    return ConnectionLost("write the job's input", "the call has ended")
