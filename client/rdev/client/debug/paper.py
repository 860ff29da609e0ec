"""How the terminal debugger's lines look: colours where they are wanted, and no control sequences.

Everything that a program says about itself passes `clean`: it may move a cursor, or worse.
"""

from __future__ import annotations

import enum

from rdev.client.ui.escapes import one_line

# A value longer than this is cut: a list of a million numbers must not fill the screen.
LONGEST_VALUE = 2000

# The debugger tells no more of a string than so many characters, with dots for the rest.
_LONGEST_TOLD = 1 << 16


class Ink(enum.Enum):
    """What a piece of a line is, and the colour that a terminal gives it."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    WARNING = "33"
    DIFFERENT = "31"


class Paper:
    """Writes pieces of lines.

    Args:
        has_colours: See `rdev.client.debug.prompt.Console`.
    """

    def __init__(self, *, has_colours: bool = False) -> None:
        self._has_colours = has_colours

    def ink(self, text: str, ink: Ink = Ink.PLAIN) -> str:
        """A piece of a line, safe to show."""
        text = clean(text)
        if not self._has_colours or not ink.value or not text:
            return text
        return f"\x1b[{ink.value}m{text}\x1b[0m"


def clean(text: str) -> str:
    """The text with control characters spelled out, but for the ends of its lines."""
    return "\n".join(one_line(line.expandtabs(8)) for line in text.split("\n"))


def cut(value: str, longest: int = LONGEST_VALUE) -> str:
    """A value as far as it is shown."""
    if len(value) <= longest:
        return value
    many = f"more than {_LONGEST_TOLD}" if len(value) > _LONGEST_TOLD else f"{len(value)}"
    return f"{value[:longest]}... ({many} characters)"


def brief(value: str, columns: int) -> str:
    """A value in what is left of a line."""
    line = one_line(value)
    columns = max(columns, 20)
    return line if len(line) <= columns else f"{line[: columns - 3]}..."
