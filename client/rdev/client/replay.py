"""Prepares what a terminal job printed earlier for being shown again."""

from __future__ import annotations

import re

from rdev.client.ui.escapes import EscapeFilter, Passing

_NEWLINE = re.compile(rb"\n")


def replayed(recorded: bytes, *, lines: int, is_whole: bool) -> bytes:
    """The end of a recording, fit to be written to a terminal.

    It asks the terminal nothing: nobody waits for an answer, which would arrive at the job as keys
    that nobody pressed.

    Args:
        recorded: The last bytes that the job printed.
        lines: So many lines at most, the unfinished one not counted.
        is_whole: Nothing was printed before; otherwise the first line, which may begin in the
            middle of a sequence, is left out.
    """
    ends = [match.end() for match in _NEWLINE.finditer(recorded)]
    start = 0
    if len(ends) > lines:
        start = ends[-lines - 1]
    elif not is_whole:
        start = ends[0] if ends else max(recorded.find(b"\x1b"), 0)
    return EscapeFilter(Passing.REPLAY).feed(recorded[start:])
