"""Prepares what a terminal job printed earlier for being shown again.

A recorded screen holds questions to the terminal, such as where the cursor stands. Asked again they
would be answered, and the answer would arrive at the job as keys that nobody pressed.
"""

from __future__ import annotations

import re

# Everything in ECMA-48 and xterm's ctlseqs that makes a terminal send something by itself.
_QUESTIONS = re.compile(
    rb"\x05"  # ENQ
    rb"|\x1bZ"  # DECID
    rb"|\x1b\[[?>=]?[0-9;]*c"  # device attributes
    rb"|\x1b\[\??[0-9;]*n"  # device status, cursor position
    rb"|\x1b\[[0-9;]*x"  # terminal parameters
    rb"|\x1b\[>[0-9;]*q"  # the terminal's version
    rb"|\x1b\[\??[0-9;]*\$p"  # is this mode set?
    rb"|\x1b\[\?[0-9;]*u"  # keyboard protocol flags
    rb"|\x1b\[(?:1[1-9]|2[01])(?:;[0-9]*)*t"  # window reports
    rb"|\x1bP[+$]q[^\x1b\x07]*(?:\x1b\\|\x07)"  # termcap and settings
    rb"|\x1b\][0-9]+;[^\x1b\x07?]*\?[^\x1b\x07]*(?:\x1b\\|\x07)"  # colours, clipboard
    rb"|\x1b_G[^\x1b]*\x1b\\"  # kitty's graphics, which answers
)

_NEWLINE = re.compile(rb"\n")


def replayed(recorded: bytes, *, lines: int, is_whole: bool) -> bytes:
    """The end of a recording, fit to be written to a terminal.

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
    return _QUESTIONS.sub(b"", recorded[start:])
