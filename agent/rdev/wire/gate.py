"""The gate: a step before which the training is to be held, which whoever counts steps asks for.

Somebody may also stand there who looks at each step that ends.

It costs nothing while it is open: a probe looks at it only at a boundary that is due, and whoever
closes it makes the next boundary due by waking the probes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Counter(Protocol):
    """Counts the steps of a run; held weakly."""

    def wake(self) -> None:
        """Makes the next boundary look at the gate; may be called on any thread."""
        ...

    def reached(self) -> int:
        """The step that has begun last; 0 if none has, or if the run is over."""
        ...


_at = 0
_hold: Callable[[], None] | None = None
_look: Callable[[Any], None] | None = None
_counters: weakref.WeakSet[Counter] = weakref.WeakSet()


def join(counter: Counter) -> None:
    """A run of this process begins: its boundaries are to pass the gate."""
    _counters.add(counter)
    if is_closed():
        counter.wake()


def leave(counter: Counter) -> None:
    """It counts no more steps, though somebody may still refer to it."""
    _counters.discard(counter)


def counted() -> bool:
    """True if somebody in this process counts steps."""
    return bool(_counters)


def reached() -> int:
    """The step that has begun last in this process; 0 if none has."""
    return max((counter.reached() for counter in list(_counters)), default=0)


def close(step: int, hold: Callable[[], None]) -> None:
    """Closes the gate before a step.

    Args:
        step: The step that is not to begin; one that has begun already is passed at the next one.
        hold: Called once, on the training's thread, and returns when the step may begin.
    """
    global _at, _hold
    _at, _hold = step, hold
    for counter in list(_counters):
        counter.wake()


def watch(look: Callable[[Any], None] | None) -> None:
    """Has somebody look at the state of a run after each step, on its thread; None: nobody."""
    global _look
    _look = look
    for counter in list(_counters):
        counter.wake()


def is_closed() -> bool:
    """True while a step is to be held, or each is looked at."""
    return _at > 0 or _look is not None


def passing(step: int, state: Any = None) -> None:  # noqa: ANN401  # the state of any run
    """The training is about to begin this step; holds it if the gate is closed before it.

    Args:
        step: Which.
        state: That of the run whose step has ended; None before the first.
    """
    global _at, _hold
    if _look is not None and state is not None:
        _look(state)
    hold = _hold
    if not _at or step < _at or hold is None:
        return
    _at, _hold = 0, None
    hold()
