"""The terminal's half of DAP, over a stream that is written by hand."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from rdev.client.debug.dialogue import Dialogue, Plan, Reports
from rdev.client.debug.prompt import Scripted
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Ended, Frame, Stopped, debugging
from rdev.client.debug.view import View
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


class Silent:
    """An agent's end that takes everything and says nothing."""

    async def send(self, data: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        return await asyncio.Future()


async def test_tab_in_a_thread_that_is_busy_with_an_answer_completes_nothing_and_holds_up_no_key():
    async with debugging(Silent()) as client:
        seat = Seat(0, client, Stopped(1, "breakpoint"), [Frame(1, "train.py", 3, "step")])
        dialogue = Dialogue(
            [seat],
            view=cast("View", None),
            console=Scripted([]),
            reports=cast("Reports", None),
            plan=Plan(),
        )
        async with asyncio.timeout(20):
            assert await dialogue._complete("p los", 5) == []
            assert await dialogue._complete("wai", 3) == ["t"]


async def test_a_request_that_meets_the_end_of_the_lease_is_told_of_the_lease():
    line = "nothing was asked of the debugger for 1 s; the job goes on"
    pipe = Written(("output", {"category": "important", "output": line}), ("terminated", {}))
    async with debugging(pipe) as client:
        with pytest.raises(DebuggerUnavailable, match="nothing was asked of the debugger for 1 s"):
            await client.resume("next", 1)
        assert client.end == Ended("nothing was asked of the debugger for 1 s")
