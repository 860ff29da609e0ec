"""A job's terminal: its bytes go through pipes both ways, its size is what the clients say.

    spool --(rdev.supervisor.feed)--> FIFO --splice--> master   what the job reads
    log <--(rdev.supervisor.output)-- FIFO <--splice-- master   what the job prints

The keeper makes the terminal and holds both ends, and every supervisor inherits them: a supervisor
that dies hangs nothing up, and the bytes are in the terminal, in a pipe or in a file at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import signal
import struct
import termios
from dataclasses import dataclass
from typing import Any, Protocol, Self

from rdev.supervisor.platform import bytes_waiting
from rdev.wire.job import Window

# A terminal gives 4 KiB at a time; asking for more costs a page for each 4 KiB asked.
_READ = 4 << 10
_WRITE = 64 << 10

# What a terminal and its line discipline hold is less; a daemon may go on printing for ever.
_DRAIN = 256 << 10

# struct winsize of ioctl_tty(2): rows, columns and two that nobody uses.
_SIZE = struct.Struct("HHHH")
_LARGEST = 0xFFFF

# Erasing a character erases all of its bytes; asm-generic/termbits.h, not in Python's termios.
_IUTF8 = 0o040000

# What programs find in TERM where nobody says: what every client understands.
DEFAULT_TERM = "xterm-256color"


@dataclass(frozen=True, slots=True)
class Pty:
    """Both ends of a terminal, as the keeper holds them.

    Attributes:
        master: Our end; does not block.
        slave: The job's end; held so that it is never hung up, and never used.
        modes: How it was set when it was new.
    """

    master: int
    slave: int
    modes: list[Any]

    @classmethod
    def open(cls, window: Window) -> Self:
        """Makes a terminal of that size."""
        master, slave = os.openpty()
        os.set_blocking(master, False)
        fcntl.ioctl(master, termios.TIOCSWINSZ, _packed(window))
        modes = termios.tcgetattr(slave)
        modes[0] |= _IUTF8
        return cls(master, slave, modes)

    def become(self) -> None:
        """Makes it the controlling terminal and the input and output of this process.

        The process has to lead a session without one. What an attempt before it has changed in the
        terminal's modes is undone.
        """
        # A description of the job's own: what it sets on it is not for the next attempt.
        opened = os.open(f"/proc/self/fd/{self.slave}", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(opened, termios.TIOCSCTTY, 0)
        termios.tcsetattr(opened, termios.TCSANOW, self.modes)
        for number in (0, 1, 2):
            os.dup2(opened, number, inheritable=True)


class Sink(Protocol):
    """Where the output goes, see `rdev.supervisor.output.Output`."""

    fifo: int

    def drain(self) -> None:
        """Moves what is in the FIFO at this moment."""


class Terminal:
    """Moves the bytes of one job's terminal.

    Args:
        pty: The terminal.
        selector: Waits for bytes and for room.
        source: Read end of the FIFO of the job's input.
        sink: The job's output.
    """

    def __init__(
        self, pty: Pty, selector: selectors.BaseSelector, *, source: int, sink: Sink
    ) -> None:
        self._master = pty.master
        self._selector = selector
        self._source = source
        self._sink = sink
        self._watched: dict[int, int] = {}
        self._watch(self._master, selectors.EVENT_READ)
        self._watch(source, selectors.EVENT_READ)

    def resume(self) -> None:
        """There may be room in the output's FIFO again."""
        if not self._watched.get(self._master, 0) & selectors.EVENT_READ:
            self._print()

    def resize(self, window: Window) -> None:
        """Gives it a size; programs are told, and of the same size again too: they redraw."""
        wanted = _packed(window)
        if fcntl.ioctl(self._master, termios.TIOCGWINSZ, bytes(_SIZE.size)) != wanted:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, wanted)
            return
        group = os.tcgetpgrp(self._master)
        if group > 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGWINCH)

    def drain(self) -> None:
        """Moves all that was printed until now into the log."""
        self._sink.drain()
        left = _DRAIN
        while left > 0 and (moved := self._pull()):
            self._sink.drain()
            left -= moved

    def _on_master(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._print()
        if events & selectors.EVENT_WRITE:
            self._type()

    def _print(self) -> None:
        """From the terminal into the output's FIFO; a full one is waited for, see `resume`."""
        self._pull()
        is_full = not _has_room(self._sink.fifo)
        typing = self._watched.get(self._master, 0) & selectors.EVENT_WRITE
        self._watch(self._master, typing | (0 if is_full else selectors.EVENT_READ))

    def _type(self) -> None:
        """From the input's FIFO into the terminal; a full one is waited for."""
        self._push()
        is_full = bytes_waiting(self._source) > 0
        reading = self._watched.get(self._master, 0) & selectors.EVENT_READ
        self._watch(self._master, reading | (selectors.EVENT_WRITE if is_full else 0))
        self._watch(self._source, 0 if is_full else selectors.EVENT_READ)

    def _pull(self) -> int:
        """Moves what was printed until the terminal is empty or the FIFO is full."""
        moved = 0
        # EIO: everybody has closed it, which can only be once the keeper was killed.
        with contextlib.suppress(OSError):
            while count := _splice(self._master, self._sink.fifo, _READ):
                moved += count
        return moved

    def _push(self) -> None:
        with contextlib.suppress(OSError):
            while _splice(self._source, self._master, _WRITE):
                pass

    def _watch(self, descriptor: int, events: int) -> None:
        watched = self._watched.get(descriptor, 0)
        if events == watched:
            return
        handler = self._on_master if descriptor == self._master else lambda _events: self._type()
        if not watched:
            self._selector.register(descriptor, events, handler)
        elif events:
            self._selector.modify(descriptor, events, handler)
        else:
            self._selector.unregister(descriptor)
        self._watched[descriptor] = events


def _splice(source: int, target: int, count: int) -> int:
    try:
        return os.splice(source, target, count, flags=os.SPLICE_F_NONBLOCK)
    except BlockingIOError:
        return 0


def _has_room(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(0))


def _packed(window: Window) -> bytes:
    rows, columns = (min(max(size, 0), _LARGEST) for size in (window.rows, window.columns))
    return _SIZE.pack(rows, columns, 0, 0)
