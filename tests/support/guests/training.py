"""The training that every guest does: one small model, one data set, the same arithmetic."""

from __future__ import annotations

import torch
from torch import nn

SAMPLES = 64
FEATURES = 8
CLASSES = 4
BATCH = 8
EPOCHS = 3
STEPS = EPOCHS * SAMPLES // BATCH
LR = 0.2
GAMMA = 0.95  # the rate falls by this much with every step


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
    """

    def __init__(self, *callbacks, fails_at=None):
        self.callbacks = callbacks
        self.fails_at = fails_at
        self._computed = 0

    def computing(self):
        """To be called by the user's code once in every step."""
        self._computed += 1
        if self._computed == self.fails_at:
            raise Broken("a step that breaks")


def bare(lrs):
    """The losses of a loop that is nobody's guest, with these rates."""
    net = network()
    optimizer = optimizer_of(net)
    losses = []
    batches = list(loader()) * EPOCHS
    for lr, (samples, labels) in zip(lrs, batches, strict=False):
        optimizer.param_groups[0]["lr"] = lr
        loss = nn.functional.cross_entropy(net(samples), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
