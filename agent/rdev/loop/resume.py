"""Going on where a checkpoint was written: in which order what is put back.

From the first to the last:

    counters and objects   before the run begins, so that its callbacks see them
    [the epoch begins      if the checkpoint is of an epoch's middle]
    objects and callbacks  again: what beginnings did to them was done before
    [the data              its iterator is made, and what was taken of it left out]
    generators             last: beginnings and iterators draw from them
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rdev.loop import archive, rng
from rdev.loop.archive import CheckpointError
from rdev.loop.callback import Callback
from rdev.loop.checkpoint import folder_of, put_callbacks, put_counters, put_objects, rank_path
from rdev.loop.folder import candidates
from rdev.loop.plain import clone, unpack
from rdev.loop.sampler import place
from rdev.loop.state import State

if TYPE_CHECKING:
    from rdev.loop.feed import Feed


class Resumption:
    """A checkpoint that a run goes on from.

    Args:
        path: The file that rank 0 wrote.

    Attributes:
        within: It was written in an epoch's middle, so that epoch is begun again and gone on with.

    Raises:
        CheckpointError: It cannot be read, or is of another number of ranks.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        rank, world = place()
        self._body = archive.read(path)
        if self._body["ranks"] != world:
            raise self._unfit(f"it is of {self._body['ranks']} ranks, and here are {world}")
        if not self._body["whole"]:
            raise self._unfit("it was written within a step that failed; `load` reads its objects")
        self._own = self._body if rank == 0 else archive.read(rank_path(path, rank))
        if self._own["step"] != self._body["step"]:
            raise self._unfit(f"rank {rank} wrote its part at step {self._own['step']}")
        self.within: bool = self._body["taken"] is not None

    def begin(self, state: State) -> None:
        """Gives the state its counters and its objects."""
        put_counters(self._body, state)
        # Copies: what is kept of it may change before it is needed again.
        objects = clone(self._body["objects"])
        put_objects({**self._body, "objects": objects}, state, path=self._path, whole=True)

    def enter(self, state: State, members: Iterable[object]) -> None:
        """Gives objects and callbacks what they had, once all that begins has begun."""
        put_objects(self._body, state, path=self._path, whole=True)
        try:
            put_callbacks(self._own, members)
        except ValueError as error:
            raise self._unfit(str(error)) from error

    def rest(self, state: State, feed: Feed) -> Iterable[Any]:
        """The batches that the epoch in hand still has; the generators stand where they stood."""
        if self._body["taken"] < 0:
            self._prime(state.epoch - 1, feed)
            return feed.batches(state)
        then, now = self._body["data"], feed.outline()
        changed = [key for key in then if now.get(key) != then[key]]
        if changed:
            changes = ", ".join(f"{key} {then[key]} then, {now.get(key)} now" for key in changed)
            raise self._unfit(f"its epoch cannot be gone on with: {changes}")
        try:
            begin = unpack(self._own["generators_before"])
            batches = feed.rest(state, self._body["taken"], begin)
        except ValueError as error:
            raise self._unfit(str(error)) from error
        self._draw_on()
        return batches

    def between(self, state: State, feed: Feed) -> None:
        """Makes the next epoch begin as it would have: the generators stand where they stood."""
        self._prime(state.epoch, feed)

    def _prime(self, epochs: int, feed: Feed) -> None:
        if epochs:
            feed.prime()
        self._draw_on()

    def _draw_on(self) -> None:
        try:
            rng.restore(unpack(self._own["generators"]))
        except ValueError as error:
            raise self._unfit(str(error)) from error

    def _unfit(self, cause: str) -> CheckpointError:
        return CheckpointError(f"unable to go on from the checkpoint {self._path}: {cause}")


def resumption(
    resume: str | os.PathLike[str], *, callbacks: Iterable[Callback]
) -> Resumption | None:
    """What a run goes on from.

    Args:
        resume: A checkpoint's file; a folder, for the latest in it; or "auto".
        callbacks: The run's; "auto" means the folder of the `Checkpoint` among them.

    Returns:
        None for "auto" when there is none yet.

    Raises:
        CheckpointError: There is none, it cannot be read, or "auto" and no `Checkpoint`.
    """
    path = os.fspath(resume)
    if path == "auto":
        folder = folder_of(callbacks)
        if folder is None:
            raise CheckpointError('resume="auto" needs a `Checkpoint` among the callbacks')
        return _latest(folder)
    if not os.path.isdir(path):
        return Resumption(path)
    found = _latest(path)
    if found is None:
        raise CheckpointError(f"unable to go on from the folder {path}: it has no whole checkpoint")
    return found


def _latest(folder: str) -> Resumption | None:
    """The latest whose every rank has written its part before whatever ended the run."""
    for path in candidates(folder):
        ranks = archive.read(path)["ranks"] if place()[1] > 1 else 1
        if all(os.path.exists(rank_path(path, rank)) for rank in range(1, ranks)):
            return Resumption(path)
    return None
