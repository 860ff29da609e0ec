"""Puts a job's output onto our own: stdout to stdout, stderr to stderr, every byte as it is."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys

from rdev.client.logs import Chunk, Gap

_STDOUT, _STDERR = 1, 2


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

    async def write(self, chunk: Chunk) -> None:
        """See `rdev.client.follow.Sink`."""
        if self._wanted(chunk):
            await _write(_STDERR if chunk.stream == "stderr" else _STDOUT, chunk.data)

    async def gap(self, gap: Gap) -> None:
        """See `rdev.client.follow.Sink`."""
        if self._wanted(gap):
            say(f"{gap.length} bytes of {gap.stream} were lost on the host: {gap.reason}")


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
    print(f"rdev: {line}", file=sys.stderr, flush=True)  # noqa: T201  # this is the place
