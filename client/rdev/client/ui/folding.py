r"""Leaves out of a line what is drawn over later: a progress bar shows its last state only.

A line is what lies between newlines; `\r` begins it anew, over what is there. A state is left out
when a later one is at least as wide, or erases the line: what a terminal shows in the end is the
same. Where a state moves the cursor otherwise, it and all before it are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rdev.client.ui import columns

# A state that does anything but print, colour and erase: nothing before it can be left out.
_MOVES = re.compile(rb"[\x00-\x0c\x0e-\x1a\x1c-\x1f\x7f]|\x1b(?!\[[0-9;:]*m|\[[02]?K)")
_ERASES = re.compile(rb"\x1b\[[02]?K")
_STYLE = re.compile(rb"\x1b\[[0-9;:]*m")
_RESETS = re.compile(rb"\x1b\[0*m")
_UNSEEN = re.compile(rb"\x1b\[[0-9;:]*[mK]")

# Nobody counts on more colours than this being set one after the other without an end.
_STYLES = 16

# An unfinished line is remembered so far, to know where the next chunk goes on.
_REMEMBERED = 4096


def width(text: bytes) -> int:
    """Columns that a text without cursor movement takes, colours left out."""
    if b"\x1b" in text:
        text = _UNSEEN.sub(b"", text)
    return len(text) if text.isascii() else columns.width(text.decode(errors="replace"))


def fold_line(line: bytes, *, column: int = 0) -> bytes:
    r"""The line without states that are drawn over; it shows the same.

    Args:
        line: One line, without newline.
        column: Where in the line its first state begins, if that is shown already.
    """
    if b"\r" not in line:
        return line
    states = line.split(b"\r")
    first = _last_moving(states) + 1 if _MOVES.search(line) else 0
    kept = set(_seen(states, first, column))
    shown = states[:first]
    if column and not first and 0 not in kept:
        shown.append(b"")  # the way back to where the line begins
    style = b""
    for number in range(first, len(states)):
        state = states[number]
        if number in kept:
            shown.append(style + state)
            style = b""
        elif b"\x1b" in state:
            style = _style_after(style + state)
    return b"\r".join(shown)


def _seen(states: list[bytes], first: int, column: int) -> Iterator[int]:
    """Which of the states from `first` on are still to be seen, in part at least, in the end."""
    last = len(states) - 1
    covered = 0
    for number in range(last, first - 1, -1):
        state = states[number]
        begun = column if number == 0 else 0
        # Hardly a character takes more columns than bytes, so that mostly nothing is measured.
        reached = begun + (width(state) if begun + len(state) > covered else 0)
        erases = b"\x1b" in state and _ERASES.search(state) is not None
        if reached > covered or erases or number == last:
            yield number
        covered = max(covered, reached)
        if erases:
            return


def _style_after(text: bytes) -> bytes:
    """The colours that hold after a text, as the sequences that set them."""
    begin = 0
    for reset in _RESETS.finditer(text):
        begin = reset.start()
    styles = _STYLE.findall(text, begin)
    return b"".join(styles[-_STYLES:])


def _last_moving(states: list[bytes]) -> int:
    for number in range(len(states) - 1, -1, -1):
        if _MOVES.search(states[number]):
            return number
    return -1


class Folder:
    """Folds the lines of one output as its chunks come; what it returns is shown at once."""

    def __init__(self) -> None:
        self._state = b""

    def feed(self, data: bytes) -> bytes:
        """The chunk without states that are drawn over in the same chunk."""
        lines = data.split(b"\n") if b"\r" in data else []
        if any(b"\r" in line.rstrip(b"\r") for line in lines):
            column = width(self._state)
            lines[0] = fold_line(lines[0], column=column)
            lines[1:] = [fold_line(line) for line in lines[1:]]
            shown = b"\n".join(lines)
        else:
            shown = data
        self._remember(shown)
        return shown

    def _remember(self, shown: bytes) -> None:
        """Keeps what the line that the cursor is in shows left of it."""
        begin = max(shown.rfind(b"\n"), shown.rfind(b"\r")) + 1
        self._state = ((b"" if begin else self._state) + shown[begin:])[-_REMEMBERED:]
