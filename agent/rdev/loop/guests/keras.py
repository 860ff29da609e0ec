"""Keras 3 on torch: a step is a `train_step`.

The `loss` in the logs of Keras is the mean over the epoch so far, so the loss is taken where it is
computed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rdev.loop.guests.guest import Foreign, Guest, Joined, LrSetter, derived, replaced


def attach(model: Foreign, guest: Guest) -> None:
    """Makes each `model.fit` a run.

    Raises:
        TypeError: Keras computes with another backend than torch.
    """
    backend = sys.modules["keras"].config.backend()
    if backend != "torch":
        raise TypeError(
            f"unable to join a training of Keras on {backend}: set KERAS_BACKEND=torch before "
            "keras is imported"
        )
    watch = derived(_Watch, sys.modules["keras"].callbacks.Callback)

    def joined(
        fit: Callable[..., object],
        *arguments: object,
        callbacks: Foreign = None,
        **options: object,
    ) -> object:
        member = watch(guest)
        if hasattr(callbacks, "append") and not isinstance(callbacks, list):
            callbacks.append(member)  # a CallbackList, which the caller has made
        else:
            callbacks = [*_listed(callbacks), member]
        with guest.training(), _watched(model, guest):
            return fit(*arguments, callbacks=callbacks, **options)

    Joined.put(model, "fit", joined)


def _listed(callbacks: Foreign) -> list[object]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


@contextlib.contextmanager
def _watched(model: Foreign, guest: Guest) -> Iterator[None]:
    train_step, compute_loss = model.train_step, model.compute_loss

    def step(data: object) -> object:
        guest.batch(data)
        return train_step(data)

    def loss(*arguments: object, **options: Foreign) -> Foreign:
        value = compute_loss(*arguments, **options)
        if options.get("training", True) and guest.is_in_step:
            guest.loss(value.detach())
        return value

    with replaced(model, "train_step", step), replaced(model, "compute_loss", loss):
        yield


class _Watch:
    # Set by Keras, which also asks a callback for `params`.
    model: Foreign
    params: Foreign

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self._guest = guest

    def on_train_begin(self, logs: object = None) -> None:
        optimizer = self.model.optimizer
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        probe = self._guest.begin(
            epochs=epochs,
            steps=epochs * steps if epochs and steps else None,
            objects={"model": self.model, "optimizer": _Optimizer(optimizer)},
        )
        probe.control.setters["lr"] = _setter(optimizer)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._guest.probe.epoch_begin()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self._guest.step_end():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self._guest.epoch_end()


class _Optimizer:
    """Keras's optimizer, with a state as torch's have one, so that checkpoints keep it."""

    def __init__(self, optimizer: Foreign) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Foreign:
        return getattr(self._optimizer, name)

    def state_dict(self) -> dict[str, object]:
        return {"variables": [one.value.detach() for one in self._optimizer.variables]}

    def load_state_dict(self, state: Foreign) -> None:
        for variable, value in zip(self._optimizer.variables, state["variables"], strict=True):
            variable.assign(value)


def _setter(optimizer: Foreign) -> LrSetter:
    def set_lr(value: float) -> tuple[object, object]:
        before = float(optimizer.learning_rate)
        schedule = optimizer._learning_rate  # noqa: SLF001  # Keras sets no rate beside a schedule.
        if callable(schedule):
            optimizer._learning_rate = _scaled(schedule, value / before)  # noqa: SLF001  # as above
        else:
            optimizer.learning_rate = value
        return before, float(optimizer.learning_rate)

    return set_lr


def _scaled(schedule: Foreign, factor: float) -> object:
    class Scaled(sys.modules["keras"].optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # a class of a library's
        def __call__(self, step: object) -> object:
            return schedule(step) * factor

        def get_config(self) -> object:
            return schedule.get_config()

    return Scaled()
