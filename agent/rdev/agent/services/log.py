"""LogService: streams what jobs print."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from rdev.agent.jobs.manager import JobManager
from rdev.agent.logs.follow import follow
from rdev.agent.logs.inotify import Inotify
from rdev.agent.logs.log import Chunk, Piece
from rdev.agent.logs.start import Query, Reading
from rdev.agent.services import Context
from rdev.protocol.convert import seconds_since_epoch
from rdev.protocol.log_message import Response, to_bytes
from rdev.v1 import log_pb2

_SERVICE = log_pb2.DESCRIPTOR.services_by_name["LogService"].full_name


class LogService:
    """Serves the logs of one manager's jobs."""

    def __init__(self, manager: JobManager, inotify: Inotify) -> None:
        self._manager = manager
        self._inotify = inotify

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with a serializer of its own, see `rdev.protocol.log_message`."""
        tail_log = grpc.unary_stream_rpc_method_handler(
            self.TailLog,
            request_deserializer=log_pb2.TailLogRequest.FromString,
            response_serializer=to_bytes,
        )
        handlers = grpc.method_handlers_generic_handler(_SERVICE, {"TailLog": tail_log})
        server.add_generic_rpc_handlers((handlers,))

    async def TailLog(
        self, request: log_pb2.TailLogRequest, context: Context
    ) -> AsyncIterator[Response]:
        """See log.proto."""
        files = self._manager.record(request.job_id).files
        query = _query(request)
        with await asyncio.to_thread(Reading, files, query) as reading:
            if request.follow and query.is_recent:
                for (rank, stream), offset in reading.begins.items():
                    # So that it is known after a break where this began, whatever came of it.
                    place = log_pb2.LogChunk(rank=rank, stream=stream, offset=offset)
                    yield Response(place)
            batches = follow(
                reading,
                files,
                self._inotify,
                path=files.index,
                is_endless=request.follow,
                is_over=reading.is_over,
            )
            async for batch in batches:
                for piece in batch:
                    yield _to_proto(piece)
        if request.follow:
            yield Response(log_pb2.TailLogResponse(end=log_pb2.LogEnd()))


def _query(request: log_pb2.TailLogRequest) -> Query:
    return Query(
        cursors={(cursor.rank, cursor.stream): cursor.offset for cursor in request.cursors},
        lines=request.tail_lines if request.HasField("tail_lines") else None,
        since=seconds_since_epoch(request.since) if request.HasField("since") else None,
        ranks=frozenset(request.ranks),
        streams=frozenset(request.streams),
        attempt=request.attempt,
        timed=request.timed,
    )


def _to_proto(piece: Piece) -> Response:
    if isinstance(piece, Chunk):
        microseconds = round(piece.time * 1e6)
        chunk = log_pb2.LogChunk(rank=piece.rank, stream=piece.stream, offset=piece.offset)
        chunk.time.seconds = microseconds // 1_000_000
        chunk.time.nanos = microseconds % 1_000_000 * 1000
        return Response(chunk, piece.data)
    gap = log_pb2.LogGap(
        rank=piece.rank,
        stream=piece.stream,
        offset=piece.offset,
        length=piece.length,
        reason=piece.reason,
    )
    return Response(log_pb2.TailLogResponse(gap=gap))
