"""Questions to the person at the terminal; only a command in the foreground may ask them."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
from collections.abc import Callable, Iterator

from rdev.client.session.foreground import require_own_terminal

# How soon a question that nobody wants answered any more goes away.
_GLANCE = 0.1


def can_ask() -> bool:
    """Whether somebody sits at our stdin and looks at us, and not at another job of their shell.

    Raises:
        HandedBack: Somebody does, and it is not this process that their terminal belongs to.
    """
    require_own_terminal()
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def ask(prompt: str, *, echo: bool = True, is_over: Callable[[], bool] = lambda: False) -> str:
    """Asks at the terminal and returns the answer without its line end; blocks.

    Args:
        prompt: May come from the host; its escape sequences are taken out.
        echo: Whether what is typed is seen.
        is_over: Looked at while nothing is typed; once it is true nobody wants the answer.

    Raises:
        OSError: There is no terminal after all.
        EOFError: It was closed, or nobody wants the answer any more.
    """
    from rdev.client.ui.escapes import one_line

    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        with _echoing(terminal, echo=echo):
            os.write(terminal, f"{one_line(prompt).rstrip()} ".encode(errors="replace"))
            answer = b""
            while not answer.endswith(b"\n"):
                answer += _typed(terminal, is_over)
    finally:
        os.close(terminal)
    return answer.decode(errors="replace").rstrip("\r\n")


def _typed(terminal: int, is_over: Callable[[], bool]) -> bytes:
    while not select.select([terminal], [], [], _GLANCE)[0]:
        if is_over():
            raise EOFError("it was called off")
    typed = os.read(terminal, 4096)
    if not typed:
        raise EOFError("the terminal was closed")
    return typed


@contextlib.contextmanager
def _echoing(terminal: int, *, echo: bool) -> Iterator[None]:
    modes = termios.tcgetattr(terminal)
    quiet = [*modes]
    quiet[3] = modes[3] | termios.ICANON | (termios.ECHO if echo else 0)
    if not echo:
        quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, modes)
        if not echo:  # nor was the end of the line seen
            os.write(terminal, b"\r\n")


def tell(line: str) -> None:
    """Says something of the host's to the person; its escape sequences are taken out."""
    from rdev.client.ui.escapes import one_line

    line = line.rstrip("\r\n")  # ssh ends lines as a raw terminal needs it
    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()
