"""DebugService on the wire: one stream is one debug session; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from rdev.agent.debug.manager import DebugManager
from rdev.protocol.convert_job import start_from_proto
from rdev.protocol.errors import FeatureMissing, InvalidRequest
from rdev.protocol.ids import JOB_ID, require
from rdev.v1 import debug_pb2 as pb
from rdev.v1 import debug_pb2_grpc

_Context = grpc.aio.ServicerContext[pb.AttachDebuggerRequest, pb.AttachDebuggerResponse]


class DebugService(debug_pb2_grpc.DebugServiceServicer):
    """Serves the debug sessions of a manager."""

    def __init__(self, manager: DebugManager) -> None:
        self._manager = manager

    async def AttachDebugger(
        self, request_iterator: AsyncIterator[pb.AttachDebuggerRequest], context: _Context
    ) -> AsyncIterator[pb.AttachDebuggerResponse]:
        """See the proto."""
        del context
        opening = await anext(aiter(request_iterator), None)
        if opening is None or opening.WhichOneof("item") != "open":
            raise InvalidRequest("open a debug session", "the first message must open it")
        job_id = require(JOB_ID, opening.open.job_id, "job id")
        async with self._manager.session(job_id, opening.open.rank) as session:
            attached = session.attached
            yield pb.AttachDebuggerResponse(
                opened=pb.DebugOpened(
                    session_id=attached.session_id,
                    pid=attached.pid,
                    python_version=attached.python_version,
                    workspace=attached.workspace,
                )
            )
            feeding = self._manager.feed(session, _bytes(request_iterator))
            try:
                while data := await session.read():
                    yield pb.AttachDebuggerResponse(data=data)
            finally:
                feeding.cancel()

    async def GetStacks(
        self,
        request: pb.GetStacksRequest,
        context: grpc.aio.ServicerContext[pb.GetStacksRequest, pb.GetStacksResponse],
    ) -> pb.GetStacksResponse:
        """See the proto."""
        raise FeatureMissing("show the stacks", "this agent cannot yet")

    async def CompareRanks(
        self,
        request: pb.CompareRanksRequest,
        context: grpc.aio.ServicerContext[pb.CompareRanksRequest, pb.CompareRanksResponse],
    ) -> pb.CompareRanksResponse:
        """See the proto."""
        raise FeatureMissing("compare the ranks", "this agent cannot yet")

    async def SetStops(
        self,
        request: pb.SetStopsRequest,
        context: grpc.aio.ServicerContext[pb.SetStopsRequest, pb.SetStopsResponse],
    ) -> pb.SetStopsResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        rank = request.rank if request.HasField("rank") else None
        told = await self._manager.set_stops(job_id, start_from_proto(request.stops), rank=rank)
        return pb.SetStopsResponse(ranks=told.ranks, uncounted=told.uncounted)


async def _bytes(requests: AsyncIterator[pb.AttachDebuggerRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.data
