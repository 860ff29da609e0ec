"""EventService: streams what jobs report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rdev.agent.jobs.manager import JobManager
from rdev.agent.logs.events import EventReader, end_of
from rdev.agent.logs.follow import follow
from rdev.agent.logs.inotify import Inotify
from rdev.agent.services import Context
from rdev.v1 import event_pb2, event_pb2_grpc


class EventService(event_pb2_grpc.EventServiceServicer):
    """Serves the events of one manager's jobs."""

    def __init__(self, manager: JobManager, inotify: Inotify) -> None:
        self._manager = manager
        self._inotify = inotify

    async def TailEvents(
        self, request: event_pb2.TailEventsRequest, context: Context
    ) -> AsyncIterator[event_pb2.TailEventsResponse]:
        """See event.proto."""
        files = self._manager.record(request.job_id).files
        offset = request.offset
        if request.from_end:
            offset = await asyncio.to_thread(end_of, files)
            yield event_pb2.TailEventsResponse(next_offset=offset)
            if not request.follow:
                return
        with EventReader(files, offset, kinds=request.kinds) as reader:
            batches = follow(
                reader, files, self._inotify, path=files.events, is_endless=request.follow
            )
            async for batch in batches:
                for recorded in batch:
                    yield event_pb2.TailEventsResponse(
                        next_offset=recorded.next_offset, event=recorded.line
                    )
