"""What every adapter needs: a training of the library's is a run of ours, begun and ended once.

begin -> (epoch_begin, step_begin, step_end, epoch_end of the probe)* -> fail? -> end
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from rdev.loop.callback import Callback
from rdev.loop.probe import Probe
from rdev.loop.sink import sink_of_process
from rdev.loop.state import State
from rdev.loop.track import active

Foreign: TypeAlias = Any
"""An object of a library's, whose types are not known here because nothing of it is imported."""

LrSetter: TypeAlias = Callable[[Any], tuple[object, object]]
"""Sets the learning rate; returns what it was and what it is."""


class Guest:
    """One joined trainer; each of its trainings is a run of its own.

    Args:
        kind: Name of the library, as the run's `kind`.
        callbacks: Told what happens in each run.
        objects: Named objects; they replace those of the same name that the trainer has.
    """

    def __init__(
        self,
        kind: str,
        callbacks: Iterable[Callback] = (),
        objects: Mapping[str, object] | None = None,
    ) -> None:
        self.kind = kind
        self.callbacks = tuple(callbacks)
        self.objects = dict(objects or {})
        self._forget()
        State(**self.objects)  # Names are refused here, where the caller wrote them.

    def _forget(self) -> None:
        self._probe: Probe | None = None
        self._ways_out = contextlib.ExitStack()
        self._is_open = False
        self._loss: Foreign = None
        self._losses = 0

    @property
    def probe(self) -> Probe:
        """The probe of the run that has begun."""
        assert self._probe is not None, "no run has begun"
        return self._probe

    @property
    def is_running(self) -> bool:
        """True from `begin` to `end`."""
        return self._probe is not None

    @property
    def is_in_step(self) -> bool:
        """True from the first batch of a step to the end of the step."""
        return self._is_open

    def begin(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        epoch: int = 0,
        step: int = 0,
        objects: Mapping[str, object],
    ) -> Probe:
        """A training begins.

        Args:
            epochs: How many are planned, if that is known.
            steps: At most how many steps are planned, if that is known.
            epoch: Epochs made before, of a training that goes on from a checkpoint.
            step: Steps made before.
            objects: What the trainer trains with, by name.
        """
        self.end()  # One that began and never said that it ended.
        state = State(**{**objects, **self.objects})
        state.epoch, state.step = epoch, step
        probe = Probe(state, callbacks=self.callbacks, sink=sink_of_process(), kind=self.kind)
        self._probe = probe
        self._ways_out.enter_context(active(probe))
        probe.run_begin(epochs=epochs, steps=steps)
        return probe

    def batch(self, batch: object) -> None:
        """A batch is about to be trained on: it begins a step, or goes on with the one at hand."""
        if self._is_open:
            self.probe.state.batch = batch
            return
        self._is_open = True
        self._loss = None
        self._losses = 0
        self.probe.step_begin(batch)

    def loss(self, loss: Foreign) -> None:
        """The loss of a batch of the step at hand."""
        self._loss = loss if self._loss is None else self._loss + loss
        self._losses += 1

    def step_end(self, *, is_mean: bool = False) -> bool:
        """The step has ended, as the library counts steps.

        Args:
            is_mean: Whether the loss of a step of several batches is their losses' mean. It is
                their sum where the library has divided each by their number.

        Returns:
            True if the training shall stop.
        """
        probe = self.probe
        if self._is_open:
            self._is_open = False
            loss = self._loss / self._losses if is_mean and self._losses > 1 else self._loss
            probe.step_end(loss)
        return probe.state.stop

    def epoch_end(self) -> None:
        """The epoch has ended, perhaps within a step."""
        self._is_open = False
        self.probe.settle()

    def fail(self, error: BaseException) -> None:
        """An exception ends the training."""
        self._is_open = False
        if self._probe is not None and self._probe.state.error is None:
            self._probe.fail(error)

    def end(self) -> None:
        """The training has ended, however it did; only the first call counts."""
        probe, ways_out = self._probe, self._ways_out
        if probe is None:
            return
        self._forget()
        with ways_out:
            try:
                probe.settle()
            finally:
                probe.run_end()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """What is called within may begin a training; it ends with the block."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self.end()

    def __getstate__(self) -> dict[str, object]:
        return {"kind": self.kind, "callbacks": self.callbacks, "objects": self.objects}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __deepcopy__(self, memo: object) -> Guest:
        # What copies a trainer wants another training, of which the same people are told.
        return Guest(self.kind, self.callbacks, self.objects)


class Joined:
    """A method of a trainer's with ours around it; what pickles or copies the trainer sees its own.

    Args:
        trainer: Whose method it is.
        name: The method's.
        around: Called with the method and the arguments of the call.
    """

    def __init__(self, trainer: Foreign, name: str, around: Callable[..., object]) -> None:
        self._trainer = trainer
        self._name = name
        self._method = getattr(trainer, name)
        self._around = around

    @classmethod
    def put(cls, trainer: Foreign, name: str, around: Callable[..., object]) -> None:
        """Puts it in the method's place, on this trainer alone."""
        setattr(trainer, name, cls(trainer, name, around))

    def __call__(self, *arguments: object, **options: object) -> object:
        return self._around(self._method, *arguments, **options)

    def __reduce__(self) -> tuple[Foreign, ...]:
        # Resolved while the copy has nothing of its own yet, so it is the method of its class.
        return getattr, (self._trainer, self._name)


@contextlib.contextmanager
def replaced(owner: Foreign, name: str, function: Callable[..., object]) -> Iterator[None]:
    """While the block runs, `owner.name` is this function, on the instance alone."""
    had_own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if had_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def numbered(name: str, members: Iterable[object]) -> dict[str, object]:
    """Several objects by name: the only one `name`, of more `name_1`, `name_2` and so on."""
    found = list(members)
    if len(found) == 1:
        return {name: found[0]}
    return {f"{name}_{number}": member for number, member in enumerate(found, 1)}


def derived(behaviour: type, base: type) -> Foreign:
    """A class of a library's, with our behaviour."""
    return type(behaviour.__name__, (behaviour, base), {})
