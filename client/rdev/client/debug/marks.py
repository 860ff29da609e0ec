"""The breakpoints of a terminal session, by number: those of all ranks together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from rdev.client.debug.session import Breakpoint, Placed
from rdev.protocol.errors import DebuggerUnavailable


@dataclass(slots=True)
class Mark:
    """One breakpoint.

    Attributes:
        number: As people name it.
        breakpoint: Where, in the job's lines, and on which condition.
        is_temporary: It goes at its first hit.
        is_enabled: It is set.
        placed: What became of it in the rank that was asked last.
    """

    number: int
    breakpoint: Breakpoint
    is_temporary: bool = False
    is_enabled: bool = True
    placed: Placed | None = None

    @property
    def line(self) -> int:
        """The line of the job that it is really at."""
        return self.placed.line if self.placed is not None else self.breakpoint.line


@dataclass(slots=True)
class Marks:
    """All of them, in the order of their numbers."""

    all: list[Mark] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, breakpoint_: Breakpoint, *, is_temporary: bool = False) -> Mark:
        """Adds one; at a place that has one already, it takes that one's part and number."""
        for mark in self.all:
            known = mark.breakpoint
            if (known.path, known.line) == (breakpoint_.path, breakpoint_.line):
                mark.breakpoint, mark.is_temporary = breakpoint_, is_temporary
                mark.is_enabled = True
                return mark
        mark = Mark(next(self._numbers), breakpoint_, is_temporary)
        self.all.append(mark)
        return mark

    def numbered(self, words: str) -> list[Mark]:
        """Those that `2 3` names.

        Raises:
            DebuggerUnavailable: One is none.
        """
        found = []
        for word in words.replace(",", " ").split():
            mark = next((mark for mark in self.all if str(mark.number) == word), None)
            if mark is None:
                raise DebuggerUnavailable("find a breakpoint", f"there is no breakpoint {word}")
            found.append(mark)
        return found

    def at(self, path: str, line: int) -> list[Mark]:
        """Those at a line of the job's."""
        return [m for m in self.all if m.breakpoint.path == path and m.line == line]

    def remove(self, gone: Iterable[Mark]) -> None:
        """Takes some away."""
        numbers = {mark.number for mark in gone}
        self.all = [mark for mark in self.all if mark.number not in numbers]

    def enabled(self) -> list[Mark]:
        """Those that are to be set."""
        return [mark for mark in self.all if mark.is_enabled]
