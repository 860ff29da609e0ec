"""Puts a job's output onto our own: stdout to stdout, stderr to stderr, every byte as it is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import sys

from rdev.client.logs import Chunk, Gap

_STDOUT, _STDERR = 1, 2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# A printed line may come as two writes, microseconds apart; a progress bar never ends its line.
_LINE_PATIENCE = 0.1


class _Selection:
    """Which ranks and streams to show.

    Args:
        rank: Only this rank, if not None.
        stream: Only this stream, if not empty.
    """

    def __init__(self, *, rank: int | None = None, stream: str = "") -> None:
        self._rank = rank
        self._stream = stream

    def _wanted(self, item: Chunk | Gap) -> bool:
        return self._rank in (None, item.rank) and self._stream in ("", item.stream)


class RawOutput(_Selection):
    """Writes the bytes of a job as they came, gaps as a line of our own."""

    def __init__(self, *, rank: int | None = None, stream: str = "") -> None:
        super().__init__(rank=rank, stream=stream)
        self._line_ended = asyncio.Event()
        self._line_ended.set()

    async def write(self, chunk: Chunk) -> None:
        """See `rdev.client.follow.Sink`."""
        if not self._wanted(chunk):
            return
        await _write(_STDERR if chunk.stream == "stderr" else _STDOUT, chunk.data)
        if chunk.data.endswith(b"\n"):
            self._line_ended.set()
        else:
            self._line_ended.clear()

    async def gap(self, gap: Gap) -> None:
        """See `rdev.client.follow.Sink`."""
        if self._wanted(gap):
            say(f"{gap.length} bytes of {gap.stream} were lost on the host: {gap.reason}")

    async def aside(self, line: str) -> None:
        """Says a line on stderr, after the line that the job is just writing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINE_PATIENCE):
                await self._line_ended.wait()
        self._line_ended.set()  # what follows waits for new output only
        await _write(_STDERR, f"{line}\n".encode())


class JsonOutput(_Selection):
    """Writes one JSON object a run of bytes; bytes that are not UTF-8 come as `base64`."""

    async def write(self, chunk: Chunk) -> None:
        """See `rdev.client.follow.Sink`."""
        if self._wanted(chunk):
            place = {"rank": chunk.rank, "stream": chunk.stream, "offset": chunk.offset}
            await _write_json({**place, "time": chunk.time, **_content(chunk.data)})

    async def gap(self, gap: Gap) -> None:
        """See `rdev.client.follow.Sink`."""
        if self._wanted(gap):
            place = {"rank": gap.rank, "stream": gap.stream, "offset": gap.offset}
            await _write_json({**place, "lost": gap.length, "reason": gap.reason})

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
    # In a thread, so that a reader who pauses us does not stop Ctrl-C from being heard.
    await asyncio.to_thread(_write_all, target, data)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def say(line: str) -> None:
    """Says something of rdev's own, apart from what jobs print."""
    print(f"rdev: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201  # the place for it


def printable(text: str) -> str:
    """The text with control characters spelled out: a file's name must not drive the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
