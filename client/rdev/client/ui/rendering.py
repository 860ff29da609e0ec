"""How a job's output is put onto a file, onto a terminal, and onto one that several ranks share.

    Raw       every byte as it came: pipes and files
    Lines     every byte too, but whole lines of each rank, as several write into one pipe or file
    Screen    a terminal: control sequences filtered, progress bars folded
    Program   a terminal that a job has to itself: only titles, clipboard and so on are kept from it
    Labelled  whole lines with a label each, `[rank 1]` or a time; on a terminal as on a Screen, and
              the line that is not finished yet is shown below the others until it is

All are pure: they take chunks and return what to write.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from rdev.client.logs import Chunk
from rdev.client.ui.columns import beginning
from rdev.client.ui.escapes import EscapeFilter, Passing
from rdev.client.ui.folding import Folder, fold_line, width

# A line longer than this is shown in parts: a terminal wraps it anyway, a file may want it whole.
_LONGEST_ON_TERMINAL = 64 << 10
_LONGEST_IN_FILE = 16 << 20

# What a rank has written without an end of line is held back so far: bytes without lines go on.
_LONGEST_HELD = 64 << 10

# An unfinished line is folded whenever it has doubled, and not before it has this many bytes: a bar
# that is drawn byte by byte must not cost its square.
_FOLD_FROM = 4096

_ERASE = b"\r\x1b[K"
_END_OF_STYLE = b"\x1b[m"
_SEQUENCE = re.compile(rb"\x1b\[[0-9;:]*[mK]")

# An old way of going back to where the line begins.
_BACK = re.compile(rb"\x08+\r")

# What moves the cursor or rings, and would again with each redrawing of an unfinished line: C0 but
# ESC, which begins the colours that are left, and C1.
_ACTS = re.compile("[\x00-\x1a\x1c-\x1f\x7f-\x9f]")
_BACKSPACES = re.compile("(\b+)(?=[^\b])")
_TAB_STOPS = 8

# Told apart on dark and light screens: cyan, yellow, green, magenta, blue, red.
_COLOURS = (36, 33, 32, 35, 34, 31)
_FAINT = 2


class Rendering(Protocol):
    """Turns chunks into what to write; fed in order, from one thread.

    Attributes:
        is_waiting: `settle` would show something: a line that did not end in a while.
    """

    is_waiting: bool

    def feed(self, chunk: Chunk) -> bytes:
        """What to write at once."""

    def settle(self) -> bytes:
        """What to write when nothing has followed for a moment."""

    def end(self) -> bytes:
        """What to write at the end of the output."""


class Raw:
    """See the module's first lines."""

    is_waiting = False

    def feed(self, chunk: Chunk) -> bytes:
        """See `Rendering`."""
        return chunk.data

    def settle(self) -> bytes:
        """See `Rendering`."""
        return b""

    def end(self) -> bytes:
        """See `Rendering`."""
        return b""


class Lines:
    """See the module's first lines; what each rank wrote to each stream stays in order."""

    is_waiting = False

    def __init__(self) -> None:
        self._begun: dict[tuple[int, str], bytes] = {}

    def feed(self, chunk: Chunk) -> bytes:
        """See `Rendering`."""
        key = chunk.rank, chunk.stream
        data = self._begun.get(key, b"") + chunk.data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > _LONGEST_HELD:
            end = len(data)
        self._begun[key] = data[end:]
        return data[:end]

    def settle(self) -> bytes:
        """See `Rendering`."""
        return b""

    def end(self) -> bytes:
        """See `Rendering`."""
        return self.leave()

    def leave(self) -> bytes:
        """What to write when nobody reads any more, at the end or before."""
        begun, self._begun = self._begun, {}
        return b"".join(begun.values())


