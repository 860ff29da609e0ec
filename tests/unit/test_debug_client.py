"""The terminal's half of DAP, over a stream that is written by hand."""

from __future__ import annotations

import asyncio

import pytest

from rdev.client.debug.session import Ended, debugging
from rdev.protocol.dap import Framer, encode
from rdev.protocol.errors import DebuggerUnavailable


class Written:
    """An agent's end: every request fails as debugpy's adapter has it fail, then come `events`."""

    def __init__(self, *events: tuple[str, dict[str, str]]) -> None:
        self._events = events
        self._stream: asyncio.Queue[bytes] = asyncio.Queue()
        self._framer = Framer()

    async def send(self, data: bytes) -> None:
        for request in self._framer.feed(data):
            cause = "Server[pid=77] disconnected unexpectedly"
            answer = {"type": "response", "request_seq": request["seq"], "success": False}
            self._stream.put_nowait(encode({"seq": 1, **answer, "message": cause}))
            asyncio.get_running_loop().call_later(0.05, self._tell)

    def _tell(self) -> None:
        for name, body in self._events:
            self._stream.put_nowait(
                encode({"seq": 2, "type": "event", "event": name, "body": body})
            )
        self._stream.put_nowait(b"")

    async def receive(self) -> bytes:
        return await self._stream.get()


async def test_a_request_that_meets_the_end_of_the_lease_is_told_of_the_lease():
    line = "nothing was asked of the debugger for 1 s; the job goes on"
    pipe = Written(("output", {"category": "important", "output": line}), ("terminated", {}))
    async with debugging(pipe) as client:
        with pytest.raises(DebuggerUnavailable, match="nothing was asked of the debugger for 1 s"):
            await client.resume("next", 1)
        assert client.end == Ended("nothing was asked of the debugger for 1 s")
