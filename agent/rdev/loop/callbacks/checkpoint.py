"""Writes checkpoints as the training goes on, and keeps the latest and the best of them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rdev.loop import checkpoint
from rdev.loop.archive import CheckpointError, sweep
from rdev.loop.callback import Callback
from rdev.loop.folder import BEST, LATEST, Entry, best_of, point, remove
from rdev.loop.sampler import place
from rdev.loop.state import State
from rdev.wire.clock import active_monotonic

# Ranks have clocks of their own; after so many steps they ask rank 0 whether its minutes are over.
AGREEMENT_STEPS = 16


class Checkpoint(Callback):
    """Writes `FOLDER/step-N.ckpt` now and then; `Loop(...).run(resume="auto")` goes on from there.

    A checkpoint that cannot be written, for want of room say, is told in a line on stderr, and the
    training goes on with the one before. One that a person asks for (`rdev ctl JOB checkpoint`)
    lies here too, and is never removed.

    Args:
        folder: Where they lie; one that all ranks see.
        steps: One after every so many steps.
        minutes: One after every so many minutes of active time: not those in which a debugger or a
            person has held the training.
        epochs: One after every so many epochs; the default if nothing else is given is 1.
        keep: How many of the latest are kept; None for all.
        best: How many of the best are kept besides.
        metric: What is judged: a metric's name, or `loss`.
        mode: "min" or "max": which is best.
        at_end: One at the end of the run, also if it was stopped.
        at_exception: One when the run fails, `exception-N.ckpt`: its weights may be those of half a
            step, so nothing goes on from it by itself.
        leave: Names of objects that are left out, a dataset for one.
        order: Higher than that of callbacks whose state it shall hold as of the same step.

    Raises:
        ValueError: A period that is not positive, or another mode.
    """

    def __init__(
        self,
        folder: str = checkpoint.FOLDER,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        epochs: int | None = None,
        keep: int | None = 1,
        best: int = 0,
        metric: str = "loss",
        mode: str = "min",
        at_end: bool = True,
        at_exception: bool = False,
        leave: Iterable[str] = (),
        order: int = 1000,
    ) -> None:
        super().__init__(order)
        if any(period is not None and period <= 0 for period in (steps, minutes, epochs, keep)):
            raise ValueError("steps, minutes, epochs and keep are more than nothing")
        if mode not in ("min", "max"):
            raise ValueError('mode is "min" or "max"')
        self.folder = os.path.abspath(folder)
        self._steps = steps
        self._seconds = None if minutes is None else minutes * 60
        self._epochs = 1 if steps is minutes is epochs is None else epochs
        self._keep = keep
        self._best = best
        self._metric = metric
        self._largest = mode == "max"
        self._at_end = at_end
        self._at_exception = at_exception
        self._leave = tuple(leave)
        self._entries: list[Entry] = []
        self._latest_step = -1
        self._since = active_monotonic()

    def run_begin(self, state: State) -> None:
        """Sees that everything can be kept, now rather than after hours."""
        checkpoint.describe(state, leave=self._leave)
        if place()[0] == 0:
            sweep(self.folder)
        self._since = active_monotonic()
        feed = checkpoint.feed_of(state)
        if feed is not None and self._at_end:
            feed.when_cut.append(self._save_once)

    def step_end(self, state: State) -> None:
        """Writes one if it is time."""
        if (self._steps is not None and state.step % self._steps == 0) or (
            self._seconds is not None and self._is_time(state.step)
        ):
            self._save_once(state)

    def epoch_end(self, state: State) -> None:
        """Writes one if it is time; not of an epoch that was cut short."""
        if self._epochs is None or state.error is not None or state.epoch % self._epochs:
            return
        feed = checkpoint.feed_of(state)
        if feed is None or feed.position(state) is None:
            self._save(state)

    def exception(self, state: State) -> None:
        """Writes what there is, if that is wanted."""
        if self._at_exception:
            path = os.path.join(self.folder, "exception-{step}.ckpt")
            try:
                checkpoint.save(state, path, leave=self._leave)
            except CheckpointError as error:
                _complain(error)

    def run_end(self, state: State) -> None:
        """Writes the last one, unless it is there."""
        if self._at_end and state.error is None and state.step:
            self._save_once(state)

    def write(self, state: State) -> str:
        """Writes one that is never removed, and makes it the latest.

        Returns:
            Its absolute path.

        Raises:
            CheckpointError: It cannot be written.
        """
        name = checkpoint.FILE.replace("{step}", str(state.step))
        self._entries = [entry for entry in self._entries if entry.name != name]
        path = checkpoint.save(state, os.path.join(self.folder, name), leave=self._leave)
        if place()[0] == 0:
            point(self.folder, LATEST, name)
        return path

    def state_dict(self) -> dict[str, Any]:
        """The checkpoints that it may remove, and how long ago the latest was written."""
        return {
            "entries": [(entry.name, entry.value) for entry in self._entries],
            "seconds": active_monotonic() - self._since,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there."""
        entries = [Entry(name, value) for name, value in state["entries"]]
        there = [
            entry for entry in entries if os.path.exists(os.path.join(self.folder, entry.name))
        ]
        self._entries = there
        self._since = active_monotonic() - state["seconds"]

    def _save_once(self, state: State) -> None:
        if state.step != self._latest_step:
            self._save(state)

    def _save(self, state: State) -> None:
        before, since = self._entries, self._since
        name = checkpoint.FILE.replace("{step}", str(state.step))
        entry = Entry(name, self._value(state))
        self._entries = [*(old for old in before if old.name != name), entry]
        self._since = active_monotonic()
        try:
            checkpoint.save(state, os.path.join(self.folder, name), leave=self._leave)
        except CheckpointError as error:
            self._entries, self._since = before, since
            _complain(error)
            return
        self._latest_step = state.step
        if place()[0] == 0:
            point(self.folder, LATEST, name)
            self._tidy()

    def _tidy(self) -> None:
        """Removes what is neither among the latest nor among the best."""
        best = best_of(self._entries, self._best, largest=self._largest)
        if best:
            point(self.folder, BEST, best[0].name)
        # With several ranks the latest may lack a rank's part yet; the one before is whole.
        keep = len(self._entries) if self._keep is None else self._keep + (place()[1] > 1)
        kept = [*self._entries[-keep:], *best]
        for entry in self._entries:
            if entry not in kept:
                remove(self.folder, entry.name)
        self._entries = [entry for entry in self._entries if entry in kept]

    def _value(self, state: State) -> float:
        value = state.metrics.get(self._metric)
        if value is None and self._metric == "loss":
            value = state.loss
        try:
            return math.nan if value is None or not self._best else float(value)
        except (TypeError, ValueError, RuntimeError):
            return math.nan

    def _is_time(self, step: int) -> bool:
        over = active_monotonic() - self._since >= (self._seconds or 0)
        if place()[1] == 1:
            return over
        return step % AGREEMENT_STEPS == 0 and _of_rank_0(over)


def _of_rank_0(answer: bool) -> bool:  # noqa: FBT001  # one value in, the same kind out
    torch: Any = sys.modules["torch"]
    nccl = torch.distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else "cpu"
    told = torch.tensor([answer], dtype=torch.uint8, device=device)
    torch.distributed.broadcast(told, 0)
    return bool(told.item())


def _complain(error: CheckpointError) -> None:
    sys.stderr.write(f"rdev: {error}; the training goes on\n")
    sys.stderr.flush()
