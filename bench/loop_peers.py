"""What a step costs under `rdev.loop` and under other libraries, over the same step in a bare loop.

A step is timed from the begin of one forward to the begin of the next, because most libraries call
`backward` and the optimizer themselves. Variants run a block each in one process, in an order that
rotates with each round. Of a block its lower quartile counts, which other work on the machine
disturbs least; a figure is that less the bare loop's of the same round, its median over the rounds.
`bare again` is the resolution. Every variant has one idle callback of its library, or ten; nothing
is logged, saved or drawn but what rdev streams, which it does as in a job. Libraries that need an
environment of their own run in processes of their own, beside a bare loop and rdev there.

`RDEV_BENCH_ROUNDS` is 7 unless it is set. It takes about three minutes, and some more the first
time, for the environments.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = max(2, int(os.environ.get("RDEV_BENCH_ROUNDS", "7")))
# Name -> width of the hidden layers, how many there are, rows of a batch, steps of a block.
SIZES = {"0.3 ms": (128, 1, 64, 120), "2 ms": (256, 2, 160, 40)}
CALLBACKS = (1, 10)
# Steps that begin each block and are left out: libraries set things up in them.
WARM = 5
APART = ("catalyst", "fastai", "mmengine")


class Training:
    """One size of model, its batches, and when each forward of the block in hand began."""

    def __init__(self, size: str, scratch: str) -> None:
        import torch

        width, depth, rows, self.steps = SIZES[size]
        torch.manual_seed(0)
        layers: list[torch.nn.Module] = []
        for inside in (64, *[width] * (depth - 1)):
            layers += [torch.nn.Linear(inside, width), torch.nn.ReLU()]
        marks = self.marks = []

        class Net(torch.nn.Sequential):
            def forward(self, inputs):
                marks.append(time.perf_counter_ns())
                return super().forward(inputs)

        self.width, self.depth, self.rows = width, depth, rows
        self.scratch = scratch
        self.model = Net(*layers, torch.nn.Linear(width, 10))
        self.loss = torch.nn.functional.cross_entropy
        self.batch = (torch.randn(rows, 64), torch.randint(10, (rows,)))
        self.data = [self.batch] * self.steps

    def optimizer(self):
        import torch

        return torch.optim.SGD(self.model.parameters(), lr=0.01)


class Batches:
    """A list that is no list: Lightning takes lists for several loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def bare(training: Training, _: int) -> None:
    model, optimizer, loss_of = training.model, training.optimizer(), training.loss
    for inputs, labels in training.data:
        loss = loss_of(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def rdev(training: Training, callbacks: int, condition: str = "") -> None:
    from rdev.loop import Callback, Loop

    class Idle(Callback):
        def step_end(self, state):
            pass

    class Armed(Callback):
        def run_begin(self, state):
            if condition:
                state.control.break_when(condition)

    loss_of = training.loss

    def step(state):
        inputs, labels = state.batch
        loss = loss_of(state.model(inputs), labels)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        return loss

    idle = [Idle() for _ in range(callbacks)]
    Loop(
        step,
        training.data,
        callbacks=[Armed(), *idle],
        model=training.model,
        optimizer=training.optimizer(),
    ).run()


def rdev_generator(training: Training, callbacks: int) -> None:
    from rdev.loop import Callback, Loop

    class Idle(Callback):
        def step_end(self, state):
            pass

    loss_of = training.loss

    def step(state) -> Iterator[tuple[str, object]]:
        inputs, labels = state.batch
        loss = loss_of(state.model(inputs), labels)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        yield "only", loss

    idle = [Idle() for _ in range(callbacks)]
    objects = {"model": training.model, "optimizer": training.optimizer()}
    Loop(step, training.data, callbacks=idle, **objects).run()


def rdev_condition(training: Training, callbacks: int) -> None:
    rdev(training, callbacks, "loss > 1000000")


def rdev_live(training: Training, callbacks: int) -> None:
    from rdev.loop import live

    answer = live.arm()
    assert answer["armed"], answer
    try:
        bare(training, callbacks)
    finally:
        live.disarm()


def ignite(training: Training, callbacks: int) -> None:
    from ignite.engine import Engine, Events

    model, optimizer, loss_of = training.model, training.optimizer(), training.loss

    def update(_, batch):
        inputs, labels = batch
        loss = loss_of(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    engine = Engine(update)
    for _ in range(callbacks):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: None)
    engine.run(training.data, max_epochs=1)


def lightning(training: Training, callbacks: int, *, is_automatic: bool = True) -> None:
    from lightning.pytorch import Callback, LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = training.model
            self.automatic_optimization = is_automatic

        def training_step(self, batch):
            inputs, labels = batch
            loss = training.loss(self.net(inputs), labels)
            if not is_automatic:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def configure_optimizers(self):
            return training.optimizer()

    class Idle(Callback):
        def on_train_batch_end(self, *_):
            pass

        @property
        def state_key(self):
            return str(id(self))

    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Idle() for _ in range(callbacks)],
    ).fit(Module(), Batches(training.data))


