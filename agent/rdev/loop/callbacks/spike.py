"""Catches a loss that leaps far above what it was, before or after it has spoiled the weights."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from statistics import median
from typing import Any

from rdev.loop.callbacks.agreement import MEAN, agreed
from rdev.loop.callbacks.finite import number_of
from rdev.loop.callbacks.guard import PAUSE, SKIP, Guard
from rdev.loop.callbacks.updates import Losses
from rdev.loop.checkpoint import Snapshot, capture, restore
from rdev.loop.state import State

ROLLBACK = "rollback"

# Of normally distributed values the median absolute deviation is this share of the standard one.
_NORMAL = 1.4826

# Losses deviate by at least this share of what they are, or once were: when a training has come to
# the noise around nothing, a loss of a few times that noise is no spike.
_LEAST = 1e-3

# Where all losses have been 0, everything would lie infinitely far above.
_TINY = 1e-12

# What is not above so many of the window's losses is not looked into.
_USUAL = 0.9

# Snapshots that are kept: the one before the latest is old enough when the latest is not.
_SNAPSHOTS = 2


class Window:
    """The latest losses, in their order and sorted.

    Args:
        size: How many.

    Attributes:
        values: The losses, oldest first.
        scale: The largest median seen, as an absolute value.
    """

    def __init__(self, size: int) -> None:
        self.scale = 0.0
        self.values: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self.values)

    def add(self, value: float) -> None:
        """Takes in a finite loss."""
        if len(self.values) == self.values.maxlen:
            del self._sorted[bisect_left(self._sorted, self.values[0])]
        self.values.append(value)
        insort(self._sorted, value)

    def median(self) -> float:
        """Of the losses in it."""
        middle = median(self._sorted)
        self.scale = max(self.scale, abs(middle))
        return middle

    def deviations(self, value: float) -> float:
        """How many robust standard deviations a value lies above the median; 0 for usual ones.

        The deviation is 1.4826 times the median absolute one (Hampel, "The influence curve and its
        role in robust estimation", JASA 69, 1974; Leys et al., "Detecting outliers: do not use
        standard deviation around the mean, use absolute deviation around the median", J. Exp.
        Soc. Psychol. 49, 2013): a spike within the window does not hide the next one.
        """
        if not math.isfinite(value):
            return math.inf
        if bisect_left(self._sorted, value) < _USUAL * len(self._sorted):
            return 0.0
        middle = self.median()
        spread = median(abs(one - middle) for one in self._sorted)
        return (value - middle) / max(_NORMAL * spread, _LEAST * self.scale, _TINY)


class SpikeGuard(Guard):
    """Acts on a loss that lies many robust deviations above its running median.

    The loss of an update is the mean of those whose `backward` went before it; each optimizer has
    a median of its own. The update is withheld. `rollback` also puts back the objects' state
    of some steps ago, from memory, and goes on with the data that comes next: what PaLM's training
    did by hand (Chowdhery et al., "PaLM", 2022, section 5.1). After that, losses are only watched
    for a while. In a training by numpy the update has been made; it can be paused or rolled back.

    Cost: the loss is read at each update, which on CUDA is a synchronisation (untested there);
    about 5 us for the window. `rollback` keeps two copies of all objects' state, with Adam
    six times the memory of the weights, and makes one every `back` steps.

    Args:
        action: `skip` (leaves the update out), `pause` (in a job) or `rollback`.
        deviations: How many make a spike.
        window: Of how many updates the median is.
        warmup: So many losses are watched first.
        back: How many steps old, at least, the state is that is put back; at most twice as many.
        cooldown: For so many updates after it has acted, it does not act.
        device: Where copies lie, "cpu" to spare a GPU's memory; None for where the tensors are.
        agree: Whether the loss is the mean of all ranks', so that all do the same: by a collective
            operation of one number an update. False where ranks do not make the same updates.
        order: See `Callback`.
    """

    def __init__(
        self,
        action: str = SKIP,
        *,
        deviations: float = 10.0,
        window: int = 100,
        warmup: int = 20,
        back: int = 50,
        cooldown: int = 20,
        device: str | None = None,
        agree: bool = True,
        order: int = -40,
    ) -> None:
        super().__init__(action, actions=(SKIP, PAUSE, ROLLBACK), order=order)
        if min(window, warmup, back) < 1 or warmup > window:
            raise ValueError("window, warmup and back count from 1, and the warmup is within one")
        self._deviations = deviations
        self._size = window
        self._warmup = warmup
        self._back = back
        self._cooldown = cooldown
        self._device = device
        self._agrees = agree
        self._windows: dict[str, Window] = {}
        self._quiet = 0
        self._snapshots: deque[Snapshot] = deque(maxlen=_SNAPSHOTS)

    def run_begin(self, state: State) -> None:
        """Begins to watch."""
        super().run_begin(state)
        self._snapshots.clear()
        self._keep(state)

    def step_end(self, state: State) -> None:
        """Keeps a copy now and then."""
        super().step_end(state)
        if self._action == ROLLBACK and state.step >= self._snapshots[-1].step + self._back:
            self._keep(state)

    def run_end(self, state: State) -> None:
        """Watches no more, and gives the copies' memory back."""
        super().run_end(state)
        self._snapshots.clear()

    def judge(self, state: State, losses: Losses, *, optimizer: Any = None) -> bool:  # noqa: ANN401  # torch's
        """Looks at the loss."""
        value = _mean(losses)
        if value is None:
            return True
        if self._agrees and optimizer is not None:
            value = agreed(value, how=MEAN)
        series = state.phase if optimizer is None else _name(state, optimizer)
        window = self._windows.setdefault(series, Window(self._size))
        above = window.deviations(value) if len(window) >= self._warmup else 0.0
        if len(window) == self._warmup:
            window.median()  # Whatever comes, this is what losses once were.
        if math.isfinite(value):
            window.add(value)
        if self._quiet:
            self._quiet -= 1
            return True
        if above <= self._deviations:
            return True
        self._quiet = self._cooldown
        self._answer(state, value, above, window, was_updated=optimizer is None)
        return False

    def state_dict(self) -> dict[str, Any]:
        """The windows."""
        kept = {name: (list(one.values), one.scale) for name, one in self._windows.items()}
        return {"windows": kept, "quiet": self._quiet}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with them."""
        self._quiet = state["quiet"]
        for series, (values, scale) in state["windows"].items():
            self._windows[series] = Window(self._size)
            self._windows[series].scale = scale
            for value in values[-self._size :]:
                self._windows[series].add(value)

    def _answer(
        self, state: State, value: float, above: float, window: Window, *, was_updated: bool
    ) -> None:
        middle = window.median()
        reason = f"the loss is {value:.4g}, {above:.3g} deviations above its median {middle:.4g}"
        action = self._action
        details: dict[str, object] = {"loss": value, "median": middle, "deviations": above}
        if action == ROLLBACK:
            snapshot = self._put_back(state)
            details["to_step"] = snapshot.step
            reason += f"; the state is that after step {snapshot.step}"
        elif was_updated:
            reason += "; the update had been made"
            action = PAUSE if action == PAUSE else "tell"
        self.act(reason, action=action, **details)

    def _put_back(self, state: State) -> Snapshot:
        old = [one for one in self._snapshots if one.step <= state.step - self._back]
        snapshot = old[-1] if old else self._snapshots[0]
        # What was copied since may be spoiled.
        while self._snapshots[-1] is not snapshot:
            self._snapshots.pop()
        restore(state, snapshot)
        return snapshot

    def _keep(self, state: State) -> None:
        if self._action == ROLLBACK:
            self._snapshots.append(capture(state, device=self._device))


def _mean(losses: Losses) -> float | None:
    """The mean of losses; None if they are no numbers, or there are none."""
    found = [number for number in map(number_of, losses) if number is not None]
    return sum(found) / len(found) if found else None


def _name(state: State, optimizer: object) -> str:
    """An optimizer's name among the objects, or its class."""
    for name, value in state.objects.items():
        if value is optimizer:
            return name
    return type(optimizer).__name__
