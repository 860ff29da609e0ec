"""Following a job that has a terminal of its own: keys go to it, its screen is shown as it is.

    raw terminal --the job ends--> its exit code
          |------~d, SIGTERM, SIGHUP, the terminal closes--> detached, the job goes on
          '------a minute without the host--> error, the job goes on
    each of them puts the terminal back as it was

Ctrl-C is a key here like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace

from rdev.client.cli.following import Departure, unless_ignored
from rdev.client.cli.narrating import (
    Attempts,
    closed,
    explain_block,
    explain_waiting,
    say_detached,
)
from rdev.client.cli.pausing import tell_pauses
from rdev.client.connection import Connection, persisting
from rdev.client.follow import Sink, follow
from rdev.client.input import Input
from rdev.client.jobs import Jobs
from rdev.client.keys import HELP, Keys, Wish
from rdev.client.logs import Chunk, Gap
from rdev.client.replay import replayed
from rdev.client.source import Source
from rdev.client.terminal import Modes, raw, window_of
from rdev.client.ui.output import PATIENCE, Output, printable, say
from rdev.client.ui.pump import write_within
from rdev.protocol.errors import ConnectionLost, RdevError
from rdev.wire.job import Job, JobState, LogFull

_STDIN, _STDOUT, _STDERR = range(3)

# A terminal job has one output, see `rdev.wire.records`.
_SCREEN: tuple[int, str] = (0, "stdout")

# Earlier output that is looked at when somebody returns, and how many screens of it are shown.
_REPLAY_BYTES = 64 << 10
_REPLAY_SCREENS = 2

# A break that is mended sooner is not worth a line in the middle of somebody's screen.
_BREAK_PATIENCE = 1.0

# What was typed just before leaving still arrives, unless the connection is broken.
_LAST_KEYS_PATIENCE = 2.0


async def converse(
    connection: Connection,
    job: Job,
    output: Output,
    *,
    is_returning: bool,
    detach_keys: bytes = b"",
) -> int:
    """Joins our terminal with the job's until it ends or the person detaches.

    Args:
        connection: Where the job is.
        job: The job, as it stands now.
        output: Shows the output.
        is_returning: Show the last of what it printed, and have programs redraw.
        detach_keys: See `rdev.client.keys.Keys`.

    Returns:
        The job's own exit code; 0 after a detach, 128 + N when signal N made us detach.
    """
    screen = Screen(output, job) if is_returning else Screen(output)
    departure = Departure()
    typist = _Typist(connection, job, departure, keys=Keys(detach_keys), is_quiet=output.is_quiet)
    if is_returning or window_of(_STDOUT) != job.spec.terminal:
        typist.resize()
    try:
        with raw(_STDIN) as again, typist.listening(on_continue=again):
            async with asyncio.TaskGroup() as group:
                streaming = group.create_task(
                    follow(connection, job.id, screen, starts=screen.starts)
                )
                departure.of(streaming)
                beside = [group.create_task(work) for work in typist.works()]
                streaming.add_done_callback(lambda _: [task.cancel() for task in beside])
    finally:
        # Last, because a terminal that takes nothing at present holds us here for a moment.
        _show(screen.undoing(), to=_STDOUT)
    if not streaming.cancelled():
        return closed(streaming.result(), is_quiet=output.is_quiet)
    if typist.left_over:
        say(f"{typist.left_over} bytes that were typed did not reach {job.name}")
    say_detached(connection, job)
    return departure.code


class Screen:
    """A `Sink` for the output of a terminal job; see `rdev.client.follow.Sink`.

    Args:
        sink: Takes what is to be shown.
        job: Somebody returns to it: what it has printed by now is shown again, in part and without
            the questions it asked the terminal; None shows everything as it is.

    Attributes:
        starts: Where to begin reading.
    """

    def __init__(self, sink: Sink, job: Job | None = None) -> None:
        self._sink = sink
        self._modes = Modes()
        sizes = {(s.rank, s.name): s.size for s in job.streams} if job else {}
        self._live_from = sizes.get(_SCREEN, 0)
        self._start = max(0, self._live_from - _REPLAY_BYTES)
        self._past = bytearray()
        self.starts = {_SCREEN: self._start} if self._start else {}

    async def write(self, chunk: Chunk) -> None:
        """Shows, or collects what is to be shown again."""
        if chunk.offset < self._live_from:
            past = self._live_from - chunk.offset
            self._past += chunk.data[:past]
            if chunk.end < self._live_from:
                return
            await self._replay()
            chunk = replace(chunk, offset=self._live_from, data=chunk.data[past:])
        if chunk.data:
            await self._show(chunk)

    async def gap(self, gap: Gap) -> None:
        """Says what the host lost."""
        if gap.offset < self._live_from <= gap.end:
            await self._replay()
        await self._sink.gap(gap)
        _show(b"\r")

    async def end(self) -> None:
        """Shows what is still kept back."""
        await self._sink.end()

    def undoing(self) -> bytes:
        """What to write when the screen is left."""
        return self._modes.undoing()

    async def _replay(self) -> None:
        lines = _REPLAY_SCREENS * window_of(_STDOUT).rows
        data = replayed(bytes(self._past), lines=lines, is_whole=self._start == 0)
        self._past.clear()
        if data:
            await self._show(Chunk(*_SCREEN, offset=self._start, data=data, time=0.0))

    async def _show(self, chunk: Chunk) -> None:
        self._modes.feed(chunk.data)
        await self._sink.write(chunk)


class _Typist:
    """What a person at the terminal does: types, resizes the window, leaves."""

    def __init__(
        self,
        connection: Connection,
        job: Job,
        departure: Departure,
        *,
        keys: Keys,
        is_quiet: bool,
    ) -> None:
        self._connection = connection
        self._job = job
        self._departure = departure
        self._keys = keys
        self._is_quiet = is_quiet
        self._input = Input(
            connection, job.id, on_wait=_tell, on_break=self._broken, on_open=self._opened
        )
        self._is_resized = asyncio.Event()
        self._complaint: asyncio.TimerHandle | None = None
        self._has_complained = False

    @property
    def left_over(self) -> int:
        """Bytes typed that the host has not acknowledged."""
        return self._input.unacknowledged

    def resize(self) -> None:
        """Tells the job the size of our window, which makes it redraw."""
        self._is_resized.set()

    @contextlib.contextmanager
    def listening(self, *, on_continue: Callable[[], None]) -> Iterator[None]:
        """Serves signals for as long as the block runs.

        Args:
            on_continue: Called when we go on after a stop: a shell has used the terminal meanwhile.
        """
        loop = asyncio.get_running_loop()
        leaving = unless_ignored(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        for number in leaving:
            loop.add_signal_handler(number, self._departure.leave, 128 + number)

        def go_on() -> None:
            on_continue()
            self.resize()

        loop.add_signal_handler(signal.SIGCONT, go_on)
        loop.add_signal_handler(signal.SIGWINCH, self.resize)
        try:
            yield
        finally:
            for number in (*leaving, signal.SIGCONT, signal.SIGWINCH):
                loop.remove_signal_handler(number)
            self._opened()  # no complaint afterwards

    def works(self) -> Iterator[Coroutine[None, None, None]]:
        """What there is to do at once, until the job ends or the person leaves."""
        yield self._type()
        yield self._write()
        yield self._tell_sizes()
        if self._job.state is JobState.PENDING:
            yield self._wait_for_turn()
        if self._job.spec.log_full is LogFull.BLOCK:
            yield explain_block(self._connection, self._job, _tell)
        yield tell_pauses(self._connection, self._job, _tell)
        if self._job.spec.retries:
            yield Attempts(self._job, self._note).watch(self._connection)

    async def _type(self) -> None:
        """Passes keys on until the person leaves."""
        source = Source(_STDIN)
        while typed := await source.read():
            for item in self._keys.feed(typed):
                if isinstance(item, bytes):
                    await self._input.write(item)
                elif item is Wish.HELP:
                    _say(HELP)
                else:
                    await self._send_last_keys()
                    self._departure.leave()
                    return
        self._departure.leave(128 + signal.SIGHUP)  # the terminal was closed

    async def _write(self) -> None:
        """Sends what is typed."""
        # Who follows the output gives up at the same time, and says so.
        with contextlib.suppress(ConnectionLost):
            await self._input.run()

    async def _wait_for_turn(self) -> None:
        """Says why the job has not begun; then it is told the size, which nobody took till then."""

        async def tell(line: str) -> None:
            await self._note(f"{line}; Enter ~d leaves")

        await explain_waiting(self._connection, self._job, tell)
        self.resize()

    async def _note(self, line: str) -> None:
        if not self._is_quiet:
            _say(line)

    async def _tell_sizes(self) -> None:
        """Tells the job each new size; while one is on its way, only the latest of them waits."""
        jobs = Jobs(self._connection)

        async def attempt() -> None:
            await jobs.resize(self._job.id, window_of(_STDOUT))

        while True:
            await self._is_resized.wait()
            self._is_resized.clear()
            with contextlib.suppress(RdevError):  # it may just have ended; following tells
                await persisting(self._connection, attempt)

    async def _send_last_keys(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_KEYS_PATIENCE):
                await self._input.drained()

    def _broken(self) -> None:
        if self._complaint is None:
            loop = asyncio.get_running_loop()
            self._complaint = loop.call_later(_BREAK_PATIENCE, self._complain)

    def _complain(self) -> None:
        self._has_complained = True
        _say("connection lost, trying again; Enter ~d leaves")

    def _opened(self) -> None:
        if self._complaint is not None:
            self._complaint.cancel()
            self._complaint = None
        if self._has_complained:
            self._has_complained = False
            self.resize()  # our line stands in the middle of somebody's screen


async def _tell(line: str) -> None:
    _say(line)


def _say(line: str) -> None:
    # Nothing adds the carriage return in a raw terminal, and the cursor may stand anywhere.
    _show(f"\r\nrdev: {printable(line)}\r\n".encode())


def _show(data: bytes, *, to: int = _STDERR) -> None:
    if data:
        write_within(to, data, seconds=PATIENCE)  # the terminal may be gone, or stopped
