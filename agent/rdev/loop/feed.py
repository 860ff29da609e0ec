"""Where a loop's batches come from, epoch by epoch, and how an epoch is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import islice
from typing import Any, cast

from rdev.loop import rng
from rdev.loop.sampler import ShuffleSampler
from rdev.loop.state import State

Data = Iterable[Any] | Callable[[State], Iterable[Any]]


class Feed:
    """Gives the batches of each epoch and knows how many of them the training has taken.

    The generators are noted as an epoch's iterator finds them: a loader that shuffles by them
    shuffles alike when the epoch is begun again to be gone on with.

    Args:
        data: What the loop was given.
        limit: The step at whose end the run ends, if there is one.

    Attributes:
        limit: That.
        begin: Where the generators stood when the epoch in hand began; empty if its batches do not
            depend on that, None between epochs.
        when_cut: Called with the state when an epoch is left before its end, before its end is
            told: only then can a run go on from there as if nothing had been.
    """

    def __init__(self, data: Data, *, limit: int | None = None) -> None:
        self._data = data
        self._first = 0
        self.limit = limit
        self.begin: rng.RandomState | None = None
        self.when_cut: list[Callable[[State], object]] = []

    def position(self, state: State) -> int | None:
        """Batches of the epoch in hand that have been taken; None between epochs."""
        return None if self.begin is None else state.step - self._first

    def batches(self, state: State) -> Iterable[Any]:
        """The batches of the epoch that has begun."""
        set_epoch(self._data, state.epoch - 1)
        _begin_at(self._data, 0)
        self._first = state.step
        self.begin = rng.capture() if self._draws() else {}
        return self._iterable(state)

    def rest(self, state: State, taken: int, begin: rng.RandomState) -> Iterator[Any]:
        """The batches of that epoch without so many that another process has taken.

        Those of a loader with a `ShuffleSampler` are left out unread, those of others are read.

        Args:
            state: At the step of the last of them.
            taken: How many.
            begin: Where the generators stood when that epoch began. Where they stand after the
                last of those batches is for the caller to restore.

        Raises:
            ValueError: There are not so many now.
        """
        set_epoch(self._data, state.epoch - 1)
        self._first = state.step - taken
        self.begin = begin
        if begin:
            rng.restore(begin)
        unread = _begin_at(self._data, taken)
        batches = iter(self._iterable(state))
        if unread:
            return batches
        if sum(1 for _ in islice(batches, taken)) < taken:
            raise ValueError(f"{taken} batches of its epoch were taken, and now it has fewer")
        return batches

    def prime(self) -> None:
        """Makes the workers that would live on from earlier epochs, which draws once a run."""
        if getattr(self._data, "persistent_workers", False):
            iter(cast("Iterable[Any]", self._data))  # What has workers is a loader.

    def leave(self, state: State) -> None:
        """The epoch is over, or left before its end."""
        if state.stop or (self.limit is not None and state.step >= self.limit):
            for call in self.when_cut:
                call(state)
        else:
            self.begin = None

    def outline(self) -> dict[str, Any]:
        """What has to be as it was for a run to go on within an epoch."""
        sampler = _sampler(self._data)
        found = {} if sampler is None else sampler.outline()
        size = getattr(self._data, "batch_size", None)
        return {"batch_size": size, **found} if isinstance(size, int) else found

    def indices(self, state: State) -> list[int]:
        """Dataset indices of the batch in hand, row by row; empty if its loader cannot tell."""
        sampler, size = _sampler(self._data), getattr(self._data, "batch_size", 1)
        if sampler is None or not isinstance(size, int):
            return []
        taken = state.step - self._first
        # A copy: the sampler itself is being drawn from.
        whole = copy(sampler)
        whole.epoch, whole.position = state.epoch - 1, 0
        return list(islice(whole, (taken - 1) * size, taken * size))

    def length(self) -> int | None:
        """Batches of an epoch, if the data knows without being drawn."""
        try:
            return len(self._data)  # type: ignore[arg-type]  # see below
        except TypeError:
            return None  # A function of the state, a stream: nobody knows.

    def _draws(self) -> bool:
        """True if making the epoch's iterator may draw; noting that takes 50 us."""
        return not isinstance(self._data, (list, tuple, range)) and _sampler(self._data) is None

    def _iterable(self, state: State) -> Iterable[Any]:
        # A loader that is callable and iterable is iterated: calling is for plain functions.
        data = self._data
        return data if isinstance(data, Iterable) else data(state)


def set_epoch(data: object, epoch: int) -> None:
    """Tells the epoch, from 0, to a loader and to those of its parts that want to know it."""
    batches = getattr(data, "batch_sampler", None)
    parts = (data, batches, getattr(batches, "sampler", None))
    told: list[object] = []
    for part in (*parts, getattr(data, "sampler", None), getattr(data, "dataset", None)):
        tell = getattr(part, "set_epoch", None)
        if callable(tell) and all(part is not other for other in told):
            told.append(part)
            tell(epoch)


def _begin_at(data: object, taken: int) -> bool:
    """True if the next iterator begins there by itself."""
    sampler = _sampler(data)
    if sampler is None:
        return False
    size = getattr(data, "batch_size", 1)
    sampler.position = min(taken * (1 if size is None else size), len(sampler))
    return True


def _sampler(data: object) -> ShuffleSampler | None:
    """The sampler whose indices, in their order and by so many a batch, are the data's samples."""
    if isinstance(data, ShuffleSampler):
        return data
    sampler, batches = getattr(data, "sampler", None), getattr(data, "batch_sampler", None)
    if not isinstance(sampler, ShuffleSampler):
        return None
    plain = batches is None or (
        type(batches).__name__ == "BatchSampler" and getattr(batches, "sampler", None) is sampler
    )
    return sampler if plain else None
