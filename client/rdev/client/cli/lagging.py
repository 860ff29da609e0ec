"""Tells a person whose terminal shows what is long past how far that is, and how to see the latest.

Nothing is left out unasked: everything is shown in its order, until the person chooses otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection

from rdev.client.connection import Connection
from rdev.client.jobs import Jobs
from rdev.client.ui.output import Output
from rdev.client.ui.sizes import human_size
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job, Stream

_STDOUT = 1

# Some seconds of a fast terminal; who is less behind will soon be there.
FAR_BEHIND = 64 << 20

# So often at most somebody is told, and the host asked, in seconds.
_LOOK = 10.0


async def tell_lag(
    connection: Connection,
    job: Job,
    output: Output,
    *,
    remedy: str,
    ranks: Collection[int] = (),
    streams: Collection[str] = (),
    is_from_start: bool = True,
) -> None:
    """Tells it for as long as it is so, on a terminal; runs until it is cancelled.

    Args:
        connection: Where the job is.
        job: The job, as it stands when its output begins to be shown.
        output: What shows it.
        remedy: How to see the latest.
        ranks: Only these are shown; empty means all.
        streams: Only these are shown; empty means all.
        is_from_start: All of the output is shown, not only the last of it.
    """
    if not os.isatty(_STDOUT):
        return

    def behind(all_of_it: Collection[Stream]) -> int:
        shown = [s for s in all_of_it if s.rank in (ranks or (s.rank,))]
        shown = [s for s in shown if s.name in (streams or (s.name,))]
        return sum(max(0, s.size - output.places.get((s.rank, s.name), begun(s))) for s in shown)

    def begun(stream: Stream) -> int:
        return 0 if is_from_start else stream.size

    while True:
        if (lag := behind(job.streams)) > FAR_BEHIND:
            await output.note(f"this is {human_size(lag)} behind {job.name}; {remedy}")
        before = dict(output.places)
        await asyncio.sleep(_LOOK)
        if output.places != before:  # else nothing is shown that could be late
            with contextlib.suppress(RdevError):  # who follows the output meets the same
                job = await Jobs(connection).get(job.id)
