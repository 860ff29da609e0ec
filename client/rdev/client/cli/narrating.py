"""Says, beside a job's output, what becomes of the job: it waits, is tried again, is left, ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from rdev.client.connection import Connection
from rdev.client.follow import exit_code
from rdev.client.hosts import phrase
from rdev.client.jobs import Jobs
from rdev.client.ui.jobs import closing_line, retry_line
from rdev.client.ui.output import say
from rdev.protocol.errors import Interrupted, OutputFailed, RdevError
from rdev.wire.job import CommandKind, Job, JobState, Reason

Tell = Callable[[str], Awaitable[None]]

# How a job ends because of rdev or the machine; else it is the job's own affair.
_TROUBLES = frozenset(
    {Reason.START_FAILED, Reason.QUOTA, Reason.KEEPER_LOST, Reason.REBOOTED, Reason.NONE}
)

# How long we ask about a job that we leave: a person waits for their prompt.
_LAST_LOOK = 2.0


class Attempts:
    """Tells each further attempt of a job, once.

    Args:
        job: As it stands when its output begins to be shown.
        tell: Says a line.
    """

    def __init__(self, job: Job, tell: Tell) -> None:
        self._job_id = job.id
        self._told = job.attempt
        self._tell = tell

    async def watch(self, connection: Connection) -> None:
        """Tells them as they begin, until the job ends."""
        with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
            async for job in Jobs(connection).watch(self._job_id):
                await self.note(job)

    async def note(self, job: Job) -> None:
        """Tells those that the job has begun and that were not told."""
        for line in self.untold(job):
            await self._tell(line)
        self._told = max(self._told, job.attempt)

    def untold(self, job: Job) -> list[str]:
        """What there is to tell of those that the job has begun and that were not told."""
        return [retry_line(job, each) for each in job.attempts if each.number >= self._told]


async def explain_waiting(connection: Connection, job: Job, tell: Tell) -> None:
    """Tells why a job has not begun, and again when the reason changes, until it begins."""
    told = ""
    with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
        async for seen in Jobs(connection).watch(job.id):
            if seen.state is not JobState.PENDING:
                return
            if seen.message not in ("", told):
                told = seen.message
                await tell(f"{job.name} {told}")


async def explain_block(connection: Connection, job: Job, tell: Tell) -> None:
    """Tells what a job that runs waits for, such as room for its output, and when it goes on."""
    told = ""
    with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
        async for seen in Jobs(connection).watch(job.id):
            if seen.state is JobState.RUNNING and seen.message != told:
                again = ": there is room again" if "room" in told else ""
                told = seen.message
                await tell(f"{job.name} {told or f'goes on{again}'}")


def closed(job: Job, *, is_quiet: bool = False) -> int:
    """Says how a job ended, unless all is well; its exit code.

    A login shell exits with whatever its last command did, which is no failure of the shell's.

    Args:
        job: An ended job.
        is_quiet: Say it only where the exit code is none of the job's own.
    """
    is_shell = job.spec.kind is CommandKind.PROGRAM and not job.spec.target
    is_left = is_shell and job.reason is Reason.EXITED
    is_told = not is_quiet or job.reason in _TROUBLES
    if job.state is not JobState.SUCCEEDED and not is_left and is_told:
        say(closing_line(job))
    return exit_code(job)


async def explain_end(connection: Connection, job: Job) -> None:
    """Says who has the module that an ended job died for want of, if it did."""
    from rdev.client.environments import missing_module  # few jobs end so

    # Whatever goes wrong here, how the job ended has been said.
    with contextlib.suppress(RdevError):
        line = await missing_module(connection, await Jobs(connection).get(job.id))
        if line:
            say(line)


def say_detached(connection: Connection, job: Job, *, is_fed: bool = True) -> None:
    """Says that the job goes on, and how to return to it.

    Args:
        connection: Where it is.
        job: The job.
        is_fed: Nothing of its input is left to be sent from here.
    """
    back = phrase("attach", connection.host, job.name)
    feed = phrase("attach -i", connection.host, job.name)
    say(f"detached; {job.name} goes on: `{back}` returns to it", is_leaving=True)
    if not is_fed:
        say(f"its input is not complete: `{feed}` goes on with it", is_leaving=True)


@contextlib.asynccontextmanager
async def outlived(connection: Connection, job: Job) -> AsyncIterator[None]:
    """Says that the job goes on, and how to return to it, when we fail or are ended in the block.

    Args:
        connection: Where it is.
        job: The job that is followed.

    Raises:
        BrokenPipeError: Whoever read our output has left, as `head` does.
        OutputFailed: It could not be written, as on a full disk.
        Interrupted: Ctrl-C ended rdev, where it means nothing else.
    """
    try:
        yield
    except asyncio.CancelledError:  # ours is the task that Ctrl-C cancels
        back = await _way_back(connection, job)
        raise Interrupted(f"follow {job.name}", "it was interrupted", hint=back) from None
    except (OSError, ExceptionGroup) as error:
        failure = _failure_of_ours(error)
        if failure is None:
            raise
        back = await _way_back(connection, job)
        if not isinstance(failure, BrokenPipeError):
            cause = f"{failure.strerror or failure}, where our output goes"
            raise OutputFailed(f"show what {job.name} prints", cause, hint=back) from error
        say(f"nobody reads its output any more; {back}", is_leaving=True)
        raise BrokenPipeError from error


def _failure_of_ours(error: OSError | ExceptionGroup[Exception]) -> OSError | None:
    """The failed system call, if nothing else went wrong in any task."""
    if isinstance(error, OSError):
        return error
    found = [
        _failure_of_ours(each) if isinstance(each, (OSError, ExceptionGroup)) else None
        for each in error.exceptions
    ]
    return None if None in found else found[0]


async def _way_back(connection: Connection, job: Job) -> str:
    with contextlib.suppress(RdevError, TimeoutError):
        async with asyncio.timeout(_LAST_LOOK):
            job = await Jobs(connection).get(job.id)
    if job.state.is_final:
        return f"`{phrase('logs', connection.host, job.name)}` shows it again"
    attach, stop = (phrase(verb, connection.host, job.name) for verb in ("attach", "stop"))
    return f"{job.name} goes on: `{attach}` returns to it, `{stop}` ends it"
