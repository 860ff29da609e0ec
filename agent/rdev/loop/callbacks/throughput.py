"""How fast a run goes, how long it will take, and how much of the time it waits for data."""

from __future__ import annotations

from rdev.loop.callback import Callback
from rdev.loop.callbacks.finite import arrays
from rdev.loop.callbacks.pace import Pace, plan_of
from rdev.loop.state import State
from rdev.loop.track import log
from rdev.wire.clock import active_monotonic

# A rate over less is as much of the machine's noise as of the training.
_SECONDS = 5.0


class Throughput(Callback):
    """Logs `steps_per_s`, `samples_per_s`, `data_wait` and, where the end is known, `eta_s`.

    All on active time: what a debugger or `rdev ctl pause` holds does not count. `data_wait` is the
    share of the time, from 0 to 1, between the end of a step and the begin of the next:
    what the loader takes, and callbacks of a later order. Samples are the rows of the first
    array of a batch. On CUDA a step's end is when its work is queued, so a share of the wait for
    the device may count for the step that comes after (untested there).

    Cost: under 1 us a step, and a few more each `seconds`.

    Args:
        seconds: How often it logs; also at the end of each epoch.
        batch_size: Samples of a batch, where its rows do not tell; None to count them.
        order: See `Callback`; early, so that it times little of other callbacks.
    """

    def __init__(
        self, *, seconds: float = _SECONDS, batch_size: int | None = None, order: int = -90
    ) -> None:
        super().__init__(order)
        self._seconds = seconds
        self._batch_size = batch_size
        self._pace = Pace()
        self._begun = 0.0
        self._ended = 0.0
        self._waited = 0.0
        self._steps = 0
        self._samples = 0
        self.eta: float | None = None

    def run_begin(self, state: State) -> None:
        """Starts the clock."""
        self._pace = Pace()
        self.eta = None
        self._start(state)

    def epoch_begin(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """What lies between epochs, an evaluation for one, counts for the ETA only."""
        self._begun = self._ended = active_monotonic()

    def step_begin(self, state: State) -> None:
        """Counts how long the batch took to come, and its samples."""
        self._waited += active_monotonic() - self._ended
        self._samples += self._batch_size or rows_of(state.batch)

    def step_end(self, state: State) -> None:
        """Logs now and then."""
        self._ended = now = active_monotonic()
        self._steps += 1
        if now - self._begun >= self._seconds:
            self._log(state, now)

    def epoch_end(self, state: State) -> None:
        """Logs the rest of an epoch."""
        if self._steps:
            self._log(state, self._ended)

    def _log(self, state: State, now: float) -> None:
        spent = now - self._begun
        if spent <= 0:
            return
        log(steps_per_s=self._steps / spent, data_wait=min(1.0, self._waited / spent))
        if self._samples:
            log(samples_per_s=self._samples / spent)
        self._pace.look(now, state.step)
        self.eta = self._pace.left(plan_of(state).total())
        if self.eta is not None:
            log(eta_s=self.eta)
        self._start(state)

    def _start(self, state: State) -> None:
        now = active_monotonic()
        self._begun, self._waited, self._steps, self._samples = now, 0.0, 0, 0
        self._ended = now
        if not self._pace.has_begun:
            self._pace.look(now, state.step)


def rows_of(batch: object) -> int:
    """Rows of the first array of a batch; 0 if it has none."""
    for _, array in arrays(batch):
        shape = getattr(array, "shape", None)
        if shape is None:
            return len(array)
        if len(shape) > 0:
            return int(shape[0])
    return 0
