"""A plain loop: `track` wraps its loader, `log` reports what only the loop knows."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from rdev.loop.callback import Callback
from rdev.loop.probe import Probe, error_at_exit
from rdev.loop.sink import sink_of_process
from rdev.loop.state import State

Batch = TypeVar("Batch")


def track(
    loader: Iterable[Batch], *, callbacks: Iterable[Callback] = (), **objects: object
) -> Tracked[Batch]:
    """Yields the batches of `loader`, and makes each a step and all of them an epoch of a run.

    The run begins with the first call in a process and ends with the process; every call is one
    epoch. Wrap the training loader only and `log` what a validation found. Within a `Loop`, whose
    steps are counted already, batches just pass.

    Args:
        loader: Gives batches; iterated once.
        callbacks: Told what happens; those given in an earlier epoch stay.
        objects: Named objects for the callbacks, as attributes of the state.

    Raises:
        ValueError: An object's name is one that the state uses.
    """
    return Tracked(loader, tuple(callbacks), objects)


def log(**metrics: object) -> None:
    """Reports metrics of the step at hand: numbers, or tensors of one element on any device.

    In a `Loop` or a `track`ed loop it costs a dictionary update: values that come faster than they
    are sampled replace one another, and the last of each name is always reported, at the latest
    when the epoch or the process ends. Without either, each call is a step and is reported.
    """
    probe = _active or _own or _guest()
    if probe is _active or probe.state.epoch:
        probe.log(metrics)
    else:
        probe.lone(metrics)


class Tracked(Generic[Batch]):
    """One epoch of a tracked loop; iterate it once."""

    def __init__(
        self, loader: Iterable[Batch], callbacks: tuple[Callback, ...], objects: dict[str, object]
    ) -> None:
        self._loader = loader
        self._callbacks = callbacks
        self._objects = objects

    def __len__(self) -> int:
        """How many batches there are, if the loader knows."""
        return len(self._loader)  # type: ignore[arg-type]  # TypeError says it for a loader that has none

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches."""
        if _active is not None:
            yield from self._loader
            return
        probe = _guest()
        probe.state.add(self._objects)
        probe.add(self._callbacks)
        yield from _epoch(probe, self._loader)


def _epoch(probe: Probe, loader: Iterable[Batch]) -> Iterator[Batch]:
    state = probe.state
    probe.epoch_begin()
    try:
        for batch in loader:
            probe.step_begin(batch)
            yield batch
            probe.step_end()
            if state.stop:
                break
    except GeneratorExit:
        raise  # The loop was left by `break` or an exception; which, nobody can see from here.
    except BaseException as error:
        probe.fail(error)
        raise
    finally:
        probe.settle()


_active: Probe | None = None
_own: Probe | None = None


@contextlib.contextmanager
def active(probe: Probe) -> Iterator[None]:
    """Makes `log` speak to this probe while the block runs."""
    global _active
    before, _active = _active, probe
    try:
        yield
    finally:
        _active = before


def _guest() -> Probe:
    global _own
    if _own is None:
        _own = Probe(State(), sink=sink_of_process(), kind="track")
        atexit.register(_end, _own)
        _own.run_begin()
    return _own


def _end(probe: Probe) -> None:
    if probe is not _own:
        return
    error = error_at_exit()
    if error is not None:
        probe.fail(error)
    probe.settle()
    probe.run_end()


def _forget() -> None:
    # A forked child has a run of its own, if it tracks or logs at all.
    global _own
    _own = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
