"""Tells the keys that are meant for rdev from those that are meant for the job.

    LINE_START --~--> HELD --d or .--> leave
        ^  |            |--?--> help, the line is still at its start
        |  any          '--~, or any other key--> typed, the tilde first
     Enter |            |
        |  v            v
       WITHIN A LINE <--'

A tilde counts only as the first key of a line, as in ssh: elsewhere it is a key like any other. So
it is in what is pasted, where the terminal marks a paste because the program asked for that.

A person may have chosen keys to detach with besides. They are held back for as long as they may
become those, and are the job's if they do not.
"""

from __future__ import annotations

import enum
import string
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


# With Ctrl these send their code without its upper bits.
_WITH_CTRL = f"@{string.ascii_uppercase}[\\]^_"


def detach_keys(word: str) -> bytes:
    """Keys as typed on a command line: characters and `ctrl-X` with commas between, as in docker.

    Raises:
        ValueError: It names no keys.
    """
    return bytes(_key(name) for name in word.split(","))


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii() and name.isprintable():
        return ord(name)
    has_ctrl, letter = name[:5].lower() == "ctrl-", name[5:].upper()
    if has_ctrl and len(letter) == 1 and letter in _WITH_CTRL:
        return ord(letter) & 0x1F
    raise ValueError(f"{name!r} is no key: write a character, or ctrl- and a letter")


class Keys:
    """Follows what is typed; see the module's picture.

    Args:
        detach: Keys that detach besides, in a row; none by default.
    """

    def __init__(self, detach: bytes = b"") -> None:
        self._detach = detach
        self._begun = b""
        self._at_start = True
        self._is_held = False
        self._is_pasted = False
        self._last = b""

    def feed(self, typed: bytes) -> Iterator[bytes | Wish]:
        """Yields what goes to the job and what is asked of rdev, in the order of typing.

        What was typed after a wish to leave is not the job's any more: stop reading there.
        """
        keys = bytearray()
        for key in self._chosen(typed):
            wish = key if isinstance(key, Wish) else self._wish(key)
            if not isinstance(key, Wish) and wish is None:
                keys += self._typed(key)
                continue
            if keys:
                yield bytes(keys)
                keys.clear()
            if wish is not None:
                yield wish
        if keys:
            yield bytes(keys)

    def _chosen(self, typed: bytes) -> Iterator[int | Wish]:
        """The keys, and the wish to leave in place of those that were chosen for it."""
        for key in typed:
            if not self._detach or self._is_pasted:
                yield key
                continue
            self._begun += bytes((key,))
            if self._begun == self._detach:
                self._begun = b""
                yield Wish.LEAVE
            while not self._detach.startswith(self._begun):
                yield self._begun[0]
                self._begun = self._begun[1:]

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