class Screen:
    """See the module's first lines."""

    is_waiting = False

    def __init__(self) -> None:
        self._filters: dict[tuple[int, str], EscapeFilter] = {}
        self._folders: dict[tuple[int, str], Folder] = {}
        self._is_cursor_hidden = False

    def feed(self, chunk: Chunk) -> bytes:
        """See `Rendering`."""
        key = chunk.rank, chunk.stream
        kept = self._filters.setdefault(key, EscapeFilter())
        shown = self._folders.setdefault(key, Folder()).feed(kept.feed(chunk.data))
        if b"\x1b[?25" in shown:
            self._is_cursor_hidden = shown.rfind(b"\x1b[?25l") > shown.rfind(b"\x1b[?25h")
        return shown

    def settle(self) -> bytes:
        """See `Rendering`."""
        return b""

    def end(self) -> bytes:
        """See `Rendering`: a job that was killed does not give the cursor back."""
        rest = b"".join(kept.flush() for kept in self._filters.values())
        return rest + self.leave()

    def leave(self) -> bytes:
        """What to write when nobody looks any more, at the end or before."""
        shown = b"\x1b[?25h" if self._is_cursor_hidden else b""
        self._is_cursor_hidden = False
        return shown


class Program:
    """See the module's first lines; what is shown again after it has no questions any more."""

    is_waiting = False

    def __init__(self) -> None:
        self._kept = EscapeFilter(Passing.PROGRAM)

    def feed(self, chunk: Chunk) -> bytes:
        """See `Rendering`."""
        return self._kept.feed(chunk.data)

    def settle(self) -> bytes:
        """See `Rendering`."""
        return b""

    def end(self) -> bytes:
        """See `Rendering`."""
        return self._kept.flush()


