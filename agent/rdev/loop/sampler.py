"""The order of samples, and their random augmentation, as pure functions of a seed and the epoch.

Nothing here draws from the process's generators. So an epoch can be gone on with in its middle, by
another process and with another number of workers, and gives the samples it would have given.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Generic, Protocol, TypeVar

from rdev.loop.rng import host_states, mixed, put_host_states, seed_host

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Indexed(Protocol[Item_co]):
    """A map-style dataset."""

    def __getitem__(self, index: int, /) -> Item_co: ...
    def __len__(self) -> int: ...


class ShuffleSampler:
    """Indices of a dataset in an order that depends on the seed and the epoch alone.

    For `DataLoader(dataset, batch_size=64, sampler=ShuffleSampler(dataset))`. A `Loop` tells it the
    epoch and where in it a resumed run goes on; a plain loop does so itself, by `set_epoch` and by
    counting `position`. With several ranks each takes every `world`-th index, all as many.

    Args:
        data: The dataset, or how many samples it has.
        seed: The same on all ranks, and in the run that goes on.
        shuffle: False for the dataset's own order.
        drop_last: With several ranks: leave out what does not divide by their number, rather than
            give some indices twice.
        rank: Which rank's share, from 0; None for torch.distributed's, once it is initialised.
        world: How many ranks there are; None likewise.

    Attributes:
        epoch: The epoch in hand, from 0.
        position: Samples of this rank's share that the next `iter` leaves out.
    """

    def __init__(
        self,
        data: Sized | int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        self._length = data if isinstance(data, int) else len(data)
        if (rank is None) != (world is None):
            raise ValueError("rank and world are given both or neither")
        if self._length < 0 or (world is not None and not 0 <= (rank or 0) < world):
            raise ValueError("a length is not negative, and a rank less than the world")
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._place = None if rank is None or world is None else (rank, world)
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """The next `iter` is of this epoch, from 0; another than before begins at its begin."""
        if epoch != self.epoch:
            self.position = 0
        self.epoch = epoch

    def __len__(self) -> int:
        """Indices of this rank in a whole epoch, wherever the next `iter` begins."""
        world = self._rank_and_world()[1]
        return self._length // world if self._drop_last else -(-self._length // world)

    def __iter__(self) -> Iterator[int]:
        """Yields this rank's indices from `position` on."""
        rank, world = self._rank_and_world()
        order = self._order()
        share, length = len(self), self._length
        for at in range(self.position, share):
            # The last round begins again with the first indices, as torch's own sampler has it.
            yield order[(rank + at * world) % length]

    def state_dict(self) -> dict[str, int]:
        """The epoch and the position, for plain loops; a `Loop` keeps both by itself."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on there."""
        self.epoch, self.position = state["epoch"], state["position"]

    def outline(self) -> dict[str, Any]:
        """What has to be as it was for a run to go on within an epoch."""
        world = self._rank_and_world()[1]
        return {
            "samples": self._length,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "drop_last": self._drop_last,
            "ranks": world,
        }

    def _rank_and_world(self) -> tuple[int, int]:
        return place() if self._place is None else self._place

    def _order(self) -> array[int] | range:
        if not self._shuffle:
            return range(self._length)
        order = array("Q", range(self._length))
        # By hand: of `random`, only the numbers of random() are promised to stay what they are.
        draw = random.Random(mixed(self._seed, self.epoch)).random
        for at in range(self._length - 1, 0, -1):
            other = int(draw() * (at + 1))
            order[at], order[other] = order[other], order[at]
        return order


class Seeded(Generic[Item]):
    """A dataset whose samples draw random numbers that depend on seed, epoch and index alone.

    See `seeded`. Other attributes are those of the dataset within.
    """

    def __init__(self, dataset: Indexed[Item], seed: int) -> None:
        self.dataset = dataset
        self._seed = seed
        # Takes longer to import than all the rest of the loop.
        from multiprocessing.sharedctypes import RawValue

        # Shared with workers, so that those which live on from epoch to epoch see it change.
        self._epoch = RawValue("q", 0)

    def set_epoch(self, epoch: int) -> None:
        """The samples to come are those of this epoch, from 0; workers know at once."""
        self._epoch.value = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        before = None if _in_worker() else host_states()
        seed_host(mixed(self._seed, self._epoch.value, int(index)))
        try:
            return self.dataset[index]
        finally:
            if before is not None:
                put_host_states(before)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the dataset has
        # Not `__getitems__`: a loader would fetch whole batches by it, past the seeding. And not
        # before there is a dataset, while a worker that was spawned makes its copy.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def seeded(dataset: Indexed[Item], seed: int = 0) -> Seeded[Item]:
    """The dataset with augmentation that is the same whoever loads a sample, and when.

    Around each `dataset[index]`, the generators of python, numpy and torch (on the CPU) are seeded
    by (seed, epoch, index), and put back where they were unless this is a loader's worker. A `Loop`
    tells it the epoch; a plain loop calls `set_epoch`. Not covered are generators of the dataset's
    own, CUDA's, and what a `collate_fn` draws.

    Args:
        dataset: A map-style dataset.
        seed: Another seed gives another augmentation.

    Raises:
        TypeError: It cannot be indexed: samples of a stream have no number to be seeded by.
    """
    if not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{type(dataset).__name__} cannot be indexed")
    return Seeded(dataset, seed)


def place() -> tuple[int, int]:
    """This process's rank and how many there are, by torch.distributed; (0, 1) without it."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _in_worker() -> bool:
    data: Any = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None
