"""Following a job at a terminal: what Ctrl-C, a closed terminal and SIGTERM mean.

run      Ctrl-C on a TTY asks: d detaches, Enter stops the job, Ctrl-C again stops it too
         Ctrl-C elsewhere goes to the job as SIGINT; the second one stops the job
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
from collections.abc import Callable, Iterator

from rdev.client.connection import Connection
from rdev.client.follow import Sink, exit_code, follow
from rdev.client.jobs import Jobs
from rdev.client.ui.jobs import closing_line
from rdev.client.ui.output import say
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job, JobState

_QUESTION = "\nrdev: d = detach and let it run, Enter = stop it "


class OnInterrupt(enum.Enum):
    """What Ctrl-C means."""

    ASK = "ask"
    """Detach or stop, as the person chooses; without a TTY the job gets SIGINT."""
    DETACH = "detach"
    """Leave the job alone."""


async def follow_to_end(
    connection: Connection,
    job: Job,
    sink: Sink,
    *,
    on_interrupt: OnInterrupt,
    lines: int | None = None,
) -> int:
    """Shows a job until it ends or the person detaches.

    Returns:
        The job's own exit code; 0 after a detach, 128 + N when signal N made us detach.
    """
    async with asyncio.TaskGroup() as group:
        streaming = group.create_task(follow(connection, job.id, sink, lines=lines))
        person = _Person(connection, job, on_interrupt, detach=streaming.cancel)
        acting = group.create_task(person.act())
        streaming.add_done_callback(lambda _: acting.cancel())
    if streaming.cancelled():
        return person.detach_code
    ended = streaming.result()
    if ended.state is not JobState.SUCCEEDED:
        say(closing_line(ended))
    return exit_code(ended)


class _Person:
    """Acts on the signals that the person, or the system in their name, sends us."""

    def __init__(
        self,
        connection: Connection,
        job: Job,
        on_interrupt: OnInterrupt,
        *,
        detach: Callable[[], object],
    ) -> None:
        self._jobs = Jobs(connection)
        self._job = job
        self._on_interrupt = on_interrupt
        self._leave = detach
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._interrupts = 0
        self.detach_code = 0

    async def act(self) -> None:
        """Serves signals one after the other, for as long as the job is followed."""
        with self._listening():
            while True:
                number = await self._signals.get()
                try:
                    await self._serve(number)
                except RdevError as error:  # the job may just have ended; following tells
                    say(error.message)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in heard:
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    async def _serve(self, number: signal.Signals) -> None:
        if number is signal.SIGINT:
            await self._interrupted()
        else:
            self._detach(128 + number)

    async def _interrupted(self) -> None:
        self._interrupts += 1
        if self._on_interrupt is OnInterrupt.DETACH:
            self._detach(0)
        elif self._interrupts > 1:
            await self._stop()
        elif not (sys.stdin.isatty() and sys.stderr.isatty()):
            await self._jobs.signal(self._job.id, signal.SIGINT)
        elif await self._answer() == "d":
            self._detach(0)
        else:
            # Enter, or a second Ctrl-C: the job may save its work as after Ctrl-C of its own.
            await self._jobs.signal(self._job.id, signal.SIGINT)

    async def _stop(self) -> None:
        say(f"stopping {self._job.name}: TERM now, KILL in {self._job.spec.grace:.0f} s")
        await self._jobs.stop(self._job.id)

    async def _answer(self) -> str:
        """The first letter of the line the person types; empty for Enter and for Ctrl-C."""
        sys.stderr.write(_QUESTION)
        sys.stderr.flush()
        loop = asyncio.get_running_loop()
        # The line and the next signal go into one queue: whichever comes first is the answer.
        answers: asyncio.Queue[bytes | signal.Signals] = asyncio.Queue()
        loop.add_reader(0, lambda: answers.put_nowait(os.read(0, 1024)))
        loop.add_signal_handler(signal.SIGINT, answers.put_nowait, signal.SIGINT)
        try:
            answer = await answers.get()
        finally:
            loop.remove_reader(0)
            loop.add_signal_handler(signal.SIGINT, self._signals.put_nowait, signal.SIGINT)
        if isinstance(answer, signal.Signals):
            return ""
        # End of input means that the terminal is gone, which never stops a job.
        return answer.decode(errors="replace").strip()[:1].lower() if answer else "d"

    def _detach(self, code: int) -> None:
        self.detach_code = code
        with contextlib.suppress(OSError):  # the terminal may be gone
            say(f"detached; {self._job.name} goes on: `rdev attach {self._job.name}` returns to it")
        self._leave()
