"""A person, or a script, and the ranks that are debugged: who is held, what is asked, what is said.

running --a rank stops--> prompt --c, n, s, r--> running
   |  '--Ctrl-C: pause------^  |--detach, Ctrl-D--> left
   '--Ctrl-C twice, Ctrl-D--> left    '--its session ends--> over, once no rank has one

Whatever happens comes through one queue, so nothing is said while something else is being done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from rdev.client.debug.asking import Asking
from rdev.client.debug.commands import Commands
from rdev.client.debug.marks import Mark, Marks
from rdev.client.debug.paper import Ink, Paper
from rdev.client.debug.placing import Placing
from rdev.client.debug.prompt import Console
from rdev.client.debug.ranks import ProcessStack, RankValue
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import (
    Breakpoint,
    Ended,
    Halt,
    Resumed,
    Stopped,
)
from rdev.client.debug.stacks import brief_place, pages
from rdev.client.debug.table import Outcome
from rdev.client.debug.view import AROUND, View
from rdev.client.ui.jobs import duration
from rdev.protocol.dap import TOO_LATE
from rdev.protocol.errors import DebuggerUnavailable, JobNotRunning, RdevError, TimedOut
from rdev.wire.job import Job

# A step of one rank of several is over by then; if it waits for a rank that is held, that one is
# gone to.
_STEP_SECONDS = 1.0

# It takes milliseconds, unless the thread is busy with what was asked before; keys wait meanwhile.
_COMPLETION_SECONDS = 2.0

_ORDINARY = frozenset({"breakpoint", "step", "pause", "goto", "entry"})


class Reports(Protocol):
    """What the agent says of the whole job."""

    async def job(self) -> Job:
        """The job as it is now."""
        ...

    async def stacks(self) -> list[ProcessStack]:
        """Where each thread of it is."""
        ...

    async def compare(self, expression: str, function: str) -> list[RankValue]:
        """A value in every rank."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session is to do.

    Attributes:
        breakpoints: Where to stop, in the job's lines; none stops at once.
        timeout: Seconds to wait for a stop; None waits for ever.
        may_kill: `kill` ends the job.
        waits_at_start: The job waits before its first line, and goes on once breakpoints are set.
        waiting: Ranks that stopped by themselves and wait for us: nobody has to stop them.
        failed: Those of them that stopped at an exception that nothing has caught.
    """

    breakpoints: tuple[Breakpoint, ...] = ()
    timeout: float | None = None
    may_kill: bool = False
    waits_at_start: bool = False
    waiting: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Happened:
    seat: Seat
    halt: Halt


@dataclass(frozen=True, slots=True)
class _Line:
    text: str | None


class _Signal:
    """Ctrl-C, or SIGINT from elsewhere."""


class Dialogue:
    """One session of one or several ranks; it is what commands act on.

    Args:
        seats: The ranks, attached to.
        view: How things are shown.
        console: Where commands come from and lines go to.
        reports: What the agent says of the job.
        plan: What the session is to do.

    Attributes:
        marks: The breakpoints.
        view: See above.
    """

    def __init__(
        self, seats: Sequence[Seat], *, view: View, console: Console, reports: Reports, plan: Plan
    ) -> None:
        self.view = view
        self.marks = Marks()
        self._placing = Placing(self.marks, seats, view=view, say=self.say)
        self._seats = {seat.rank: seat for seat in seats}
        self._current = seats[0].rank
        self._console = console
        self._reports = reports
        self._plan = plan
        self._queue: asyncio.Queue[_Happened | _Line | _Signal] = asyncio.Queue()
        self._group = asyncio.TaskGroup()
        self._listening: asyncio.Task[None] | None = None
        self._asking = Asking(self._group, console, self.tell, self._leaves)
        self._is_at_prompt = False
        self._unshown: set[int] = set()
        self._has_stopped = False
        self._is_pausing = False
        self._is_waiting = False
        self._is_leaving = False
        self._stepping_until = 0.0
        self._failed = plan.failed
        # Ranks whose first stop is not what was asked for, unless a breakpoint is there.
        self._skipping = {seat.rank for seat in seats if self._skips_first(seat)}
        self.commands = Commands(self)

    async def run(self) -> Ended | None:
        """Sets the breakpoints, waits for stops and executes commands until the person leaves.

        Returns:
            How the last session ended by itself; None if the person left.

        Raises:
            TimedOut: No breakpoint was hit in time.
            JobNotRunning: The sessions ended before the first stop.
            DebuggerUnavailable: No breakpoint could be set.
        """
        failure: RdevError | None = None
        ended: Ended | None = None
        async with self._group:
            tasks = [self._group.create_task(self._forward(s)) for s in self._seats.values()]
            for seat in self._seats.values():
                seat.client.show_printed(self.say)
            try:
                ended = await self._serve()
            except RdevError as error:
                failure = error  # A group would wrap it, and the caller catches it by its class.
            finally:
                for task in (*tasks, self._listening):
                    if task is not None:
                        task.cancel()
        if failure is not None:
            raise failure
        return ended

    def interrupt(self) -> None:
        """Takes note of Ctrl-C."""
        client = self.seat.client
        if not self._asking.interrupt(client, is_held=self.seat.stop is not None):
            self._queue.put_nowait(_Signal())
            client.abandon()

    def tell(self, line: str) -> None:
        """Says what the agent wants the person to know."""
        self.say(line, Ink.WARNING)

    # What commands use.

    @property
    def seat(self) -> Seat:
        """The rank that commands concern."""
        return self._seats[self._current]

    @property
    def columns(self) -> int:
        """How wide a line may be."""
        return self._console.columns

    @property
    def may_kill(self) -> bool:
        """Whether `kill` ends the job."""
        return self._plan.may_kill

    @property
    def paper(self) -> Paper:
        """Colours."""
        return self.view.paper

    def say(self, text: str, ink: Ink = Ink.PLAIN) -> None:
        """Shows lines, made safe."""
        self.show(self.paper.ink(text, ink))

    def show(self, text: str) -> None:
        """Shows lines that are safe."""
        self._console.say(text)

    async def place(self, marks: Sequence[Mark] | None = None) -> None:
        """Sets the breakpoints as they are now, and says what became of `marks`."""
        await self._placing.place(marks or ())

    async def switch(self, rank: int) -> None:
        """Makes another rank the one that commands concern."""
        seat = self._seats.get(rank)
        if seat is None or seat.end is not None:
            cause = f"rank {rank} is not attached; `rdev debug --rank all` attaches to all"
            raise DebuggerUnavailable("switch to a rank", cause)
        self._current = rank
        if seat.stop is None:
            self.say(f"rank {rank} runs; `ranks` shows all")
        else:
            self._unshown.add(rank)

    def stepping(self) -> None:
        """The current rank makes a step: what is typed next is for it, if it is back soon."""
        self._stepping_until = time.monotonic() + _STEP_SECONDS

    async def halt(self) -> bool:
        """Waits until the rank is held after a step; False if it is not."""
        seat = self.seat
        while seat.stop is None and seat.end is None:
            if not await self._take(await self._queue.get()):
                self.interrupt()  # somebody leaves: the main loop says so
                return False
            if self._is_pausing:
                return False
        return seat.stop is not None and seat.stop.reason == "step"

    async def ranks(self) -> list[str]:
        """The ranks, a line each."""
        job = await self._reports.job()
        held = {stop.rank: stop for stop in job.stops}
        seen: dict[int, ProcessStack] = {}
        with contextlib.suppress(RdevError):  # an older agent cannot tell
            seen = {process.rank: process for process in await self._reports.stacks()}
        lines = []
        for rank in range(max(job.ranks, max(self._seats) + 1)):
            pointer = ">" if rank == self._current else " "
            lines.append(f"{pointer} rank {rank}  {self._state(rank, held, seen)}")
        return lines

    def _state(self, rank: int, held: Container[int], seen: dict[int, ProcessStack]) -> str:
        seat = self._seats.get(rank)
        if seat is not None and seat.frames:
            frame = seat.frames[0]
            place = f"{self.view.sources.shown(frame.path)}:{frame.line} in {frame.function}()"
            return f"paused at {place}"
        state = "paused" if rank in held else "runs" if seat is None else "runs, attached"
        if seat is not None and seat.end is not None:
            state = seat.end.cause
        process = seen.get(rank)
        where = brief_place(process, self.view.sources) if process else ""
        return f"{state}, in {where}" if where else state

    async def stacks(self) -> list[str]:
        """What every thread of the job does."""
        processes = await self._reports.stacks()
        return await pages(processes, self.view)

    async def compare(self, expression: str, function: str) -> list[tuple[int, str, str]]:
        """Rank, value and remark, for every rank."""
        values = await self._reports.compare(expression, function)
        return [(v.rank, v.value, v.cause or v.place) for v in values]

    async def lease(self) -> str:
        """How long the stop lasts."""
        job = await self._reports.job()
        stop = next((stop for stop in job.stops if stop.rank == self._current), None)
        if stop is None or not stop.until:
            return "this stop has no end of its own"
        left = max(0.0, stop.until - time.time())
        return f"the job goes on by itself in {duration(left)}; every command begins that time anew"

    # The loop.

    async def _serve(self) -> Ended | None:
        await self._begin()
        while True:
            self._choose()
            if all(seat.end is not None for seat in self._seats.values()):
                return self._over()
            await self._show_new()
            await self._listen()
            event = await self._next()
            if event is not None and not await self._take(event):
                if not self._console.is_lost:
                    await self._leave()
                return None

    async def _begin(self) -> None:
        wanted = self._plan.breakpoints
        if cause := await self._placing.attach(wanted):
            hint = "check the file's path in the workspace, and the line"
            raise DebuggerUnavailable(self._waiting(), cause, hint=hint)
        if not wanted and not self._plan.waits_at_start:
            for seat in self._seats.values():
                if seat.rank not in self._plan.waiting and not seat.client.inherits_stop:
                    await seat.client.pause()

    def _skips_first(self, seat: Seat) -> bool:
        # What a script's commands are for is their FILE:LINE, and not where another one died.
        is_another = seat.client.inherits_stop and not self._console.is_person
        return bool(self._plan.breakpoints) and (self._plan.waits_at_start or is_another)

    def _choose(self) -> None:
        """The first rank that is held, if the current one is not."""
        if self.seat.stop is None and not self._steps():
            held = [seat.rank for seat in self._seats.values() if seat.stop is not None]
            if held:
                self._current = held[0]
                self._unshown.add(held[0])

    def _steps(self) -> float:
        """Seconds for which the step of the current rank is waited for."""
        if self.seat.stop is not None or self.seat.end is not None:
            return 0.0
        return max(0.0, self._stepping_until - time.monotonic())

    async def _show_new(self) -> None:
        if self._current in self._unshown and self.seat.stop is not None:
            self._unshown.discard(self._current)
            # What is typed once the stop is shown is for the prompt, and does not wait for a stop.
            await self._hear_no_more()
            await self._show_stop(self.seat, self.seat.stop)
            await self._asking.answer(self.seat.client, self.commands.shown_again())

    async def _show_stop(self, seat: Seat, stop: Stopped) -> None:
        why = "" if stop.reason in _ORDINARY else f" ({stop.reason})"
        text = f": {stop.text}" if stop.text and stop.reason not in _ORDINARY else ""
        if not seat.frames:
            self.say(f"{self._label(seat)}paused ({stop.reason}{text})", Ink.STRONG)
            return
        frame = seat.frames[0]
        place = await self.view.place(frame)
        self.say(f"{self._label(seat)}paused at {place}{why}{text}", Ink.STRONG)
        lines = await self.view.listing(
            frame.path, frame.line - AROUND, frame.line + AROUND, current=frame.line
        )
        if lines:
            self.show("\n".join(lines))

    async def _listen(self) -> None:
        """Lets the person type commands, or watches whether they leave."""
        is_held = self.seat.stop is not None and not self._is_waiting
        if self._listening is not None:
            # What was read is in the queue; another line would come before its time.
            if self._listening.done() or self._is_at_prompt == is_held:
                return
            await self._hear_no_more()
        self._is_at_prompt = is_held
        self._listening = self._group.create_task(self._read(is_held=is_held))

    async def _hear_no_more(self) -> None:
        if self._listening is not None and not self._listening.done():
            self._listening.cancel()
            await asyncio.wait({self._listening})
            self._listening = None

    async def _read(self, *, is_held: bool) -> None:
        if not is_held:
            await self._console.left()
            self._queue.put_nowait(_Line(None))
            return
        prompt = "(rdev) " if len(self._seats) == 1 else f"(rank {self._current}) "
        line = await self._console.command(prompt, self._complete)
        self._queue.put_nowait(_Line(line))

    async def _next(self) -> _Happened | _Line | _Signal | None:
        """What happens next; None if it is not waited for a step any more."""
        if steps := self._steps():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(steps):
                    return await self._queue.get()
            return None
        try:
            async with asyncio.timeout(None if self._is_at_prompt else self._plan.timeout):
                return await self._queue.get()
        except TimeoutError as error:
            cause = f"it was not reached within {self._plan.timeout:g} s"
            raise TimedOut(self._waiting(), cause) from error

    async def _take(self, event: _Happened | _Line | _Signal) -> bool:
        """Acts on what happened; False if the person leaves."""
        if isinstance(event, _Happened):
            await self._happened(event.seat, event.halt)
            return True
        if isinstance(event, _Signal):
            return await self._interrupted()
        if event.text is None:
            return False
        self._listening = None
        if self.seat.stop is None:
            if event.text.strip():  # it ran on while the line was typed
                self.say(TOO_LATE, Ink.WARNING)
            return True
        outcome = await self._asking.answer(self.seat.client, self.commands.execute(event.text))
        if outcome is Outcome.WAIT:
            running = [s for s in self._seats.values() if s.stop is None and s.end is None]
            self._is_waiting = bool(running)
            waiting = "waiting for the next stop; Ctrl-C returns"
            self.say(waiting if running else "nothing runs that could stop")
        return outcome is not Outcome.DETACH and not self._is_leaving

    def _leaves(self) -> None:
        # A command may wait for what is in the queue.
        self._is_leaving = True
        self._queue.put_nowait(_Line(None))

    async def _happened(self, seat: Seat, halt: Halt) -> None:
        self._is_waiting = False
        match halt:
            case Stopped():
                await self._stopped(seat, halt)
            case Resumed():
                seat.let_go()
                self.say(f"{self._label(seat)}the job goes on")
            case Ended():
                seat.let_go()
                seat.end = halt
                if len(self._seats) > 1:
                    self.say(f"{self._label(seat)}{halt.cause}")

    async def _stopped(self, seat: Seat, stop: Stopped) -> None:
        is_first = stop.reason == "exception" and seat.rank in self._failed
        seat.is_past, self._failed = is_first, self._failed - {seat.rank}
        self._has_stopped = True
        self._is_pausing = False
        try:
            await seat.hold(stop)
        except DebuggerUnavailable:
            if seat.client.end is None:
                raise
            seat.let_go()
            return
        hit = self.marks.at(seat.frames[0].path, seat.frames[0].line) if seat.frames else []
        is_skipped = seat.rank in self._skipping and not hit
        self._skipping.discard(seat.rank)
        if is_skipped:
            await seat.resume("continue")
            return
        if once := [mark for mark in hit if mark.is_temporary]:
            self.marks.remove(once)
            await self.place()
        self._unshown.add(seat.rank)
        if seat.rank != self._current and self.seat.stop is not None:
            place = await self.view.place(seat.frames[0]) if seat.frames else "no Python frame"
            self.say(f"[rank {seat.rank}] paused at {place}; `rank {seat.rank}` goes there")

    async def _interrupted(self) -> bool:
        if self._is_waiting and self._console.is_person:
            self._is_waiting = False
            return True
        if self._console.is_person and self.seat.stop is not None:
            self.say("Ctrl-D leaves the job running")
            return True
        running = [s for s in self._seats.values() if s.stop is None and s.end is None]
        if not self._console.is_person or self._is_pausing or not running:
            return False
        self._is_pausing = True
        self._console.forget()  # as a terminal does: an Enter among it would repeat `c`
        self.say("stopping it where it is; Ctrl-C again leaves it")
        for seat in running:
            await seat.client.pause()
        return True

    async def _leave(self) -> None:
        for seat in self._seats.values():
            await seat.client.detach()

    def _over(self) -> Ended | None:
        if not self._has_stopped:
            raise JobNotRunning(self._waiting(), self.seat.end.cause if self.seat.end else "")
        return self.seat.end

    async def _forward(self, seat: Seat) -> None:
        while not isinstance(halt := await seat.client.halted(), Ended):
            self._queue.put_nowait(_Happened(seat, halt))
        self._queue.put_nowait(_Happened(seat, halt))

    async def _complete(self, text: str, cursor: int) -> list[str]:
        begun = text[:cursor]
        if begun.strip() and " " not in begun:
            known = [name for name in self.commands.names if name.startswith(begun)]
            if known:
                return [name[len(begun) :] for name in known]
        try:
            async with asyncio.timeout(_COMPLETION_SECONDS):
                found = await self.seat.client.completions(text, cursor, self.seat.frame)
        except (RdevError, TimeoutError):
            return []
        return [word[length:] for word, length in found]

    def _waiting(self) -> str:
        places = ", ".join(
            f"{self.view.sources.shown(b.path)}:{b.line}" for b in self._plan.breakpoints
        )
        return f"stop job {self.view.job} at {places or 'its present line'}"

    def _label(self, seat: Seat) -> str:
        return f"[rank {seat.rank}] " if len(self._seats) > 1 else ""


@contextlib.asynccontextmanager
async def interruptible(dialogue: Dialogue) -> AsyncIterator[None]:
    """Ctrl-C is the dialogue's for as long as the block runs; then it ends the task, as before."""
    import signal

    loop, ours = asyncio.get_running_loop(), asyncio.current_task()
    assert ours is not None
    loop.add_signal_handler(signal.SIGINT, dialogue.interrupt)
    try:
        yield
    finally:
        loop.add_signal_handler(signal.SIGINT, ours.cancel)
