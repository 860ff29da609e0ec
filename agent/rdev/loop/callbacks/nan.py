"""Catches a loss or a gradient that is not finite before it reaches the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rdev.loop.callbacks.agreement import MAX, agreed
from rdev.loop.callbacks.finite import Row, all_finite, is_finite, number_of, rows_not_finite
from rdev.loop.callbacks.guard import PAUSE, RAISE, SKIP, STOP, Guard, GuardError
from rdev.loop.callbacks.indices import dataset_indices
from rdev.loop.callbacks.kept import keep
from rdev.loop.callbacks.notice import say
from rdev.loop.callbacks.rank import rank_of_process
from rdev.loop.callbacks.running import RunningStatistics
from rdev.loop.callbacks.updates import Losses, dense, gradients, parameters
from rdev.loop.state import State

_ELSEWHERE = "a loss or a gradient of another rank is not finite"

# Names and rows are for a person to read in one line.
_NAMED = 3


class NanGuard(Guard):
    """Withholds an update whose loss or gradient is NaN or infinite, keeps the batch, and acts.

    It looks just before `optimizer.step()` updates anything, of every optimizer of the training's
    thread; so weights and momentum are those of the step before, and so are the statistics of
    batch normalisation, which the forward pass has changed. The batch is written to a file that
    `torch.load` reads, and rows of it that are not finite are named, with their index in the
    dataset where that is known: the loader has a `ShuffleSampler`, or the batch an array `index`.

    In a training by numpy the loss is looked at, after the update. Overflows under a `GradScaler`
    are left to it. Not seen: updates that autograd's own threads or CUDA graphs make.

    Cost: all gradients are read once an update, by one fused norm for each dtype, whose result is
    waited for. On CUDA that is a synchronisation for each update (untested there).

    Args:
        action: `pause` (in a job; what resumes leaves this update out), `skip` (leaves it out),
            `stop` (ends the run after this step) or `raise` (a `GuardError`).
        folder: Where batches go.
        keep: How many batches are kept at most; 0 for none.
        patience: So many updates in a row that were left out end the training by a `GuardError`:
            the weights themselves are lost.
        agree: Whether all ranks withhold an update that one of them must: by a collective operation
            of one number an update. False where ranks do not make the same updates.
        order: See `Callback`.
    """

    def __init__(
        self,
        action: str = PAUSE,
        *,
        folder: str = "nan",
        keep: int = 3,
        patience: int = 100,
        agree: bool = True,
        order: int = -50,
    ) -> None:
        super().__init__(action, actions=(PAUSE, SKIP, STOP, RAISE), order=order)
        self._folder = folder
        self._keep = keep
        self._patience = patience
        self._agrees = agree
        self._in_a_row = 0
        self._statistics = RunningStatistics()

    def run_begin(self, state: State) -> None:
        """Begins to watch."""
        super().run_begin(state)
        self._in_a_row = 0
        self._statistics.find(state.objects)

    def epoch_begin(self, state: State) -> None:
        """Looks for models that were swapped in."""
        super().epoch_begin(state)
        self._statistics.find(state.objects)

    def step_begin(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """Keeps the running statistics of the step before."""
        self._statistics.keep()

    def judge(self, state: State, losses: Losses, *, optimizer: Any = None) -> bool:  # noqa: ANN401  # torch's
        """Looks at losses and gradients."""
        if optimizer is None:
            is_fine = all(is_finite(loss) for loss in losses)
        else:
            is_fine = all_finite([*losses, *gradients(optimizer)])
        is_mine = not is_fine
        if self._agrees and optimizer is not None:
            is_fine = not agreed(float(is_mine), how=MAX)
        if is_fine:
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        found = named(state, losses, optimizer) if is_mine else _ELSEWHERE
        if optimizer is not None:
            self._statistics.restore()
        self._tell(state, found, was_updated=optimizer is None)
        if self._in_a_row >= self._patience:
            raise GuardError(f"step {state.step}: {found}, for {self._in_a_row} updates in a row")
        return False

    def _tell(self, state: State, found: str, *, was_updated: bool) -> None:
        rows = rows_not_finite(state.batch)
        indices = dataset_indices(state)
        known = [indices[row.number] for row in rows if row.number < len(indices)]
        details: dict[str, Any] = {"rows": [str(row) for row in rows], "indices": known}
        details["found"] = found
        details["path"] = path = self._kept(state, details)
        parts = [found, _listed(rows, indices)]
        parts += [f"the batch is in {path}"] if path else []
        parts += ["the update had been made"] if was_updated else []
        self.act("; ".join(parts), **details)

    def _kept(self, state: State, facts: Mapping[str, object]) -> str:
        if self._found >= self._keep:
            return ""
        stem = os.path.join(self._folder, f"step-{state.step}-rank-{rank_of_process()}")
        place = {"step": state.step, "epoch": state.epoch, "phase": state.phase}
        try:
            return keep(state.batch, stem, {**place, **facts})
        except Exception as error:  # noqa: BLE001  # a foreign batch must not hide the NaN itself
            say(f"unable to keep the batch of step {state.step}: {error}")
            return ""


def _listed(rows: Sequence[Row], indices: Sequence[int]) -> str:
    """The rows that are not finite, for a person."""
    if not rows:
        return "all of the batch is finite"
    named = [
        f"{row} (index {indices[row.number]})" if row.number < len(indices) else str(row)
        for row in rows[:_NAMED]
    ]
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"not finite: {', '.join(named)}{more}"


def named(state: State, losses: Losses, optimizer: Any) -> str:  # noqa: ANN401  # torch's
    """What is not finite, for a person."""
    bad = [loss for loss in losses if not is_finite(loss)]
    if bad:
        return f"the loss is {number_of(bad[-1])}"
    names = {
        id(one): f"{label}.{name}"
        for label, value in state.objects.items()
        if callable(getattr(value, "named_parameters", None))
        for name, one in value.named_parameters()
    }
    found = [
        names.get(id(one), f"a parameter of shape {tuple(one.shape)}")
        for one in parameters(optimizer)
        if one.grad is not None and not all_finite([dense(one.grad)])
    ]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"the loss is finite, and not the gradient of {', '.join(found[:_NAMED])}{more}"
