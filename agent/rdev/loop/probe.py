"""The core that every kind of loop calls: it counts, tells callbacks, and reports.

A boundary of steps costs one comparison: the clock against the time at which something is due.
Whoever wants the training thread's attention sets that time to zero and is served there.

    run_begin { epoch_begin { step_begin  phase_end*  step_end }*  epoch_end }*  run_end
                                       | exception: `fail`, then the ends that are still owed
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from rdev.loop.callback import Callback, Calls, compiled
from rdev.loop.control import Control
from rdev.loop.grid import Grid
from rdev.loop.sample import take_all
from rdev.loop.sink import Sink
from rdev.loop.state import State
from rdev.wire import gate
from rdev.wire.clock import active_monotonic

if TYPE_CHECKING:
    from rdev.loop.feed import Feed

_clock = time.monotonic


class Probe:
    """Drives the callbacks and the reports of one run; one thread calls it.

    Metrics are sampled: the values of the first step, of the last step of each epoch, and in
    between of one step each time the sink wants some. A loss that is not reported is never read.

    Args:
        state: The run's state.
        callbacks: Whom to tell.
        sink: Where reports go.
        kind: What drives the run: `loop`, `track`, `probe`, or a library's name.

    Attributes:
        control: Serves requests at boundaries of steps and phases.
        ended: The monotonic clock at the latest end of a step, or the begin of the run.
        feed: Where the batches come from, if a `Loop` takes them.
        planned: At most how many epochs, and how many steps, as far as that is known.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_due",
        "_epoch_open",
        "_fresh",
        "_grid",
        "_held",
        "_members",
        "_phase_end",
        "_phases",
        "_report_due",
        "_run_open",
        "_sink",
        "_step_begin",
        "_step_end",
        "_step_open",
        "control",
        "ended",
        "feed",
        "kind",
        "planned",
        "state",
    )

    _calls: dict[str, Calls]
    _step_begin: Calls
    _phase_end: Calls
    _step_end: Calls

    def __init__(
        self,
        state: State,
        *,
        callbacks: Iterable[Callback] = (),
        sink: Sink,
        kind: str = "loop",
    ) -> None:
        self.state = state
        self.kind = kind
        self.control = state.control = Control(self)
        self.ended = _clock()
        self.feed: Feed | None = None
        self.planned: tuple[int | None, int | None] = (None, None)
        self._sink = sink
        self._members: list[Callback] = []
        # What is known and not reported, with the number of its step: by name, and by phase.
        self._fresh: dict[str, tuple[int, object]] = {}
        self._phases: dict[str, tuple[int, Mapping[str, object]]] = {}
        self._run_open = self._epoch_open = self._step_open = False
        self._due = self._report_due = 0.0
        self._held = 0.0
        # Ranks sample the same steps, so that their values can be compared.
        self._grid = Grid() if os.environ.get("WORLD_SIZE", "1") != "1" else None
        self._adopt(callbacks)

    @property
    def members(self) -> tuple[Callback, ...]:
        """The callbacks."""
        return tuple(self._members)

    @property
    def stage(self) -> str:
        """What the run is at: `data`, `step`, `callbacks`, `paused` or `over`."""
        if self.control.is_paused:
            return "paused"
        if not self._run_open:
            return "over"
        if self._step_open:
            return "step"
        return "data" if self._epoch_open else "callbacks"

    @property
    def is_in_step(self) -> bool:
        """True from the begin of a step to its end."""
        return self._step_open

    @property
    def is_in_epoch(self) -> bool:
        """True from the begin of an epoch until its end is told."""
        return self._epoch_open

    @property
    def held(self) -> float:
        """Seconds that the process had been held when that was last looked at."""
        return self._held

    def checkpoint_saved(self, path: str) -> None:
        """A checkpoint of this step has been written there."""
        self.event("checkpoint_saved", {"step": self.state.step, "path": path})
        self._tell(self._calls["checkpoint_saved"], path)

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Reports what a callback did; kinds and fields are those of `rdev.wire.events`."""
        self._sink.event(kind, fields)

    def add(self, callbacks: Iterable[Callback]) -> None:
        """Adds callbacks that are not there yet; in a run that has begun they are told so."""
        new = self._adopt(callbacks)
        if self._run_open:
            self._tell(compiled(new)["run_begin"])

    def run_begin(self, *, epochs: int | None = None, steps: int | None = None) -> None:
        """The run begins.

        Args:
            epochs: How many are planned, if that is known.
            steps: At most how many steps are planned, if that is known.
        """
        self._run_open = True
        if self.kind != "probe":  # which begins on whatever thread it is armed on
            self.control.thread = get_ident()
        for outer in _runs:
            outer.wake()  # A probe of a foreign loop gives way to this one.
        _runs.append(self)
        self._held = _seconds_held()
        self.ended = _clock()
        self.planned = (epochs, steps)
        self._sink.event("run_started", {"epochs": epochs, "steps": steps})
        self._tell(self._calls["run_begin"])
        gate.join(self)
        if not self.state.step:  # A run that is joined under way is in a step already.
            gate.passing(1)

    def wake(self) -> None:
        """Makes the next boundary of steps serve who asked for attention; for any thread."""
        self._due = 0.0

    def reached(self) -> int:
        """The step that has begun last; 0 if none has, or if the run is over."""
        return self.state.step if self._run_open else 0

    def report(self) -> None:
        """Reports what is known now, though no sample is due."""
        self._report()

    def tell_pause(self) -> None:
        """The training is about to be held."""
        self._tell(self._calls["pause"])

    def tell_resume(self, seconds: float) -> None:
        """The training goes on after so many seconds."""
        self._held = _seconds_held()
        self._tell(self._calls["resume"], seconds)

    def epoch_begin(self) -> None:
        """An epoch begins."""
        self._report()  # What was logged since the last one belongs to the last one.
        self.state.epoch += 1
        self._epoch_open = True
        self._sink.event("epoch_started", {"epoch": self.state.epoch})
        self._tell(self._calls["epoch_begin"])
        if self.control.is_wanted:
            self.control.attend()

    def step_begin(self, batch: object) -> None:
        """A step begins with this batch."""
        state = self.state
        state.step += 1
        state.batch = batch
        self._step_open = True
        for call in self._step_begin:
            call(state)

    def phase_end(self, phase: str, loss: object) -> None:
        """A phase of the step has ended.

        Args:
            phase: Its name; it has a metric series of its own.
            loss: What `step_end` takes, except phases.
        """
        state = self.state
        state.phase = phase
        if isinstance(loss, dict):
            state.metrics.update(loss)
            self._phases[phase] = (state.step, loss)
            loss = loss.get("loss")
        else:
            self._phases[phase] = (state.step, {"loss": loss})
        state.loss = loss
        for call in self._phase_end:
            call(state)
        if self.control.is_wanted:
            self.control.attend(phase)

    def step_end(self, result: object = None) -> None:
        """A step has ended.

        Args:
            result: The loss, or metrics by name of which `loss` is one, or a generator of
                `(phase, loss)` that makes the step while it is run, or None.
        """
        self._take(result)
        self._step_open = False
        for call in self._step_end:
            call(self.state)
        self.ended = now = _clock()
        if now >= self._due:
            self._serve()

    def drive(
        self,
        step: Callable[[State], object],
        batches: Iterable[object],
        *,
        limit: int | None = None,
    ) -> None:
        """Makes a step of each batch, as `step_begin` and `step_end` around `step` would.

        This is the path whose cost is counted in fractions of a microsecond, so it calls nothing
        of its own: a result of the type of the one before, usually a tensor, is the loss, and is
        handed on only when a sample is due.

        Args:
            step: Makes a step; what it returns is what `step_end` takes.
            batches: An epoch.
            limit: Ends after the step of this number.
        """
        state, begins, ends = self.state, self._step_begin, self._step_end
        plain: type | None = None
        done = reported = 0
        try:
            for batch in batches:
                state.step = number = state.step + 1
                state.batch = batch
                self._step_open = True
                for call in begins:
                    call(state)
                result = step(state)
                if type(result) is plain:
                    state.loss = result
                else:
                    plain = self._take(result)
                self._step_open = False
                done = number
                for call in ends:
                    call(state)
                self.ended = now = _clock()
                if now >= self._due:
                    if plain is not None:
                        self._fresh["loss"] = (number, state.loss)
                    reported = number
                    self._serve()
                if number == limit or state.stop:
                    break
        finally:
            if plain is not None and reported < done:
                self._fresh["loss"] = (done, state.loss)

    def _take(self, result: object) -> type | None:
        """Takes in what a step returned; its type if it is nothing but a loss."""
        if result is None:
            return None
        if isinstance(result, GeneratorType):
            for phase, loss in result:
                self.phase_end(phase, loss)
            return None
        if isinstance(result, dict):
            self.log(result)
            return None
        self.state.loss = result
        self._fresh["loss"] = (self.state.step, result)
        return type(result)

    def log(self, values: Mapping[str, Any]) -> None:
        """Takes in metrics; the next boundary that is due reports the last value of each name."""
        state = self.state
        state.metrics.update(values)
        number, fresh = state.step, self._fresh
        for name, value in values.items():
            fresh[name] = (number, value)
        if "loss" in values:
            state.loss = values["loss"]

    def lone(self, values: Mapping[str, Any]) -> None:
        """Takes in metrics of a loop that nobody drives: each call is a step, and is reported."""
        self.state.step += 1
        self.log(values)
        self._report()
        self.ended = _clock()
        if self.control.is_wanted:
            self.control.attend()

    def epoch_end(self) -> None:
        """The epoch has ended."""
        state = self.state
        self._epoch_open = False
        try:
            self._tell(self._calls["epoch_end"])
        finally:
            self._report()
            self._sink.event("epoch_ended", {"epoch": state.epoch, "step": state.step})

    def fail(self, error: BaseException) -> None:
        """An exception ends the run: `exception`, then the ends owed up to the epoch's."""
        self.state.error = error
        self._tell(self._calls["exception"])
        self.settle()

    def settle(self) -> None:
        """Ends the step and the epoch that are still open, if any."""
        if self._step_open:
            self._step_open = False
            self._tell(self._step_end)
        if self._epoch_open:
            self.epoch_end()

    def run_end(self) -> None:
        """The run has ended, however it did; only the first call counts."""
        global _has_ended
        if not self._run_open:
            return
        self._run_open = False
        self.control.over()
        try:
            self._tell(self._calls["run_end"])
        finally:
            self._report()
            state = self.state
            self._sink.event("run_ended", {"step": state.step, "error": _described(state.error)})
            _runs.remove(self)
            _has_ended = _has_ended or self.kind != "probe"  # which may be armed again

    def abandon(self) -> None:
        """In a forked child: the run is its parent's, and nothing is told."""
        if self._run_open:
            self._run_open = False
            _runs.remove(self)

    def _adopt(self, callbacks: Iterable[Callback]) -> list[Callback]:
        new = [member for member in callbacks if all(member is not old for old in self._members)]
        self._calls = compiled([*self._members, *new])
        self._members += new
        self._step_begin = self._calls["step_begin"]
        self._phase_end = self._calls["phase_end"]
        self._step_end = self._calls["step_end"]
        return new

    def _tell(self, calls: Calls, *arguments: object) -> None:
        """Calls every one of them even if some raise: each may have something to close.

        Raises:
            BaseException: The first one raised, unless the run is failing already.
        """
        first: BaseException | None = None
        for call in calls:
            try:
                call(self.state, *arguments)
            except BaseException as error:  # noqa: BLE001, PERF203  # all are called; see below
                if first is None and self.state.error is None:
                    first = error
                else:
                    sys.excepthook(type(error), error, error.__traceback__)
        if first is not None:
            raise first

    def _is_unmet(self, control: Control) -> bool:
        # A condition alone is judged after every step, most of which do not meet it.
        if control.is_wanted or self.ended >= self._report_due or gate.is_closed():
            return False
        return control.is_unmet(self.state)

    def _serve(self) -> None:
        control = self.control
        if control.condition is not None and self._is_unmet(control):
            return
        now = _clock()
        is_due = now >= self._report_due
        if is_due and self._grid is not None:
            is_due = self._grid.takes(self.state.step, now)
        if is_due:
            interval = self._sink.interval()
            self._report_due = now + interval
            if self._grid is not None and interval < _NEVER:
                self._report_due = self._grid.plan(self.state.step, now, interval)
        # The next time first: a request that comes while this one is served is not lost.
        self._due = self._report_due
        if control.is_wanted or control.condition is not None:
            control.attend()
        if gate.is_closed():
            gate.passing(self.state.step + 1, self.state)
            if gate.is_closed():
                self._due = 0.0
        if not is_due:
            return
        held = _seconds_held()
        if held - self._held > _LEAST_HOLD:
            seconds, self._held = held - self._held, held
            self._tell(self._calls["pause"])
            self._tell(self._calls["resume"], seconds)
        self._report()

    def _report(self) -> None:
        """Hands on what is known and not reported, in the order of its steps."""
        fresh, phases = self._fresh, self._phases
        if not fresh and not phases:
            return
        known: dict[tuple[int, str], Mapping[str, object]] = {}
        if fresh:
            self._fresh = {}
            steps: dict[int, dict[str, object]] = {}
            for name, (step, value) in fresh.items():
                steps.setdefault(step, {})[name] = value
            known = {(step, ""): values for step, values in steps.items()}
        if phases:
            self._phases = {}
            known.update({(step, phase): values for phase, (step, values) in phases.items()})
        for step, phase in sorted(known, key=itemgetter(0)):  # of one step, as they came
            self._hand_on(step, phase, known[step, phase])

    def _hand_on(self, step: int, phase: str, values: Mapping[str, object]) -> None:
        samples = take_all(values)
        if samples:
            self._sink.metric(step=step, epoch=self.state.epoch, phase=phase, samples=samples)


_NEVER = float("inf")

# Shorter holds are the clock's own reading noise.
_LEAST_HOLD = 1e-3


def _seconds_held() -> float:
    return time.monotonic() - active_monotonic()


def _described(error: BaseException | None) -> str | None:
    if error is None:
        return None
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500]}" if text else type(error).__name__


def error_at_exit() -> BaseException | None:
    """The exception that is ending the interpreter, as it has just been printed."""
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


_runs: list[Probe] = []
_has_ended = False


def current() -> Probe | None:
    """The innermost run of this process that has begun and not ended."""
    return _runs[-1] if _runs else None


def has_ended() -> bool:
    """Whether a run of this process has ended."""
    return _has_ended


def _forget() -> None:
    for probe in _runs:
        probe.control.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
