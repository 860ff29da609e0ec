"""What a process is to stop at: what its job was started with, and what each who waits asked for.

Nobody's asking takes away another's: the process stops at whatever comes first of all of it.
Who asks for a time has to ask again within it: nobody may be there any more who would come.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Who waits for what the job was started with: the person who started it.
JOB = "job"


class Ask:
    """What one of them waits for.

    `step` is held before and stopped in; `from_step` is held before until a debugger is ready,
    and then begins. 0 is none.
    """

    # No dataclass: what makes one would cost every process of a job its start.
    __slots__ = ("exception", "from_step", "nan", "step")

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.exception = bool(args.get("exception"))
        self.nan = bool(args.get("nan"))
        self.step = _number(args.get("step"))
        self.from_step = _number(args.get("from_step"))

    @property
    def is_empty(self) -> bool:
        """Nothing is waited for."""
        return not (self.exception or self.nan or self.step or self.from_step)


class Asks:
    """All that is waited for in this process; a copy on each write, for readers on any thread."""

    def __init__(self) -> None:
        self._asks: dict[str, Ask] = {}
        self._ends: dict[str, float] = {}

    def put(self, who: str, ask: Ask, seconds: float = 0.0) -> None:
        """The last word of `who`; with a time it counts once, and is renewed by the next.

        Args:
            who: Who waits.
            ask: For what; for nothing takes it back.
            seconds: For how long; 0 is for ever.
        """
        is_known = who in self._ends
        self._ends = {name: end for name, end in self._ends.items() if name != who}
        if seconds and not ask.is_empty:
            self._ends[who] = time.monotonic() + seconds
            if is_known:
                return  # what has come already does not count again
        self._set(who, ask)

    def drop_overdue(self) -> bool:
        """Takes back what nobody has asked for again in its time; whether there was any."""
        now = time.monotonic()
        over = [who for who, end in self._ends.items() if end < now]
        for who in over:
            self.put(who, Ask({}))
        return bool(over)

    def _set(self, who: str, ask: Ask) -> None:
        asks = {**self._asks, who: ask}
        self._asks = {name: one for name, one in asks.items() if not one.is_empty}

    @property
    def exception(self) -> bool:
        """Whether somebody waits for an exception."""
        return any(ask.exception for ask in self._asks.values())

    @property
    def nan(self) -> bool:
        """Whether somebody waits for a number that is not finite."""
        return any(ask.nan for ask in self._asks.values())

    @property
    def step(self) -> int:
        """The next step to hold before; 0 if nobody waits for one."""
        steps = [s for ask in self._asks.values() for s in (ask.step, ask.from_step) if s]
        return min(steps, default=0)

    def reach(self, step: int) -> tuple[bool, set[str]]:
        """The step is about to begin, and is waited for no more.

        Returns:
            Whether it is to be stopped in, and who waited for it.
        """
        is_stop, waiting = False, set()
        for who, ask in self._asks.items():
            is_stop |= 0 < ask.step <= step
            if 0 < ask.step <= step or 0 < ask.from_step <= step:
                waiting.add(who)
            rest = Ask({"exception": ask.exception, "nan": ask.nan})
            rest.step = ask.step if ask.step > step else 0
            rest.from_step = ask.from_step if ask.from_step > step else 0
            self._set(who, rest)
        return is_stop, waiting

    def found(self) -> set[str]:
        """A number that is not finite has come, and none is waited for any more; who did."""
        waiting = {who for who, ask in self._asks.items() if ask.nan}
        for who, ask in self._asks.items():
            args = {"exception": ask.exception, "step": ask.step, "from_step": ask.from_step}
            self._set(who, Ask(args))
        return waiting


def asked_at_start(words: list[str]) -> Ask:
    """What the words of the job's variable ask for."""
    steps = [word.partition("=")[2] for word in words if word.startswith("step=")]
    step = int(steps[-1]) if steps and steps[-1].isdigit() else 0
    return Ask({"exception": "exception" in words, "nan": "nan" in words, "step": step})


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
