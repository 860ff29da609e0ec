"""Another optimizer in the middle of a training, and averaged weights at its end.

SGD begins, Adam goes on, and for the last epochs a running average of the weights is kept (SWA,
Izmailov et al. 2018, https://arxiv.org/abs/1803.05407). Each change is an assignment to the state:
the step reads `state.optimizer` whenever it needs one, and nobody else keeps the old.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from rdev.loop import Callback, Loop, State, log


def step(state: State) -> Tensor:
    """One step, with whichever optimizer it is the turn of."""
    inputs, labels = state.batch
    loss = nn.functional.cross_entropy(state.model(inputs), labels)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return loss


class Plan(Callback):
    """Swaps what the step works with, at the begin of an epoch."""

    def epoch_begin(self, state: State) -> None:
        """SGD for two epochs, then Adam, then Adam with averaging."""
        if state.epoch == 3:
            state.optimizer = torch.optim.Adam(state.model.parameters(), lr=3e-3)
        if state.epoch == 9:
            state.average = AveragedModel(state.model)


class Validation(Callback):
    """Measures the share of unseen patients whose tumour is told right."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.inputs, self.labels = inputs, labels

    @torch.no_grad()
    def epoch_end(self, state: State) -> None:
        """Logs `accuracy`, of the average once there is one."""
        model = state.model if state.average is None else state.average
        accuracy = (model(self.inputs).argmax(1) == self.labels).float().mean().item()
        log(accuracy=accuracy)
        optimizer = type(state.optimizer).__name__ + (" averaged" if state.average else "")
        loss = state.loss.item()
        print(f"epoch {state.epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}, {optimizer}")


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of 569 tumours, scaled, (N, 30), and whether each is benign, (N,)."""
    tumours = load_breast_cancer()
    split = train_test_split(tumours.data, tumours.target, test_size=0.3, random_state=0)
    scaler = StandardScaler().fit(split[0])
    features = [torch.tensor(scaler.transform(part), dtype=torch.float32) for part in split[:2]]
    labels = [torch.tensor(part) for part in split[2:]]
    return features[0], features[1], labels[0], labels[1]


def main() -> None:
    """Trains, and prints the accuracy of the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    train_inputs, test_inputs, train_labels, test_labels = load()
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
    state = Loop(
        step,
        DataLoader(TensorDataset(train_inputs, train_labels), batch_size=16, shuffle=True),
        epochs=options.epochs,
        callbacks=[Plan(), Validation(test_inputs, test_labels)],
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        average=None,
    ).run()
    print(f"accuracy {state.metrics['accuracy']:.4f} after {state.step} steps")


if __name__ == "__main__":
    main()
