"""Where commands come from and lines go to: a terminal, a pipe, or a script given beforehand.

reading --a line--> returned           watching --Ctrl-D--> the person leaves
   '--- Ctrl-D, the end of the input --> None    '--- other keys are kept for the next reading

At a terminal a line may be said at any moment: the one that is being typed moves below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, Self

from rdev.client.debug.lineedit import LineEditor, Typed
from rdev.client.ui.escapes import one_line

# Lines of earlier sessions that the arrows bring back.
_REMEMBERED = 500

_READ_BYTES = 4096

# Keys are not shown while the job runs; said once, to a person who wonders where they went.
_TYPED_AHEAD = (
    "the job runs: what you type waits for the next stop; Ctrl-C stops it here, Ctrl-D leaves"
)
_LFLAG, _CC = 3, 6

# What may follow a text at the cursor.
Complete = Callable[[str, int], Awaitable[Sequence[str]]]


class Console(Protocol):
    """Commands in, lines out.

    `command` and `left` are cancelled when something else comes first; what was typed by then is
    kept. `say` may be called at any time.

    Attributes:
        is_person: Somebody sits there, and can be asked and interrupted.
        has_colours: Control sequences are shown as colours.
        columns: How wide a line may be.
        is_lost: The terminal is gone, as when ssh drops: nobody has left, and nobody reads.
    """

    is_person: bool
    has_colours: bool
    is_lost: bool

    @property
    def columns(self) -> int:
        """How wide a line may be."""
        ...

    async def command(self, prompt: str, complete: Complete) -> str | None:
        """The next command line; None when the person leaves."""
        ...

    async def left(self, why: str = "") -> None:
        """Returns when the person leaves while no command is read; perhaps never.

        Args:
            why: Tells a person who types what becomes of it; the usual if empty.
        """
        ...

    def forget(self) -> None:
        """Drops what was typed ahead."""
        ...

    def say(self, text: str) -> None:
        """Shows lines."""
        ...


class Scripted:
    """Commands given beforehand; afterwards the session is left. See `Console`."""

    is_person = False
    has_colours = False
    is_lost = False
    columns = 160

    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = deque(commands)

    @property
    def unexecuted(self) -> tuple[str, ...]:
        """Commands that were not asked for yet."""
        return tuple(self._commands)

    async def command(self, prompt: str, complete: Complete) -> str | None:  # noqa: ARG002 - see Console
        """See `Console`."""
        return self._commands.popleft() if self._commands else None

    async def left(self, why: str = "") -> None:  # noqa: ARG002 - see Console
        """See `Console`: it never is."""
        await asyncio.Event().wait()

    def forget(self) -> None:
        """See `Console`: a script's commands stay."""

    def say(self, text: str) -> None:
        """See `Console`."""
        print_now(text)


class Piped:
    """Commands read from a pipe or a file; its end leaves the session. See `Console`."""

    is_person = False
    has_colours = False
    is_lost = False
    columns = 160

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = b""

    async def command(self, prompt: str, complete: Complete) -> str | None:  # noqa: ARG002 - see Console
        """See `Console`."""
        while b"\n" not in self._pending:
            data = await _read(self._descriptor)
            if not data:
                line, self._pending = self._pending, b""
                return line.decode(errors="replace") or None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    async def left(self, why: str = "") -> None:  # noqa: ARG002 - see Console
        """See `Console`: what is piped in waits for the next stop."""
        await asyncio.Event().wait()

    def forget(self) -> None:
        """See `Console`: a script's commands stay."""

    def say(self, text: str) -> None:
        """See `Console`."""
        print_now(text)


