"""Joins the training of another library, whose trainer is recognised by its class."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterable
from typing import TypeVar

from rdev.loop.callback import Callback
from rdev.loop.guests.guest import Foreign, Guest

Trainer = TypeVar("Trainer")

# Where a trainer's class comes from, and its name -> the adapter, which is also the run's kind.
_ADAPTERS = {
    ("ignite", "Engine"): "ignite",
    ("lightning", "Trainer"): "lightning",
    ("pytorch_lightning", "Trainer"): "lightning",
    ("transformers", "Trainer"): "transformers",
    ("keras", "Model"): "keras",
    ("skorch", "NeuralNet"): "skorch",
    ("catalyst", "IRunner"): "catalyst",
    ("fastai", "Learner"): "fastai",
    ("mmengine", "Runner"): "mmengine",
}

_joined: weakref.WeakValueDictionary[int, Foreign] = weakref.WeakValueDictionary()


def join(trainer: Trainer, callbacks: Iterable[Callback] = (), **objects: object) -> Trainer:
    """Makes the trainings of a library's trainer runs of ours: watched, paused, stepped, edited.

    Call it once, before the training begins; then train as ever. A step is what the library counts
    as one: with accumulated gradients, an update of the weights.

    Args:
        trainer: An `Engine` of Ignite, a `Trainer` of Lightning or of transformers, a `Model` of
            Keras on torch, a `NeuralNet` of skorch, a `Runner` of Catalyst or of mmengine, or a
            `Learner` of fastai.
        callbacks: Told what happens, see `Callback`.
        objects: Named objects, as attributes of the state; the trainer's model, optimizers and
            schedulers are there without being named.

    Returns:
        The trainer.

    Raises:
        TypeError: It is of no library that can be joined, or a callback is not a `Callback`.
        ValueError: It has been joined before, or an object's name is one the state uses.
    """
    kind = _kind_of(trainer)
    if _joined.get(id(trainer)) is trainer:
        raise ValueError("this trainer has been joined before")
    guest = Guest(kind, callbacks, objects)
    importlib.import_module(f"rdev.loop.guests.{kind}").attach(trainer, guest)
    _joined[id(trainer)] = trainer
    return trainer


def _kind_of(trainer: object) -> str:
    for base in type(trainer).__mro__:
        kind = _ADAPTERS.get((base.__module__.partition(".")[0], base.__name__))
        if kind is not None:
            return kind
    known = ", ".join(f"{library} ({name})" for library, name in _ADAPTERS)
    kind = f"{type(trainer).__module__}.{type(trainer).__name__}"
    raise TypeError(f"unable to join a {kind}: it is no trainer of {known}")
