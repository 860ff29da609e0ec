"""What only one library does, and what has to come of it."""

from __future__ import annotations

import pickle

from tests.support.guests.terms import CLASSES, FEATURES
from tests.support.guests.training import data, loader

from rdev.loop import Callback, join
from rdev.loop.checkpoint import capture, restore
from rdev.loop.probe import current


class Edits(Callback):
    """Sets the rate within the third step, for those after it."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.rates = []

    def step_begin(self, state):
        optimizer = state.optimizer
        groups = getattr(optimizer, "param_groups", None)
        self.rates.append(float(groups[0]["lr"] if groups else optimizer.learning_rate))

    def step_end(self, state):
        if state.step == 3:
            state.control.set("lr", self.rate)


class Restores(Callback):
    """Takes the third step of four back; what the optimizer has counted goes back with it."""

    def __init__(self):
        super().__init__(order=-1)
        self.iterations = []

    def step_end(self, state):
        if state.step == 2:
            self.snapshot = capture(state)
        if state.step == 3:
            restore(state, self.snapshot)
            state.step = 3
        self.iterations.append(int(state.optimizer.iterations))


def refusal(trainer):
    """What is said to who joins a trainer twice."""
    try:
        join(trainer)
    except ValueError as error:
        return str(error)
    return ""


def ignite():
    """A scheduler of Ignite's own computes the rate anew at each step."""
    import torch
    from ignite.engine import Engine, Events
    from ignite.handlers import PiecewiseLinear

    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def update(engine, batch):
        optimizer.step()
        return batch

    engine = Engine(update)
    schedule = PiecewiseLinear(optimizer, "lr", [(0, 8.0), (8, 0.0)])
    engine.add_event_handler(Events.ITERATION_STARTED, schedule)
    edits = Edits(60.0)
    join(engine, [edits]).run([1.0] * 6)
    return {"rates": edits.rates, "again": refusal(engine)}


def keras():
    """A rate without a schedule is a variable, which is set; the optimizer's state is kept."""
    import keras

    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    net.compile(
        optimizer=keras.optimizers.SGD(0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    edits, restores = Edits(0.25), Restores()
    samples, labels = (value.numpy() for value in data())
    join(net, [edits, restores]).fit(samples, labels, batch_size=16, verbose=0)
    return {"rates": edits.rates, "iterations": restores.iterations}


class Runs(Callback):
    """Counts the runs of all its copies."""

    runs = 0

    def run_begin(self, state):  # noqa: ARG002  # a callback's signature
        type(self).runs += 1


def skorch():
    """A joined net is cloned and pickled, and the clone is joined."""
    import torch
    from sklearn.base import clone
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        torch.nn.Linear,
        criterion=torch.nn.CrossEntropyLoss,
        module__in_features=FEATURES,
        module__out_features=CLASSES,
        max_epochs=1,
        train_split=None,
        verbose=0,
    )
    samples, labels = (value.numpy() for value in data())
    join(net, [Runs()]).fit(samples, labels)
    clone(net).fit(samples, labels)
    pickle.loads(pickle.dumps(net)).partial_fit(samples, labels)
    return {"runs": Runs.runs, "is_open": current() is not None}


def fastai():
    """What is exported is a learner of fastai's, without us."""
    import torch
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    learner = Learner(
        DataLoaders(loader(), loader()),
        torch.nn.Linear(FEATURES, CLASSES),
        loss_func=torch.nn.functional.cross_entropy,
    )
    with learner.no_logging(), learner.no_bar():
        join(learner, [Runs()]).fit(1)
    pickled = pickle.dumps(learner)
    return {
        "runs": Runs.runs,
        "has_ours": b"rdev" in pickled,
        "trains_again": pickle.loads(pickled).fit is not None,
    }
