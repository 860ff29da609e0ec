"""Ends a run that gets no better."""

from __future__ import annotations

import math
from typing import Any

from rdev.loop.callback import Callback
from rdev.loop.callbacks.agreement import mean_of_those
from rdev.loop.callbacks.finite import number_of
from rdev.loop.callbacks.notice import report, say
from rdev.loop.callbacks.recent import Recent
from rdev.loop.checkpoint import Snapshot, capture, restore
from rdev.loop.state import State

MIN, MAX = "min", "max"


class EarlyStop(Callback):
    """Ends the run once a metric has not become better for so many epochs.

    An epoch in which the metric was not logged does not count; one that is NaN counts as no better.
    Ranks judge the mean over those that logged it, which may be one alone, and so stop together.

    Cost: the metric is read once an epoch, which on CUDA waits for it (untested there), and ranks
    reduce two numbers at each epoch's begin and end. The best
    weights are a copy of all objects' state, with Adam three times the memory of the weights.

    Args:
        metric: Its name as logged, `loss` for the step's own.
        patience: How many epochs.
        mode: `min` or `max`: which is better.
        min_delta: Better by less than this is no better.
        restore_best: Whether the objects get their state of the best epoch back at the end.
        agree: Whether ranks judge together. False where they do not make the same epochs; then
            each must log the same value, or they stop apart.
        order: See `Callback`; late, so that evaluations at the epoch's end come first.

    Raises:
        ValueError: Another mode, or a patience under 1.
    """

    def __init__(
        self,
        metric: str = "loss",
        *,
        patience: int = 3,
        mode: str = MIN,
        min_delta: float = 0.0,
        restore_best: bool = False,
        agree: bool = True,
        order: int = 50,
    ) -> None:
        super().__init__(order)
        if mode not in (MIN, MAX) or patience < 1 or min_delta < 0:
            raise ValueError("mode is min or max, patience counts from 1, min_delta from 0")
        self._metric = metric
        self._patience = patience
        self._sign = 1.0 if mode == MIN else -1.0
        self._min_delta = min_delta
        self._restores = restore_best
        self._agrees = agree
        self._recent = Recent()
        self._best: float | None = None
        self._best_epoch = 0
        self._bad = 0
        self._snapshot: Snapshot | None = None
        self._is_warned = False

    def run_begin(self, state: State) -> None:
        """Begins to note what is logged."""
        self._recent.take(state)

    def epoch_begin(self, state: State) -> None:
        """An evaluation between the epochs counts for the one before."""
        if state.epoch > 1:
            self._judge(state, epoch=state.epoch - 1, is_between=True)

    def epoch_end(self, state: State) -> None:
        """Judges the epoch."""
        if state.error is None:
            self._judge(state, epoch=state.epoch)

    def run_end(self, state: State) -> None:
        """Gives the best state back, if that was asked for."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and state.error is None:
            restore(state, snapshot)
            say(f"the state of epoch {snapshot.epoch}, the best, is back")

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long ago it was; not the weights of then."""
        return {"best": self._best, "best_epoch": self._best_epoch, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with it."""
        self._best, self._best_epoch = state["best"], state["best_epoch"]
        self._bad = state["bad"]

    def _judge(self, state: State, *, epoch: int, is_between: bool = False) -> None:
        number = self._number(state, is_between=is_between)
        if number is None:
            if not is_between:
                self._warn(state)
            return
        if self._is_better(number):
            self._best, self._best_epoch, self._bad = number, epoch, 0
            if self._restores:
                self._snapshot = capture(state)
            return
        self._bad += 1
        if self._bad >= self._patience and not state.stop:
            state.stop = True
            best = "none" if self._best is None else f"{self._best:.5g} of epoch {self._best_epoch}"
            reason = f"{self._metric} {number:.5g} is no better than {best}, for {self._bad} epochs"
            report("EarlyStop", state, reason, action="stop", best=self._best)

    def _number(self, state: State, *, is_between: bool) -> float | None:
        logged = self._recent.take(state)
        value = logged.get(self._metric, (0, None))[1]
        if self._metric == "loss" and not is_between:  # a step's own is not logged
            value = state.loss
        number = number_of(value)
        return mean_of_those(number) if self._agrees else number

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return self._best is None or self._sign * (self._best - value) > self._min_delta

    def _warn(self, state: State) -> None:
        if not self._is_warned and self._best is None:
            self._is_warned = True
            say(f"EarlyStop waits for {self._metric!r}, not logged in epoch {state.epoch}")