def lightning_manual(training: Training, callbacks: int) -> None:
    lightning(training, callbacks, is_automatic=False)


def transformers(training: Training, callbacks: int) -> None:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = training.model

        def forward(self, inputs, labels):
            logits = self.net(inputs)
            return {"loss": training.loss(logits, labels), "logits": logits}

    class Fed(Trainer):
        def get_train_dataloader(self):
            inputs, labels = training.batch
            batches = [{"inputs": inputs, "labels": labels}] * training.steps
            return torch.utils.data.DataLoader(batches, batch_size=None)

    class Idle(TrainerCallback):
        def on_step_end(self, *_, **__):
            pass

    arguments = TrainingArguments(
        output_dir=training.scratch,
        num_train_epochs=1,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    idle = [Idle() for _ in range(callbacks)]
    optimizers = (training.optimizer(), None)
    Fed(Net(), arguments, train_dataset=[0], optimizers=optimizers, callbacks=idle).train()


def keras(training: Training, callbacks: int) -> None:
    import keras as library

    class Net(library.Sequential):
        def train_step(self, data):
            training.marks.append(time.perf_counter_ns())
            return super().train_step(data)

    class Idle(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    hidden = [library.layers.Dense(training.width, "relu") for _ in range(training.depth)]
    net = Net([library.Input((64,)), *hidden, library.layers.Dense(10)])
    net.compile(
        optimizer=library.optimizers.SGD(0.01),
        loss=library.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    idle = [Idle() for _ in range(callbacks)]
    inputs, labels = (part.numpy() for part in training.batch)
    batches = ((inputs, labels) for _ in range(training.steps))
    net.fit(batches, epochs=1, steps_per_epoch=training.steps, verbose=0, callbacks=idle)


def skorch(training: Training, callbacks: int) -> None:
    import torch
    from skorch import NeuralNet
    from skorch.callbacks import Callback

    class Idle(Callback):
        def on_batch_end(self, net, **_):
            pass

    class Fed(NeuralNet):
        def get_iterator(self, dataset, **_):  # noqa: ARG002  # its signature
            return batches

    batches = training.data
    net = Fed(
        training.model,
        torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=0.01,
        max_epochs=1,
        train_split=None,
        callbacks=[(f"idle{number}", Idle()) for number in range(callbacks)],
        callbacks__print_log=None,
    )
    inputs, labels = training.batch
    net.fit(inputs, labels)


def catalyst(training: Training, callbacks: int) -> None:
    from accelerate.utils import DistributedType

    DistributedType.TPU = DistributedType.XLA  # Catalyst 22.4 asks for a name of 2022
    from catalyst import dl

    class Idle(dl.Callback):
        def on_batch_end(self, runner):
            pass

    class Runner(dl.Runner):
        def handle_batch(self, batch):
            inputs, labels = batch
            self.batch_metrics["loss"] = training.loss(self.model(inputs), labels)

    Runner().train(
        loaders={"train": _loader(training)},
        model=training.model,
        optimizer=training.optimizer(),
        engine=dl.CPUEngine(),
        num_epochs=1,
        callbacks=[
            dl.BackwardCallback("loss"),
            dl.OptimizerCallback("loss"),
            *(Idle(order=100 + number) for number in range(callbacks)),
        ],
        loggers={},
    )


def fastai(training: Training, callbacks: int) -> None:
    import fastai.callback.progress  # noqa: F401  # gives learners `no_bar`
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    class Idle(Callback):
        def after_batch(self):
            pass

    learner = Learner(
        DataLoaders(_loader(training)),
        training.model,
        loss_func=training.loss,
        opt_func=SGD,
        lr=0.01,
        wd=0,
        train_bn=False,
    )
    learner._do_epoch_validate = lambda: None  # noqa: SLF001  # there is nothing to validate with
    with learner.no_logging(), learner.no_bar():
        learner.fit(1, cbs=[Idle() for _ in range(callbacks)])


def mmengine(training: Training, callbacks: int) -> None:
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.net = training.model

        def forward(self, inputs, labels, mode):  # noqa: ARG002  # a model's signature
            return {"loss": training.loss(self.net(inputs), labels)}

    class Idle(Hook):
        def after_train_iter(self, *_, **__):
            pass

    net = Net()
    Runner(
        model=net,
        work_dir=training.scratch,
        train_dataloader=_loader(training),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": training.optimizer()},
        default_hooks={"checkpoint": None, "logger": None, "sampler_seed": None},
        custom_hooks=[Idle() for _ in range(callbacks)],
        default_scope=None,
        experiment_name=f"run{time.monotonic_ns()}",
    ).train()


def _loader(training: Training):
    # These ask their loaders for more than to be iterated; a batch is an item of the list.
    import torch

    return torch.utils.data.DataLoader(training.data, batch_size=1, collate_fn=itemgetter(0))


Variant = Callable[[Training, int], None]
OURS: dict[str, Variant] = {"bare": bare, "bare again": bare, "rdev Loop": rdev}
TOGETHER: dict[str, Variant] = OURS | {
    "rdev Loop, generator": rdev_generator,
    "rdev Loop, condition": rdev_condition,
    "rdev live probe": rdev_live,
    "Ignite": ignite,
    "skorch": skorch,
    "Lightning, manual": lightning_manual,
    "Lightning": lightning,
    "Keras 3": keras,
    "HF Trainer": transformers,
}
ALONE: dict[str, Variant] = {"catalyst": catalyst, "fastai": fastai, "mmengine": mmengine}
# They have no callbacks, so one row stands for both.
WITHOUT = {"bare", "bare again", "rdev live probe"}

Costs = dict[str, dict[str, dict[str, list[float]]]]  # size, callbacks, variant: us, a round each


def measure(variants: dict[str, Variant]) -> Costs:
    """Microseconds a step over the bare loop; those of `bare` are the loop's own."""
    found: Costs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            training = Training(size, scratch)
            for callbacks in CALLBACKS:
                found.setdefault(size, {})[str(callbacks)] = _rounds(training, variants, callbacks)
    return found


def _rounds(training: Training, variants: dict[str, Variant], callbacks: int):
    names = [
        name for name in variants if callbacks == CALLBACKS[0] or name not in WITHOUT - {"bare"}
    ]
    costs: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS + 1):
        start = turn % len(names)
        steps = {}
        for name in names[start:] + names[:start]:
            training.marks.clear()
            variants[name](training, callbacks)
            marks = training.marks[WARM:]
            gaps = [(after - before) / 1000 for before, after in pairwise(marks)]
            steps[name] = statistics.quantiles(gaps, n=4)[0]
        if turn:  # the first round warms up
            for name, step in steps.items():
                costs[name].append(step if name == "bare" else step - steps["bare"])
    return costs


def _child(library: str) -> None:
    """Measures, in the environment that has this library, and prints what it found."""
    import torch

    from bench.loop import job

    os.environ["KERAS_BACKEND"] = "torch"
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    variants = TOGETHER if library == "together" else OURS | {library: ALONE[library]}
    printed, sys.stdout = sys.stdout, sys.stderr  # some libraries print as they like
    with job():
        found = measure(variants)
    print(json.dumps(found), file=printed)


def _measured(library: str) -> Costs:
    python = sys.executable
    if library in APART:
        python = importlib.import_module("tests.support.guests.environments").python_with(library)
    done = subprocess.run(
        [python, "-c", f"from bench.loop_peers import _child; _child({library!r})"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'agent'}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{library}: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[str, Costs]) -> None:
    """A table for each size, cheapest first, with bars."""
    for size in SIZES:
        together = found["together"][size][str(CALLBACKS[0])]
        step = statistics.median(together["bare"]) / 1000
        print(f"\n{size} step, bare {step:.2f} ms; us over it, median (quartiles)\n")
        print(f"{'':22} {'1 callback':>22} {'10 callbacks':>22}")
        rows = dict(_rows(found, size))
        most = max(statistics.median(one[0]) for one in rows.values())
        for name, costs in sorted(rows.items(), key=lambda row: statistics.median(row[1][0])):
            bar = "#" * round(40 * max(0.0, statistics.median(costs[0])) / most)
            print(f"{name:22} " + " ".join(f"{_shown(one):>22}" for one in costs) + f"  {bar}")


def _rows(found: dict[str, Costs], size: str) -> Iterator[tuple[str, list[list[float]]]]:
    for library, costs in found.items():
        for name in costs[size][str(CALLBACKS[0])]:
            if name == "bare" or (library != "together" and name in OURS):
                continue
            shown = name if library == "together" else name.replace("catalyst", "Catalyst")
            yield shown, [costs[size][str(count)].get(name, []) for count in CALLBACKS]


def _shown(costs: list[float]) -> str:
    if not costs:
        return "-"
    low, middle, high = statistics.quantiles(costs, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    found = {}
    for library in ("together", *APART):
        try:
            found[library] = _measured(library)
        except BaseException as error:  # a skip of pytest's is no Exception
            if isinstance(error, KeyboardInterrupt) or library == "together":
                raise
            print(f"left out, {error}")
    print(f"{ROUNDS} rotated rounds, one torch thread, rdev as in a job")
    report(found)


if __name__ == "__main__":
    main()
