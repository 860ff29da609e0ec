"""Blocking work in a thread, for work that nothing may follow until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


async def to_its_end(work: Callable[[], _Result]) -> _Result:
    """Runs blocking work in a thread, and stays until it is done even if cancelled.

    Whoever holds a lock or closes a file after it can rely on no thread being at work any more.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
