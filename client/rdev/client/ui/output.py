"""Puts a job's output onto our own: stdout to stdout, stderr and the launcher's to stderr.

Into a pipe or a file goes every byte as it is, of several ranks in whole lines. What a terminal
gets is in `rdev.client.ui.rendering`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import select
import shutil
import stat
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from rdev.client.logs import Chunk, Gap
from rdev.client.ui.pump import write_all, write_soon, write_within
from rdev.client.ui.rendering import (
    Labelled,
    Lines,
    Program,
    Raw,
    Rendering,
    Screen,
    rank_label,
    time_label,
)
from rdev.client.ui.telling import tell

_STDOUT, _STDERR = 1, 2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# A printed line may come as two writes, microseconds apart; a progress bar never ends its line.
_LINE_PATIENCE = 0.1

# A pipe that takes anything takes this much at once, see pipe(7); a hop to a thread and back costs
# more than the line that is written.
_AT_ONCE = select.PIPE_BUF

# How long somebody who leaves waits for a terminal or a pipe that takes nothing, in seconds.
PATIENCE = 0.5


class Output:
    """Writes a job's output through a rendering for each descriptor; gaps as a line of our own.

    Use as a context manager where a rendering may have unfinished lines to show.

    Args:
        renderings: By descriptor.
        is_quiet: Nothing of ours is said but errors.

    Attributes:
        latest: When the host recorded what was written last, in seconds since the epoch; 0 at
            first.
        is_quiet: See above.
        places: By rank and stream, where what is shown ends.
    """

    def __init__(self, renderings: Mapping[int, Rendering], *, is_quiet: bool = False) -> None:
        self._renderings = renderings
        self.is_quiet = is_quiet
        self.latest = 0.0
        self.places: dict[tuple[int, str], int] = {}
        self._line_ended = asyncio.Event()
        self._line_ended.set()
        self._waiting = asyncio.Event()
        # What leads to one place goes there in turns. A pipe that nobody empties just now keeps
        # nothing from the other: `rdev run train.py | less` still says what happens to the job.
        places = {_place_of(target): asyncio.Lock() for target in renderings}
        self._turns = {target: places[_place_of(target)] for target in renderings}
        self._group = asyncio.TaskGroup()
        self._settling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._settling = self._group.create_task(self._settle())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._settling is not None:
            self._settling.cancel()
        for target, rendering in self._distinct():
            if isinstance(rendering, (Lines, Screen)) and (shown := rendering.leave()):
                write_within(target, shown, seconds=PATIENCE)  # the terminal may be gone
        await self._group.__aexit__(kind, error, trace)

    async def write(self, chunk: Chunk) -> None:
        """See `rdev.client.follow.Sink`."""
        target = _STDOUT if chunk.stream == "stdout" else _STDERR
        rendering = self._renderings[target]
        self.latest = chunk.time
        async with self._turns[target]:
            await _write(target, rendering.feed(chunk))
        self.places[chunk.rank, chunk.stream] = chunk.end
        if rendering.is_waiting:
            self._waiting.set()
        if chunk.data.endswith(b"\n"):
            self._line_ended.set()
        else:
            self._line_ended.clear()

    async def gap(self, gap: Gap) -> None:
        """See `rdev.client.follow.Sink`."""
        whose = f"rank {gap.rank}'s {gap.stream}" if gap.rank else gap.stream
        self.places[gap.rank, gap.stream] = gap.end
        line = f"rdev: {gap.length} bytes of {whose} were lost on the host: {printable(gap.reason)}"
        await self._apart(line)

    async def end(self) -> None:
        """See `rdev.client.follow.Sink`."""
        for target, rendering in self._distinct():
            if shown := rendering.end():  # else nobody is waited for, who may not read
                async with self._turns[target]:
                    await _write(target, shown)

    async def aside(self, line: str) -> None:
        """Says a line on stderr, after the line that the job is just writing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINE_PATIENCE):
                await self._line_ended.wait()
        self._line_ended.set()  # what follows waits for new output only
        await self._apart(line)

    async def say(self, line: str) -> None:
        """Says a line of rdev's own, beside what is being shown."""
        await self._apart(f"rdev: {printable(line)}")

    async def note(self, line: str) -> None:
        """Says it unless only errors are wanted."""
        if not self.is_quiet:
            await self.say(line)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Shows nothing for as long as the block runs, so that a question stays in sight.

        Whoever writes waits, and so does the reading behind it. What is being written just now may
        never end, on a terminal that takes nothing: then the block runs all the same.
        """
        async with contextlib.AsyncExitStack() as turns:
            for turn in dict.fromkeys(self._turns.values()):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await turns.enter_async_context(turn)
            yield

    async def _apart(self, line: str) -> None:
        text = f"{line}\n".encode(errors="replace")
        rendering = self._renderings[_STDERR]
        async with self._turns[_STDERR]:
            shown = rendering.apart(text) if isinstance(rendering, Labelled) else text
            await _write(_STDERR, _line_break() + shown if shown is text else shown)

    async def _settle(self) -> None:
        """Shows lines that nothing has followed for a moment, again and again."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            await asyncio.sleep(_LINE_PATIENCE)
            for target, rendering in self._distinct():
                if rendering.is_waiting:
                    async with self._turns[target]:
                        await _write(target, rendering.settle())

    def _distinct(self) -> list[tuple[int, Rendering]]:
        """Each rendering once, with a descriptor that leads to where it is shown."""
        found: dict[int, tuple[int, Rendering]] = {}
        for target, rendering in self._renderings.items():
            found.setdefault(id(rendering), (target, rendering))
        return list(found.values())


