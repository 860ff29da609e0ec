"""What jobs print, read by cursors that survive every break of the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass

from rdev.client.connection import Connection, responses, resuming
from rdev.protocol.convert import seconds_since_epoch, timestamp
from rdev.protocol.errors import ConnectionLost
from rdev.protocol.log_message import Response, from_bytes
from rdev.v1 import log_pb2

_TAIL_LOG = "/rdev.v1.LogService/TailLog"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes of one stream.

    Attributes:
        rank: The rank that wrote it.
        stream: `stdout`, `stderr`, or `launcher` for what torchrun itself prints.
        offset: Of the first byte in the stream.
        data: The bytes as written.
        time: Seconds since the epoch when the last byte was recorded.
    """

    rank: int
    stream: str
    offset: int
    data: bytes
    time: float

    @property
    def end(self) -> int:
        """Offset after the last byte."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Gap:
    """An exactly counted run of bytes that the host could not keep."""

    rank: int
    stream: str
    offset: int
    length: int
    reason: str

    @property
    def end(self) -> int:
        """Offset after the last lost byte."""
        return self.offset + self.length


class Logs:
    """Reads logs of one host's jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # With a deserializer of its own, see `rdev.protocol.log_message`.
        self._tail_log = connection.channel.unary_stream(
            _TAIL_LOG,
            request_serializer=log_pb2.TailLogRequest.SerializeToString,
            response_deserializer=from_bytes,
        )

    async def tail(
        self,
        job_id: str,
        *,
        follow: bool = False,
        lines: int | None = None,
        starts: Mapping[tuple[int, str], int] | None = None,
        since: float | None = None,
        ranks: Collection[int] = (),
        streams: Collection[str] = (),
        attempt: int = 0,
        timed: bool = False,
    ) -> AsyncGenerator[Chunk | Gap, None]:
        """Yields what the job printed, in the order it was written, each byte once.

        Args:
            job_id: The job.
            follow: Go on until the job, or the attempt, has ended and everything that it printed
                was yielded.
            lines: Begin with the last so many lines of each stream; None is the beginning.
            starts: Offsets to begin with, by rank and stream, instead of those of `lines` and
                `since`.
            since: Begin with what was recorded then, in seconds since the epoch; None is the
                beginning.
            ranks: Only these; empty means all.
            streams: Only these: `stdout`, `stderr`, `launcher`; empty means all.
            attempt: Only this one, from 1; 0 means all.
            timed: What was recorded at different times comes in chunks of its own, so that each
                line's time is known to about 10 ms.

        Raises:
            ConnectionLost: The host is gone; what the job did since is not known.
            NotFound: The job has no such rank, stream or attempt.
        """
        ends = dict(starts or {})

        async def open_stream() -> AsyncGenerator[Chunk | Gap | None, None]:
            request = log_pb2.TailLogRequest(
                job_id=job_id,
                follow=follow,
                tail_lines=None if ends else lines,
                since=None if ends or since is None else timestamp(since),
                ranks=ranks,
                streams=streams,
                attempt=attempt,
                timed=timed,
            )
            request.cursors.extend(
                log_pb2.Cursor(rank=rank, stream=stream, offset=offset)
                for (rank, stream), offset in ends.items()
            )
            async for response in responses(self._tail_log(request)):
                yield _item(response)
            if follow:
                # Only LogEnd says that the job is over; a stream that just stops says nothing.
                raise ConnectionLost("follow the log", "the host ended the stream")

        async for item in resuming(self._connection, open_stream):
            if item is None:
                return
            ends[item.rank, item.stream] = item.end
            if item.end > item.offset:  # else it says where the stream begins
                yield item


def _item(response: Response) -> Chunk | Gap | None:
    head = response.head
    if isinstance(head, log_pb2.LogChunk):
        time = seconds_since_epoch(head.time)
        return Chunk(head.rank, head.stream, head.offset, response.data, time)
    if head.HasField("gap"):
        gap = head.gap
        return Gap(gap.rank, gap.stream, gap.offset, gap.length, gap.reason)
    return None
