"""Supervised learning: a classifier of digits, validated, checkpointed, and gone on with.

    python examples/supervised.py --epochs 3 --folder runs/digits
    python examples/supervised.py --epochs 6 --folder runs/digits --resume

ends with the very weights that six epochs at once give: the order of the samples and their random
shifts depend on seed, epoch and index alone, and the checkpoint holds whatever else a run draws on.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rdev.loop import Callback, Loop, State, log
from rdev.loop.callbacks import Checkpoint
from rdev.loop.sampler import ShuffleSampler, seeded


def step(state: State) -> dict[str, Tensor]:
    """One step of supervised learning."""
    images, labels = state.batch
    logits = state.model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    state.scheduler.step()
    return {"loss": loss, "correct": (logits.argmax(1) == labels).float().mean()}


class Validation(Callback):
    """Measures the share of unseen digits that are read right, after every epoch."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.images, self.labels = images, labels

    @torch.no_grad()
    def epoch_end(self, state: State) -> None:
        """Logs `accuracy`, by which `Checkpoint` tells the best from the others."""
        state.model.eval()
        guesses = state.model(self.images).argmax(1)
        state.model.train()
        accuracy = (guesses == self.labels).float().mean().item()
        log(accuracy=accuracy)
        print(f"epoch {state.epoch}: accuracy {accuracy:.4f}", flush=True)


class Shifted(Dataset[tuple[Tensor, Tensor]]):
    """Images of shape (1, 8, 8), each moved by up to a pixel in both directions, with labels."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return self.images[index].roll((down, right), (1, 2)), self.labels[index]


def network() -> nn.Module:
    """(N, 1, 8, 8) to logits of shape (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def main() -> None:
    """Trains, or goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="checkpoints", help="where the checkpoints lie")
    parser.add_argument("--resume", action="store_true", help="go on from the latest of them")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    split = train_test_split(images, torch.tensor(digits.target), test_size=0.25, random_state=0)
    train_images, test_images, train_labels, test_labels = split

    data = seeded(Shifted(train_images, train_labels), options.seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    state = Loop(
        step,
        DataLoader(data, batch_size=32, sampler=ShuffleSampler(data, seed=options.seed)),
        epochs=options.epochs,
        callbacks=[
            Validation(test_images, test_labels),
            Checkpoint(options.folder, best=1, metric="accuracy", mode="max"),
        ],
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.993),
    ).run(resume="auto" if options.resume else None)
    weights = sum(weight.double().abs().sum().item() for weight in model.parameters())
    print(f"accuracy {state.metrics['accuracy']:.4f} at step {state.step}, weights {weights:.12f}")


if __name__ == "__main__":
    main()