def _place_of(target: int) -> tuple[int, int]:
    """The same for descriptors that lead to the same place, as after `2>&1`."""
    try:
        status = os.fstat(target)
    except OSError:  # it is closed, which writing tells
        return -1, target
    if stat.S_ISCHR(status.st_mode):  # of one terminal there may be several names
        return 0, status.st_rdev
    return status.st_dev, status.st_ino


class RawOutput(Output):
    """Writes the bytes of a job as they came, wherever they go."""

    def __init__(self) -> None:
        super().__init__({_STDOUT: Raw(), _STDERR: Raw()})


def output_for(
    *,
    ranks: int = 1,
    prefix: bool | None = None,
    timestamps: bool = False,
    is_program: bool = False,
    is_quiet: bool = False,
) -> Output:
    """What suits where our stdout and stderr go: raw, a screen, or lines with labels.

    Args:
        ranks: How many ranks write.
        prefix: Say of each line which rank wrote it; None means on a terminal, if there are
            several.
        timestamps: Say of each line when it was written.
        is_program: A program has the terminal to itself: only strings are kept from it, see
            `rdev.client.ui.escapes`.
        is_quiet: See `Output`.
    """
    if is_program:
        return Output(dict.fromkeys((_STDOUT, _STDERR), Program()), is_quiet=is_quiet)
    renderings: dict[int, Rendering] = {}
    screens: dict[int, Rendering] = {}
    for target in (_STDOUT, _STDERR):
        is_terminal = os.isatty(target)
        is_prefixed = ranks > 1 and is_terminal if prefix is None else prefix
        device = os.fstat(target).st_rdev if is_terminal else -target
        if device not in screens:
            screens[device] = _rendering(
                is_terminal=is_terminal, ranks=ranks, prefix=is_prefixed, timestamps=timestamps
            )
        renderings[target] = screens[device]
    return Output(renderings, is_quiet=is_quiet)


def _rendering(*, is_terminal: bool, ranks: int, prefix: bool, timestamps: bool) -> Rendering:
    if not prefix and not timestamps:
        if is_terminal:
            return Screen()
        return Raw() if ranks == 1 else Lines()
    name = rank_label(is_coloured=is_terminal and _has_colours())

    def label(rank: int, stream: str, at: float) -> bytes:
        told = time_label(rank, stream, at) if timestamps else b""
        return told + (name(rank, stream, at) if prefix else b"")

    return Labelled(label, columns=_columns if is_terminal else None)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _has_colours() -> bool:
    # See no-color.org: the variable's presence counts, if it is not empty.
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class JsonOutput:
    """Writes one JSON object a run of bytes; bytes that are not UTF-8 come as `base64`.

    Attributes:
        latest: See `Output`.
    """

    def __init__(self) -> None:
        self.latest = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def write(self, chunk: Chunk) -> None:
        """See `rdev.client.follow.Sink`."""
        self.latest = chunk.time
        place = {"rank": chunk.rank, "stream": chunk.stream, "offset": chunk.offset}
        await _write_json({**place, "time": chunk.time, **_content(chunk.data)})

    async def gap(self, gap: Gap) -> None:
        """See `rdev.client.follow.Sink`."""
        place = {"rank": gap.rank, "stream": gap.stream, "offset": gap.offset}
        await _write_json({**place, "lost": gap.length, "reason": gap.reason})

    async def end(self) -> None:
        """See `rdev.client.follow.Sink`."""

    async def say(self, line: str) -> None:
        """See `Output`."""
        await _write(_STDERR, f"rdev: {printable(line)}\n".encode(errors="backslashreplace"))

    async def aside(self, line: str) -> None:
        """Writes a line that is JSON already."""
        await _write(_STDOUT, f"{line}\n".encode())


def _content(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


async def _write_json(item: dict[str, object]) -> None:
    await _write(_STDOUT, json.dumps(item).encode() + b"\n")


async def _write(target: int, data: bytes) -> None:
    if not data:
        return
    if os.isatty(target):
        _cursor.is_in_line = not data.endswith(b"\n")
    elif len(data) <= _AT_ONCE and _takes_at_once(target):
        write_all(target, data)
        return
    # In a thread, so that a reader who pauses us does not stop Ctrl-C from being heard.
    await write_soon(target, data)


def _takes_at_once(target: int) -> bool:
    mode = os.fstat(target).st_mode
    if stat.S_ISREG(mode):
        return True
    return stat.S_ISFIFO(mode) and bool(select.select([], [target], [], 0)[1])


class _Cursor:
    """Where the terminal's cursor is, as far as we have put it there."""

    is_in_line = False


_cursor = _Cursor()


def _line_break() -> bytes:
    """What ends the line that a job has begun on our terminal, if it has."""
    if not _cursor.is_in_line or not os.isatty(_STDERR):
        return b""
    _cursor.is_in_line = False
    return b"\n"


def say(line: str, *, is_leaving: bool = False) -> None:
    """Says something of rdev's own where no output is being shown, before it or after it.

    Rather leaves it unsaid than wait for ever for a stderr that nobody reads.

    Args:
        line: What to say.
        is_leaving: Hardly waits.
    """
    text = _line_break() + f"rdev: {printable(line)}\n".encode(errors="backslashreplace")
    tell(text, is_leaving=is_leaving)


def printable(text: str) -> str:
    """The text with control characters spelled out: a file's name must not drive the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
