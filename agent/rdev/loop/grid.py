"""Which steps the ranks of a job sample, so that many of their samples are of the same steps.

Each rank samples by its own clock, and the ranks must not talk for it. So each rounds: it takes
every step whose number is a multiple of its stride, a power of two that fits the interval wanted.
Ranks go at about the same pace; where one takes every 64th step and another every 128th, every
second sample of the one is of a step that the other samples too.

    sampled -> plan: the next multiple, and when to begin to look for it -> takes -> sampled
                     ^   missed it, or the steps have become slow    |
                     '-----------------------------------------------'
"""

from __future__ import annotations

# Looking begins after this share of the time that the steps up to the next one should take: steps
# that become faster by less than this are not missed.
_EARLY = 0.7

# So many intervals without a sample, and the stride is taken anew from how long steps take now.
_PATIENCE = 3.0


class Grid:
    """Chooses steps for one rank; used between `Sink.interval` and the probe's clock."""

    __slots__ = ("_at", "_interval", "_seconds", "_seen", "_step", "_target")

    def __init__(self) -> None:
        self._step = 0
        self._at = 0.0
        self._seen = (0, 0.0)
        self._interval = 0.0
        self._seconds = 0.0
        self._target = 1

    def takes(self, step: int, now: float) -> bool:
        """Whether to sample this step, at whose end it is `now` by the monotonic clock."""
        if step == self._target:
            return True
        overdue = now - self._at > _PATIENCE * self._interval
        if step > self._target or overdue:
            # What steps take now, if that can be seen.
            seen, at = self._seen
            self._aim(step, step - seen, now - at)
        self._seen = (step, now)
        return False

    def plan(self, step: int, now: float, interval: float) -> float:
        """The time to begin to look for the next step to sample.

        Args:
            step: The one just sampled.
            now: The monotonic clock.
            interval: Seconds that are wanted between samples.
        """
        self._interval = interval
        self._aim(step, step - self._step, now - self._at if self._at else 0.0)
        self._step, self._at = self._seen = (step, now)
        return now + _EARLY * min((self._target - step) * self._seconds, _PATIENCE * interval)

    def _aim(self, step: int, made: int, took: float) -> None:
        if made > 0 and took > 0:
            self._seconds = took / made
        stride = 1
        while self._seconds and stride * self._seconds < self._interval:
            stride *= 2
        self._target = (step // stride + 1) * stride
