"""Source files here and on the host: which line a person means, and how a path is shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rdev.protocol.errors import UsageError

# `train.py:42`; a job's name has neither a dot nor a colon.
_PLACE = re.compile(r"(?P<file>.+\.\w+):(?P<line>[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Place:
    """A line as it was typed."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def parse_place(word: str) -> Place | None:
    """The place that a word names; None if it is no FILE:LINE."""
    match = _PLACE.fullmatch(word)
    return Place(match["file"], int(match["line"])) if match else None


def parse_condition(text: str) -> str:
    """The expression that decides whether a breakpoint stops.

    Raises:
        UsageError: It is none; the debugger would not say so, and never stop.
    """
    condition = text.strip()
    try:
        compile(condition, "--when", "eval")
    except (SyntaxError, ValueError) as error:
        cause = f"{text!r} is no Python expression: {error.args[0]}"
        raise UsageError("understand --when", cause) from error
    return condition


def split_words(words: list[str]) -> tuple[str, list[Place]]:
    """The job (empty if none was named) and the places among a command line's words.

    Raises:
        UsageError: More than one word is no place.
    """
    places = [parse_place(word) for word in words]
    jobs = [word for word, place in zip(words, places, strict=True) if place is None]
    if len(jobs) > 1:
        raise UsageError("debug a job", f"{jobs[1]!r} is not FILE:LINE, and the job is {jobs[0]!r}")
    return "".join(jobs), [place for place in places if place is not None]


@dataclass(frozen=True, slots=True)
class Sources:
    """The same tree twice.

    Attributes:
        local: The workspace's root here; empty if the job's workspace is not here.
        remote: Its folder on the host.
    """

    local: str
    remote: str

    def on_host(self, file: str) -> str:
        """The path on the host of a file as typed here, relative to the current folder."""
        found = self.counterpart(file)
        return os.path.join(self.remote, file) if found is None else found

    def counterpart(self, file: str) -> str | None:
        """Where a file of the workspace here lies on the host; None for any other file."""
        path = os.path.realpath(file)
        if not self.local or not path.startswith(self.local.rstrip(os.sep) + os.sep):
            return None
        return os.path.join(self.remote, os.path.relpath(path, self.local))

    def inside(self, path: str) -> str | None:
        """A host's path relative to the workspace; None if it lies elsewhere."""
        root = self.remote.rstrip("/")
        if path.startswith(root + "/"):
            return os.path.relpath(path, root)
        # Where a home is a link, a process knows the folder by the link's target: the same to its
        # last two names, which no other folder of a home has.
        *_, parent, name = root.split("/") if root.count("/") > 1 else ("", "", "")
        _, found, rest = path.partition(f"/{parent}/{name}/") if name else ("", "", "")
        return os.path.normpath(rest) if found and rest else None

    def here(self, path: str) -> str | None:
        """Where a host's file of the workspace lies here; None if it does not."""
        inside = self.inside(path)
        return os.path.join(self.local, inside) if inside is not None and self.local else None

    def shown(self, path: str) -> str:
        """A path on the host as people know it: relative to the workspace where it lies in it."""
        return self.inside(path) or path
