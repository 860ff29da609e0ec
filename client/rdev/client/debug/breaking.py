"""The commands of the terminal debugger that concern breakpoints."""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable

from rdev.client.debug.aiming import NO_FILE, aimed, job_line
from rdev.client.debug.marks import Mark
from rdev.client.debug.places import parse_place
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Breakpoint
from rdev.client.debug.table import Outcome, Table, require_expression
from rdev.protocol.errors import DebuggerUnavailable

_CONDITION = re.compile(r"(?P<place>.+?)(?:\s+if\s+|\s*,\s*)(?P<condition>.+)", re.DOTALL)

# Where a function's first line with code is.
_FUNCTION = (
    "(lambda c: (c.co_filename, min((l for *_, l in c.co_lines() if l and l > c.co_firstlineno),"
    " default=c.co_firstlineno)))(({}).__code__)"
)


class Breaking:
    """Sets, lists, changes and removes breakpoints.

    Args:
        table: The session.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def commands(self) -> dict[tuple[str, ...], Callable[[str], Awaitable[Outcome]]]:
        """What to call, by the words that name it."""
        return {
            ("b", "break", "breakpoints"): self._break,
            ("tbreak",): self._break_once,
            ("cl", "clear", "delete"): self._clear,
            ("disable",): self._disable,
            ("enable",): self._enable,
            ("cond", "condition"): self._condition,
        }

    @property
    def _seat(self) -> Seat:
        return self._table.seat

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
        require_expression(condition)
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
        try:
            return await aimed(view.texts, path, line, job=view.job)
        except DebuggerUnavailable as error:
            if error.hint != NO_FILE:  # the cause says what to do
                raise
            raise DebuggerUnavailable(error.action, f"{error.cause}: {NO_FILE}") from error

    async def _clear(self, words: str) -> Outcome:
        gone = await self._named(words) if words else list(self._table.marks.all)
        self._table.marks.remove(gone)
        await self._table.place()
        await self._say_of(gone, "cleared")
        return Outcome.STAY

    async def _say_of(self, marks: list[Mark], what: str) -> None:
        for mark in marks:
            spot = await self._table.view.spot(mark.breakpoint.path, mark.line)
            self._table.say(f"breakpoint {mark.number} at {spot.name} {what}")
        if not marks:
            self._table.say("no breakpoints")

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
        for mark in (marks := await self._named(words)):
            mark.is_enabled = False
        await self._table.place()
        await self._say_of(marks, "disabled")
        return Outcome.STAY

    async def _enable(self, words: str) -> Outcome:
        for mark in (marks := await self._named(words)):
            mark.is_enabled = True
        await self._table.place()
        await self._say_of(marks, "enabled")
        return Outcome.STAY

    async def _condition(self, words: str) -> Outcome:
        number, _, condition = words.partition(" ")
        require_expression(condition)
        for mark in (marks := await self._named(number)):
            old = mark.breakpoint
            mark.breakpoint = Breakpoint(old.path, old.line, condition.strip())
        await self._table.place()
        await self._say_of(marks, f"stops if {condition.strip()}" if condition else "stops always")
        return Outcome.STAY
