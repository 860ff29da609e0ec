"""transformers: a step is an update of the weights, `state.global_step` of the `Trainer`.

`on_step_end` has neither loss nor batch, so `training_step` is watched while a training runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rdev.loop.guests.guest import Foreign, Guest, Joined, derived, replaced


def attach(trainer: Foreign, guest: Guest) -> None:
    """Makes each `trainer.train` a run."""
    trainer.add_callback(derived(_Watch, sys.modules["transformers"].TrainerCallback)(guest))

    def joined(train: Callable[..., object], *arguments: object, **options: object) -> object:
        training_step = trainer.training_step

        def step(model: Foreign, inputs: object, *rest: object, **named: object) -> object:
            guest.batch(inputs)
            loss = training_step(model, inputs, *rest, **named)
            guest.loss(loss)
            return loss

        with guest.training(), replaced(trainer, "training_step", step):
            return train(*arguments, **options)

    Joined.put(trainer, "train", joined)


class _Watch:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def on_train_begin(
        self,
        args: Foreign,
        state: Foreign,
        control: Foreign,
        *,
        model: Foreign,
        optimizer: Foreign,
        lr_scheduler: Foreign,
        **_: object,
    ) -> None:
        self._guest.begin(
            epochs=state.num_train_epochs,
            steps=state.max_steps,
            epoch=int(state.epoch or 0),
            step=state.global_step,
            objects={"model": model, "optimizer": optimizer, "scheduler": lr_scheduler},
        )

    def on_epoch_begin(self, *_: object, **others: object) -> None:
        self._guest.probe.epoch_begin()

    def on_step_end(self, args: Foreign, state: Foreign, control: Foreign, **_: object) -> Foreign:
        if self._guest.step_end():
            control.should_training_stop = True
        return control

    def on_epoch_end(self, *_: object, **others: object) -> None:
        self._guest.epoch_end()
