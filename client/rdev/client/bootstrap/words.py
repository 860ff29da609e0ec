"""Words for a login shell of any kind."""

from __future__ import annotations

import re

# What sh, bash, zsh, csh and fish all take as it stands. Letters of other scripts mean nothing to
# any of them; a backslash before one does to some.
_SPECIAL = re.compile(r"([^A-Za-z0-9_@%+:,./\u0080-\U0010ffff-])")


def command(*words: str) -> str:
    """The words as one command line, for sh, csh and fish alike.

    Quotes differ between these, and a backslash before what is neither letter nor digit does not.

    Raises:
        ValueError: A word holds a line break, which csh cannot be given.
    """
    if any(character in word for word in words for character in "\r\n\0"):
        raise ValueError("a word for a shell holds a line break")
    return " ".join(_SPECIAL.sub(r"\\\1", word) for word in words)
