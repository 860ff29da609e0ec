"""LogService: streams what jobs print."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rdev.agent.jobs.manager import JobManager
from rdev.agent.logs.follow import follow
from rdev.agent.logs.inotify import Inotify
from rdev.agent.logs.log import Chunk, LogReader, Output, Piece, tail_offsets
from rdev.agent.services import Context
from rdev.protocol.convert import timestamp
from rdev.v1 import log_pb2, log_pb2_grpc
from rdev.wire.files import JobFiles


class LogService(log_pb2_grpc.LogServiceServicer):
    """Serves the logs of one manager's jobs."""

    def __init__(self, manager: JobManager, inotify: Inotify) -> None:
        self._manager = manager
        self._inotify = inotify

    async def TailLog(
        self, request: log_pb2.TailLogRequest, context: Context
    ) -> AsyncIterator[log_pb2.TailLogResponse]:
        """See log.proto."""
        files = self._manager.record(request.job_id).files
        offsets = await asyncio.to_thread(_offsets, files, request)
        with LogReader(files, offsets) as reader:
            batches = follow(
                reader, files, self._inotify, path=files.index, is_endless=request.follow
            )
            async for batch in batches:
                for piece in batch:
                    yield _to_proto(piece)
        if request.follow:
            yield log_pb2.TailLogResponse(end=log_pb2.LogEnd())


def _offsets(files: JobFiles, request: log_pb2.TailLogRequest) -> dict[Output, int]:
    if request.cursors or not request.HasField("tail_lines"):
        return {(cursor.rank, cursor.stream): cursor.offset for cursor in request.cursors}
    return tail_offsets(files, request.tail_lines)


def _to_proto(piece: Piece) -> log_pb2.TailLogResponse:
    if isinstance(piece, Chunk):
        chunk = log_pb2.LogChunk(
            rank=piece.rank,
            stream=piece.stream,
            offset=piece.offset,
            data=piece.data,
            time=timestamp(piece.time),
        )
        return log_pb2.TailLogResponse(chunk=chunk)
    gap = log_pb2.LogGap(
        rank=piece.rank,
        stream=piece.stream,
        offset=piece.offset,
        length=piece.length,
        reason=piece.reason,
    )
    return log_pb2.TailLogResponse(gap=gap)
