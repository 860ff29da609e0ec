"""Tells the keys that are meant for rdev from those that are meant for the job.

    LINE_START --~--> HELD --d or .--> leave
        ^  |            |--?--> help, the line is still at its start
        |  any          '--~, or any other key--> typed, the tilde first
     Enter |            |
        |  v            v
       WITHIN A LINE <--'

A tilde counts only as the first key of a line, as in ssh: elsewhere it is a key like any other. So
it is in what is pasted, where the terminal marks a paste because the program asked for that.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

HELP = "after Enter: ~d or ~. detaches, ~~ types one ~, ~? shows this"

# What a terminal sends for Enter, and for Ctrl-C, after which a shell shows a fresh prompt.
_LINE_ENDS = b"\r\n\x03"
_TILDE, _QUESTION = ord("~"), ord("?")
_LEAVE = b"d."

# The brackets around a paste, see "Bracketed Paste Mode" in xterm's ctlseqs.
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"


class Wish(enum.Enum):
    """What a person asks of rdev."""

    LEAVE = "leave"
    """Detach; the job goes on."""
    HELP = "help"
    """Show which keys there are."""


class Keys:
    """Follows what is typed; see the module's picture."""

    def __init__(self) -> None:
        self._at_start = True
        self._is_held = False
        self._is_pasted = False
        self._last = b""

    def feed(self, typed: bytes) -> Iterator[bytes | Wish]:
        """Yields what goes to the job and what is asked of rdev, in the order of typing.

        What was typed after a wish to leave is not the job's any more: stop reading there.
        """
        keys = bytearray()
        for key in typed:
            wish = self._wish(key)
            if wish is None:
                keys += self._typed(key)
                continue
            if keys:
                yield bytes(keys)
                keys.clear()
            yield wish
        if keys:
            yield bytes(keys)

    def _wish(self, key: int) -> Wish | None:
        if not self._is_held or not (key in _LEAVE or key == _QUESTION):
            return None
        self._is_held, self._at_start = False, True
        return Wish.LEAVE if key in _LEAVE else Wish.HELP

    def _typed(self, key: int) -> bytes:
        self._last = (self._last + bytes((key,)))[-len(_PASTE_BEGINS) :]
        if self._is_pasted:
            self._is_pasted = self._last != _PASTE_ENDS
            return bytes((key,))
        if self._last == _PASTE_BEGINS:
            self._is_pasted, self._at_start = True, False
            return bytes((key,))
        if self._is_held:
            self._is_held = False
            self._at_start = key in _LINE_ENDS
            return b"~" if key == _TILDE else bytes((_TILDE, key))
        if self._at_start and key == _TILDE:
            self._is_held = True
            return b""
        self._at_start = key in _LINE_ENDS
        return bytes((key,))
