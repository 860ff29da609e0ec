"""An editor's documents and the job's files: which is which, and how a file is shown.

A file of the workspace is the editor's own where it has it. One that it lacks, or has in an
unrecognizable version, is shown as the job runs it, under a `sourceReference` of ours.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

from rdev.client.debug.coordinates import Coordinates
from rdev.client.debug.mapping import Counterpart, Kinship
from rdev.client.debug.texts import Pairing, Texts
from rdev.protocol.dap import Message

# debugpy counts its own from 1; a reference is below 2^31 by the protocol.
_FIRST_REFERENCE = 1 << 30

# Paths that look like these may be a host's, and an editor may have got them from anywhere.
_LIBRARY_PARTS = ("/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3")


@dataclass(frozen=True, slots=True)
class Document:
    """What an editor means by a source.

    Attributes:
        key: Tells its documents apart; two may show one file.
        path: The file on the host.
        pairing: Maps its lines; None if they are the job's.
        source: As the editor gave it.
    """

    key: str
    path: str
    pairing: Pairing | None
    source: Message

    def to_job(self, line: int) -> Counterpart:
        """The job's line for one of the document's, both from 1."""
        return self.pairing.to_job(line) if self.pairing else Counterpart(line, Kinship.SAME)

    def to_editor(self, line: int) -> int:
        """The document's line for one of the job's, both from 1."""
        return self.pairing.to_editor(line).line if self.pairing else line


class Documents:
    """The documents of one session.

    Args:
        texts: The files of both sides.
        job: The job's name, for people.
        libraries_are_here: The host is this machine, so its libraries can be opened here.

    Attributes:
        coordinates: How the editor counts and spells.
    """

    def __init__(self, texts: Texts, job: str, *, libraries_are_here: bool) -> None:
        self.coordinates = Coordinates()
        self._texts = texts
        self._job = job
        self._libraries_are_here = libraries_are_here
        self._references: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._counter = itertools.count(_FIRST_REFERENCE)
        self._root = texts.sources.local
        self._seen: set[str] = set()
        self._noticed: set[str] = set()
        self._notices: list[str] = []

    def see(self, folder: str) -> None:
        """Takes note that the editor may name files of that folder, which is not the workspace."""
        self._seen.add(folder.rstrip("/") + "/")

    def referred(self, reference: int) -> str | None:
        """The host's file that we gave out under a number; None if it is none of ours."""
        return self._references.get(reference)

    def take_notices(self) -> list[str]:
        """What the person has to know by now, each once."""
        notices, self._notices = self._notices, []
        return notices

    async def meant(self, source: Message) -> Document | None:
        """What the editor means; None if the job can have no such file."""
        reference = source.get("sourceReference") or 0
        if reference in self._references:
            ours = self._references[reference]
            return Document(f"={ours}", ours, None, source)
        named = self.coordinates.path_in(str(source.get("path") or ""))
        if reference:
            return Document(f"={named}", named, None, source)
        path = self._texts.sources.counterpart(named) if named else None
        if path is None:
            return self._elsewhere(named, source)
        self._learn_root(named, path)
        pairing = await self._texts.pairing(path)
        self._notice(pairing)
        usable = pairing if pairing is not None and not pairing.is_stranger else None
        return Document(named, path, usable, source)

    def _elsewhere(self, named: str, source: Message) -> Document | None:
        # debugpy writes to the job's stderr when it is asked for a file that is not there.
        sources = self._texts.sources
        is_known = (
            sources.inside(named) is not None
            or any(part in named for part in _LIBRARY_PARTS)
            or any(named == seen or named.startswith(seen) for seen in self._seen)
            or (self._libraries_are_here and os.path.exists(named))
        )
        return Document(f"={named}", named, None, source) if named and is_known else None

    def _learn_root(self, named: str, path: str) -> None:
        """Takes note of how the editor spells the workspace's folder, which may be by a link."""
        inside = self._texts.sources.inside(path) or ""
        if inside and named.endswith("/" + inside):
            self._root = named[: -len(inside) - 1]

    async def shown(self, source: Message, line: int = 0) -> tuple[Message, Pairing | None]:
        """A source of the adapter's as the editor can open it, and what maps its lines.

        Args:
            source: As the adapter names it.
            line: The line that is to be shown; 0 if the whole file is meant.
        """
        path = str(source.get("path") or "")
        pairing = await self._texts.pairing(path)
        if pairing is None:
            return self._library(source, path), None
        self._notice(pairing)
        # A line that the editor does not have is shown where it is.
        if pairing.here and (not line or pairing.to_editor(line).is_there):
            here = self.coordinates.path_out(self._root + self._below(pairing.here))
            name = os.path.basename(pairing.here)
            return {**source, "name": name, "path": here, "sourceReference": 0}, pairing
        shown = {**source, "path": self.coordinates.path_out(path)}
        if pairing.text is None:
            return shown, None
        name = f"{pairing.shown} (job {self._job})"
        return {**shown, "name": name, "sourceReference": self._reference(path)}, None

    def _below(self, here: str) -> str:
        return here[len(self._texts.sources.local) :]

    def _library(self, source: Message, path: str) -> Message:
        self._seen.add(path)
        if self._libraries_are_here and os.path.exists(path):
            source = {**source, "sourceReference": 0}
        return {**source, "path": self.coordinates.path_out(path)} if path else source

    def _reference(self, path: str) -> int:
        if path not in self._numbers:
            number = self._numbers[path] = next(self._counter)
            self._references[number] = path
        return self._numbers[path]

    def _notice(self, pairing: Pairing | None) -> None:
        if pairing is None or pairing.path in self._noticed:
            return
        if notice := pairing.notice(self._job):
            self._noticed.add(pairing.path)
            self._notices.append(notice)
