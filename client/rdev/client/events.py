"""What jobs report, read from an offset that survives every break of the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from rdev.client.connection import Connection, responses, resuming
from rdev.v1 import event_pb2, event_pb2_grpc
from rdev.wire.events import Event


class Events:
    """Reads events of one host's jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = event_pb2_grpc.EventServiceStub(connection.channel)

    async def end(self, job_id: str) -> int:
        """Where the record ends now: the offset at which what comes from now on begins."""
        offset = 0

        async def ask() -> AsyncGenerator[int, None]:
            request = event_pb2.TailEventsRequest(job_id=job_id, from_end=True)
            # An older agent gives all there is, the last of which leads there too.
            async for response in responses(self._stub.TailEvents(request)):
                yield response.next_offset

        async for following in resuming(self._connection, ask):
            offset = following
        return offset

    async def tail(
        self,
        job_id: str,
        *,
        offset: int = 0,
        follow: bool = False,
        kinds: Sequence[str] = (),
    ) -> AsyncIterator[tuple[int, Event]]:
        """Yields (offset to resume after it, event), each event once.

        Args:
            job_id: The job.
            offset: Where to begin: 0, or what came with the last event received.
            follow: Go on until the job's record is complete.
            kinds: Only these kinds; empty means all.
        """
        position = offset

        async def open_stream() -> AsyncGenerator[tuple[int, Event], None]:
            request = event_pb2.TailEventsRequest(
                job_id=job_id, offset=position, follow=follow, kinds=kinds
            )
            async for response in responses(self._stub.TailEvents(request)):
                yield response.next_offset, Event.from_json(response.event)

        async for next_offset, event in resuming(self._connection, open_stream):
            position = next_offset
            yield next_offset, event
