"""Which samples of the dataset the batch in hand is made of, where that can be known."""

from __future__ import annotations

from collections.abc import Mapping

from rdev.loop.checkpoint import feed_of
from rdev.loop.state import State

# What datasets that give their index along call it.
_NAMES = ("index", "indices", "idx", "idxs")


def dataset_indices(state: State) -> list[int]:
    """The index in the dataset of each row of `state.batch`; empty if nobody knows.

    They are those that the batch itself carries under a usual name, else those of the loop's loader
    if its sampler is a `ShuffleSampler`.
    """
    batch = state.batch
    for name in _NAMES if isinstance(batch, Mapping) else ():
        found = batch.get(name)
        if found is None:
            continue
        try:
            return [int(one) for one in found]
        except (TypeError, ValueError):
            continue  # Of another meaning, or of one element.
    feed = feed_of(state)
    return [] if feed is None else feed.indices(state)
