"""Trains a small classifier on scikit-learn's digits with a plain loop, as most scripts do.

It knows nothing of rdev; `rdev debug` stops it in `train_step` all the same.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> float:
    """One step on images of shape (N, 1, 8, 8); returns the loss."""
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    """Trains and prints the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()

    torch.set_num_threads(1)  # this network is too small for more to help
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=0.25, random_state=0, stratify=labels
    )
    model = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    for epoch in range(1, options.epochs + 1):
        order = torch.randperm(len(images))
        total = 0.0
        for chosen in order.split(32):
            total += train_step(model, optimizer, images[chosen], labels[chosen]) * len(chosen)
        with torch.no_grad():
            accuracy = (model(test_images).argmax(dim=1) == test_labels).float().mean().item()
        print(
            f"epoch {epoch}: loss {total / len(images):.4f}, test accuracy {accuracy:.4f}",
            flush=True,
        )
    print(f"final test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
