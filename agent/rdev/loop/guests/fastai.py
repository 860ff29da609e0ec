"""fastai: a step is a batch at whose end the optimizer has stepped.

fastai keeps rates in hyper-parameters of its own: param groups are made of them when they are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rdev.loop.guests.guest import Foreign, Guest, Joined, LrSetter, derived

# After the schedules (60) and the recorder (50), so that what they do is done before ours.
_ORDER = 1000


def attach(learner: Foreign, guest: Guest) -> None:
    """Makes each `learner.fit`, and what calls it, a run."""
    watch = derived(_Watch, sys.modules["fastai.callback.core"].Callback)

    def fit(fit: Callable[..., object], *arguments: object, **options: object) -> object:
        member = watch(guest)
        with guest.training(), learner.added_cbs(member):
            return fit(*arguments, **options)

    Joined.put(learner, "fit", fit)


class _Watch:
    order = _ORDER
    learn: Foreign

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self.guest = guest
        self.has_stepped = False

    def __call__(self, event: str) -> None:
        # fastai's own rewrites what is raised here, and fails if the exception has no arguments.
        handler = getattr(type(self), event, None)
        if handler is not None:
            handler(self)

    def before_fit(self) -> None:
        learner = self.learn
        probe = self.guest.begin(
            epochs=learner.n_epoch,
            objects={"model": learner.model, "optimizer": _Optimizer(learner.opt)},
        )
        probe.control.setters["lr"] = _setter(learner)

    def before_epoch(self) -> None:
        self.guest.probe.epoch_begin()

    def before_batch(self) -> None:
        if self.learn.training:
            self.has_stepped = False
            self.guest.batch((*self.learn.xb, *self.learn.yb))

    def before_step(self) -> None:
        self.has_stepped = True

    def after_cancel_step(self) -> None:
        self.has_stepped = False

    def after_batch(self) -> None:
        learner = self.learn
        if not learner.training:
            return
        self.guest.loss(learner.loss.detach())
        if self.has_stepped and self.guest.step_end(is_mean=True):
            raise sys.modules["fastai.callback.core"].CancelFitException

    def after_epoch(self) -> None:
        self.guest.epoch_end()

    def after_fit(self) -> None:
        self.guest.end()


class _Optimizer:
    """fastai's optimizer, whose state checkpoints can keep: theirs has lists of fastai's own."""

    def __init__(self, optimizer: Foreign) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Foreign:
        return getattr(self._optimizer, name)

    def state_dict(self) -> dict[str, object]:
        state = self._optimizer.state_dict()
        return {**state, "hypers": [dict(hypers) for hypers in state["hypers"]]}

    def load_state_dict(self, state: Foreign) -> None:
        hypers = type(self._optimizer.hypers)(state["hypers"])
        self._optimizer.load_state_dict({**state, "hypers": hypers})


def _setter(learner: Foreign) -> LrSetter:
    def set_lr(value: float) -> tuple[object, object]:
        before = float(learner.opt.hypers[-1]["lr"])
        learner.opt.set_hyper("lr", value)
        for member in learner.cbs:
            schedules = getattr(member, "scheds", None)
            if isinstance(schedules, dict) and "lr" in schedules and before:
                schedules["lr"] = _scaled(schedules["lr"], value / before)
        return before, float(learner.opt.hypers[-1]["lr"])

    return set_lr


def _scaled(schedule: Callable[[float], Foreign], factor: float) -> Callable[[float], Foreign]:
    return lambda position: schedule(position) * factor
