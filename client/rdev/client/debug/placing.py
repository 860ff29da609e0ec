"""Breakpoints on their way to the processes, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rdev.client.debug.marks import Mark, Marks
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Breakpoint, Placed
from rdev.client.debug.view import View

# What debugpy says of a breakpoint in a module that is not imported yet.
_NOT_LOADED = "Waiting for code"

_NO_CODE = "the line has no code"


class Placing:
    """Sets the breakpoints of all ranks that are attached to.

    Args:
        marks: The breakpoints.
        seats: The ranks.
        view: How places are shown.
        say: Shows a line.
    """

    def __init__(
        self, marks: Marks, seats: Iterable[Seat], *, view: View, say: Callable[[str], None]
    ) -> None:
        self._marks = marks
        self._seats = tuple(seats)
        self._view = view
        self._say = say

    async def attach(self, wanted: Sequence[Breakpoint]) -> str:
        """Attaches with the first ones; why none of them can be hit, empty if one can."""
        marks = [self._marks.add(breakpoint_) for breakpoint_ in wanted]
        for seat in self._seats:
            _take(marks, await seat.client.attach([mark.breakpoint for mark in marks]))
        for mark in marks:
            await self._tell(mark)
        placed = [mark.placed for mark in marks if mark.placed is not None]
        if not placed or any(p.verified or p.message.startswith(_NOT_LOADED) for p in placed):
            return ""
        return placed[0].message or _NO_CODE

    async def place(self, marks: Sequence[Mark]) -> None:
        """Sets the breakpoints as they are now, and says what became of `marks`."""
        enabled = self._marks.enabled()
        for seat in self._seats:
            if seat.end is None:
                _take(enabled, await seat.client.place([mark.breakpoint for mark in enabled]))
        for mark in marks:
            await self._tell(mark)

    async def _tell(self, mark: Mark) -> None:
        placed, wanted = mark.placed, mark.breakpoint
        asked = (await self._view.spot(wanted.path, wanted.line)).name
        if placed is None or placed.verified:
            spot = await self._view.spot(wanted.path, mark.line)
            moved = f", moved from {asked}" if mark.line != wanted.line else ""
            remark = f" ({spot.remark})" if spot.remark else ""
            self._say(f"breakpoint {mark.number} at {spot.name}{moved}{remark}")
        elif placed.message.startswith(_NOT_LOADED):
            self._say(f"breakpoint {mark.number} at {asked}, which is not loaded yet")
        else:
            self._say(f"no breakpoint at {asked}: {placed.message or _NO_CODE}")


def _take(marks: Sequence[Mark], placed: Sequence[Placed]) -> None:
    for mark, became in zip(marks, placed, strict=False):
        mark.placed = became
