"""An editor at our own stdin and stdout, where nothing but its protocol is ever written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rdev.client.source import Source
from rdev.client.ui.pump import write_soon

_STDIN, _STDOUT, _STDERR = range(3)


class StdioStream:
    """See `rdev.client.debug.editor.Stream`; made by `taken_over`."""

    def __init__(self, output: int) -> None:
        self._source = Source(_STDIN)
        self._output = output

    async def receive(self) -> bytes:
        """The next bytes; b"" when the editor has gone."""
        return await self._source.read()

    async def send(self, data: bytes) -> None:
        """Sends all of `data`; OSError if nobody reads."""
        await write_soon(self._output, data)


@contextlib.contextmanager
def taken_over() -> Iterator[StdioStream]:
    """Gives stdout to the editor alone: whatever else is printed goes to stderr meanwhile."""
    output = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield StdioStream(output)
    finally:
        os.dup2(output, _STDOUT)
        # It is not closed: a write may still be under way in a thread, and the process ends.
