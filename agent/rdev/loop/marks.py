"""Aligns the step numbers of ranks that were armed one after another.

Steps are counted from the arming, and ranks are armed at different steps. What they have in common
is how many operations their process groups have issued: the same number after the same step. Each
rank remembers the numbers at its latest step ends until the agent has told it which of them is
which step.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

# Steps between the arming of the first rank and of the last, and then some.
_KEPT = 4096


class Marks:
    """What a rank knows of its latest step ends.

    Attributes:
        is_needed: False in a training of one process, and once the numbers agree.
        since: The mark at the arming: what ended at it or before cannot be told.
        last: The number and the mark of the latest step end, if there was one.
    """

    def __init__(self) -> None:
        self.since = mark()
        self.is_needed = self.since is not None
        self.last: tuple[int, int] | None = None
        self._ends: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._target: tuple[int, int] | None = None

    def aim(self, target: int, step: int) -> None:
        """The step end of this mark is the end of step `step`, wherever it is."""
        self._target = (target, step)

    def ended(self, step: int) -> int:
        """A step has ended; its number as it is from now on, on the training's thread."""
        at = mark()
        if at is None:
            return step
        if self._ends and self._ends[-1][1] == at:
            self._ends.pop()  # Two ends with one mark are no help, neither of them.
            return step
        self.last = (step, at)
        self._ends.append(self.last)
        if self._target is None:
            return step
        wanted, number = self._target
        for own, seen in self._ends:
            if seen == wanted:
                step += number - own
                self._target, self.is_needed = None, False
                self.last = (step, at)
                break
        return step

    @property
    def state(self) -> str:
        """`alone`, `aligned`, `waiting` for its next step ends, or `late`: armed after the mark."""
        if self.since is None:
            return "alone"
        if not self.is_needed:
            return "aligned"
        if self._target is not None and self._is_late(self._target[0]):
            return "late"
        return "waiting"

    def _is_late(self, wanted: int) -> bool:
        first = self._ends[0][1] if self._ends else None
        if first is not None and wanted >= first:
            # An end that has been passed without that mark: the groups differ from rank to rank.
            return all(seen != wanted for _, seen in self._ends) and wanted < self._ends[-1][1]
        return self.since is not None and wanted <= self.since


def mark() -> int | None:
    """How many operations the process groups have issued; None in a training of one process."""
    module: Any = sys.modules.get("torch.distributed.distributed_c10d")
    world = getattr(module, "_world", None)
    group = getattr(world, "default_pg", None)
    if world is None or group is None:
        return None
    try:
        if group.size() < 2:
            return None
        return sum(int(one._get_sequence_number_for_group()) for one in list(world.pg_map))  # noqa: SLF001  # torch offers no other
    except Exception:  # noqa: BLE001  # whatever torch raises, the numbers cannot be told
        return None