class Terminal:
    """A person at a terminal. See `Console`; use as a context manager.

    Args:
        history: File that keeps what was typed; empty keeps nothing.
    """

    is_person = True

    def __init__(self, history: str = "") -> None:
        self._descriptor = sys.stdin.fileno()
        self._history = history
        self._editor = LineEditor(_remembered(history))
        self._prompt: str | None = None
        self._explains = True
        self._before = termios.tcgetattr(self._descriptor)
        self.is_lost = False
        # See no-color.org: the variable's presence counts, if it is not empty.
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.has_colours = not plain

    def __enter__(self) -> Self:
        self._set(signals=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)

    @property
    def columns(self) -> int:
        """See `Console`."""
        return _columns()

    async def command(self, prompt: str, complete: Complete) -> str | None:
        """See `Console`."""
        if self.is_lost:
            return None
        self._prompt = prompt
        self._set(signals=False)
        try:
            return await self._command(complete)
        finally:
            self._erase()
            self._prompt = None
            self._set(signals=True)

    async def left(self, why: str = "") -> None:
        """See `Console`."""
        while True:
            data = await self._keys()
            if not data or b"\x04" in data:
                return
            self._editor.take(data)  # typed ahead
            if self._explains and (b"\r" in data or b"\n" in data):
                self._explains = False
                self.say(why or _TYPED_AHEAD)

    def forget(self) -> None:
        """See `Console`."""
        self._editor.forget()

    def say(self, text: str) -> None:
        """See `Console`."""
        self._erase()
        self._put(f"{text}\n")
        self._draw()

    async def _keys(self) -> bytes:
        """What was typed; b"" once the terminal is gone."""
        data = await _read(self._descriptor)
        self.is_lost |= not data
        return data

    def _put(self, text: str) -> None:
        try:
            _write(text)
        except OSError:  # a reading finds it gone, too, and ends the session
            self.is_lost = True

    async def _command(self, complete: Complete) -> str | None:
        while True:
            typed = self._editor.step()
            self._draw()
            match typed:
                case None:
                    data = await self._keys()
                    if not data:
                        return None
                    self._editor.take(data)
                case Typed.LINE:
                    return self._accepted()
                case Typed.END:
                    return None
                case Typed.INTERRUPT:
                    self._show_line("^C")
                    self._editor.text, self._editor.cursor = "", 0
                case Typed.COMPLETE:
                    await self._complete(complete)

    def _accepted(self) -> str:
        line = self._editor.text
        self._show_line("")
        self._editor.begin()
        _remember(self._history, line)
        return line

    def _show_line(self, more: str) -> None:
        """Leaves the line as it is on the screen, and goes below it."""
        prompt = self._prompt or ""
        self._erase()
        self._put(f"{prompt}{self._editor.text}{more}\n")

    async def _complete(self, complete: Complete) -> None:
        editor = self._editor
        endings = list(await complete(editor.text, editor.cursor))
        common = _common(endings)
        if common:
            editor.insert(common)
        elif len(endings) > 1:
            begun = editor.text[: editor.cursor].replace(".", " ").split(" ")[-1]
            self.say("  ".join(begun + ending for ending in endings[:60]))

    def _draw(self) -> None:
        if self._prompt is None:
            return
        view = self._editor.view(self._prompt, _columns())
        self._put(
            f"\r{view.text}\x1b[K\r\x1b[{view.column}C" if view.column else f"\r{view.text}\x1b[K"
        )

    def _erase(self) -> None:
        if self._prompt is not None:
            self._put("\r\x1b[K")

    def _set(self, *, signals: bool) -> None:
        """Keys come singly and are not shown; what was typed before is kept."""
        with contextlib.suppress(termios.error):  # the terminal may be gone
            modes = termios.tcgetattr(self._descriptor)
            modes[_LFLAG] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
            kept = modes[_LFLAG] & ~termios.ISIG
            modes[_LFLAG] = kept | termios.ISIG if signals else kept
            modes[_CC][termios.VMIN], modes[_CC][termios.VTIME] = 1, 0
            termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)


def _common(words: Sequence[str]) -> str:
    shortest = min(words, key=len, default="")
    for length in range(len(shortest), 0, -1):
        if all(word.startswith(shortest[:length]) for word in words):
            return shortest[:length]
    return ""


def print_now(text: str) -> None:
    """Prints lines at once: somebody waits for them."""
    _write(f"{text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def _remembered(path: str) -> list[str]:
    if not path:
        return []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [one_line(line.rstrip("\n")) for line in deque(file, _REMEMBERED)]
    except OSError:
        return []


def _remember(path: str, line: str) -> None:
    if not path or not line.strip():
        return
    with contextlib.suppress(OSError):  # a convenience
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="replace") as file:
            file.write(f"{line}\n")


async def _read(descriptor: int) -> bytes:
    """What is there to read, once there is something; b"" at the end. Cancellable."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # a file never blocks
        return os.read(descriptor, _READ_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:  # EIO: the terminal was closed
        return b""