@dataclass(slots=True)
class _Line:
    """The line that an output is writing, in the parts in which it came."""

    length: int = 0
    time: float = 0.0
    kept: EscapeFilter = field(default_factory=lambda: EscapeFilter(Passing.LINE))
    _parts: list[bytes] = field(default_factory=list)
    _fold_from: int = _FOLD_FROM

    def add(self, text: bytes, at: float) -> None:
        """Goes on with the line."""
        if not self.length:
            self.time = at
        if text:
            self._parts.append(text)
            self.length += len(text)

    def whole(self) -> bytes:
        """The line so far."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def folded(self) -> bytes:
        """The line so far, and from now on, without what is drawn over in it."""
        text = fold_line(_BACK.sub(b"\r", self.whole()))
        self._parts, self.length = [text], len(text)
        self._fold_from = max(2 * self.length, _FOLD_FROM)
        return text

    def fold_if_long(self) -> None:
        """Folds it now and then, so that it takes no more memory than what it shows."""
        if self.length >= self._fold_from:
            self.folded()

    def clear(self) -> None:
        """Begins a new line."""
        self._parts, self.length, self._fold_from = [], 0, _FOLD_FROM


class Labelled:
    """See the module's first lines.

    Args:
        label: Makes a line's label of its chunk's rank and stream and the time at which its first
            byte was recorded.
        columns: How wide the terminal is; None for a file.
    """

    def __init__(
        self,
        label: Callable[[int, str, float], bytes],
        *,
        columns: Callable[[], int] | None,
    ) -> None:
        self._label = label
        self._columns = columns
        self._longest = _LONGEST_IN_FILE if columns is None else _LONGEST_ON_TERMINAL
        self._lines: dict[tuple[int, str], _Line] = {}
        self._latest: tuple[int, str] | None = None
        self._is_below = False
        self.is_waiting = False

    def feed(self, chunk: Chunk) -> bytes:
        """See `Rendering`."""
        key = chunk.rank, chunk.stream
        line = self._lines.setdefault(key, _Line())
        data = chunk.data if self._columns is None else line.kept.feed(chunk.data)
        *ended, unfinished = data.split(b"\n")
        shown: list[bytes] = []
        for text in ended:
            line.add(text, chunk.time)
            shown += (self._finished(key, line), b"\n")
        line.add(unfinished, chunk.time)
        if self._columns is not None:
            line.fold_if_long()
        if line.length > self._longest:
            shown += (self._finished(key, line), b"\n")
        if line.length:
            self._latest = key
        if self._columns is None:
            return b"".join(shown)
        self.is_waiting = bool(line.length) or self.is_waiting
        return self._above(b"".join(shown)) if shown else b""

    def settle(self) -> bytes:
        """See `Rendering`: the unfinished line that was written to last, in place of the last."""
        self.is_waiting = False
        below = self._below()
        shown = (_ERASE if self._is_below else b"") + below
        self._is_below = bool(below)
        return shown

    def end(self) -> bytes:
        """See `Rendering`."""
        ending = b"" if self._columns is None else b"\n"
        left = [
            self._finished(key, line) + ending for key, line in self._lines.items() if line.length
        ]
        shown = (_ERASE if self._is_below else b"") + b"".join(left)
        self._is_below = self.is_waiting = False
        return shown

    def apart(self, shown: bytes) -> bytes:
        """A line of our own between those of the job."""
        return self._above(shown) if self._is_below else shown

    def _above(self, shown: bytes) -> bytes:
        """Whole lines, with the unfinished one still below them."""
        if not self._is_below:
            return shown
        below = self._below()
        self._is_below = bool(below)
        return _ERASE + shown + below

    def _below(self) -> bytes:
        line = self._lines.get(self._latest) if self._latest else None
        if self._latest is None or self._columns is None or line is None or not line.length:
            return b""
        label = self._label(*self._latest, line.time)
        state = _still(_last_state(line.folded()), begin=width(label))
        room = max(self._columns() - 1 - width(label), 0)
        if width(state) > room:
            state = _cut(_SEQUENCE.sub(b"", state), room)
        return label + state + (_END_OF_STYLE if b"\x1b" in state else b"")

    def _finished(self, key: tuple[int, str], line: _Line) -> bytes:
        label = self._label(*key, line.time)
        whole = line.whole() if self._columns is None else line.folded()
        line.clear()
        if self._columns is None:
            return label + whole
        states = [state for state in whole.split(b"\r") if state] or [b""]
        shown = b"\r".join(label + state for state in states)
        return shown + (_END_OF_STYLE if b"\x1b" in whole else b"")


def _last_state(line: bytes) -> bytes:
    return next((state for state in reversed(line.split(b"\r")) if state), b"")


def _still(state: bytes, *, begin: int) -> bytes:
    """The state as it looks, without characters that do something: it is shown again and again.

    Args:
        state: What an output last wrote into its line.
        begin: The column where it begins.
    """
    text = state.decode(errors="replace")
    if not _ACTS.search(text):
        return state
    first, *others = _drawn_over(text).split("\t")
    drawn = _ACTS.sub("", first)
    for piece in others:
        gap = _TAB_STOPS - (begin + width(drawn.encode())) % _TAB_STOPS
        drawn += " " * gap + _ACTS.sub("", piece)
    return drawn.encode()


def _drawn_over(text: str) -> str:
    """The text without what backspaces lead back over: near enough until its line has ended."""
    if "\x1b" in text:  # they do not go over colours
        return text
    drawn = ""
    for part in _BACKSPACES.split(text):
        drawn = drawn[: -len(part)] if part.startswith("\b") else drawn + part
    return drawn


def _cut(text: bytes, columns: int) -> bytes:
    """The beginning of a text without colours that takes at most so many columns."""
    return beginning(text.decode(errors="replace"), columns).encode()


def rank_label(*, is_coloured: bool) -> Callable[[int, str, float], bytes]:
    """`[rank 3] `, or `[launcher] ` for what torchrun prints."""

    def label(rank: int, stream: str, _time: float) -> bytes:
        is_launcher = stream == "launcher"
        text = b"[launcher]" if is_launcher else b"[rank %d]" % rank
        if is_coloured:
            colour = _FAINT if is_launcher else _COLOURS[rank % len(_COLOURS)]
            text = b"\x1b[%dm%s\x1b[m" % (colour, text)
        return text + b" "

    return label


def time_label(_rank: int, _stream: str, at: float) -> bytes:
    """`2026-11-22T14:03:05.123 `: this machine's local time, to the millisecond."""
    moment = datetime.fromtimestamp(at or time.time())  # noqa: DTZ006  # local time is what is told
    return moment.isoformat(timespec="milliseconds").encode() + b" "
