"""Work that is done once for a key and to its end, whoever asks for it and whoever goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

Result = TypeVar("Result")

# Far longer than any of it takes, and less than whoever stops an agent waits; work that is cut off
# must be such that the next agent goes on with it.
_PATIENCE = 5.0


class Once(Generic[Result]):
    """Work in progress by its key. Use as a context manager; its end waits a while for the work."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Result | Exception]] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=_PATIENCE)
            for task in late:
                task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def do(self, key: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Does the work, or joins in waiting for it if it is in progress under that key.

        Whoever is cancelled only stops waiting. An error is everybody's who waits, and nobody
        else's.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._group.create_task(_outcome(work))
            self._tasks[key] = task
            task.add_done_callback(lambda _task: self._tasks.pop(key))
        await asyncio.wait([task])
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def _outcome(work: Callable[[], Awaitable[Result]]) -> Result | Exception:
    try:
        return await work()
    except Exception as error:  # noqa: BLE001  # whoever waits gets it
        return error
