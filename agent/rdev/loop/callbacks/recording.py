"""What callbacks that write metrics down have in common: which steps, whose values, and when.

A value that is still on its device is queued as a copy, and written once it has come: a record
waits for its turn, the training never does.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from rdev.loop.callback import Callback
from rdev.loop.callbacks.notice import say
from rdev.loop.callbacks.rank import rank_of_process
from rdev.loop.callbacks.recent import Recent
from rdev.loop.sample import DeviceValue, Sample, number, take_all
from rdev.loop.state import State

# A person who looks at curves reloads them more seldom than this.
FLUSH_SECONDS = 5.0

# Values of so many records wait for their devices; a device that is further behind is waited for.
_MOST_WAITING = 1000


@dataclass(frozen=True)
class Record:
    """Values of one phase of one step.

    Attributes:
        time: Seconds since the epoch.
        step: In which they were computed or logged.
        epoch: Of that step.
        phase: Its phase; empty for what belongs to the whole step.
        values: Numbers by name; some may still be on their device.
    """

    time: float
    step: int
    epoch: int
    phase: str
    values: dict[str, Sample]

    def is_there(self) -> bool:
        """Whether no value has to be waited for."""
        values = self.values.values()
        return all(not isinstance(value, DeviceValue) or value.ready() for value in values)

    def numbers(self) -> dict[str, float]:
        """The values; waits for those that are on their device."""
        return {name: number(value) for name, value in self.values.items()}


class Recording(Callback):
    """Gives `write` the values of every n-th step, of the first, and of the last of each epoch.

    What is logged in between is given with the step that logged it. On CUDA each recorded value
    costs a copy of four bytes that is queued on the training's stream (untested there).

    Args:
        every: How many steps apart.
        every_rank: Whether all ranks record; else only rank 0 does.
        order: See `Callback`; late, so that what other callbacks log is seen.
    """

    def __init__(self, *, every: int = 1, every_rank: bool = False, order: int = 90) -> None:
        super().__init__(order)
        if every < 1:
            raise ValueError("every counts steps from 1")
        self._every = every
        self._is_on = every_rank or rank_of_process() == 0
        self._recent = Recent()
        self._phases: dict[str, tuple[int, dict[str, Any]]] = {}
        self._recorded = 0
        self._waiting: deque[Record] = deque()
        self._flushed = 0.0
        self._trouble = ""

    def open(self, state: State) -> None:
        """Makes ready to write; `state.step` is that of the checkpoint in a resumed run."""
        raise NotImplementedError

    def write(self, record: Record) -> None:
        """Takes in a record; they come in the order of their steps."""
        raise NotImplementedError

    def flush(self) -> None:
        """Lets readers see what was written."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the writing."""
        raise NotImplementedError

    def run_begin(self, state: State) -> None:
        """Opens the file."""
        if not self._is_on:
            return
        self._recent.take(state)
        self._phases.clear()
        self._recorded = state.step
        self._flushed = time.monotonic()
        self._attempt("open", lambda: self.open(state))

    def epoch_begin(self, state: State) -> None:
        """Records what was logged between the epochs."""
        if self._is_on:
            self._record(state, epoch=max(1, state.epoch - 1))

    def phase_end(self, state: State) -> None:
        """Notes the phase's values."""
        if self._is_on:
            self._phases[state.phase] = (state.step, self._recent.take_phase(state))

    def step_end(self, state: State) -> None:
        """Records the step if it is one of those."""
        if self._is_on and (state.step % self._every == 0 or state.step == 1):
            self._record(state, epoch=state.epoch)

    def epoch_end(self, state: State) -> None:
        """Records the last step, and what evaluations have logged."""
        if self._is_on:
            self._record(state, epoch=state.epoch)

    def run_end(self, state: State) -> None:
        """Records the rest, waits for values on their devices, and closes."""
        if not self._is_on:
            return
        self._record(state, epoch=state.epoch)
        self._drain(most=0)
        self._attempt("write", self.close)

    def _record(self, state: State, *, epoch: int) -> None:
        now = time.time()
        steps: dict[tuple[int, str], dict[str, Any]] = {}
        if self._phases:
            for phase, (step, values) in self._phases.items():
                steps[step, phase] = values
            self._phases = {}
        elif state.step > self._recorded and state.loss is not None:
            steps[state.step, ""] = {"loss": state.loss}
        for name, (step, value) in self._recent.take(state).items():
            steps.setdefault((step, ""), {})[name] = value
        self._recorded = state.step
        for step, phase in sorted(steps):
            samples = take_all(steps[step, phase])
            if samples:
                self._waiting.append(Record(now, step, epoch, phase, samples))
        self._drain(most=_MOST_WAITING)

    def _drain(self, *, most: int) -> None:
        waiting = self._waiting
        while waiting and (len(waiting) > most or waiting[0].is_there()):
            record = waiting.popleft()
            self._attempt("write", lambda record=record: self.write(record))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flushed = time.monotonic()
            if self._attempt("write", self.flush):
                self._trouble = ""

    def _attempt(self, what: str, action: Any) -> bool:  # noqa: ANN401  # a callable of nothing
        """Does it, or says once why not: a full disk is no reason to lose a training."""
        try:
            action()
        except OSError as error:
            if not self._trouble:
                self._trouble = say(f"unable to {what} {self.described()}: {error.strerror}")
            return False
        return True

    def described(self) -> str:
        """What it writes, for messages."""
        return f"the records of {type(self).__name__}"
