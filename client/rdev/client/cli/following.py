"""Following a job without a terminal of its own: its output, its input, and what Ctrl-C means.

run      Ctrl-C on a TTY asks: d detaches, Enter interrupts the job, Ctrl-C again does that too
         Ctrl-C elsewhere goes to the job as SIGINT
         after either, the next Ctrl-C stops the job: TERM, its grace, KILL
attach   Ctrl-C detaches
both     SIGHUP and SIGTERM detach: a laptop that shuts down sends them
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
from collections.abc import Awaitable, Coroutine, Iterator

from rdev.client.cli.lagging import tell_lag
from rdev.client.cli.narrating import (
    Attempts,
    Tell,
    closed,
    explain_block,
    explain_waiting,
    say_detached,
)
from rdev.client.cli.pausing import tell_pauses
from rdev.client.connection import Connection, persisting
from rdev.client.follow import follow
from rdev.client.hosts import phrase
from rdev.client.input import Input
from rdev.client.jobs import Jobs
from rdev.client.source import Source
from rdev.client.terminal import single_keys
from rdev.client.ui.output import PATIENCE, Output, say
from rdev.client.ui.pump import write_within
from rdev.protocol.buffers import keep_buffers
from rdev.protocol.errors import ConnectionLost, JobNotRunning, RdevError
from rdev.wire.job import Job, JobState

_STDIN, _STDERR = 0, 2
_QUESTION = b"\nrdev: d = detach and let it run, Enter = stop it "

# Output is held back while the question stands; nobody who means to answer takes longer.
_QUESTION_PATIENCE = 30.0

_DETACH_KEYS = b"dD\x04"  # Ctrl-D too: it never means that a job should end
_STOP_KEYS = b"\r\n"


class OnInterrupt(enum.Enum):
    """What Ctrl-C means."""

    ASK = "ask"
    """Detach or stop, as the person chooses; without a TTY the job gets SIGINT."""
    DETACH = "detach"
    """Leave the job alone."""


class _Answer(enum.Enum):
    """What became of the question."""

    STOP = "stop"
    LEAVE = "leave"
    NONE = "none"
    """The job has ended meanwhile, or nobody answered."""


class Departure:
    """How a person leaves a job that goes on: at most once, with a code of its own.

    Attributes:
        code: Our exit code.
    """

    def __init__(self) -> None:
        self._following: asyncio.Task[Job] | None = None
        self._has_left = False
        self.code = 0

    def of(self, following: asyncio.Task[Job]) -> None:
        """Leaving ends this task; at once if that was asked for already."""
        self._following = following
        if self._has_left:
            following.cancel()

    def leave(self, code: int = 0) -> None:
        """Leaves."""
        if self._has_left:
            return
        self._has_left, self.code = True, code
        if self._following is not None:
            self._following.cancel()


def unless_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those that we did not inherit as ignored, as from nohup or a script's `&`."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


async def follow_to_end(
    connection: Connection,
    job: Job,
    output: Output,
    *,
    on_interrupt: OnInterrupt,
    lines: int | None = None,
    source: Source | None = None,
) -> int:
    """Shows a job until it ends or the person detaches.

    Args:
        connection: Where the job is.
        job: The job.
        output: Shows the output, and what is said beside it.
        on_interrupt: What Ctrl-C means.
        lines: Begin with the last so many lines of each stream; None is the beginning.
        source: What the job reads as its input; None if this is none of ours.

    Returns:
        The job's own exit code; 0 after a detach, 128 + N when signal N made us detach.
    """
    keep_buffers()
    departure = Departure()
    feed = Feed(connection, job, source, tell=output.say) if source is not None else None
    person = _Person(
        connection, job, on_interrupt, output=output, source=source, departure=departure
    )
    attempts = Attempts(job, output.note)
    keys = "Ctrl-C" if on_interrupt is OnInterrupt.DETACH else "Ctrl-C and d"
    with person.listening():
        await person.catch_up()
        async with asyncio.TaskGroup() as group:
            streaming = group.create_task(follow(connection, job.id, output, lines=lines))
            departure.of(streaming)
            beside = [group.create_task(person.act())]
            if feed is not None:
                beside.append(group.create_task(feed.run()))
            if job.spec.retries:
                beside.append(group.create_task(attempts.watch(connection)))
            told = _told(connection, job, output, keys=keys, is_from_start=lines is None)
            beside.extend(group.create_task(work) for work in told)
            streaming.add_done_callback(lambda _: [task.cancel() for task in beside])
    if streaming.cancelled():
        say_detached(connection, job, is_fed=feed is None or feed.is_complete)
        return departure.code
    ended = streaming.result()
    # Not by the output, which waits for ever for a stderr that nobody reads.
    for line in () if output.is_quiet else attempts.untold(ended):
        say(line)
    return closed(ended, is_quiet=output.is_quiet)


def _told(
    connection: Connection, job: Job, output: Output, *, keys: str, is_from_start: bool
) -> Iterator[Coroutine[None, None, None]]:
    """What is said beside the output: why it waits, is blocked, paused, or behind."""
    if job.state is JobState.PENDING:
        yield explain_waiting(connection, job, output.note)
    yield explain_block(connection, job, output.say)
    yield tell_pauses(connection, job, output.say)
    remedy = f"{keys}, then `{phrase('attach', connection.host, job.name)}` shows the latest"
    yield tell_lag(connection, job, output, remedy=remedy, is_from_start=is_from_start)


class Feed:
    """Passes a source on as the input of a job.

    Args:
        connection: Where the job is.
        job: The job.
        source: What it reads.
        tell: Says a line.

    Attributes:
        is_complete: The source has ended, and the job's input with it.
    """

    def __init__(self, connection: Connection, job: Job, source: Source, *, tell: Tell) -> None:
        self._source = source
        self._input = Input(connection, job.id, on_wait=tell)
        self.is_complete = False

    async def run(self) -> None:
        """Reads the source to its end and sends it all; ends early if the job takes no more."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read())
            # Who follows the output gives up at the same time, and says so.
            with contextlib.suppress(ConnectionLost):
                await self._input.run()
            self.is_complete = True
            reading.cancel()

    async def _read(self) -> None:
        while data := await self._source.read():
            await self._input.write(data)
        self._input.end()


