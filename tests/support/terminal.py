"""A pseudo-terminal that a real `rdev` runs in, and what a person does there."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.command import DEADLINE, Rdev


class Terminal:
    """The far end of a pseudo-terminal that a command runs in."""

    def __init__(self, ours: int, theirs: int, process: subprocess.Popen) -> None:
        self.descriptor = ours
        self.theirs = theirs
        self.process = process
        self.seen = b""
        self._modes = termios.tcgetattr(theirs)

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def expect(self, text: bytes) -> None:
        """Returns once `text` has been shown since the last one that was expected."""
        self.until(lambda: text in self.seen, text)
        self.seen = self.seen.split(text, 1)[1]

    def until(self, condition, what: object = "") -> None:
        """Reads until the condition holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, (what, self.seen)
            if select.select([self.descriptor], [], [], min(left, 0.05))[0]:
                self.seen += os.read(self.descriptor, 65536)

    def resize(self, rows: int, columns: int) -> None:
        """As the window manager does; the kernel tells the processes in it."""
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def is_as_before(self) -> bool:
        """True if the terminal's modes are what they were before the command ran."""
        return termios.tcgetattr(self.theirs) == self._modes

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.theirs)[3] & termios.ICANON

    def wait(self) -> int:
        """The command's exit code; what it still shows is read, so that it is not held up."""
        self.until(lambda: self.process.poll() is not None, "its end")
        while select.select([self.descriptor], [], [], 0)[0]:
            self.seen += os.read(self.descriptor, 65536)
        return self.process.returncode


@contextmanager
def in_terminal(rdev: Rdev, *words: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    """Runs `rdev WORDS` in a terminal of its own, of which it is the session's leader."""
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        with rdev.started(
            *words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm-256color"},
            # Not a function of ours after a fork: this process has threads, gRPC's among them.
            before=("setsid", "--ctty"),
        ) as process:
            yield Terminal(ours, theirs, process)
    finally:
        os.close(ours)
        os.close(theirs)
