"""How fast a run goes and how long it will take, on active time."""

from __future__ import annotations

from dataclasses import dataclass

from rdev.loop.probe import current
from rdev.loop.state import State

# A rate is taken over so many of the latest looks: a slow first step is soon forgotten.
_LOOKS = 20


@dataclass(frozen=True)
class Plan:
    """How long a run was planned to be.

    Attributes:
        epochs: So many at most; None for no limit.
        steps: So many at most, over all epochs; None for no limit.
        epoch_steps: Steps of an epoch, as far as that is known.
    """

    epochs: int | None = None
    steps: int | None = None
    epoch_steps: int | None = None

    def total(self) -> int | None:
        """Steps of the whole run; None if that is not known."""
        known = [self.steps] if self.steps is not None else []
        if self.epochs is not None and self.epoch_steps is not None:
            known.append(self.epochs * self.epoch_steps)
        return min(known) if known else None


class Pace:
    """The rate of the latest looks; a look is a step's number at a moment of the active clock."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, int]] = []

    def look(self, now: float, step: int) -> None:
        """Notes where the run is.

        Args:
            now: Seconds of `rdev.wire.clock.active_monotonic`.
            step: Steps made.
        """
        self._looks = [*self._looks[1 - _LOOKS :], (now, step)]

    @property
    def has_begun(self) -> bool:
        """Whether there was a look."""
        return bool(self._looks)

    def rate(self) -> float:
        """Steps a second; 0 before there are two looks."""
        if len(self._looks) < 2:
            return 0.0
        (begun, first), (now, last) = self._looks[0], self._looks[-1]
        return (last - first) / (now - begun) if now > begun else 0.0

    def left(self, total: int | None) -> float | None:
        """Seconds until that many steps are made; None if nobody can know."""
        rate = self.rate()
        if total is None or not rate:
            return None
        return max(0, total - self._looks[-1][1]) / rate


def plan_of(state: State) -> Plan:
    """How long the run is planned to be whose state this is, as far as anybody knows."""
    probe = current()
    if probe is None or probe.state is not state:
        return Plan()
    epochs, steps = probe.planned
    return Plan(epochs, steps, None if probe.feed is None else probe.feed.length())


def clock(seconds: float) -> str:
    """A span of time as `42s`, `7m05s` or `3h07m`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_rest = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_rest:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
