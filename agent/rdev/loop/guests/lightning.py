"""Lightning: a step ends with the batch at whose end an optimizer has stepped.

So batches whose gradients are accumulated are one step, and so are the several optimizer steps that
manual optimization makes of one batch, each of which Lightning counts in its `global_step`.
"""

from __future__ import annotations

import sys

from rdev.loop.guests.guest import Foreign, Guest, derived, numbered


def attach(trainer: Foreign, guest: Guest) -> None:
    """Makes each `trainer.fit` a run."""
    base = sys.modules[_package(trainer)].Callback
    trainer.callbacks.append(derived(_Watch, base)(guest))


def _package(trainer: Foreign) -> str:
    # `lightning`, or the older `pytorch_lightning`; each takes callbacks of its own class only.
    for base in type(trainer).__mro__:
        package = base.__module__.partition(".")[0]
        if package in ("lightning", "pytorch_lightning"):
            return "lightning.pytorch" if package == "lightning" else package
    raise TypeError("this is no Trainer of Lightning")


class _Watch:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._steps = 0

    def on_train_start(self, trainer: Foreign, module: Foreign) -> None:
        configs = trainer.lr_scheduler_configs
        self._guest.begin(
            epochs=_limit(trainer.max_epochs),
            steps=_limit(trainer.max_steps),
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            objects={
                "model": module,
                **numbered("optimizer", trainer.optimizers),
                **numbered("scheduler", [config.scheduler for config in configs]),
            },
        )

    def on_train_epoch_start(self, trainer: Foreign, module: Foreign) -> None:
        self._guest.probe.epoch_begin()

    def on_train_batch_start(
        self, trainer: Foreign, module: Foreign, batch: object, batch_idx: int
    ) -> None:
        if not self._guest.is_in_step:
            self._steps = trainer.global_step
        self._guest.batch(batch)

    def on_train_batch_end(
        self, trainer: Foreign, module: Foreign, outputs: Foreign, batch: object, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._guest.loss(loss)
        if trainer.global_step > self._steps and self._guest.step_end():
            _stop(trainer)

    def on_train_epoch_end(self, trainer: Foreign, module: Foreign) -> None:
        self._guest.epoch_end()

    def on_train_end(self, trainer: Foreign, module: Foreign) -> None:
        self._guest.end()

    def on_exception(self, trainer: Foreign, module: Foreign, exception: BaseException) -> None:
        self._guest.fail(exception)
        self._guest.end()

    def teardown(self, trainer: Foreign, module: Foreign, stage: str) -> None:
        self._guest.end()


def _stop(trainer: Foreign) -> None:
    # Who asks a run to stop means it, whatever least length it was given.
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = 0
    trainer.should_stop = True


def _limit(number: int | None) -> int | None:
    return None if number is None or number < 0 else number
