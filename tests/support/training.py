"""A training whose every step draws random numbers: what one run computes tells any other apart.

As a program: `python -m tests.support.training FOLDER OUTPUT WORKERS [--restart]` trains with
checkpoints in FOLDER, goes on from the latest, writes a line for every step to OUTPUT and the
weights to OUTPUT.weights when it is done. With `--restart` it does so in a process forked before
anything was drawn, and in another one whenever that is killed, and prints their ids.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import random
import signal
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from rdev.loop import Callback, Loop
from rdev.loop.callbacks.checkpoint import Checkpoint
from rdev.loop.sampler import ShuffleSampler, seeded

EPOCHS = 3
SAMPLES = 72
BATCH = 16  # the last batch of an epoch is a short one
STEPS = -(-SAMPLES // BATCH) * EPOCHS


@cache
def digits():
    # scikit-learn's digits without its import, which takes seconds in every process.
    folder = Path(find_spec("sklearn").origin).parent / "datasets" / "data"
    with gzip.open(folder / "digits.csv.gz", "rt") as file:
        rows = torch.tensor(np.loadtxt(file, delimiter=",", max_rows=SAMPLES))
    return (rows[:, :64] / 16).float(), rows[:, 64].long()


class Augmented:
    """Digits that all three libraries' generators distort."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        images, labels = digits()
        image = images[index]
        if random.random() < 0.5:
            image = image.flip(0)
        image = image + torch.randn(64) * 0.1 + float(np.random.normal()) * 0.01
        return image, labels[index], index


class Average:
    """Keeps the very tensor that it is given, and changes it."""

    def __init__(self):
        self.value = torch.zeros(1)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Validate(Callback):
    """Draws at the ends of epochs, and has a state of its own that the training depends on."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def epoch_begin(self, state):
        for group in state.optimizer.param_groups:
            group["weight_decay"] += 0.01  # not to be done twice
        state.average.value += 0.01

    def step_end(self, state):  # noqa: ARG002  # a callback's signature
        self.count += 1

    def epoch_end(self, state):
        state.scale[0] = 1 + 0.1 * torch.rand(1).item() + 0.001 * self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def own_loader(*, workers=0, persistent=False):
    data = seeded(Augmented(), 5)
    return DataLoader(
        data,
        batch_size=BATCH,
        sampler=ShuffleSampler(data, seed=7),
        num_workers=workers,
        persistent_workers=persistent,
    )


class Training:
    """One run; the same seeds every time.

    Attributes:
        lines: What every step was: number, epoch, loss in full, and which samples.
        weights: The model's state at the end.
    """

    def __init__(self, *, loader=None, callbacks=(), steps=None, seed=0, epochs=EPOCHS, **workers):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = nn.Sequential(
            nn.Linear(64, 24), nn.BatchNorm1d(24), nn.Dropout(0.3), nn.ReLU(), nn.Linear(24, 10)
        )
        optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        momentum = torch.optim.SGD(self.model[0].parameters(), lr=1e-3, momentum=0.9)
        self.loader = loader or own_loader(**workers)
        self.lines = []
        self.loop = Loop(
            self.step,
            self.loader,
            epochs=epochs,
            steps=steps,
            callbacks=[Validate(), *callbacks],
            model=self.model,
            optimizer=optimizer,
            momentum=momentum,
            schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=STEPS + 1),
            scale=[1.0],
            average=Average(),
        )

    def run(self, resume=None):
        self.state = self.loop.run(resume=resume)
        self.weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        # In a cycle with this, torch's workers that live on take 5 s each to end.
        self.loop = self.loader = None
        return self

    def step(self, state):
        images, labels, indices = state.batch
        loss = nn.functional.cross_entropy(state.model(images), labels) * state.scale[0]
        loss = loss * (1 + state.average.value.item())
        for optimizer in (state.optimizer, state.momentum):
            optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.momentum.step()
        state.schedule.step()
        line = [state.step, state.epoch, loss.item().hex(), indices.tolist()]
        self.lines.append(line)
        self.note(line)
        return loss

    def note(self, line):
        """A step was made."""


def same(one, other):
    """True if two runs ended with the same weights, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("workers", type=int)
    parser.add_argument("--restart", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.restart:
        train(options)
        return
    importlib.import_module("torch._dynamo")  # Optimizers do, and it takes seconds.

    while True:
        pid = os.fork()
        if pid == 0:
            train(options)
            os._exit(0)
        print(pid, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != -signal.SIGKILL:
            sys.exit(code)


def train(options):
    checkpoint = Checkpoint(options.folder, steps=1, keep=2)
    training = Training(workers=options.workers, callbacks=[checkpoint])
    with options.output.open("a") as output:

        def note(line):
            output.write(json.dumps(line) + "\n")
            output.flush()

        training.note = note
        training.run(resume="auto")
    torch.save(training.weights, f"{options.output}.weights")


if __name__ == "__main__":
    main()
