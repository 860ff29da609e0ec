"""Which metrics are new: what was logged since one looked last, with its step.

`state.metrics` knows the latest value of each name and not when it came. Followers put a dictionary
in its place that notes updates as well; a step that logs nothing pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdev.loop.state import State

# By name: the step in which it was logged, and the value.
Fresh = dict[str, tuple[int, Any]]


class _Noting(dict[str, Any]):
    """Metrics that note for their followers what comes in.

    Attributes:
        latest: What came in last, as it was given.
    """

    __slots__ = ("_followers", "_state", "latest")

    def __init__(self, state: State) -> None:
        super().__init__(state.metrics)
        self.latest: Mapping[str, Any] = {}
        self._state = state
        self._followers: list[Fresh] = []

    def follow(self, fresh: Fresh) -> None:
        if all(fresh is not other for other in self._followers):
            self._followers.append(fresh)

    def __setitem__(self, name: str, value: object) -> None:
        self.update({name: value})

    def update(self, *values: Any, **more: Any) -> None:  # noqa: ANN401  # as dict's
        taken = values[0] if values and isinstance(values[0], dict) and not more else None
        taken = dict(*values, **more) if taken is None else taken
        super().update(taken)
        self.latest = taken
        step = self._state.step
        for fresh in self._followers:
            for name, value in taken.items():
                fresh[name] = (step, value)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        # In a checkpoint it is a dictionary like any other.
        return dict, (dict(self),)


class Recent:
    """What was logged since it was taken last; taking it at a run's begin starts it."""

    def __init__(self) -> None:
        self._fresh: Fresh = {}

    def names(self) -> frozenset[str]:
        """What is new."""
        return frozenset(self._fresh)

    def take(self, state: State) -> Fresh:
        """All that is new, by name."""
        if not isinstance(state.metrics, _Noting):  # The first, or a checkpoint has been loaded.
            state.metrics = _Noting(state)
        state.metrics.follow(self._fresh)
        taken = dict(self._fresh)
        self._fresh.clear()
        return taken

    def take_phase(self, state: State) -> dict[str, Any]:
        """What the phase that has just ended gave: its loss, and what came with it."""
        values: dict[str, Any] = {"loss": state.loss}
        latest = state.metrics.latest if isinstance(state.metrics, _Noting) else {}
        # A phase's values come in just before its end is told, and its loss is among them.
        if self._fresh and latest.get("loss", latest) is state.loss:
            for name in latest:
                values[name] = self._fresh.pop(name, (0, latest[name]))[1]
        return values
