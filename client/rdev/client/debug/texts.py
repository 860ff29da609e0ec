"""The texts of a source file: what the job runs, what the editor has, and which line is which."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rdev.client.debug.mapping import Counterpart, Kinship, LineMap, lines_of
from rdev.client.debug.places import Sources


@dataclass(frozen=True, slots=True)
class Pairing:
    """A file of the workspace on both sides.

    Attributes:
        path: On the host.
        here: On this side; empty if it is not here, or this is another text altogether.
        shown: As people know it, relative to the workspace.
        text: What the job runs; None if nobody knows, or the job has no such file.
        lines: Which line is which; None if `here` is empty.
    """

    path: str
    here: str
    shown: str
    text: bytes | None
    lines: LineMap | None

    def to_editor(self, line: int) -> Counterpart:
        """The line here for one of the job's; itself where there is nothing to compare."""
        return self.lines.to_editor(line) if self.lines else Counterpart(line, Kinship.SAME)

    def to_job(self, line: int) -> Counterpart:
        """The job's line for one of the editor's; itself where there is nothing to compare."""
        return self.lines.to_job(line) if self.lines else Counterpart(line, Kinship.SAME)

    @property
    def is_stranger(self) -> bool:
        """True if a file of that name is here, and it is not the one that the job runs."""
        return not self.here and self.lines is not None

    def notice(self, job: str) -> str:
        """What a person has to know of the difference; empty if there is none."""
        if self.lines is None or not self.lines.edits:
            return ""
        if self.is_stranger:
            return f"{self.shown}: yours is another file than that of job {job}, which is shown"
        count = self.lines.edits
        edits = "1 edit" if count == 1 else f"{count} edits"
        return f"{self.shown}: your editor is {edits} ahead of job {job}"


class Texts:
    """Reads source files as the job has them, and compares them with those here.

    Args:
        sources: Where files are, here and on the host.
        fetch: Gives a file of the snapshot by its path in the workspace; None if it is not there.
    """

    def __init__(self, sources: Sources, fetch: Callable[[str], Awaitable[bytes | None]]) -> None:
        self.sources = sources
        self._fetch = fetch
        self._snapshot: dict[str, bytes | None] = {}
        self._pairings: dict[str, tuple[tuple[int, int], Pairing]] = {}

    async def pairing(self, path: str) -> Pairing | None:
        """A host's file and the one here, as that is now; None outside the workspace."""
        inside = self.sources.inside(path)
        if inside is None:
            return None
        here = self.sources.here(path) or ""
        stamp = _stamp(here)
        known = self._pairings.get(inside)
        if known is None or known[0] != stamp:
            known = stamp, await self._compared(path, inside, here)
            self._pairings[inside] = known
        return known[1]

    async def lines(self, path: str, first: int, last: int) -> list[tuple[int, str]]:
        """Numbered lines of a host's file as the job has it; empty if nobody knows them."""
        content = await self.content(path)
        if content is None:
            return []
        lines = lines_of(content)
        return [(n, lines[n - 1]) for n in range(max(1, first), min(last, len(lines)) + 1)]

    async def content(self, path: str) -> bytes | None:
        """A host's file as the job has it; None if nobody knows."""
        pairing = await self.pairing(path)
        if pairing is not None:
            return pairing.text
        return await asyncio.to_thread(_read, path)  # a library is perhaps the same as here

    async def here(self, pairing: Pairing) -> list[str]:
        """The lines of a file as they are on this side."""
        content = await asyncio.to_thread(_read, pairing.here)
        return lines_of(content or b"")

    async def _compared(self, path: str, inside: str, here: str) -> Pairing:
        if inside not in self._snapshot:
            self._snapshot[inside] = await self._fetch(inside)
        ours = await asyncio.to_thread(_read, here)
        # A job without a snapshot, and a file outside it, run what was synced.
        theirs = self._snapshot[inside]
        text = theirs if theirs is not None else ours
        if ours is None or text is None:
            return Pairing(path, "", inside, text, None)
        lines = await asyncio.to_thread(LineMap, lines_of(text), lines_of(ours))
        return Pairing(path, here if lines.is_recognizable else "", inside, text, lines)


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError):  # no path at all, such as `<string>`
        return None
