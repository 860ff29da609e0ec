"""A two-stage detector: its stages are trained in alternation first, then jointly.

Scenes are real digits of several sizes on a canvas. The first stage proposes boxes, the second
says which digit lies in each; both look at the features of one backbone, as in Faster R-CNN (Ren
et al. 2015, https://arxiv.org/abs/1506.01497), whose alternating training this is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from rdev.loop import Callback, Loop, State, log

SIDE = 32  # pixels of a scene
STRIDE = 4  # of the grid that boxes are proposed on
CELLS = SIDE // STRIDE
BATCH = 16
CROP = 6  # features of a box, along each side
TYPICAL = 11.0  # pixels of a digit's side
# Which stages learn in an epoch: proposals alone, classes alone, and so on; then both.
TURNS = ("proposals", "classes", "proposals", "classes")


def step(state: State) -> Iterator[tuple[str, Tensor]]:
    """One step of the stages whose turn it is; each is a phase with a loss of its own."""
    scenes, boxes, labels = state.batch
    turn = TURNS[state.epoch - 1] if state.epoch <= len(TURNS) else "joint"
    features, losses = state.model.backbone(scenes), {}
    if turn != "classes":
        losses["proposals"] = proposal_loss(state.model.proposer(features), boxes)
    if turn != "proposals":
        logits = state.model.classify(features, jittered(boxes))
        losses["classes"] = functional.cross_entropy(logits, labels.flatten())
    state.optimizers[turn].zero_grad()
    sum(losses.values()).backward()
    state.optimizers[turn].step()
    yield from losses.items()


class Detector(nn.Module):
    """Backbone and both stages. Boxes are (N, boxes, 4): centre x, y, width, height in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.proposer = nn.Sequential(
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 5, 1),  # is there a digit's centre; where in the cell, and how large
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * CROP * CROP, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def classify(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Logits of shape (N * boxes, 10), from the features within each box."""
        steps = torch.linspace(-1, 1, CROP) * (1 - 1 / CROP)
        x = boxes[..., 0, None] + steps * boxes[..., 2, None] / 2
        y = boxes[..., 1, None] + steps * boxes[..., 3, None] / 2
        x, y = torch.broadcast_tensors(x[..., None, :], y[..., :, None])
        places = torch.stack([x, y], -1).flatten(1, 2) / SIDE * 2 - 1
        crops = functional.grid_sample(features, places, align_corners=False)
        return self.classifier(crops.unflatten(2, (-1, CROP)).transpose(1, 2).flatten(0, 1))

    def propose(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The four best peaks of each scene: boxes (N, 4, 4), and how sure they are, (N, 4)."""
        maps = self.proposer(features)
        scores = maps[:, 0].sigmoid()
        peaks = scores * (scores == functional.max_pool2d(scores[:, None], 3, 1, 1)[:, 0])
        best, cells = peaks.flatten(1).topk(4)
        found = maps[:, 1:].flatten(2).gather(2, cells[:, None].expand(-1, 4, -1)).mT
        corners = torch.stack([cells % CELLS, cells // CELLS], -1)
        centres = (corners + found[..., :2].sigmoid()) * STRIDE
        return torch.cat([centres, found[..., 2:].exp() * TYPICAL], -1), best


def proposal_loss(maps: Tensor, boxes: Tensor) -> Tensor:
    """A cell is right if it says whether a centre lies in it, and where, and how large the box."""
    cells = (boxes[..., :2] / STRIDE).long()
    scene = torch.arange(len(boxes))[:, None]
    wanted = torch.zeros_like(maps[:, 0])
    wanted[scene, cells[..., 1], cells[..., 0]] = 1
    found = maps[scene, 1:, cells[..., 1], cells[..., 0]]
    is_there = functional.binary_cross_entropy_with_logits(
        maps[:, 0], wanted, pos_weight=torch.tensor(10.0)
    )
    where = functional.l1_loss(found[..., :2].sigmoid(), boxes[..., :2] / STRIDE - cells)
    size = functional.l1_loss(found[..., 2:], (boxes[..., 2:] / TYPICAL).log())
    return is_there + where + size


def jittered(boxes: Tensor) -> Tensor:
    """Boxes that are as little exact as proposals are."""
    return boxes + torch.randn_like(boxes) * 0.7


@dataclass(frozen=True)
class Scenes:
    """Scenes (N, 1, SIDE, SIDE) of three digits each, their boxes (N, 3, 4) and labels (N, 3)."""

    images: Tensor
    boxes: Tensor
    labels: Tensor

    def __call__(self, _state: State) -> Iterator[tuple[Tensor, ...]]:
        """The batches of an epoch, shuffled."""
        for chosen in torch.randperm(len(self.images)).split(BATCH):
            yield self.images[chosen], self.boxes[chosen], self.labels[chosen]


def draw(digits: Tensor, labels: Tensor, count: int) -> Scenes:
    """Puts three digits into each scene, 9 to 13 pixels wide and high, each in a quarter of it."""
    scenes = Scenes(
        torch.zeros(count, 1, SIDE, SIDE), torch.zeros(count, 3, 4), torch.zeros(count, 3).long()
    )
    for index in range(count):
        for place, quarter in enumerate(torch.randperm(4)[:3].tolist()):
            chosen = int(torch.randint(len(digits), ()))
            width, height = torch.randint(9, 14, (2,)).tolist()
            size = torch.tensor([width, height])
            corner = (torch.rand(2) * (SIDE // 2 + 1 - size)).long()
            left, top = (corner + torch.tensor([quarter % 2, quarter // 2]) * (SIDE // 2)).tolist()
            digit = functional.interpolate(digits[chosen, None, None], (height, width))[0]
            scenes.images[index, :, top : top + height, left : left + width] = digit
            box = torch.tensor([left + width / 2, top + height / 2, width, height])
            scenes.boxes[index, place] = box
            scenes.labels[index, place] = labels[chosen]
    scenes.images.add_(torch.rand_like(scenes.images) * 0.2)
    return scenes


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (N, A, 4) with boxes (N, B, 4): (N, A, B)."""
    first, second = first[:, :, None], second[:, None]
    low = torch.maximum(first[..., :2] - first[..., 2:] / 2, second[..., :2] - second[..., 2:] / 2)
    high = torch.minimum(first[..., :2] + first[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared)


class Validation(Callback):
    """Detects in scenes of digits that nobody trained with."""

    def __init__(self, unseen: Scenes) -> None:
        super().__init__()
        self.unseen = unseen

    @torch.no_grad()
    def epoch_end(self, state: State) -> None:
        """Logs `recall` and `precision` of boxes with an overlap of half and the right class."""
        features = state.model.backbone(self.unseen.images)
        boxes, sure = state.model.propose(features)
        classes = state.model.classify(features, boxes).argmax(1).view(len(boxes), -1)
        taken = (sure > 0.5)[..., None]
        same = classes[..., None] == self.unseen.labels[:, None]
        hits = taken & same & (overlap(boxes, self.unseen.boxes) >= 0.5)
        recall = hits.any(1).float().mean().item()
        precision = (hits.any(2).sum() / taken.sum().clamp(min=1)).item()
        log(recall=recall, precision=precision)
        turn = state.phase if state.epoch <= len(TURNS) else "joint"
        print(f"epoch {state.epoch}, {turn}: recall {recall:.3f}, precision {precision:.3f}")


def main() -> None:
    """Trains, and prints how much is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    loaded = load_digits()
    digits = torch.tensor(loaded.images, dtype=torch.float32) / 16
    labels = torch.tensor(loaded.target)
    model = Detector()
    parts = {
        "proposals": [*model.backbone.parameters(), *model.proposer.parameters()],
        "classes": [*model.classifier.parameters()],  # the backbone is left as the proposals use it
        "joint": [*model.parameters()],
    }
    state = Loop(
        step,
        draw(digits[:1300], labels[:1300], 800),
        epochs=options.epochs,
        callbacks=[Validation(draw(digits[1300:], labels[1300:], 200))],
        model=model,
        optimizers={turn: torch.optim.Adam(part, lr=3e-3) for turn, part in parts.items()},
    ).run()
    recall, precision = state.metrics["recall"], state.metrics["precision"]
    print(f"recall {recall:.4f}, precision {precision:.4f} after {state.step} steps")


if __name__ == "__main__":
    main()
