"""What the job prints, beside the conversation about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rdev.client.connection import Connection
from rdev.client.debug.prompt import Console
from rdev.client.follow import follow
from rdev.client.logs import Chunk, Gap
from rdev.client.ui.escapes import EscapeFilter, Passing
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job

# After a stop or the end, what the job printed just before is a moment on its way.
_LAST_WORDS = 0.5


class _Lines:
    """Shows whole lines; see `rdev.client.follow.Sink`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._filters: dict[tuple[int, str], EscapeFilter] = {}
        self._pending: dict[tuple[int, str], bytes] = {}

    async def write(self, chunk: Chunk) -> None:
        key = chunk.rank, chunk.stream
        text = self._filters.setdefault(key, EscapeFilter(Passing.PLAIN)).feed(chunk.data)
        whole, newline, rest = (self._pending.get(key, b"") + text).rpartition(b"\n")
        self._pending[key] = rest
        if newline:
            self._console.say(whole.decode(errors="backslashreplace"))

    async def gap(self, gap: Gap) -> None:
        self._console.say(f"{gap.length} bytes of its output were lost on the host")

    async def end(self) -> None:
        for rest in self._pending.values():
            if rest:
                self._console.say(rest.decode(errors="backslashreplace"))
        self._pending.clear()


@asynccontextmanager
async def shown_beside(
    connection: Connection, job: Job, console: Console, *, is_wanted: bool
) -> AsyncIterator[None]:
    """Shows what a job prints, line by line, for as long as the block runs.

    Args:
        connection: Where the job is.
        job: The job.
        console: Where to show it.
        is_wanted: False shows nothing.
    """
    if not is_wanted:
        yield
        return
    failure: RdevError | None = None
    async with asyncio.TaskGroup() as group:
        following = group.create_task(_follow(connection, job, console))
        try:
            yield
            await asyncio.wait({following}, timeout=_LAST_WORDS)
        except RdevError as error:
            failure = error  # A group would wrap it, and the caller catches it by its class.
        finally:
            following.cancel()
    if failure is not None:
        raise failure


async def _follow(connection: Connection, job: Job, console: Console) -> None:
    with suppress(RdevError):  # the session says what is wrong
        await follow(connection, job.id, _Lines(console))
