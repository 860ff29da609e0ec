"""A debug session at a terminal, or driven by a script.

attach -> waiting --stop--> prompt --c, n, s, out--> waiting
             |                 |--detach, Ctrl-C, Ctrl-D--> left
             |                 '--the session ends--> over, as in waiting after the first stop
             '--the session ends before the first stop, the time is up--> error
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from rdev.client.debug.places import Sources
from rdev.client.debug.session import Breakpoint, DebugClient, Ended, Placed, Stopped
from rdev.client.debug.view import Outcome, View
from rdev.protocol.errors import DebuggerUnavailable, JobNotRunning, TimedOut


class Commands(Protocol):
    """Where commands come from; None means that the person leaves."""

    async def next(self) -> str | None:
        """The next command line."""
        ...


class Scripted:
    """Commands given beforehand; afterwards the session is left."""

    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = deque(commands)

    @property
    def left(self) -> tuple[str, ...]:
        """Commands that were not asked for yet."""
        return tuple(self._commands)

    async def next(self) -> str | None:
        """The next command; None when they are used up."""
        return self._commands.popleft() if self._commands else None


class Typed:
    """Commands read from a descriptor; its end leaves the session.

    Args:
        descriptor: A terminal, a pipe or a file.
        prompt: Called before each line.
    """

    def __init__(self, descriptor: int, prompt: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._prompt = prompt

    async def next(self) -> str | None:
        """The next line typed."""
        self._prompt()
        return await _read_line(self._descriptor)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session at a terminal is to do.

    Attributes:
        job: The job's name, for messages.
        breakpoints: Where to stop; none stops at once.
        timeout: Seconds to wait for a stop; None waits for ever.
    """

    job: str
    breakpoints: tuple[Breakpoint, ...]
    timeout: float | None = None


async def converse(view: View, sources: Sources, commands: Commands, plan: Plan) -> Ended | None:
    """Attaches, waits for stops and executes commands until the person leaves.

    Returns:
        How the session ended by itself; None if the person left.

    Raises:
        TimedOut: No breakpoint was hit in time.
        JobNotRunning: The session ended before the first stop.
        DebuggerUnavailable: No breakpoint could be set.
    """
    client = view.client
    placed = await client.attach(plan.breakpoints)
    await view.say_placed(placed)
    _require_one(plan, placed, sources)
    if not plan.breakpoints:
        await client.request("pause", {"threadId": 1})
    halt = await _next_halt(client, sources, plan)
    if isinstance(halt, Ended):
        raise JobNotRunning(_waiting(plan, sources), halt.cause)
    try:
        while isinstance(halt, Stopped):
            await view.show_stop(halt)
            if await _at_stop(view, commands) is Outcome.DETACH:
                await client.detach()
                return None
            halt = await _next_halt(client, sources, plan)
    except DebuggerUnavailable:
        if client.end is None:
            raise
    return client.end


async def until_interrupted(work: Coroutine[None, None, None]) -> bool:
    """Runs `work`; Ctrl-C cancels it, which leaves the job running.

    Returns:
        False if it was cancelled.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            loop.add_signal_handler(signal.SIGINT, task.cancel)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return not task.cancelled()


async def _at_stop(view: View, commands: Commands) -> Outcome:
    outcome = Outcome.STAY
    while outcome is Outcome.STAY:
        line = await _next_command(view.client, commands)
        if view.client.end is not None:
            return Outcome.RUN  # nothing is held any more
        outcome = Outcome.DETACH if line is None else await view.execute(line)
    return outcome


async def _next_command(client: DebugClient, commands: Commands) -> str | None:
    """The next command; None too if the session ends meanwhile."""
    async with asyncio.TaskGroup() as group:
        typing = group.create_task(commands.next())
        ending = group.create_task(client.over())
        await asyncio.wait({typing, ending}, return_when=asyncio.FIRST_COMPLETED)
        typing.cancel()
        ending.cancel()
    return None if typing.cancelled() else typing.result()


async def _next_halt(client: DebugClient, sources: Sources, plan: Plan) -> Stopped | Ended:
    try:
        async with asyncio.timeout(plan.timeout):
            return await client.halted()
    except TimeoutError as error:
        cause = f"it was not reached within {plan.timeout:g} s"
        raise TimedOut(_waiting(plan, sources), cause) from error


def _waiting(plan: Plan, sources: Sources) -> str:
    return f"stop job {plan.job} at {_places(plan, sources) or 'its present line'}"


def _require_one(plan: Plan, placed: Sequence[Placed], sources: Sources) -> None:
    if not placed or any(one.verified for one in placed):
        return
    cause = placed[0].message or "the line has no code"
    raise DebuggerUnavailable(
        f"stop job {plan.job} at {_places(plan, sources)}",
        cause,
        hint="check the file's path in the workspace, and the line",
    )


def _places(plan: Plan, sources: Sources) -> str:
    return ", ".join(f"{sources.shown(b.path)}:{b.line}" for b in plan.breakpoints)


async def _read_line(descriptor: int) -> str | None:
    """A line of a terminal, pipe or file; None at its end. Cancellable, unlike a thread's read."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:
        return await asyncio.to_thread(_read_file_line, descriptor)  # a file never blocks
    collected = b""
    try:
        while not collected.endswith(b"\n"):
            await readable.wait()
            readable.clear()
            # A byte at a time: what follows the line is the next command's.
            byte = os.read(descriptor, 1)
            if not byte:
                return collected.decode(errors="replace") or None
            collected += byte
    finally:
        loop.remove_reader(descriptor)
    return collected.decode(errors="replace").rstrip("\n")


def _read_file_line(descriptor: int) -> str | None:
    collected = b""
    while not collected.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return collected.decode(errors="replace") or None
        collected += byte
    return collected.decode(errors="replace").rstrip("\n")
