"""Where a run's reports go: to the job's supervisor, to a terminal, or nowhere."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TextIO

from rdev.loop.sample import DeviceValue, Sample, number
from rdev.wire.clock import active_monotonic
from rdev.wire.dial import Dialer, job_socket

# In a job: ten points a second are more than a plot shows, and after about a quarter of an hour
# the rate falls with the run's age, to one a second, so that a week's record stays readable.
CLOSEST = 0.1
WIDEST = 1.0
SHARE_OF_AGE = 1e-4

# On a terminal: as often as an eye can follow numbers.
PROGRESS_SECONDS = 0.25


class Sink(Protocol):
    """Takes reports from the training thread and must never make it wait.

    `interval` is asked after every sample; `event` and `metric` are called in the order in which
    things happened. No call raises.
    """

    def interval(self) -> float:
        """Seconds until the next sample is wanted."""
        ...

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Something happened; kinds and fields are those of `rdev.wire.events`."""

    def metric(self, *, step: int, epoch: int, phase: str, samples: Mapping[str, Sample]) -> None:
        """Values of the step at hand, as `rdev.loop.sample.take` gave them."""


class ChannelSink:
    """Reports to the supervisor of the job this process belongs to."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._began = time.monotonic()

    def interval(self) -> float:
        """Seconds until the next sample is wanted; grows with the run's age."""
        age = time.monotonic() - self._began
        return min(WIDEST, max(CLOSEST, age * SHARE_OF_AGE))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Sends an event."""
        self._dialer.emit(kind, fields)

    def metric(self, *, step: int, epoch: int, phase: str, samples: Mapping[str, Sample]) -> None:
        """Sends a metric event; values on a device are waited for on the channel's thread."""
        head = {"step": step, "epoch": epoch, "phase": phase}
        if not any(isinstance(sample, DeviceValue) for sample in samples.values()):
            self._dialer.emit("metric", {**head, "values": samples})
            return
        self._dialer.emit(
            "metric",
            lambda: {**head, "values": {name: number(value) for name, value in samples.items()}},
        )


class ProgressSink:
    """Keeps one line on a terminal up to date; a value still on its device is shown when it is in.

    Args:
        stream: A terminal.

    Attributes:
        hushed: A callback shows the progress instead.
    """

    hushed: ClassVar[bool] = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._epochs: int | None = None
        self._values: dict[str, Sample] = {}
        self._shown: dict[str, float] = {}
        self._last = (active_monotonic(), 0)

    def interval(self) -> float:
        """Seconds until the next sample is wanted."""
        return PROGRESS_SECONDS

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Notes the plan at the begin and ends the line at the end."""
        if kind == "run_started":
            self._epochs = fields["epochs"]
            self._shown.clear()
            self._last = (active_monotonic(), 0)
        elif kind == "run_ended" and self._shown:
            self._write("\n")

    def metric(self, *, step: int, epoch: int, phase: str, samples: Mapping[str, Sample]) -> None:
        """Shows what is known by now."""
        if self.hushed:
            return
        self._settle()
        self._values = {f"{phase}.{name}" if phase else name: v for name, v in samples.items()}
        self._settle()
        now, (before, earlier) = active_monotonic(), self._last
        rate = (step - earlier) / (now - before) if now > before else 0.0
        self._last = (now, step)
        of = f"/{self._epochs}" if self._epochs else ""
        values = "  ".join(f"{name} {value:.4g}" for name, value in self._shown.items())
        line = f"epoch {epoch}{of}  step {step}  {values}  {rate:.0f} steps/s"
        self._write(f"\r\x1b[K{line[: columns_of(self._stream) - 1]}")

    def _settle(self) -> None:
        for name, value in list(self._values.items()):
            if not isinstance(value, DeviceValue) or value.ready():
                self._shown[name] = number(self._values.pop(name))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # The terminal is gone, or somebody closed the stream; the training goes on.


class SilentSink:
    """Nobody looks: values are not even read."""

    def interval(self) -> float:
        """Never."""
        return float("inf")

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Drops it."""

    def metric(self, *, step: int, epoch: int, phase: str, samples: Mapping[str, Sample]) -> None:
        """Drops it."""


def sink_of_process() -> Sink:
    """The sink that suits where this process runs; in a job, all runs share one connection."""
    path = job_socket()
    if path is not None:
        return ChannelSink(_dialer(path))
    stream = sys.stderr
    if stream is not None and stream.isatty():
        return ProgressSink(stream)
    return SilentSink()


_dialers: dict[str, Dialer] = {}


def _command(name: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    # Here, for the probe that it speaks to is made with a sink.
    from rdev.loop.commands import command

    return command(name, args)


def _dialer(path: str) -> Dialer:
    dialer = _dialers.get(path)
    if dialer is None:
        dialer = _dialers[path] = Dialer("loop", path, on_command=_command)
        dialer.start()
        atexit.register(dialer.close)
    return dialer


def columns_of(stream: TextIO) -> int:
    """How wide a terminal is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
