"""Callbacks: what they may override, and how those that do are found once and for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rdev.loop.state import State

Calls = tuple[Callable[..., object], ...]


class Callback:
    """Something that happens beside the training; override what you need and nothing else.

    Every begin has its end, innermost first, also when the run is stopped or an exception ends it:
    then `state.error` is set before `exception` and the ends are called. An exception in a callback
    ends the run like one in the step; one raised while the run is already failing is printed.

    Args:
        order: Callbacks with a lower order are called earlier, at every event; those of equal
            order as they were given.
    """

    order: int = 0

    def __init__(self, order: int = 0) -> None:
        self.order = order

    def run_begin(self, state: State) -> None:
        """The run begins; no step has been made."""

    def epoch_begin(self, state: State) -> None:
        """An epoch begins; `state.epoch` is its number, from 1."""

    def step_begin(self, state: State) -> None:
        """A step begins; `state.batch` is its batch."""

    def phase_end(self, state: State) -> None:
        """A phase of the step has ended: `state.phase` is its name, `state.loss` its loss."""

    def step_end(self, state: State) -> None:
        """A step has ended. Reading a tensor's number here waits for its device."""

    def epoch_end(self, state: State) -> None:
        """An epoch has ended, by itself or cut short."""

    def checkpoint_saved(self, state: State, path: str) -> None:
        """A checkpoint of the state has been written to that file; told to rank 0 only."""

    def exception(self, state: State) -> None:
        """The exception `state.error` is about to end the run; it cannot be held back."""

    def run_end(self, state: State) -> None:
        """The run has ended; called exactly once for each `run_begin`."""

    def pause(self, state: State) -> None:
        """The process was held, by a debugger for one; called at the next boundary of steps."""

    def resume(self, state: State, seconds: float) -> None:
        """The process goes on after it was held for so many seconds of wall time."""


EVENTS = (
    "run_begin",
    "epoch_begin",
    "step_begin",
    "phase_end",
    "step_end",
    "epoch_end",
    "checkpoint_saved",
    "exception",
    "run_end",
    "pause",
    "resume",
)


def compiled(callbacks: Iterable[Callback]) -> dict[str, Calls]:
    """The bound methods to call at each event, in order; members not overridden cost nothing.

    Raises:
        TypeError: Something given is not a `Callback`.
    """
    members = list(callbacks)
    for member in members:
        if not isinstance(member, Callback):
            raise TypeError(f"{member!r} is not a Callback")
    members.sort(key=lambda member: member.order)
    return {
        event: tuple(getattr(member, event) for member in members if _overrides(member, event))
        for event in EVENTS
    }


def _overrides(member: Callback, event: str) -> bool:
    method: Any = getattr(member, event)
    # A function put on the instance has no `__func__` of ours either.
    return getattr(method, "__func__", method) is not getattr(Callback, event)
