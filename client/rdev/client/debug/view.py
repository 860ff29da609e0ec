"""The debugger's terminal view: one command in, lines of text out.

It knows nothing of terminals: the shell around it reads commands and prints what is returned.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rdev.client.debug.places import Sources, parse_place
from rdev.client.debug.session import Breakpoint, DebugClient, Frame, Placed, Stopped, Variable
from rdev.client.debug.texts import Texts
from rdev.protocol.errors import DebuggerUnavailable

# Lines shown before and after the current one.
AROUND = 5

# A value longer than this is cut: a tensor's repr must not fill the screen.
LONGEST_VALUE = 2000

# What a program says about itself may move a terminal's cursor, or worse.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

HELP = """\
p EXPR, print EXPR    evaluate an expression, or execute a statement; EXPR alone does too
locals                the frame's local variables
bt, stack             the frames, innermost first
up, down              choose a frame
l, list               the source around the line
n, next               run to the next line of this function
s, step               run to the next line, into calls
out                   run to the end of this function
c, continue           run to the next breakpoint
b FILE:LINE           set a breakpoint        clear FILE:LINE    remove one
b, breakpoints        the breakpoints
detach, q, Ctrl-D     leave the job running"""


class Outcome(enum.Enum):
    """What a command leads to."""

    STAY = "stay"
    """The thread is still stopped."""
    RUN = "run"
    """The thread runs; wait for the next stop."""
    DETACH = "detach"
    """The person wants to leave."""


@dataclass(slots=True)
class _Position:
    stop: Stopped
    frames: list[Frame]
    chosen: int = 0


class View:
    """One stopped thread, looked at with commands.

    Args:
        client: The session.
        sources: Where files are here and there.
        texts: What is in them, as the job has it.
        say: Shows one or more lines to the person.
    """

    def __init__(
        self,
        client: DebugClient,
        sources: Sources,
        texts: Texts,
        *,
        job: str,
        say: Callable[[str], None],
    ) -> None:
        self.client = client
        self._job = job
        self._sources = sources
        self._texts = texts
        self._show = say
        self._position = _Position(Stopped(0, ""), [])
        self._commands: dict[str, Callable[[str], Awaitable[Outcome]]] = {
            "p": self._print,
            "print": self._print,
            "eval": self._print,
            "locals": self._locals,
            "bt": self._stack,
            "stack": self._stack,
            "where": self._stack,
            "up": self._up,
            "down": self._down,
            "l": self._list,
            "list": self._list,
            "b": self._break,
            "break": self._break,
            "breakpoints": self._break,
            "clear": self._clear,
            "h": self._help,
            "help": self._help,
        }

    async def show_stop(self, stop: Stopped) -> None:
        """Takes a new stop and says where it is."""
        frames = await self.client.stack(stop.thread)
        self._position = _Position(stop, frames)
        if not frames:
            self._say(f"paused ({stop.reason})")
            return
        top = frames[0]
        why = "" if stop.reason in ("breakpoint", "step", "pause") else f" ({stop.reason})"
        where = f"{self._sources.shown(top.path)}:{top.line} in {top.function}()"
        self._say(f"paused at {where}{why}{f': {stop.text}' if stop.text else ''}")
        for number, text in await self._texts.lines(top.path, top.line, top.line):
            self._say(f"{number:>5}  {text}")

    async def execute(self, line: str) -> Outcome:
        """Executes one command line; trouble with it is said, never raised.

        Raises:
            ConnectionLost: The session is gone.
        """
        word, _, rest = line.strip().partition(" ")
        if not word:
            return Outcome.STAY
        if word in _RESUMING:
            return await self._resume(_RESUMING[word])
        if word in ("detach", "q", "quit", "exit"):
            return Outcome.DETACH
        command = self._commands.get(word)
        try:
            # As in pdb: what is no command is evaluated.
            return await (command(rest.strip()) if command else self._print(line.strip()))
        except DebuggerUnavailable as error:
            self._say(error.cause)
            return Outcome.STAY

    async def say_placed(self, placed: Sequence[Placed]) -> None:
        """Says what became of breakpoints, and whose line numbers count."""
        for path in dict.fromkeys(one.breakpoint.path for one in placed):
            pairing = await self._texts.pairing(path)
            notice = pairing.notice(self._job) if pairing is not None else ""
            if notice:
                self._say(f"{notice}; lines are the job's")
        for one in placed:
            shown = f"{self._sources.shown(one.breakpoint.path)}:{one.breakpoint.line}"
            if not one.verified:
                self._say(f"no breakpoint at {shown}: {one.message or 'the line has no code'}")
            elif one.line != one.breakpoint.line:
                self._say(f"breakpoint at {shown}, moved to line {one.line}")
            else:
                self._say(f"breakpoint at {shown}")

    def _say(self, text: str) -> None:
        self._show(_CONTROL.sub(_escaped, text))

    @property
    def _frame(self) -> Frame:
        position = self._position
        if not position.frames:
            raise DebuggerUnavailable("look at a frame", "the thread has no Python frame")
        return position.frames[position.chosen]

    async def _resume(self, command: str) -> Outcome:
        await self.client.resume(command, self._position.stop.thread)
        return Outcome.RUN

    async def _print(self, expression: str) -> Outcome:
        value = await self.client.evaluate(expression, self._frame)
        if value.value:
            self._say(_cut(value.value))
        return Outcome.STAY

    async def _locals(self, _: str) -> Outcome:
        for variable in await self.client.local_variables(self._frame):
            if not _is_group(variable):
                self._say(f"{variable.name} = {_cut(variable.value)}")
        return Outcome.STAY

    async def _stack(self, _: str) -> Outcome:
        for number, frame in enumerate(self._position.frames):
            mark = ">" if number == self._position.chosen else " "
            where = f"{self._sources.shown(frame.path)}:{frame.line}"
            self._say(f"{mark} {number}  {where} in {frame.function}()")
        return Outcome.STAY

    async def _up(self, _: str) -> Outcome:
        return await self._choose(self._position.chosen + 1)

    async def _down(self, _: str) -> Outcome:
        return await self._choose(self._position.chosen - 1)

    async def _choose(self, number: int) -> Outcome:
        self._position.chosen = max(0, min(number, len(self._position.frames) - 1))
        frame = self._frame
        where = f"{self._sources.shown(frame.path)}:{frame.line}"
        self._say(f"{self._position.chosen}  {where} in {frame.function}()")
        return Outcome.STAY

    async def _list(self, _: str) -> Outcome:
        frame = self._frame
        lines = await self._texts.lines(frame.path, frame.line - AROUND, frame.line + AROUND)
        for number, text in lines:
            self._say(f"{number:>5}{'->' if number == frame.line else '  '}{text}")
        if not lines:
            self._say(f"nobody knows the text of {self._sources.shown(frame.path)}")
        return Outcome.STAY

    async def _break(self, word: str) -> Outcome:
        present = list(self.client.breakpoints)
        if not word:
            for one in present:
                self._say(f"{self._sources.shown(one.path)}:{one.line}{_condition(one)}")
            return Outcome.STAY
        wanted = self._breakpoint(word)
        placed = await self.client.place([*present, wanted])
        await self.say_placed(placed[-1:])
        return Outcome.STAY

    async def _clear(self, word: str) -> Outcome:
        gone = self._breakpoint(word)
        kept = [b for b in self.client.breakpoints if (b.path, b.line) != (gone.path, gone.line)]
        await self.client.place(kept)
        return Outcome.STAY

    def _breakpoint(self, word: str) -> Breakpoint:
        place = parse_place(word)
        if place is None and word.isdigit():
            return Breakpoint(self._frame.path, int(word))
        if place is None:
            raise DebuggerUnavailable("set a breakpoint", f"{word!r} is not FILE:LINE")
        return Breakpoint(self._sources.on_host(place.file), place.line)

    async def _help(self, _: str) -> Outcome:
        self._say(HELP)
        return Outcome.STAY


_RESUMING = {
    "c": "continue",
    "cont": "continue",
    "continue": "continue",
    "n": "next",
    "next": "next",
    "s": "stepIn",
    "step": "stepIn",
    "out": "stepOut",
    "finish": "stepOut",
}


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _cut(value: str) -> str:
    if len(value) <= LONGEST_VALUE:
        return value
    return f"{value[:LONGEST_VALUE]}... ({len(value)} characters)"


def _is_group(variable: Variable) -> bool:
    # debugpy adds these above a module's names: "special variables", "function variables".
    return not variable.type and variable.name.endswith(" variables")


def _condition(breakpoint_: Breakpoint) -> str:
    return f" when {breakpoint_.condition}" if breakpoint_.condition else ""
