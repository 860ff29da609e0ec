"""What callbacks have to say to people: a line among the program's output, an event in its job."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> str:
    """Prints one line on stderr; returns its text."""
    # Where nobody is there to read it, nothing is lost.
    with contextlib.suppress(OSError, ValueError):
        print(f"rdev.loop: {text}", file=sys.stderr, flush=True)  # noqa: T201  # for people
    return text
