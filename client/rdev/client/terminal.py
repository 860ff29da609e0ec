"""The terminal that a person sits at: its size, its modes, and giving it back as it was.

A program in a terminal job speaks to this terminal as if it ran here: keys go to it unseen by the
kernel's line editor, and what it switches on is switched off again when the person leaves it.
"""

from __future__ import annotations

import contextlib
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator

from rdev.wire.job import Window

# Kinds of terminal that say what they can do by these variables.
_TELLING = ("TERM", "COLORTERM")
_PLAIN_TERM = "xterm"

# Indices into what `tcgetattr` returns.
_LFLAG, _CC = 3, 6


def window_of(descriptor: int) -> Window:
    """The size of the terminal at that descriptor; the customary one where it has none."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return Window()
    return Window(rows, columns) if rows and columns else Window()


def terminal_environment() -> dict[str, str]:
    """Variables that tell a program which kind of terminal shows it."""
    found = {name: os.environ[name] for name in _TELLING if name in os.environ}
    return {"TERM": _PLAIN_TERM, **found}


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[Callable[[], None]]:
    """Every key comes as it is typed, and what is written is shown as it is.

    Yields:
        Makes it so again after somebody else has used the terminal.
    """
    with _restored(descriptor):
        tty.setraw(descriptor, termios.TCSANOW)
        yield lambda: tty.setraw(descriptor, termios.TCSANOW)


@contextlib.contextmanager
def single_keys(descriptor: int) -> Iterator[None]:
    """Keys come singly and are not shown; Ctrl-C is a signal. Drops what was typed before."""
    with _restored(descriptor):
        modes = termios.tcgetattr(descriptor)
        modes[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
        modes[_CC][termios.VMIN], modes[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, modes)
        yield


@contextlib.contextmanager
def _restored(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            # Now, not after the output has been shown: a terminal that shows none must not hold us.
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


# DECSET and DECRST of xterm's ctlseqs: what a full-screen program switches on and means to switch
# off at its end. Cursor shown (25) and autowrap (7) are on by default, the others off.
_PRIVATE_MODE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_ON_BY_DEFAULT = frozenset({b"7", b"25"})
_FOLLOWED = _ON_BY_DEFAULT | {
    b"1", b"9", b"47", b"66", b"1000", b"1002", b"1003", b"1004", b"1005", b"1006", b"1015",
    b"1047", b"1049", b"2004",
}  # fmt: skip
_KEYPAD = re.compile(rb"\x1b[=>]")

# The longest of the sequences that is followed, less one byte: it may come in two parts.
_CARRY = 31


class Modes:
    """Follows which modes of the terminal a job has changed, so that leaving it undoes them."""

    def __init__(self) -> None:
        self._changed: dict[bytes, None] = {}
        self._carried = b""

    def feed(self, shown: bytes) -> None:
        """Takes note of what the job prints."""
        text = self._carried + shown
        for match in _PRIVATE_MODE.finditer(text):
            for mode in match[1].split(b";"):
                self._note(mode, is_on=match[2] == b"h")
        for match in _KEYPAD.finditer(text):
            self._note(b"=", is_on=match[0] == b"\x1b=")
        self._carried = text[-_CARRY:]

    def undoing(self) -> bytes:
        """What to write to the terminal so that a shell finds it as it was."""
        undone = [_undo(mode) for mode in reversed(self._changed)]
        # Colours and line drawing cost nothing to end, and are not worth following.
        return b"".join(undone) + b"\x1b[m\x1b(B" if undone else b""

    def _note(self, mode: bytes, *, is_on: bool) -> None:
        if mode not in _FOLLOWED and mode != b"=":
            return
        if is_on != (mode in _ON_BY_DEFAULT):
            self._changed[mode] = None
        else:
            self._changed.pop(mode, None)


def _undo(mode: bytes) -> bytes:
    if mode == b"=":
        return b"\x1b>"
    return b"\x1b[?" + mode + (b"h" if mode in _ON_BY_DEFAULT else b"l")
