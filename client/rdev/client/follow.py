"""Following a job to its end: its output in order, each byte once, then its final state."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from signal import SIGKILL
from typing import Protocol

from rdev.client.connection import Connection
from rdev.client.hosts import phrase
from rdev.client.jobs import Jobs
from rdev.client.logs import Chunk, Gap, Logs
from rdev.protocol.errors import ConnectionLost
from rdev.wire.job import Job, JobState, Reason

# Exit codes of rdev's own, in a range that programs leave free; see docs/commands.md.
EXIT_TIMEOUT = 124
EXIT_UNKNOWN = 125
# Of a job that was stopped while it waited: nothing was executed, and a shell says this for ^C.
EXIT_NEVER_BEGUN = 130
EXIT_OUT_OF_MEMORY = 128 + SIGKILL


class Sink(Protocol):
    """Takes what a job prints.

    Calls come one at a time and in the order the job wrote; each is awaited before the next, so a
    slow sink slows the reading and never the job. Raising ends the following.
    """

    async def write(self, chunk: Chunk) -> None:
        """Takes a run of bytes."""

    async def gap(self, gap: Gap) -> None:
        """Takes note of bytes that the host lost."""

    async def end(self) -> None:
        """Shows what is still kept back: everything was passed."""


async def follow(
    connection: Connection,
    job_id: str,
    sink: Sink,
    *,
    lines: int | None = None,
    starts: Mapping[tuple[int, str], int] | None = None,
) -> Job:
    """Passes a job's output to `sink` until it ends; returns the ended job.

    Args:
        connection: Where the job is.
        job_id: The job.
        sink: Takes the output.
        lines: Begin with the last so many lines of each stream; None is the beginning.
        starts: Offsets to begin with, by rank and stream, instead of those of `lines`.

    Raises:
        ConnectionLost: The host is gone; the job goes on and its end is not known.
    """
    tail = Logs(connection).tail(job_id, follow=True, lines=lines, starts=starts)
    try:
        await drain(tail, sink)
        return await Jobs(connection).wait(job_id)
    except ConnectionLost as error:
        hint = f"the job goes on; `{phrase('attach', connection.host, job_id)}` returns to it"
        raise ConnectionLost("follow the job", error.cause, hint=hint) from error


async def drain(tail: AsyncGenerator[Chunk | Gap, None], sink: Sink) -> None:
    """Passes everything that `tail` yields to `sink`."""
    async with contextlib.aclosing(tail) as items:
        async for item in items:
            await (sink.write(item) if isinstance(item, Chunk) else sink.gap(item))
    await sink.end()


def exit_code(job: Job) -> int:
    """The exit code that stands for an ended job.

    The job's own code; 128 + N for signal N; 124 when its timeout ended it; 137 when memory ran
    out, also where a launcher outlived the rank that was killed; 125 when rdev stopped it because
    its output could not be kept, and when its end is not known.
    """
    if job.reason is Reason.TIMEOUT:
        return EXIT_TIMEOUT
    if job.reason is Reason.OUT_OF_MEMORY:
        return EXIT_OUT_OF_MEMORY
    if job.reason is Reason.QUOTA:
        return EXIT_UNKNOWN
    if job.state is JobState.CANCELLED and job.exit_code is None:
        return EXIT_NEVER_BEGUN
    if job.state is JobState.LOST or job.exit_code is None:
        return EXIT_UNKNOWN
    return job.exit_code
