"""What tests do to processes, and how they wait for what these do."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from tests.support.jobs import DEADLINE


def kill(pid: int) -> None:
    """Kills a process, if there is one: 0 is none."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until(condition: Callable[[], object]) -> None:
    """Returns once something is true that sets no event of ours, as what other processes do."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)
