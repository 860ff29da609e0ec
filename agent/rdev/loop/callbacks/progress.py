"""How far a run is, on one line of a terminal, or in a line of its log now and then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rdev.loop.callback import Callback
from rdev.loop.callbacks.pace import Pace, clock, plan_of
from rdev.loop.callbacks.rank import rank_of_process
from rdev.loop.sample import DeviceValue, Sample, number, take_all
from rdev.loop.sink import PROGRESS_SECONDS, ProgressSink, columns_of
from rdev.loop.state import State
from rdev.wire.clock import active_monotonic

# In a log, where lines stay: often enough to see that it lives, seldom enough to read the rest.
_LOG_SECONDS = 30.0

# What `Throughput` logs is on the line already.
_OURS = ("steps_per_s", "eta_s")


class ProgressLine(Callback):
    """Shows epoch, step, the latest metrics, steps/s and how long it will take, on active time.

    On a terminal it keeps one line up to date, instead of the one that the loop shows by itself;
    elsewhere, in a job for one, it writes a line every half a minute and at the end of each epoch.
    Only rank 0 shows it.

    Cost: a look at the clock a step. Numbers on a CUDA device are shown once they have come, and
    are never waited for, except at the end (untested there).

    Args:
        seconds: How often; None for four times a second on a terminal, else every half a minute.
        stream: Where to; None for stderr.
        order: See `Callback`.
    """

    def __init__(
        self, *, seconds: float | None = None, stream: TextIO | None = None, order: int = 95
    ) -> None:
        super().__init__(order)
        self._seconds = seconds
        self._given = stream
        self._stream: TextIO | None = None
        self._is_terminal = False
        self._every = 0.0
        self._due = 0.0
        self._pace = Pace()
        self._phases: dict[str, Any] = {}
        self._waiting: dict[str, Sample] = {}
        self._shown: dict[str, float] = {}

    def run_begin(self, state: State) -> None:
        """Finds out where it shows."""
        stream = self._given or sys.stderr
        is_open = stream is not None and not stream.closed
        self._stream = stream if is_open and rank_of_process() == 0 else None
        self._is_terminal = self._stream is not None and self._stream.isatty()
        usual = PROGRESS_SECONDS if self._is_terminal else _LOG_SECONDS
        self._every = usual if self._seconds is None else self._seconds
        self._pace = Pace()
        self._pace.look(active_monotonic(), state.step)
        self._due = active_monotonic() + (0.0 if self._is_terminal else self._every)
        self._phases.clear()
        self._shown.clear()
        ProgressSink.hushed = self._stream is not None

    def phase_end(self, state: State) -> None:
        """Notes its loss."""
        self._phases[f"{state.phase}.loss"] = state.loss

    def step_end(self, state: State) -> None:
        """Shows the step if it is time."""
        if active_monotonic() >= self._due:
            self._show(state)

    def epoch_end(self, state: State) -> None:
        """Shows the end of the epoch."""
        self._show(state)

    def run_end(self, state: State) -> None:
        """Shows the end, and leaves the line."""
        if self._is_terminal:
            self._show(state, wait=True)
            self._write("\n")
        self._stream = None
        ProgressSink.hushed = False

    def _show(self, state: State, *, wait: bool = False) -> None:
        now = active_monotonic()
        self._due = now + self._every
        if self._stream is None:
            return
        self._pace.look(now, state.step)
        # The loss of a step with phases is that of its last one.
        values = {"loss": state.loss, **state.metrics, **self._phases}
        if self._phases:
            del values["loss"]
        self._settle(wait=wait)
        self._waiting = take_all(values)
        self._settle(wait=wait)
        text = "  ".join(self._parts(state))
        if self._is_terminal:
            self._write(f"\r\x1b[K{text[: columns_of(self._stream) - 1]}")
        else:
            self._write(f"{text}\n")

    def _parts(self, state: State) -> Iterator[str]:
        plan = plan_of(state)
        total = plan.total()
        yield f"epoch {state.epoch}/{plan.epochs}" if plan.epochs else f"epoch {state.epoch}"
        yield f"step {state.step}/{total}" if total else f"step {state.step}"
        for name, value in self._shown.items():
            if name in _OURS:
                continue
            yield f"{name} {value:.4g}"
        rate, left = self._pace.rate(), self._pace.left(total)
        if rate:
            yield f"{rate:.3g} steps/s"
        if left:
            yield f"ETA {clock(left)}"

    def _settle(self, *, wait: bool) -> None:
        for name, value in list(self._waiting.items()):
            if wait or not isinstance(value, DeviceValue) or value.ready():
                self._shown[name] = number(self._waiting.pop(name))

    def _write(self, text: str) -> None:
        stream = self._stream
        if stream is not None:
            # The terminal is gone, or somebody closed the stream; the training goes on.
            with contextlib.suppress(OSError, ValueError):
                stream.write(text)
                stream.flush()
