"""Work that is done once, and an end that does not wait for ever."""

import asyncio

import pytest

from rdev.agent.jobs import once
from rdev.agent.jobs.once import Once


async def test_whoever_asks_meanwhile_gets_the_same_result():
    async with Once[int]() as work:
        begun, go = asyncio.Event(), asyncio.Event()
        calls = []

        async def count():
            calls.append(1)
            begun.set()
            await go.wait()
            return len(calls)

        one = asyncio.ensure_future(work.do("key", count))
        await begun.wait()
        two = asyncio.ensure_future(work.do("key", count))
        go.set()
        assert await asyncio.gather(one, two) == [1, 1]


async def test_the_end_cuts_off_work_that_does_not_end(monkeypatch):
    monkeypatch.setattr(once, "_PATIENCE", 0.05)
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def hang():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    async with asyncio.timeout(40):
        async with Once[None]() as work:
            waiting = asyncio.ensure_future(work.do("key", hang))
            await begun.wait()
        assert cut_off.is_set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
