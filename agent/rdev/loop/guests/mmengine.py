"""mmengine: a step is an iteration at whose end the optimizer has stepped.

An epoch of mmengine looks at no flag between two batches, so a stop leaves it by an exception that
is caught around the epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rdev.loop.guests.guest import Foreign, Guest, Joined, derived, numbered


def attach(runner: Foreign, guest: Guest) -> None:
    """Makes each `runner.train` a run."""
    watch = derived(_Watch, sys.modules["mmengine.hooks"].Hook)
    runner.register_hook(watch(guest), priority="LOWEST")

    def train(train: Callable[..., object], *arguments: object, **options: object) -> object:
        with guest.training():
            return train(*arguments, **options)

    Joined.put(runner, "train", train)


class _Stopped(BaseException):
    """Ends an epoch; no `Exception`, so nobody's handler of failures takes it for one."""


class _Watch:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def before_train(self, runner: Foreign) -> None:
        loop = runner.train_loop
        self._guest.begin(
            epochs=loop.max_epochs if hasattr(loop, "run_epoch") else None,
            steps=loop.max_iters,
            epoch=loop.epoch,
            step=loop.iter,
            objects=_objects(runner),
        )
        if hasattr(loop, "run_epoch"):
            run_epoch = loop.run_epoch

            def joined() -> None:
                try:
                    run_epoch()
                except _Stopped:
                    runner.call_hook("after_train_epoch")

            loop.run_epoch = joined

    def before_train_epoch(self, runner: Foreign) -> None:
        self._guest.probe.epoch_begin()

    def before_train_iter(self, runner: Foreign, batch_idx: int, data_batch: object = None) -> None:
        self._guest.batch(data_batch)

    def after_train_iter(
        self, runner: Foreign, batch_idx: int, data_batch: object = None, outputs: Foreign = None
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._guest.loss(loss)
        if not _has_stepped(runner.optim_wrapper) or not self._guest.step_end(is_mean=True):
            return
        runner.train_loop.stop_training = True
        if hasattr(runner.train_loop, "run_epoch"):
            raise _Stopped

    def after_train_epoch(self, runner: Foreign) -> None:
        self._guest.epoch_end()

    def after_train(self, runner: Foreign) -> None:
        self._guest.end()


def _has_stepped(wrapper: Foreign) -> bool:
    # Of several optimizers each steps when the model says so: then an iteration is a step.
    return not hasattr(wrapper, "should_update") or bool(wrapper.should_update())


def _objects(runner: Foreign) -> dict[str, object]:
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.values()) if not hasattr(wrapper, "optimizer") else [wrapper]
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = [one for members in schedulers.values() for one in members]
    return {
        "model": runner.model,
        **numbered("optimizer", [one.optimizer for one in wrappers]),
        **numbered("scheduler", schedulers),
    }
