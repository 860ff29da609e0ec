"""The loop itself: it takes batches from data and gives them to a step, and nothing more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rdev.loop.callback import Callback
from rdev.loop.feed import Data, Feed
from rdev.loop.probe import Probe
from rdev.loop.sink import sink_of_process
from rdev.loop.state import State
from rdev.loop.track import active

if TYPE_CHECKING:
    from rdev.loop.resume import Resumption

Step = Callable[[State], Any]


class Loop:
    """Calls `step(state)` for every batch of `data`.

    Args:
        step: Makes one step with `state.batch` and returns a loss (a number or a tensor of one
            element), metrics by name of which `loss` is one, or None; or is a generator that
            yields `(phase, loss)` for each part of the step. It does its own backward and
            optimizer calls.
        data: Gives the batches of an epoch: something that can be iterated again for every epoch,
            or a function of the state that returns such an epoch (rollouts, groups of batches).
        epochs: At most so many epochs; None for as many as `steps` allow.
        steps: At most so many steps over all epochs; None for no limit.
        callbacks: Told what happens, see `Callback`.
        objects: Named objects: models, optimizers, whatever the step needs; it reads them as
            attributes of the state.

    Raises:
        ValueError: No limit at all, a negative one, or an object's name that the state uses.
        TypeError: A callback is not a `Callback`.
    """

    def __init__(
        self,
        step: Step,
        data: Data,
        *,
        epochs: int | None = 1,
        steps: int | None = None,
        callbacks: Iterable[Callback] = (),
        **objects: object,
    ) -> None:
        if epochs is None and steps is None:
            raise ValueError("a loop needs epochs or steps, else it never ends")
        if min(epochs or 0, steps or 0) < 0:
            raise ValueError("epochs and steps count from 0")
        self._step = step
        self._data = data
        self._epochs = epochs
        self._steps = steps
        self._callbacks = tuple(callbacks)
        self._objects = objects
        State(**objects)  # Names are refused here, where the caller wrote them.

    def run(self, *, resume: str | os.PathLike[str] | None = None) -> State:
        """Trains until a limit is reached or somebody sets `state.stop`.

        Args:
            resume: Goes on from a checkpoint as if nothing had been: its file, or a folder for the
                latest in it. "auto" is the latest of the `Checkpoint` among the callbacks, and a
                new run if there is none yet.

        Returns:
            The state at the end.

        Raises:
            ValueError: An epoch had no batches: `data` is empty, or an iterator that is used up.
            CheckpointError: The checkpoint cannot be read, or is of another training.
            BaseException: Whatever the step or a callback raised, after the callbacks were told.
        """
        state = State(**self._objects)
        course = None if resume is None else _course(resume, self._callbacks)
        if course is not None:
            course.begin(state)
        probe = Probe(state, callbacks=self._callbacks, sink=sink_of_process())
        probe.feed = Feed(self._data, limit=self._steps)
        with active(probe):
            try:
                probe.run_begin(epochs=self._epochs, steps=self._steps)
                if course is not None:
                    self._go_on(probe, probe.feed, course)
                while not self._over(state):
                    self._epoch(probe, probe.feed)
            except BaseException as error:
                probe.fail(error)
                raise
            finally:
                probe.run_end()
                # The state knows its probe, and would keep a loader's workers alive with it.
                probe.feed = None
        return state

    def _go_on(self, probe: Probe, feed: Feed, course: Resumption) -> None:
        state = probe.state
        if course.within and not self._all_steps(state):
            state.epoch -= 1  # It begins again.
            self._epoch(probe, feed, course)
            return
        course.enter(state, probe.members)
        course.between(state, feed)

    def _over(self, state: State) -> bool:
        if state.stop or (self._epochs is not None and state.epoch >= self._epochs):
            return True
        return self._all_steps(state)

    def _all_steps(self, state: State) -> bool:
        return self._steps is not None and state.step >= self._steps

    def _epoch(self, probe: Probe, feed: Feed, course: Resumption | None = None) -> None:
        state = probe.state
        before = state.step
        probe.epoch_begin()
        if course is None:
            batches = feed.batches(state)
        else:
            course.enter(state, probe.members)
            batches = course.rest(state, feed)
        probe.drive(self._step, batches, limit=self._steps)
        if state.step == before and course is None and not callable(self._data):
            raise ValueError(
                f"epoch {state.epoch} had no batches: the data is empty, or an iterator that is "
                "used up (give a list, a loader or a function)"
            )
        feed.leave(state)
        probe.epoch_end()


def _course(resume: str | os.PathLike[str], callbacks: Iterable[Callback]) -> Resumption | None:
    from rdev.loop.resume import resumption  # Most runs go on from nothing.

    return resumption(resume, callbacks=callbacks)
