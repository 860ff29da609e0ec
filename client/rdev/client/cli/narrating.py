"""Says, beside a job's output, what becomes of the job: it waits, is tried again, is left, ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from rdev.client.connection import Connection
from rdev.client.follow import exit_code
from rdev.client.hosts import phrase
from rdev.client.jobs import Jobs
from rdev.client.ui.jobs import closing_line, retry_line
from rdev.client.ui.output import say
from rdev.protocol.errors import RdevError
from rdev.wire.job import CommandKind, Job, JobState, Reason


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


async def explain_waiting(connection: Connection, job: Job, tell: Callable[[str], None]) -> None:
    """Tells why a job has not begun, and again when the reason changes, until it begins."""
    told = ""
    with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
        async for seen in Jobs(connection).watch(job.id):
            if seen.state is not JobState.PENDING:
                return
            if seen.message not in ("", told):
                told = seen.message
                tell(f"{job.name} {told}")


def closed(job: Job) -> int:
    """Says how a job ended, unless all is well; its exit code.

    A login shell exits with whatever its last command did, which is no failure of the shell's.
    """
    is_shell = job.spec.kind is CommandKind.PROGRAM and not job.spec.target
    is_left = is_shell and job.reason is Reason.EXITED
    if job.state is not JobState.SUCCEEDED and not is_left:
        say(closing_line(job))
    return exit_code(job)


def say_detached(connection: Connection, job: Job, *, is_fed: bool = True) -> None:
    """Says that the job goes on, and how to return to it.

    Args:
        connection: Where it is.
        job: The job.
        is_fed: Nothing of its input is left to be sent from here.
    """
    back = phrase("attach", connection.host, job.name)
    feed = phrase("attach -i", connection.host, job.name)
    with contextlib.suppress(OSError):  # the terminal may be gone
        say(f"detached; {job.name} goes on: `{back}` returns to it")
        if not is_fed:
            say(f"its input is not complete: `{feed}` goes on with it")
