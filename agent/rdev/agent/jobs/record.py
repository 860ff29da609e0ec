"""One job in the agent's memory: what is on disk about it, and who waits for a change."""

from __future__ import annotations

import asyncio

from rdev.wire.files import JobFiles
from rdev.wire.job import Job, Stream
from rdev.wire.records import Accepted, Status, job_of


class JobRecord:
    """A job and its latest known status.

    Attributes:
        accepted: What never changes.
        files: Its directory.
        status: What does.
    """

    def __init__(self, accepted: Accepted, status: Status, files: JobFiles) -> None:
        self.accepted = accepted
        self.files = files
        self.status = status
        self._changed = asyncio.Event()

    def update(self, status: Status) -> None:
        """Takes in a status, unless a later one is known, and wakes whoever waits."""
        if status.revision <= self.status.revision:
            return
        self.status = status
        self.wake()

    def wake(self) -> None:
        """Wakes whoever waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns after the next change."""
        await self._changed.wait()

    def job(self, streams: tuple[Stream, ...] = ()) -> Job:
        """The job as it stands now."""
        return job_of(self.accepted, self.status, streams)
