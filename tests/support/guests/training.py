"""The training that every guest does: one small model, one data set, the same arithmetic."""

from __future__ import annotations

from itertools import islice

import torch
from tests.support.guests.terms import BATCH, CLASSES, EPOCHS, FEATURES, GAMMA, LR, SAMPLES
from torch import nn


def data():
    """64 samples and labels that a linear map gives them."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(SAMPLES, FEATURES, generator=generator)
    weights = torch.randn(FEATURES, CLASSES, generator=generator)
    return samples, (samples @ weights).argmax(1)


def loader(size=BATCH):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=size)


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def optimizer_of(net):
    return torch.optim.SGD(net.parameters(), lr=LR)


def fall(step):
    return GAMMA**step


def schedule_of(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, fall)


class Broken(Exception):
    """What the user's own code raises in the training that fails."""


class Case:
    """One training: what it is told of, and where it breaks.

    Args:
        callbacks: Of ours.
        fails_at: The step in whose computation an exception is raised, or None.
        accumulated: Of so many batches the gradients are accumulated in a step.
    """

    def __init__(self, *callbacks, fails_at=None, accumulated=1):
        self.callbacks = callbacks
        self.accumulated = accumulated
        self.fails_at = fails_at
        self._computed = 0

    def computing(self):
        """To be called by the user's code once in every step."""
        self._computed += 1
        if self._computed == self.fails_at:
            raise Broken("a step that breaks")


def bare(lrs, accumulated=1):
    """The losses of a loop that is nobody's guest, with these rates, one of each step."""
    net = network()
    optimizer = optimizer_of(net)
    losses = []
    batches = iter(list(loader()) * EPOCHS)
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        members = [
            nn.functional.cross_entropy(net(samples), labels)
            for samples, labels in islice(batches, accumulated)
        ]
        if not members:
            break
        loss = sum(members) / len(members)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
