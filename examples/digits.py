"""Trains a small classifier on scikit-learn's digits with `rdev.loop`.

Run it plainly with `python examples/digits.py`, or as a job with `rdev run examples/digits.py`,
where `rdev metrics` follows it.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rdev.loop import Callback, Loop, State, log


def load() -> tuple[TensorDataset, TensorDataset]:
    """1,797 scanned digits: images of shape (N, 1, 8, 8) within [0, 1], labels of shape (N,)."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    parts = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    return TensorDataset(train_images, train_labels), TensorDataset(test_images, test_labels)


def network() -> nn.Module:
    """A small convolutional classifier: (N, 1, 8, 8) to logits of shape (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 4 * 4, 10),
    )


def step(state: State) -> Tensor:
    """One step of supervised learning; returns the loss, a tensor of one element."""
    images, labels = state.batch
    loss = nn.functional.cross_entropy(state.model(images), labels)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return loss


class Accuracy(Callback):
    """Measures the share of test digits that are read right, after every epoch."""

    def __init__(self, test: TensorDataset) -> None:
        super().__init__()
        self.images, self.labels = test.tensors

    @torch.no_grad()
    def epoch_end(self, state: State) -> None:
        """Logs `accuracy`, within [0, 1]."""
        state.model.eval()
        guesses = state.model(self.images).argmax(dim=1)
        state.model.train()
        accuracy = (guesses == self.labels).float().mean()
        log(accuracy=accuracy)
        print(f"epoch {state.epoch}: test accuracy {accuracy:.4f}", flush=True)


def main() -> None:
    """Trains and prints the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)  # this network is too small for more to help
    torch.manual_seed(options.seed)
    train, test = load()
    model = network()
    state = Loop(
        step,
        DataLoader(train, batch_size=32, shuffle=True),
        epochs=options.epochs,
        callbacks=[Accuracy(test)],
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
    ).run()
    accuracy = float(state.metrics["accuracy"])
    print(f"final test accuracy {accuracy:.4f} after {state.step} steps")


if __name__ == "__main__":
    main()
