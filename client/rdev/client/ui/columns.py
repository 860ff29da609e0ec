"""How many columns of a terminal text takes, and tables whose columns stand below each other.

Wide and fullwidth characters of UAX 11 take two columns, marks on other characters none.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

# Marks, and what only directs how others are shown.
_UNSEEN = frozenset({"Mn", "Me", "Cf"})

# The later parts of a Korean syllable are drawn into its first one.
_FIRST_JUNGSEONG, _LAST_JONGSEONG = "\u1160", "\u11ff"
_SOFT_HYPHEN = "\u00ad"


def width(text: str) -> int:
    """Columns that a text takes that has no control characters."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def shortened(text: str, columns: int) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if width(text) <= columns:
        return text
    return f"{beginning(text, columns - 1)}…"


def beginning(text: str, columns: int) -> str:
    """As much of the text's beginning as takes at most so many columns."""
    left = columns
    for number, letter in enumerate(text):
        left -= _columns(letter)
        if left < 0:
            return text[:number]
    return text


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each as lines, with the cells of a column below each other."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


@functools.cache
def _columns(letter: str) -> int:
    if unicodedata.east_asian_width(letter) in "WF":
        return 2
    is_drawn_in = _FIRST_JUNGSEONG <= letter <= _LAST_JONGSEONG
    is_unseen = unicodedata.category(letter) in _UNSEEN and letter != _SOFT_HYPHEN
    return 0 if is_drawn_in or is_unseen else 1
