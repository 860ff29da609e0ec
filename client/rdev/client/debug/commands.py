"""The commands of the terminal debugger; they are pdb's where pdb has them.

A line that is no command is evaluated in the frame, or executed if it is a statement.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from rdev.client.debug.aiming import aimed, job_line
from rdev.client.debug.marks import Mark, Marks
from rdev.client.debug.paper import Ink, brief, cut
from rdev.client.debug.places import parse_place
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Breakpoint
from rdev.client.debug.view import AROUND_LISTED, View, is_group
from rdev.protocol.errors import DebuggerUnavailable, RdevError

HELP = """\
at a stop
  n, next           to the next line of this function      s, step     into calls, too
  r, return, out    to the end of this function            c, cont     on to the next breakpoint
  unt, until [LINE] to a line below this one, or to LINE    j, jump LINE  make LINE the next to run
  l, list [A[,B]]   the source; again: further              ll          the whole function
  w, bt, where      the frames, innermost first             u, d, up, down [N], frame N
  locals            the frame's variables                   a, args     the function's arguments
  p EXPR, pp EXPR   a value, or prettily                    whatis EXPR its type
  EXPR, x = 3       evaluated, or executed                  display EXPR  again at every stop
breakpoints
  b FILE:LINE|LINE|FUNCTION [if EXPR]   set one; `b` lists  tbreak ...  one that goes when it is hit
  clear N|FILE:LINE, disable N, enable N, cond N [EXPR]
the job
  threads, thread N   ranks, rank N   compare EXPR   in every rank   stack   what every thread does
  wait   for the next stop          lease   how long this one lasts
  detach, q, Ctrl-D  leave the job running               kill   end it (with --allow-kill)
