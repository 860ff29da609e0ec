"""What `rdev.loop` costs a training step: microseconds over the same step in a bare loop.

Every step of about 0.3 ms notes when it begins and ends, so that what is measured is the time from
the end of one real step to the begin of the next, with the caches as torch left them. A bare loop
has such a gap too; the figures are over its median. `bare again` is the resolution. Rounds run a
block of each variant in one process, in rotated order. The mean includes the samples that are
taken and sent; gaps beyond 200 us are left out of it, they are the machine's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from rdev.loop import Callback, Loop, State, live, log, track
from rdev.wire.channel import SOCKET_VARIABLE

BLOCK = 300
ROUNDS = 30
LIVE_BLOCK = 40
LIVE_ROUNDS = 200
OUTLIER = 200.0
ROOT = Path(__file__).resolve().parent.parent

# A listener that acknowledges everything, in a process of its own, as a supervisor is.
LISTENER = """
import sys, pathlib
from tests.support.supervisor import Listener
with Listener(pathlib.Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


class Training:
    """An MLP whose step takes about 0.3 ms on one thread."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.batch = (torch.randn(64, 64), torch.randint(10, (64,)))
        self.data = [self.batch] * BLOCK
        self.gaps: list[int] = []
        self.ended = 0

    def step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        self.gaps.append(time.perf_counter_ns() - self.ended)
        return self.train(*batch)

    def step_of_loop(self, state: State) -> torch.Tensor:
        self.gaps.append(time.perf_counter_ns() - self.ended)
        return self.train(*state.batch)

    def train(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.model(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ended = time.perf_counter_ns()
        return loss


class Idle(Callback):
    """Hears of every step and does nothing."""

    def step_end(self, state: State) -> None:
        pass


class Armed(Callback):
    """Has the run pause at a loss that no step has."""

    def run_begin(self, state: State) -> None:
        state.control.pause(when="loss > 1e9")


class Paused(Callback):
    """Pauses the run once, and lets it go on at once."""

    def run_begin(self, state: State) -> None:
        state.control.pause()

    def pause(self, state: State) -> None:
        state.control.resume()


def variants(training: Training) -> dict[str, Callable[[], object]]:
    step, data = training.step, training.data

    def bare() -> None:
        for batch in data:
            step(batch)

    def tracked() -> None:
        for batch in track(data):
            step(batch)

    def tracked_and_logged() -> None:
        for batch in track(data):
            log(loss=step(batch))

    def phases(state: State) -> Iterator[tuple[str, torch.Tensor]]:
        yield "only", training.step_of_loop(state)

    def loop(callbacks: int = 0) -> object:
        members = [Idle() for _ in range(callbacks)]
        return Loop(training.step_of_loop, data, callbacks=members).run()

    def controlled(callback: Callback) -> object:
        return Loop(training.step_of_loop, data, callbacks=[callback]).run()

    return {
        "bare": bare,
        "bare again": bare,
        "track": tracked,
        "track and log": tracked_and_logged,
        "Loop": loop,
        "Loop, 1 callback": lambda: loop(1),
        "Loop, 10 callbacks": lambda: loop(10),
        "Loop, generator step": lambda: Loop(phases, data).run(),
        "Loop, armed condition": lambda: controlled(Armed()),
        "Loop, paused before": lambda: controlled(Paused()),
    }


def measure(training: Training) -> dict[str, list[float]]:
    """Microseconds between the steps of each variant."""
    blocks = variants(training)
    names = list(blocks)
    gaps: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS + 1):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            training.gaps.clear()
            blocks[name]()
            if turn:  # the first round warms up
                # The first gap of a block is that to the block before.
                gaps[name] += [gap / 1000 for gap in training.gaps[1:]]
    return gaps


def measure_live(training: Training) -> dict[str, list[float]]:
    """Microseconds from the begin of a step to the next one's, in short blocks, shuffled.

    A live probe costs within the step. It is measured before any run of rdev.loop, which it would
    give way to. `not armed` has been armed before, and is what it was.
    """
    names = ["bare", "bare again", "live probe, not armed", "live probe, armed"]
    periods: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(LIVE_ROUNDS + 1):
        random.shuffle(names)
        for name in names:
            if name.startswith("live"):
                answer = live.arm()
                assert answer["armed"] or not turn, answer  # there is an optimizer after a step
            if name.endswith("not armed"):
                live.disarm()
            begins = []
            for batch in training.data[:LIVE_BLOCK]:
                begins.append(time.perf_counter_ns())
                training.train(*batch)
            live.disarm()
            if turn:
                # The first steps are those at which the probe comes.
                pairs = itertools.pairwise(begins[8:])
                periods[name] += [(end - begin) / 1000 for begin, end in pairs]
    return periods


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Makes this process look like one of a job, with somebody at the other end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", LISTENER, folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, **pipes) as listener:
            listener.stdout.readline()
            os.environ[SOCKET_VARIABLE] = f"{folder}/job.sock"
            yield
            listener.stdin.close()


def report(gaps: dict[str, list[float]], *, what: str) -> None:
    bare = statistics.median(gaps["bare"])
    print(f"a bare loop takes {bare:.2f} us{what}\n")
    print(f"{'':22}   us over bare   (middle half)     mean")
    for name, values in gaps.items():
        if name == "bare":
            continue
        over = sorted(value - bare for value in values)
        low, high = over[len(over) // 4], over[-len(over) // 4]
        mean = statistics.fmean(value for value in over if value < OUTLIER)
        spread = f"({low:.2f} to {high:.2f})"
        print(f"{name:22}   {statistics.median(over):12.2f}   {spread:16} {mean:5.2f}")


def main() -> None:
    torch.set_num_threads(1)
    with job():
        print(f"{ROUNDS} rotated rounds of {BLOCK} steps, one torch thread, in a job\n")
        training = Training()
        report(measure_live(training), what=" a step")
        print()
        report(measure(training), what=" from step to step")


if __name__ == "__main__":
    main()
