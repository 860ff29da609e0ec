"""Questions to the person at the terminal; only a command in the foreground may ask them."""

from __future__ import annotations

import os
import sys


def can_ask() -> bool:
    """Whether somebody sits at our stdin and looks at us, and not at another job of their shell."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def ask(prompt: str, *, echo: bool = True) -> str:
    """Asks at the terminal and returns the answer without its line end; blocks.

    Args:
        prompt: May come from the host; its escape sequences are taken out.
        echo: Whether what is typed is seen.

    Raises:
        OSError: There is no terminal after all.
        EOFError: It was closed.
    """
    from rdev.client.ui.escapes import one_line

    shown = one_line(prompt).rstrip() + " "
    if not echo:
        import getpass

        return getpass.getpass(shown)
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        terminal.write(shown.encode(errors="replace"))
        answer = terminal.readline()
    if not answer:
        raise EOFError("the terminal was closed")
    return answer.decode(errors="replace").rstrip("\r\n")


def tell(line: str) -> None:
    """Says something of the host's to the person; its escape sequences are taken out."""
    from rdev.client.ui.escapes import one_line

    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()
