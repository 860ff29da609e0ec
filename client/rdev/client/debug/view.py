"""How a stop is shown: its place, the source around it, frames and values.

Lines are numbered as in the editor, which may be ahead of the job; the text is the job's. A line
that the editor does not have has no number.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from rdev.client.debug.code import body_of, function_of
from rdev.client.debug.mapping import lines_of
from rdev.client.debug.paper import Ink, Paper
from rdev.client.debug.places import Sources
from rdev.client.debug.session import Frame, Variable
from rdev.client.debug.texts import Texts

# Lines shown before and after the current one, at a stop and by `list`.
AROUND = 2
AROUND_LISTED = 5


@dataclass(frozen=True, slots=True)
class Spot:
    """A place of the job's as people name it: `train.py:11`, and what there is to say of it."""

    name: str
    remark: str = ""


class View:
    """Words for what a session shows.

    Args:
        texts: The files of both sides.
        job: The job's name.
        paper: Colours.
    """

    def __init__(self, texts: Texts, job: str, paper: Paper) -> None:
        self.texts = texts
        self.paper = paper
        self.job = job

    @property
    def sources(self) -> Sources:
        """Where files are."""
        return self.texts.sources

    async def spot(self, path: str, line: int) -> Spot:
        """A line of the job's, numbered as in the editor."""
        shown = self.sources.shown(path)
        pairing = await self.texts.pairing(path)
        if pairing is None or not pairing.here:
            return Spot(f"{shown}:{line}")
        found = pairing.to_editor(line)
        if not found.is_there:
            return Spot(f"{shown}:-", f"line {line} of job {self.job}, not in your editor")
        if found.line == line:
            return Spot(f"{shown}:{line}")
        return Spot(f"{shown}:{found.line}", f"line {line} of job {self.job}")

    async def place(self, frame: Frame) -> str:
        """Where a frame is: `train.py:11 in train() (line 8 of job run-7)`."""
        spot = await self.spot(frame.path, frame.line)
        remark = f" ({spot.remark})" if spot.remark else ""
        return f"{spot.name} in {frame.function}(){remark}"

    async def listing(
        self, path: str, first: int, last: int, *, current: int = 0, marked: Container[int] = ()
    ) -> list[str]:
        """The job's lines from first to last, the current one pointed at."""
        pairing = await self.texts.pairing(path)
        shown = []
        for number, text in await self.texts.lines(path, first, last):
            name = str(number)
            if pairing is not None and pairing.here:
                found = pairing.to_editor(number)
                name = str(found.line) if found.is_there else "-"
            pointer = "->" if number == current else "B " if number in marked else "  "
            ink = Ink.STRONG if number == current else Ink.PLAIN
            shown.append(self.paper.ink(f"{name:>5}{pointer}{text}".rstrip(), ink))
        return shown

    async def function(self, frame: Frame) -> tuple[int, int, tuple[str, ...]]:
        """First and last line, and the parameters, of the function that a frame is in."""
        content = await self.texts.content(frame.path)
        if content is None:
            return 1, 0, ()
        return function_of(lines_of(content), frame.line)

    async def body(self, path: str, name: str) -> int:
        """The first line with code of a function of a file; 0 if it has none of that name."""
        content = await self.texts.content(path)
        return body_of(lines_of(content), name) if content is not None else 0

    async def stack(self, frames: list[Frame], chosen: int) -> list[str]:
        """The frames, innermost first."""
        shown = []
        for number, frame in enumerate(frames):
            is_ours = self.sources.inside(frame.path) is not None
            ink = Ink.STRONG if number == chosen else Ink.PLAIN if is_ours else Ink.FAINT
            pointer = ">" if number == chosen else " "
            shown.append(self.paper.ink(f"{pointer} {number}  {await self.place(frame)}", ink))
        return shown


def is_group(variable: Variable) -> bool:
    """True for what debugpy adds above a module's names: `special variables` and the like."""
    return not variable.type and variable.name.endswith(" variables")
