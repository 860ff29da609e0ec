"""What the terminal debugger's commands act on, and what they lead to."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from rdev.client.debug.marks import Mark, Marks
from rdev.client.debug.paper import Ink
from rdev.client.debug.seat import Seat
from rdev.client.debug.view import View
from rdev.protocol.errors import DebuggerUnavailable

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
  clear [N|FILE:LINE], disable N, enable N, cond N [EXPR]   undisplay [EXPR]
the job
  threads, thread N   ranks, rank N   compare EXPR   in every rank   stack   what every thread does
  wait   for the next stop          lease   how long this one lasts
  detach, q, Ctrl-D  leave the job running               kill   end it (with --allow-kill)
`h COMMAND` says what one does. An empty line repeats the last command.
Ctrl-C while the job runs stops it where it is."""


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

    def stepping(self) -> None:
        """The current rank makes a step: what is typed next is for it, if it is back soon."""
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


def require_expression(text: str) -> None:
    """Returns if a text is a Python expression, or nothing.

    Raises:
        DebuggerUnavailable: It is not.
    """
    try:
        compile(text.strip() or "True", "condition", "eval")
    except (SyntaxError, ValueError) as error:
        cause = f"{text!r} is no Python expression: {error.args[0]}"
        raise DebuggerUnavailable("understand an expression", cause) from error
