"""What a checkpoint costs beside `torch.save` with an fsync, and a sample that is seeded.

A model of 25 million weights with Adam's state, 300 MB of values, into a folder on the disk. `save`
is the time that the training waits; peak memory is what each adds while it writes.
"""

from __future__ import annotations

import os
import random
import resource
import tempfile
import time

import numpy as np
import torch

from bench.measure import Figure, table
from rdev.loop import State
from rdev.loop.archive import read
from rdev.loop.checkpoint import capture, load, restore, save
from rdev.loop.sampler import ShuffleSampler, seeded

ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "7"))
LAYERS, WIDTH = 6, 2048


def main() -> None:
    files()
    print()
    samples()


def trained() -> State:
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, WIDTH)).sum().backward()
    optimizer.step()
    return State(model=model, optimizer=optimizer)


def by_torch(state: State, path: str) -> None:
    body = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
    with open(path, "wb") as file:
        torch.save(body, file)
        file.flush()
        os.fsync(file.fileno())


def by_torch_beside(state: State, path: str) -> None:
    by_torch(state, path + ".new")
    os.replace(path + ".new", path)


def files() -> None:
    state = trained()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, kept = os.path.join(folder, "a.ckpt"), os.path.join(folder, "kept.ckpt")
        save(state, kept)
        snapshot = capture(state)
        what = {
            "torch.save, fsync": lambda: by_torch(state, path),
            "the same, beside": lambda: by_torch_beside(state, path),
            "save": lambda: save(state, path),
            "torch.load": lambda: torch.load(kept, weights_only=True),
            "read (with checksums)": lambda: read(kept),
            "load": lambda: load(kept, state),
            "capture": lambda: capture(state),
            "restore": lambda: restore(state, snapshot),
        }
        times: dict[str, list[float]] = {name: [] for name in what}
        peaks: dict[str, float] = {}
        for number in range(ROUNDS):
            # What is written second waits for the disk to take the first: each is so in turn.
            turn = number % len(what)
            for name, call in [*what.items()][turn:] + [*what.items()][:turn]:
                seconds, megabytes = measured(call)
                times[name].append(seconds * 1e3)
                peaks[name] = max(peaks.get(name, 0.0), megabytes)
        size = os.path.getsize(path) / 1e6
    rows = [(name, Figure(values)) for name, values in times.items()]
    print(f"{size:.0f} MB, {ROUNDS} interleaved rounds\n")
    print(table("ms", rows, base=rows[0][1]))
    print("\npeak memory added, MB: " + ", ".join(f"{name} {peaks[name]:.0f}" for name in peaks))


def measured(call) -> tuple[float, float]:
    """Seconds, and the megabytes by which the process grew above what it had."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    began = time.perf_counter()
    kept = call()
    seconds = time.perf_counter() - began
    grown = (_kilobytes("VmHWM") - before) / 1e3
    del kept
    return seconds, grown


def _kilobytes(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


class Flipped:
    """A sample of an augmentation as small as there is one."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.empty(3, 32, 32)
        return image.flip(0) if random.random() < 0.5 else image


def samples() -> None:
    plain, own = Flipped(), seeded(Flipped())
    np.random.seed(0)
    times: dict[str, list[float]] = {"dataset[i]": [], "seeded(dataset)[i]": []}
    for _ in range(ROUNDS * 3):
        for name, data in zip(times, (plain, own), strict=True):
            began = time.perf_counter()
            for index in range(1000):
                data[index]
            times[name].append((time.perf_counter() - began) * 1e3)
    rows = [(name, Figure(values)) for name, values in times.items()]
    print(table("us", rows, base=rows[0][1]))
    began = time.perf_counter()
    next(iter(ShuffleSampler(1_000_000)))
    print(f"\nan epoch's order of a million samples: {time.perf_counter() - began:.2f} s")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak memory of all: {used:.0f} MB")


if __name__ == "__main__":
    main()
