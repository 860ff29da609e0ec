"""Self-supervised learning: features of digits without a single label.

Two views of the same digit shall have like features, and those of others unlike (SimCLR, Chen et
al. 2020, https://arxiv.org/abs/2002.05709). Labels are looked at once, at the end: a linear probe
with ten labels a class is compared with the same probe on pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from rdev.loop import Loop, State

BATCH = 256
TEMPERATURE = 0.2
LABELS = 10  # a class, for the probe


def step(state: State) -> Tensor:
    """Tells each view's partner from all the other views of the batch."""
    views = torch.cat([view(state.batch), view(state.batch)])
    points = functional.normalize(state.projector(state.encoder(views)))
    likeness = points @ points.T / TEMPERATURE
    likeness.fill_diagonal_(-torch.inf)
    partners = torch.arange(len(views)).roll(len(state.batch))
    loss = functional.cross_entropy(likeness, partners)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return loss


def view(images: Tensor) -> Tensor:
    """Images of shape (N, 1, 8, 8), turned, scaled, sheared, moved and made noisy by chance."""
    count = len(images)
    change = torch.eye(2, 3).repeat(count, 1, 1) + 0.15 * torch.randn(count, 2, 3)
    grid = functional.affine_grid(change, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    return moved + 0.1 * torch.randn_like(moved)


class Unlabelled:
    """The data: images alone, in an order that is new each epoch."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, _state: State) -> Iterator[Tensor]:
        """Whole batches: the loss depends on how many others there are."""
        order = torch.randperm(len(self.images))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            yield self.images[order[first : first + BATCH]]


def probe(features: Tensor, labels: Tensor, unseen: Tensor, answers: Tensor) -> float:
    """Accuracy on unseen digits of a linear classifier that had the first LABELS of each class."""
    chosen = torch.cat([(labels == digit).nonzero()[:LABELS, 0] for digit in range(10)])
    scale = features.std()
    fitted = LogisticRegression(max_iter=1000).fit(features[chosen] / scale, labels[chosen])
    return float(fitted.score(unseen / scale, answers))


def main() -> None:
    """Learns features, and then looks what they are worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
    )
    projector = nn.Sequential(nn.ReLU(), nn.Linear(128, 64))
    state = Loop(
        step,
        Unlabelled(images[:1300]),
        epochs=options.epochs,
        encoder=encoder,
        projector=projector,
        optimizer=torch.optim.Adam([*encoder.parameters(), *projector.parameters()], lr=2e-3),
    ).run()
    with torch.no_grad():
        features = encoder(images)
    scores = [
        probe(points[:1300], labels[:1300], points[1300:], labels[1300:])
        for points in (images.flatten(1), features)
    ]
    print(f"accuracy {scores[0]:.4f} of pixels, {scores[1]:.4f} of features, {state.step} steps")


if __name__ == "__main__":
    main()
