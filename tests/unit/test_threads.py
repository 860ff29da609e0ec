"""Blocking work in threads."""

import asyncio
import threading

import pytest

from rdev.agent.threads import in_daemon, to_its_end


async def test_a_caller_cancelled_twice_still_stays_until_the_work_is_done():
    begun, released, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        released.wait()
        done.set()

    task = asyncio.ensure_future(to_its_end(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_what_the_work_says_comes_back():
    assert await to_its_end(lambda: 5) == 5
    assert await in_daemon(lambda: 5) == 5
    for run in (to_its_end, in_daemon):
        with pytest.raises(ZeroDivisionError):
            await run(lambda: 1 / 0)


async def test_work_that_hangs_is_left_alone_by_who_goes_away():
    released = threading.Event()
    future = in_daemon(released.wait)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.shield(future)
    released.set()
    assert await future is True
