"""What is waited for at a prompt: an answer of the job's, whose code may take long or never return.

asked --answer--> told
  |  '--3 s--> said to be slow, keys are heard --Ctrl-D--> left, and not waited for
  '--Ctrl-C--> an evaluation is interrupted in the job; any other answer is not waited for
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from rdev.client.debug.prompt import Console
from rdev.client.debug.session import DebugClient
from rdev.client.debug.table import Outcome
from rdev.protocol.errors import RdevError

# An evaluation that takes longer is said to, and can be left.
_SLOW_SECONDS = 3.0

# One that is interrupted where it runs Python is over by then, and else in C code.
_INTERRUPT_SECONDS = 2.0

_NO_ANSWER = "its answer is not waited for; what was asked goes on in the job until it is done"
_EVALUATING = "what you type waits for the evaluation; Ctrl-C interrupts it, Ctrl-D leaves"
_IN_C = "it is in C code, and is interrupted once that returns; Ctrl-D leaves"


class Asking:
    """Waits for answers, one at a time.

    Args:
        group: Where the tasks beside it run.
        console: Where the person is.
        say: Shows a line.
        leave: Called when the person leaves while an answer is waited for.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        console: Console,
        say: Callable[[str], None],
        leave: Callable[[], None],
    ) -> None:
        self._group = group
        self._console = console
        self._say = say
        self._leave = leave
        self._waiting: asyncio.Timeout | None = None

    async def answer(self, client: DebugClient, work: Coroutine[None, None, Outcome]) -> Outcome:
        """What comes of a command that asks the client's process; `STAY` if it was given up."""
        hearing = self._group.create_task(self._hear(client))
        try:
            async with asyncio.timeout(None) as self._waiting:  # ended by Ctrl-C
                return await work
        except TimeoutError:
            self._say(_NO_ANSWER)
            return Outcome.STAY
        finally:
            self._waiting = None
            hearing.cancel()
            await asyncio.wait({hearing})

    def interrupt(self, client: DebugClient, *, is_held: bool) -> bool:
        """Ctrl-C: what is waited for ends; True if that is all that is meant by it."""
        is_person = self._console.is_person
        if client.is_evaluating and is_person:
            self._group.create_task(self._interrupt(client))
            return True
        if self._waiting is None or not is_held:
            return False
        if not self._waiting.expired():
            self._waiting.reschedule(0.0)
        return is_person

    async def _interrupt(self, client: DebugClient) -> None:
        try:
            is_over = await client.interrupt(_INTERRUPT_SECONDS)
        except RdevError:  # so is the session, and that is told
            return
        if not is_over:
            self._say(_IN_C)

    async def _hear(self, client: DebugClient) -> None:
        await asyncio.sleep(_SLOW_SECONDS)
        if client.is_evaluating:
            can = "; Ctrl-C interrupts it" if self._console.is_person else ""
            self._say(f"still evaluating{can}")
        await self._console.left(_EVALUATING)
        self._leave()
        client.abandon()
