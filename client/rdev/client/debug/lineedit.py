"""Editing one line at a terminal: keys in, what is to be shown out; no I/O.

The keys are those of emacs, as readline has them; history by the arrows. A line longer than the
terminal is wide scrolls sideways.
"""

from __future__ import annotations

import codecs
import enum
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# The longest key sequence that is waited for; terminals send up to a dozen bytes.
_LONGEST_KEY = 16

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|[^\[O])", re.DOTALL)
_BEGUN = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*|O)?\Z")
_WORD = re.compile(r"\w+\W*")
_WORD_BEFORE = re.compile(r"\w+\W*\Z|\W+\Z")


class Typed(enum.Enum):
    """What a key led to, apart from a change of the line."""

    LINE = "line"
    """The line is complete."""
    END = "end"
    """Ctrl-D on an empty line."""
    INTERRUPT = "interrupt"
    """Ctrl-C."""
    COMPLETE = "complete"
    """Tab."""


class Edit(enum.Enum):
    """What a key does to the line, or to the cursor in it."""

    LEFT, RIGHT, HOME, END, WORD_LEFT, WORD_RIGHT = range(6)
    ERASE, DELETE, KILL_TO_END, KILL_TO_HOME, KILL_WORD, KILL_NEXT_WORD, YANK = range(6, 13)
    EARLIER, LATER = range(13, 15)


# As xterm, the Linux console and tmux send them, and readline's own.
_KEYS_OF = {
    Edit.LEFT: ("\x1b[D", "\x1bOD", "\x02"),
    Edit.RIGHT: ("\x1b[C", "\x1bOC", "\x06"),
    Edit.HOME: ("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01"),
    Edit.END: ("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05"),
    Edit.WORD_LEFT: ("\x1bb", "\x1b[1;5D", "\x1b[1;3D"),
    Edit.WORD_RIGHT: ("\x1bf", "\x1b[1;5C", "\x1b[1;3C"),
    Edit.ERASE: ("\x7f", "\x08"),
    Edit.DELETE: ("\x1b[3~", "\x04"),
    Edit.KILL_TO_END: ("\x0b",),
    Edit.KILL_TO_HOME: ("\x15",),
    Edit.KILL_WORD: ("\x17", "\x1b\x7f"),
    Edit.KILL_NEXT_WORD: ("\x1bd",),
    Edit.YANK: ("\x19",),
    Edit.EARLIER: ("\x1b[A", "\x1bOA", "\x10"),
    Edit.LATER: ("\x1b[B", "\x1bOB", "\x0e"),
}
_KEYS = {key: edit for edit, keys in _KEYS_OF.items() for key in keys}


@dataclass(frozen=True, slots=True)
class View:
    """A line as a terminal shows it.

    Attributes:
        text: What is visible, prompt included.
        column: Where the cursor stands, from 0.
    """

    text: str
    column: int


class LineEditor:
    """One line after the other.

    Attributes:
        text: The line so far.
        cursor: Characters before the cursor.
    """

    def __init__(self, history: Sequence[str] = ()) -> None:
        self.text = ""
        self.cursor = 0
        self._history = list(history)
        self._place = len(self._history)
        self._draft = ""
        self._killed = ""
        self._keys = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, data: bytes) -> None:
        """Adds bytes that were typed; `step` acts on them."""
        self._keys += self._decoder.decode(data)

    def step(self) -> Typed | None:
        """Acts on keys up to one that leads to something; None when there are no more."""
        while self._keys:
            key = self._next_key()
            if not key:
                return None
            if (typed := self._act(key)) is not None:
                return typed
        return None

    def forget(self) -> None:
        """Drops what was typed and not acted on."""
        self._keys = ""
        self.text, self.cursor = "", 0

    def begin(self) -> None:
        """Begins a new line; the last one is remembered."""
        if self.text.strip() and self._history[-1:] != [self.text]:
            self._history.append(self.text)
        self.text, self.cursor, self._draft = "", 0, ""
        self._place = len(self._history)

    def insert(self, text: str) -> None:
        """Puts text in at the cursor."""
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def view(self, prompt: str, columns: int) -> View:
        """The line as it is to be shown in so many columns."""
        room = max(8, columns - width(prompt) - 1)
        first = 0
        while width(self.text[first : self.cursor]) > room:
            first += 1
        last = len(self.text)
        while width(self.text[first:last]) > room:
            last -= 1
        column = width(prompt) + width(self.text[first : self.cursor])
        return View(prompt + self.text[first:last], column)

    def _next_key(self) -> str:
        if not self._keys.startswith("\x1b"):
            key, self._keys = self._keys[0], self._keys[1:]
            return key
        match = _SEQUENCE.match(self._keys)
        if match is None and _BEGUN.match(self._keys) and len(self._keys) < _LONGEST_KEY:
            return ""  # the rest is on its way
        key = match[0] if match else self._keys[0]
        self._keys = self._keys[len(key) :]
        return key

    def _act(self, key: str) -> Typed | None:
        if key in ("\r", "\n"):
            return Typed.LINE
        if key == "\x03":
            return Typed.INTERRUPT
        if key == "\t":
            return Typed.COMPLETE
        if key == "\x04" and not self.text:
            return Typed.END
        if key in _KEYS:
            self._edit(_KEYS[key])
        elif key.isprintable():
            self.insert(key)
        return None

    def _move(self, cursor: int) -> None:
        self.cursor = max(0, min(cursor, len(self.text)))

    def _cut(self, first: int, last: int, *, keeps: bool = True) -> None:
        first, last = max(0, first), min(last, len(self.text))
        if keeps:
            self._killed = self.text[first:last]
        self.text = self.text[:first] + self.text[last:]
        self.cursor = first

    def _edit(self, edit: Edit) -> None:
        at, end = self.cursor, len(self.text)
        goals = {
            Edit.LEFT: at - 1,
            Edit.RIGHT: at + 1,
            Edit.HOME: 0,
            Edit.END: end,
            Edit.WORD_LEFT: self._word_start(),
            Edit.WORD_RIGHT: self._word_end(),
        }
        spans = {
            Edit.ERASE: (at - 1, at),
            Edit.DELETE: (at, at + 1),
            Edit.KILL_TO_END: (at, end),
            Edit.KILL_TO_HOME: (0, at),
            Edit.KILL_WORD: (self._word_start(), at),
            Edit.KILL_NEXT_WORD: (at, self._word_end()),
        }
        if edit in goals:
            self._move(goals[edit])
        elif edit in spans:
            self._cut(*spans[edit], keeps=edit not in (Edit.ERASE, Edit.DELETE))
        elif edit is Edit.YANK:
            self.insert(self._killed)
        else:
            self._recall(-1 if edit is Edit.EARLIER else 1)

    def _word_start(self) -> int:
        match = _WORD_BEFORE.search(self.text[: self.cursor])
        return match.start() if match else 0

    def _word_end(self) -> int:
        match = _WORD.search(self.text, self.cursor)
        return match.end() if match else len(self.text)

    def _recall(self, step: int) -> None:
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return
        if self._place == len(self._history):
            self._draft = self.text
        self._place = place
        self.text = self._draft if place == len(self._history) else self._history[place]
        self.cursor = len(self.text)


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(_width_of(letter) for letter in text)


def _width_of(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
