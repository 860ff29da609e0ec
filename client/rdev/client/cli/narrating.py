"""Says, beside a job's output, what becomes of the job: an attempt failed, another begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from rdev.client.connection import Connection
from rdev.client.jobs import Jobs
from rdev.client.ui.jobs import retry_line
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job


class Attempts:
    """Tells each further attempt of a job, once.

    Args:
        job: As it stands when its output begins to be shown.
        tell: Says a line.
    """

    def __init__(self, job: Job, tell: Callable[[str], None]) -> None:
        self._job_id = job.id
        self._told = job.attempt
        self._tell = tell

    async def watch(self, connection: Connection) -> None:
        """Tells them as they begin, until the job ends."""
        with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
            async for job in Jobs(connection).watch(self._job_id):
                self.note(job)

    def note(self, job: Job) -> None:
        """Tells those that the job has begun and that were not told."""
        for attempt in job.attempts:
            if attempt.number >= self._told:
                self._tell(retry_line(job, attempt))
        self._told = max(self._told, job.attempt)
