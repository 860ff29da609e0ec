"""DebugService on the wire: one stream is a client's call of a session; nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration

from rdev.agent.debug.heritage import Inherited
from rdev.agent.debug.manager import DebugManager, Order
from rdev.agent.debug.session import Call, DebugSession, Over
from rdev.agent.debug.stacks import ProcessStack
from rdev.agent.debug.strangers import Strangers
from rdev.protocol.convert_job import job_to_proto, start_from_proto
from rdev.protocol.errors import DebuggerUnavailable, InvalidRequest
from rdev.protocol.ids import JOB_ID, require
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc

_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[pb.AttachDebuggerRequest, pb.AttachDebuggerResponse]
_Requests = AsyncIterator[pb.AttachDebuggerRequest]

# A connection that breaks shows as the end of the requests first, and as a call that is cancelled
# an instant later; who means to end them waits for us.
_SETTLE = 0.25


class DebugService(debug_pb2_grpc.DebugServiceServicer):
    """Serves debug sessions.

    Args:
        manager: Those of jobs.
        strangers: Processes that rdev did not start.
        visits: Their sessions.
    """

    def __init__(self, manager: DebugManager, strangers: Strangers, visits: DebugManager) -> None:
        self._manager = manager
        self._strangers = strangers
        self._visits = visits

    def _of(self, job_id: str) -> DebugManager:
        return self._visits if self._strangers.knows(job_id) else self._manager

    async def AttachDebugger(
        self, request_iterator: _Requests, context: _Context
    ) -> AsyncIterator[pb.AttachDebuggerResponse]:
        """See the proto."""
        del context
        opening = await anext(aiter(request_iterator), None)
        if opening is None or opening.WhichOneof("item") != "open":
            raise InvalidRequest("open a debug session", "the first message must open it")
        order = _order(opening.open)
        manager = self._of(order.job_id)
        if opening.open.session_id:
            session = manager.find(opening.open.session_id, order.job_id, order.rank)
        else:
            async with _Attaching(manager, order) as attaching:
                while (line := await attaching.line()) is not None:
                    yield pb.AttachDebuggerResponse(notice=line)
                session = attaching.session()
        call = session.join(opening.open.received)
        feeding = manager.start(_feed(session, call, request_iterator))
        try:
            yield pb.AttachDebuggerResponse(opened=self._opened(session))
            while item := await call.next():
                yield _response(item)
        finally:
            feeding.cancel()
            session.leave(call)

    def _opened(self, session: DebugSession) -> pb.DebugOpened:
        attached = session.attached
        return pb.DebugOpened(
            session_id=attached.session_id,
            pid=attached.pid,
            python_version=attached.python_version,
            workspace=attached.workspace,
            received=session.received,
            lease=_duration(attached.lease),
            grace=_duration(self._manager.grace),
            warnings=attached.warnings,
            taken_over=_taken_over(attached.inherited),
        )

    async def GetStacks(
        self,
        request: pb.GetStacksRequest,
        context: grpc.aio.ServicerContext[pb.GetStacksRequest, pb.GetStacksResponse],
    ) -> pb.GetStacksResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        rank = request.rank if request.HasField("rank") else None
        found = await self._of(job_id).stacks(job_id, rank=rank, is_native=request.native)
        return pb.GetStacksResponse(processes=[_stack(process) for process in found])

    async def CompareRanks(
        self,
        request: pb.CompareRanksRequest,
        context: grpc.aio.ServicerContext[pb.CompareRanksRequest, pb.CompareRanksResponse],
    ) -> pb.CompareRanksResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        values = await self._of(job_id).compare(job_id, request.expression, request.function)
        return pb.CompareRanksResponse(
            values=[
                pb.RankValue(rank=v.rank, place=v.place, value=v.value, cause=v.cause)
                for v in values
            ]
        )

    async def SetStops(
        self,
        request: pb.SetStopsRequest,
        context: grpc.aio.ServicerContext[pb.SetStopsRequest, pb.SetStopsResponse],
    ) -> pb.SetStopsResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        rank = request.rank if request.HasField("rank") else None
        told = await self._of(job_id).set_stops(
            job_id,
            start_from_proto(request.stops),
            rank=rank,
            token=request.token,
            kept=request.kept.seconds + request.kept.nanos / 1e9,
        )
        return pb.SetStopsResponse(
            ranks=told.steps,
            uncounted=told.uncounted,
            steps=told.steps.values(),
            blind=told.blind,
            silent=told.silent,
            coming=told.coming,
        )

    async def ReachProcess(
        self,
        request: pb.ReachProcessRequest,
        context: grpc.aio.ServicerContext[pb.ReachProcessRequest, pb.ReachProcessResponse],
    ) -> pb.ReachProcessResponse:
        """See the proto."""
        del context
        reached = await self._strangers.reach(request.pid)
        return pb.ReachProcessResponse(
            job=job_to_proto(reached.job), rank=reached.rank, stranger=reached.is_stranger
        )

    async def ReadSource(
        self,
        request: pb.ReadSourceRequest,
        context: grpc.aio.ServicerContext[pb.ReadSourceRequest, pb.ReadSourceResponse],
    ) -> pb.ReadSourceResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        content = await self._strangers.source(job_id, request.path)
        return pb.ReadSourceResponse(content=content)


class _Attaching:
    """An attach that tells what it waits for; whoever leaves its block early undoes it."""

    def __init__(self, manager: DebugManager, order: Order) -> None:
        self._manager = manager
        self._order = order
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._session: DebugSession | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._task = self._manager.start(self._attach())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        if kind is not None and self._session is not None:
            self._session.end(Over.LEFT)

    async def line(self) -> str | None:
        """The next line for the person; None once the attach is done."""
        return await self._lines.get()

    def session(self) -> DebugSession:
        """The session; an error if it failed."""
        if self._failure is not None:
            raise self._failure
        if self._session is None:
            raise DebuggerUnavailable(self._order.action, "the agent stops")
        return self._session

    async def _attach(self) -> None:
        try:
            self._session = await self._manager.open(self._order, self._lines.put_nowait)
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            self._failure = error
        finally:
            self._lines.put_nowait(None)


async def _feed(session: DebugSession, call: Call, requests: _Requests) -> None:
    """Passes on what the client sends, to the end of its call."""
    try:
        async for request in requests:
            if not session.serves(call):
                return  # the client has come back by another call, which is the one that counts
            match request.WhichOneof("item"):
                case "data":
                    await session.take(request.data)
                case "received":
                    session.acknowledge(request.received)
                case "close":
                    session.end(Over.LEFT)
        await asyncio.sleep(_SETTLE)
        if session.serves(call):
            session.end(Over.LEFT)
    except Exception:  # noqa: BLE001 - grpc raises what it likes when a peer goes
        _log.info("a debug client's call broke", exc_info=True)
        session.leave(call)


def _taken_over(inherited: Inherited | None) -> pb.TakenOver | None:
    if inherited is None:
        return None
    return pb.TakenOver(
        first_sequence=inherited.first_sequence,
        files=inherited.files,
        held=inherited.is_held,
        away=_duration(inherited.away),
    )


def _order(opening: pb.DebugOpen) -> Order:
    return Order(
        job_id=require(JOB_ID, opening.job_id, "job id"),
        rank=opening.rank,
        lease=_seconds(opening.lease) if opening.HasField("lease") else None,
        allow_kill=opening.allow_kill,
        unsafe=opening.unsafe,
        owner="".join(letter for letter in opening.owner if letter.isprintable())[:200],
        client_pid=opening.client_pid,
        takes_over=opening.takes_over,
    )


def _seconds(duration: Duration) -> float:
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 < seconds <= 86400.0:
        raise InvalidRequest("open a debug session", "a lease lasts up to a day, and not nothing")
    return seconds


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _response(item: bytes | int | str) -> pb.AttachDebuggerResponse:
    match item:
        case bytes():
            return pb.AttachDebuggerResponse(data=item)
        case int():
            return pb.AttachDebuggerResponse(received=item)
        case _:
            return pb.AttachDebuggerResponse(notice=item)


def _stack(process: ProcessStack) -> pb.ProcessStack:
    threads = [
        pb.ThreadStack(
            name=thread.name,
            frames=[
                pb.StackFrame(file=f.file, line=f.line, function=f.function) for f in thread.frames
            ],
            paused=thread.is_paused,
        )
        for thread in process.threads
    ]
    return pb.ProcessStack(
        rank=process.rank,
        pid=process.pid,
        title=process.title,
        threads=threads,
        cause=process.cause,
        source=process.source,
    )