An empty line repeats the last command. Ctrl-C while the job runs stops it where it is."""

_RESUMING = {
    "continue": ("c", "cont", "continue"),
    "next": ("n", "next"),
    "stepIn": ("s", "step"),
    "stepOut": ("r", "return", "out", "finish"),
}
_RESUME_BY = {word: command for command, words in _RESUMING.items() for word in words}

# After these, anything is an expression.
_TAKING_ANY = frozenset({"p", "pp", "print", "eval", "!", "whatis", "display", "compare"})

# Lines that `until` steps over before it says so: each takes some milliseconds.
_MOST_STEPS = 500

_CONDITION = re.compile(r"(?P<place>.+?)(?:\s+if\s+|\s*,\s*)(?P<condition>.+)", re.DOTALL)

# Where a function's first line with code is.
_FUNCTION = (
    "(lambda c: (c.co_filename, min((l for *_, l in c.co_lines() if l and l > c.co_firstlineno),"
    " default=c.co_firstlineno)))(({}).__code__)"
)

# Marks what is only one of a kind of value among ranks.
_DIFFERS = "!"


class Outcome(enum.Enum):
    """What a command leads to."""

    STAY = "stay"
    """The thread is still held."""
    RUN = "run"
    """It runs."""
    WAIT = "wait"
    """It is held, and something else is waited for."""
    DETACH = "detach"
    """The person wants to leave."""


class Table(Protocol):
    """What the commands act on: the session of one or several ranks."""

    marks: Marks
    view: View

    @property
    def seat(self) -> Seat:
        """The rank that commands concern."""
        ...

    def say(self, text: str, ink: Ink = Ink.PLAIN) -> None:
        """Shows lines, made safe."""
        ...

    def show(self, text: str) -> None:
        """Shows lines that are safe."""
        ...

    @property
    def columns(self) -> int:
        """How wide a line may be."""
        ...

    async def place(self, marks: Sequence[Mark] | None = None) -> None:
        """Sets the breakpoints as they are now, and says what became of `marks`."""
        ...

    async def switch(self, rank: int) -> None:
        """Makes another rank the one that commands concern."""
        ...

    async def halt(self) -> bool:
        """Waits until the rank is held after a step; False if it is not."""
        ...

    async def ranks(self) -> list[str]:
        """The ranks, a line each."""
        ...

    async def stacks(self) -> list[str]:
        """What every thread of the job does."""
        ...

    async def compare(self, expression: str, function: str) -> list[tuple[int, str, str]]:
        """Rank, value and remark, for every rank."""
        ...

    async def lease(self) -> str:
        """How long the stop lasts."""
        ...

    @property
    def may_kill(self) -> bool:
        """Whether `kill` ends the job."""
        ...


class Commands:
    """Executes command lines.

    Args:
        table: What they act on.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._last = ""
        self._displayed: list[str] = []
        self._commands = self._known()

    @property
    def names(self) -> list[str]:
        """The words that are commands."""
        return sorted([*self._commands, *_RESUME_BY, "detach", "quit", "exit"])

    async def execute(self, line: str) -> Outcome:
        """Executes one command line; trouble with it is said, never raised.

        Raises:
            ConnectionLost: The session is gone.
        """
        line = line.strip() or self._last
        self._last = line
        word, _, rest = line.partition(" ")
        if not word:
            return Outcome.STAY
        if word in ("detach", "q", "quit", "exit"):
            return Outcome.DETACH
        try:
            is_expression = word not in _TAKING_ANY and _is_expression(rest)
            if word in _RESUME_BY and not is_expression:
                return await self._resume(_RESUME_BY[word])
            command = self._commands.get(word)
            if command is None or is_expression:
                return await self._evaluate(line.removeprefix("!").strip())
            return await command(rest.strip())
        except DebuggerUnavailable as error:
            self._table.say(_raised(error.cause), Ink.WARNING)
        except RdevError as error:
            self._table.say(error.message, Ink.WARNING)
        return Outcome.STAY

    async def shown_again(self) -> None:
        """Shows what is displayed at every stop."""
        for expression in self._displayed:
            try:
                value = await self._seat.client.evaluate(expression, self._seat.frame)
                self._table.say(f"{expression} = {cut(value.value)}")
            except DebuggerUnavailable as error:
                self._table.say(f"{expression}: {error.cause}")

    def _known(self) -> dict[str, Callable[[str], Awaitable[Outcome]]]:
        commands = {
            ("p", "print", "eval", "!"): self._evaluate,
            ("pp",): self._pretty,
            ("whatis",): self._whatis,
            ("display",): self._display,
            ("undisplay",): self._undisplay,
            ("locals",): self._locals,
            ("a", "args"): self._arguments,
            ("w", "bt", "where"): self._where,
            ("u", "up"): self._up,
            ("d", "down"): self._down,
            ("f", "frame"): self._frame,
            ("l", "list"): self._list,
            ("ll", "longlist"): self._long_list,
            ("unt", "until"): self._until,
            ("j", "jump"): self._jump,
            ("b", "break", "breakpoints"): self._break,
            ("tbreak",): self._break_once,
            ("cl", "clear", "delete"): self._clear,
            ("disable",): self._disable,
            ("enable",): self._enable,
            ("cond", "condition"): self._condition,
            ("threads",): self._threads,
            ("thread",): self._thread,
            ("ranks",): self._ranks,
            ("rank",): self._rank,
            ("compare",): self._compare,
            ("stack",): self._stacks,
            ("wait",): self._wait,
            ("lease",): self._lease,
            ("kill",): self._kill,
            ("h", "help", "?"): self._help,
        }
        return {word: action for words, action in commands.items() for word in words}

    @property
    def _seat(self) -> Seat:
        return self._table.seat

    async def _resume(self, command: str) -> Outcome:
        await self._seat.resume(command)
        return Outcome.RUN

    # Values.

    async def _evaluate(self, expression: str) -> Outcome:
        value = await self._seat.client.evaluate(expression, self._seat.frame)
        if value.value:
            self._table.say(cut(value.value))
        return Outcome.STAY

    async def _pretty(self, expression: str) -> Outcome:
        asking = f"__import__('pprint').pformat({expression})"
        value = await self._seat.client.evaluate(asking, self._seat.frame)
        try:
            text = str(ast.literal_eval(value.value))
        except (ValueError, SyntaxError):  # it was cut on the way
            text = value.value
        self._table.say(cut(text))
        return Outcome.STAY

    async def _whatis(self, expression: str) -> Outcome:
        return await self._evaluate(f"type({expression})")

    async def _display(self, expression: str) -> Outcome:
        if expression and expression not in self._displayed:
            self._displayed.append(expression)
        await self.shown_again()
        return Outcome.STAY

    async def _undisplay(self, expression: str) -> Outcome:
        self._displayed = [one for one in self._displayed if expression and one != expression]
        return Outcome.STAY

    async def _locals(self, _: str) -> Outcome:
        await self._variables(None)
        return Outcome.STAY

    async def _arguments(self, _: str) -> Outcome:
        function = await self._table.view.function(self._seat.frame)
        await self._variables(function[2])
        return Outcome.STAY

    async def _variables(self, names: Sequence[str] | None) -> None:
        found = await self._seat.client.local_variables(self._seat.frame)
        wanted = [v for v in found if not is_group(v) and (names is None or v.name in names)]
        if not wanted:
            self._table.say("none")
        width = min(max((len(v.name) for v in wanted), default=0), 30)
        for variable in wanted:
            room = self._table.columns - width - 3
            self._table.say(f"{variable.name:<{width}} = {brief(variable.value, room)}")

    # Frames and source.

    async def _where(self, _: str) -> Outcome:
        self._seat.frame  # noqa: B018 - raises where there is nothing to see
        shown = await self._table.view.stack(self._seat.frames, self._seat.chosen)
        self._table.show("\n".join(shown))
        return Outcome.STAY

    async def _up(self, count: str) -> Outcome:
        return await self._choose(self._seat.chosen + _number(count, 1))

    async def _down(self, count: str) -> Outcome:
        return await self._choose(self._seat.chosen - _number(count, 1))

    async def _frame(self, number: str) -> Outcome:
        return await self._choose(_number(number, self._seat.chosen))

    async def _choose(self, number: int) -> Outcome:
        self._seat.choose(number)
        frame = self._seat.frame
        self._table.say(f"{self._seat.chosen}  {await self._table.view.place(frame)}", Ink.STRONG)
        shown = await self._table.view.listing(
            frame.path, frame.line, frame.line, current=frame.line
        )
        self._table.show("\n".join(shown))
        return Outcome.STAY

    async def _list(self, words: str) -> Outcome:
        frame = self._seat.frame
        if words and words != ".":
            begin, _, end = words.partition(",")
            first = await self._line(begin.strip())
            last = await self._line(end.strip()) if end else first + 2 * AROUND_LISTED
        elif self._seat.listed and not words:
            first = self._seat.listed + 1
            last = first + 2 * AROUND_LISTED
        else:
            first, last = frame.line - AROUND_LISTED, frame.line + AROUND_LISTED
        return await self._listed(first, last)

    async def _long_list(self, _: str) -> Outcome:
        first, last, _names = await self._table.view.function(self._seat.frame)
        return await self._listed(first, last)

    async def _listed(self, first: int, last: int) -> Outcome:
        frame, marks = self._seat.frame, self._table.marks
        marked = {m.line for m in marks.enabled() if m.breakpoint.path == frame.path}
        lines = await self._table.view.listing(
            frame.path, first, last, current=frame.line, marked=marked
        )
        if not lines:
            name = self._table.view.sources.shown(frame.path)
            self._table.say(
                "the file ends here" if self._seat.listed else f"nobody knows the text of {name}"
            )
            return Outcome.STAY
        self._seat.listed = last
        self._table.show("\n".join(lines))
        return Outcome.STAY

    async def _line(self, word: str) -> int:
        """The job's line for a number of the editor's in the frame's file."""
        if not word.isdecimal():
            raise DebuggerUnavailable("find a line", f"{word!r} is no line number")
        return await job_line(self._table.view.texts, self._seat.frame.path, int(word))

    # Going on.

    async def _until(self, word: str) -> Outcome:
        frame, depth = self._seat.frame, len(self._seat.frames)
        if word:
            mark = self._table.marks.add(
                Breakpoint(frame.path, await self._line(word)), is_temporary=True
            )
            await self._table.place([mark])
            return await self._resume("continue")
        for _ in range(_MOST_STEPS):
            await self._seat.resume("next")
            if not await self._table.halt():
                return Outcome.RUN
            now = self._seat.frames[0] if self._seat.frames else frame
            if len(self._seat.frames) != depth or now.line > frame.line:
                return Outcome.RUN
        self._table.say(f"still above line {frame.line} after {_MOST_STEPS} lines; `until LINE`")
        return Outcome.RUN

    async def _jump(self, word: str) -> Outcome:
        line = await self._line(word)
        await self._seat.client.jump(self._seat.frame, line, self._seat.thread)
        return Outcome.RUN

    async def _wait(self, _: str) -> Outcome:
        return Outcome.WAIT

    # Breakpoints.

    async def _break(self, words: str) -> Outcome:
        if not words:
            return await self._breaks()
        await self._set(words, is_temporary=False)
        return Outcome.STAY

    async def _break_once(self, words: str) -> Outcome:
        await self._set(words, is_temporary=True)
        return Outcome.STAY

    async def _breaks(self) -> Outcome:
        for mark in self._table.marks.all:
            one = mark.breakpoint
            spot = await self._table.view.spot(one.path, mark.line)
            remarks = [f"if {one.condition}"] if one.condition else []
            remarks += ["once"] if mark.is_temporary else []
            remarks += [] if mark.is_enabled else ["disabled"]
            remarks += [] if mark.placed is None or mark.placed.verified else ["cannot be hit"]
            self._table.say(f"{mark.number:>3}  {spot.name}  {', '.join(remarks)}".rstrip())
        if not self._table.marks.all:
            self._table.say("no breakpoints")
        return Outcome.STAY

    async def _set(self, words: str, *, is_temporary: bool) -> None:
        split = _CONDITION.fullmatch(words)
        word, condition = (split["place"], split["condition"]) if split else (words, "")
        _require_expression(condition)
        wanted = await self._breakpoint(word.strip(), condition.strip())
        mark = self._table.marks.add(wanted, is_temporary=is_temporary)
        await self._table.place([mark])

    async def _breakpoint(self, word: str, condition: str) -> Breakpoint:
        place = parse_place(word)
        if place is not None:
            path = self._table.view.sources.on_host(place.file)
            return Breakpoint(path, await self._aimed(path, place.line), condition)
        if word.isdecimal():
            path = self._seat.frame.path
            return Breakpoint(path, await self._aimed(path, int(word)), condition)
        return await self._in_function(word, condition)

    async def _in_function(self, word: str, condition: str) -> Breakpoint:
        frame = self._seat.frame
        # One that is not defined yet is looked for in the text.
        if line := await self._table.view.body(frame.path, word):
            return Breakpoint(frame.path, line, condition)
        asking = _FUNCTION.format(word)
        try:
            value = await self._seat.client.evaluate(asking, self._seat.frame)
            path, line = ast.literal_eval(value.value)
        except (DebuggerUnavailable, ValueError, SyntaxError, TypeError) as error:
            cause = f"{word!r} is neither FILE:LINE, a line, nor a function"
            raise DebuggerUnavailable("set a breakpoint", cause) from error
        return Breakpoint(str(path), int(line), condition)

    async def _aimed(self, path: str, line: int) -> int:
        view = self._table.view
        return await aimed(view.texts, path, line, job=view.job)

    async def _clear(self, words: str) -> Outcome:
        self._table.marks.remove(await self._named(words))
        await self._table.place()
        return Outcome.STAY

    async def _named(self, words: str) -> list[Mark]:
        place = parse_place(words)
        if place is None:
            return self._table.marks.numbered(words)
        path = self._table.view.sources.on_host(place.file)
        found = self._table.marks.at(path, await job_line(self._table.view.texts, path, place.line))
        if not found:
            raise DebuggerUnavailable("find a breakpoint", f"there is no breakpoint at {words}")
        return found

    async def _disable(self, words: str) -> Outcome:
        for mark in await self._named(words):
            mark.is_enabled = False
        await self._table.place()
        return Outcome.STAY

    async def _enable(self, words: str) -> Outcome:
        for mark in await self._named(words):
            mark.is_enabled = True
        await self._table.place()
        return Outcome.STAY

    async def _condition(self, words: str) -> Outcome:
        number, _, condition = words.partition(" ")
        _require_expression(condition)
        for mark in await self._named(number):
            old = mark.breakpoint
            mark.breakpoint = Breakpoint(old.path, old.line, condition.strip())
        await self._table.place()
        return Outcome.STAY

    # Threads, ranks, the job.

    async def _threads(self, _: str) -> Outcome:
        for thread in await self._seat.client.threads():
            frames = await self._seat.client.stack(thread.id)
            where = await self._table.view.place(frames[0]) if frames else "no Python frame"
            pointer = ">" if thread.id == self._seat.thread else " "
            self._table.say(f"{pointer} {thread.id}  {thread.name}  {where}")
        return Outcome.STAY

    async def _thread(self, word: str) -> Outcome:
        known = await self._seat.client.threads()
        if not any(str(thread.id) == word for thread in known):
            raise DebuggerUnavailable("look at a thread", f"there is no thread {word!r}")
        await self._seat.look_at(int(word))
        return await self._where("")

    async def _ranks(self, _: str) -> Outcome:
        for line in await self._table.ranks():
            self._table.say(line)
        return Outcome.STAY

    async def _rank(self, word: str) -> Outcome:
        if not word.isdecimal():
            return await self._ranks("")
        await self._table.switch(int(word))
        return Outcome.STAY

    async def _compare(self, expression: str) -> Outcome:
        _require_expression(expression or "?")
        function = self._seat.frame.function if self._seat.stop else ""
        values = await self._table.compare(expression, function)
        texts = [value for _, value, _ in values]
        usual = max(texts, key=texts.count, default="")
        for rank, value, remark in values:
            differs = len(set(texts)) > 1 and value != usual
            shown = brief(value, self._table.columns - 16 - len(remark))
            pointer = _DIFFERS if differs else " "
            line = f"{pointer} rank {rank:<3} {shown}  {remark}".rstrip()
            self._table.say(line, Ink.DIFFERENT if differs else Ink.PLAIN)
        return Outcome.STAY

    async def _stacks(self, _: str) -> Outcome:
        self._table.show("\n".join(await self._table.stacks()))
        return Outcome.STAY

    async def _lease(self, _: str) -> Outcome:
        self._table.say(await self._table.lease())
        return Outcome.STAY

    async def _kill(self, _: str) -> Outcome:
        if not self._table.may_kill:
            cause = "`rdev debug --allow-kill` lets you; `rdev stop` ends it in good order"
            raise DebuggerUnavailable("end the job", cause)
        await self._seat.client.kill()
        return Outcome.RUN

    async def _help(self, _: str) -> Outcome:
        self._table.say(HELP)
        return Outcome.STAY


def _is_expression(rest: str) -> bool:
    """True if what follows a word makes it no command: `n = 3`, `b == 2`, `s.shape`."""
    rest = rest.lstrip()
    return bool(rest) and (
        rest[:1] in "=<>*/%@&|^" or rest.startswith(("+=", "-=", "!=", "is ", "in ", "not in "))
    )


def _require_expression(text: str) -> None:
    try:
        compile(text.strip() or "True", "condition", "eval")
    except (SyntaxError, ValueError) as error:
        cause = f"{text!r} is no Python expression: {error.args[0]}"
        raise DebuggerUnavailable("understand an expression", cause) from error


def _raised(cause: str) -> str:
    """An exception without the frames of the evaluation itself, as pdb shows it."""
    lines = cause.rstrip().split("\n")
    files = [line for line in lines if line.lstrip().startswith("File ")]
    if lines[0].startswith("Traceback ") and all('"<string>"' in line for line in files):
        return lines[-1]
    return cause.rstrip()


def _number(word: str, usual: int) -> int:
    if not word:
        return usual
    if not word.isdecimal():
        raise DebuggerUnavailable("count", f"{word!r} is no number")
    return int(word)