class _Person:
    """Acts on the signals that the person, or the system in their name, sends us."""

    def __init__(
        self,
        connection: Connection,
        job: Job,
        on_interrupt: OnInterrupt,
        *,
        output: Output,
        source: Source | None,
        departure: Departure,
    ) -> None:
        self._connection = connection
        self._jobs = Jobs(connection)
        self._job = job
        self._on_interrupt = on_interrupt
        self._output = output
        self._source = source
        self._departure = departure
        self._arrived: asyncio.Queue[signal.Signals | bytes | Job] = asyncio.Queue()
        self._is_interrupted = False

    async def act(self) -> None:
        """Serves signals one after the other, for as long as the job is followed."""
        while True:
            if await self._arrived.get() is not signal.SIGINT:
                continue  # a key that was pressed after the answer
            try:
                await self._interrupted()
            except RdevError as error:  # the job may just have ended; following tells
                await self._tell(self._output.say(error.message))

    async def catch_up(self) -> None:
        """Serves a Ctrl-C of the moment before `listening`, which asks this task to end."""
        task = asyncio.current_task()
        try:
            await asyncio.sleep(0)  # a cancellation that is due is raised here
        except asyncio.CancelledError:
            if task is None or task.uncancel():
                raise
            self._arrived.put_nowait(signal.SIGINT)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are ours to serve for as long as the block runs."""
        loop = asyncio.get_running_loop()
        heard = unless_ignored(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in heard:
            if number is signal.SIGINT:
                loop.add_signal_handler(number, self._arrived.put_nowait, number)
            else:  # at once: a call to the host may be under way, and it may be away
                loop.add_signal_handler(number, self._departure.leave, 128 + number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    async def _interrupted(self) -> None:
        if self._on_interrupt is OnInterrupt.DETACH:
            self._departure.leave()
        elif self._is_interrupted:
            await self._stop()
        elif not (sys.stdin.isatty() and sys.stderr.isatty()):
            await self._interrupt()
        else:
            await self._obey(await self._ask())

    async def _obey(self, answer: _Answer) -> None:
        if answer is _Answer.STOP:
            await self._interrupt()
        elif answer is _Answer.LEAVE:
            self._departure.leave()

    async def _interrupt(self) -> None:
        """Sends the job SIGINT; twice in the rare case that a break swallows the first's answer."""

        async def attempt() -> None:
            await self._jobs.signal(self._job.id, signal.SIGINT)

        try:
            # The job may save its work, as after Ctrl-C of its own.
            await persisting(self._connection, attempt)
        except JobNotRunning:  # it waits for its turn, or has just ended
            await self._end()
        self._is_interrupted = True

    async def _stop(self) -> None:
        grace = f"{self._job.spec.grace:.0f} s"
        await self._tell(self._output.note(f"stopping {self._job.name}: TERM now, KILL in {grace}"))
        await self._end()

    @staticmethod
    async def _tell(telling: Awaitable[None]) -> None:
        """Waits for it, but not for ever: who paused our output, as `less` does, means to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await telling

    async def _end(self) -> None:
        async def attempt() -> None:
            await self._jobs.stop(self._job.id)

        await persisting(self._connection, attempt)

    async def _ask(self) -> _Answer:
        """Asks while the output is held, so that it does not bury the question."""
        async with self._output.held(), asyncio.TaskGroup() as group:
            with self._keys():
                write_within(_STDERR, _QUESTION, seconds=PATIENCE)
                watching = group.create_task(self._tell_end())
                try:
                    answer = await self._answer()
                finally:  # a signal may make us leave: what is said then begins a line of its own
                    write_within(_STDERR, b"\n", seconds=PATIENCE)
                watching.cancel()
        return answer

    async def _answer(self) -> _Answer:
        """Waits for a key or a signal that answers; keys without a meaning are ignored."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUESTION_PATIENCE):
                while (answer := _meaning(await self._arrived.get())) is None:
                    pass
                return answer
        return _Answer.NONE

    async def _tell_end(self) -> None:
        """Whoever follows is held back with the output, and does not learn that the job ends."""
        with contextlib.suppress(RdevError):  # time settles it
            self._arrived.put_nowait(await self._jobs.wait(self._job.id))

    @contextlib.contextmanager
    def _keys(self) -> Iterator[None]:
        """Keys come into the same queue as signals: whichever is first is the answer."""
        loop = asyncio.get_running_loop()
        lent = self._source.lent() if self._source else contextlib.nullcontext()
        with lent, single_keys(_STDIN):
            loop.add_reader(_STDIN, lambda: self._arrived.put_nowait(_one_key()))
            try:
                yield
            finally:
                loop.remove_reader(_STDIN)


def _meaning(item: signal.Signals | bytes | Job) -> _Answer | None:
    if isinstance(item, Job):
        return _Answer.NONE
    if isinstance(item, signal.Signals):
        return _Answer.STOP
    # The end of the input means that the terminal is gone, which never stops a job.
    if not item or item[0] in _DETACH_KEYS:
        return _Answer.LEAVE
    return _Answer.STOP if item[0] in _STOP_KEYS else None


def _one_key() -> bytes:
    try:
        return os.read(_STDIN, 1)
    except OSError:  # EIO: the terminal was closed
        return b""
