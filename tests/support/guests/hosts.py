"""How each library does the training, as a person who uses it would write it."""

from __future__ import annotations

import os

from tests.support.guests.terms import BATCH, CLASSES, EPOCHS, FEATURES, GAMMA, LR, STEPS
from tests.support.guests.training import (
    data,
    fall,
    loader,
    network,
    optimizer_of,
    schedule_of,
)
from torch import nn


def loop(case):
    from rdev.loop import Loop

    def step(state):
        case.computing()
        samples, labels = state.batch
        loss = nn.functional.cross_entropy(state.model(samples), labels)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.scheduler.step()
        return loss

    net = network()
    optimizer = optimizer_of(net)
    Loop(
        step,
        loader(),
        epochs=EPOCHS,
        callbacks=case.callbacks,
        model=net,
        optimizer=optimizer,
        scheduler=schedule_of(optimizer),
    ).run()


def ignite(case):
    from ignite.engine import Engine

    from rdev.loop import join

    model = network()
    optimizer = optimizer_of(model)
    scheduler = schedule_of(optimizer)

    def update(engine, batch):
        case.computing()
        samples, labels = batch
        loss = nn.functional.cross_entropy(model(samples), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    join(Engine(update), case.callbacks).run(loader(), max_epochs=EPOCHS)


def lightning(case):
    _lightning(case, is_automatic=True)


def lightning_manual(case):
    _lightning(case, is_automatic=False)


def _lightning(case, *, is_automatic):
    from lightning.pytorch import LightningModule, Trainer

    from rdev.loop import join

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.automatic_optimization = is_automatic

        def training_step(self, batch):
            case.computing()
            samples, labels = batch
            loss = nn.functional.cross_entropy(self.net(samples), labels)
            if not is_automatic:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.lr_schedulers().step()
            return loss

        def configure_optimizers(self):
            optimizer = optimizer_of(self)
            scheduler = {"scheduler": schedule_of(optimizer), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    trainer = Trainer(
        max_epochs=EPOCHS,
        accumulate_grad_batches=case.accumulated,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    join(trainer, case.callbacks).fit(Module(), loader())


def transformers(case):
    import torch
    from transformers import Trainer, TrainingArguments

    from rdev.loop import join

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, samples, labels):
            case.computing()
            logits = self.net(samples)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Data(torch.utils.data.Dataset):
        def __init__(self):
            self.samples, self.labels = data()

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            return {"samples": self.samples[index], "labels": self.labels[index]}

    class Unshuffled(Trainer):
        def _get_train_sampler(self, *_):
            return None

    net = Net()
    optimizer = optimizer_of(net)
    arguments = TrainingArguments(
        output_dir=os.environ["SCRATCH"],
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=case.accumulated,
        max_grad_norm=0,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    optimizers = optimizer, schedule_of(optimizer)
    trainer = Unshuffled(net, arguments, train_dataset=Data(), optimizers=optimizers)
    join(trainer, case.callbacks).train()


def keras(case):
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    from rdev.loop import join

    class Net(keras.Sequential):
        def train_step(self, data):
            case.computing()
            return super().train_step(data)

    net = Net(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )
    weights = [value.detach().numpy() for value in network().parameters()]
    net.set_weights([value.T for value in weights])
    schedule = keras.optimizers.schedules.ExponentialDecay(LR, 1, GAMMA)
    net.compile(
        optimizer=keras.optimizers.SGD(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    samples, labels = (value.numpy() for value in data())
    join(net, case.callbacks).fit(
        samples, labels, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0
    )


def skorch(case):
    import torch
    from skorch import NeuralNet
    from skorch.callbacks import LRScheduler

    from rdev.loop import join

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, samples):
            case.computing()
            return self.net(samples)

    schedule = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=fall, step_every="batch")
    net = NeuralNet(
        Net,
        nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        max_epochs=EPOCHS,
        batch_size=BATCH,
        train_split=None,
        callbacks=[schedule],
        callbacks__print_log=None,
    )
    samples, labels = (value.numpy() for value in data())
    join(net, case.callbacks).fit(samples, labels)


def catalyst(case):
    from accelerate.utils import DistributedType

    DistributedType.TPU = DistributedType.XLA  # Catalyst 22.4 asks for a name of 2022
    from catalyst import dl

    from rdev.loop import join

    class Runner(dl.Runner):
        def handle_batch(self, batch):
            case.computing()
            samples, labels = batch
            self.batch_metrics["loss"] = nn.functional.cross_entropy(self.model(samples), labels)

    net = network()
    optimizer = optimizer_of(net)
    join(Runner(), case.callbacks).train(
        loaders={"train": loader()},
        model=net,
        optimizer=optimizer,
        scheduler=schedule_of(optimizer),
        engine=dl.CPUEngine(),
        num_epochs=EPOCHS,
        callbacks=[
            dl.BackwardCallback("loss"),
            dl.OptimizerCallback("loss", accumulation_steps=case.accumulated),
            dl.SchedulerCallback(mode="batch"),
        ],
        loggers={},
    )


def fastai(case):
    from fastai.callback.schedule import ParamScheduler
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    from rdev.loop import join

    def loss(logits, labels):
        case.computing()
        return nn.functional.cross_entropy(logits, labels)

    learner = Learner(
        DataLoaders(loader()),
        network(),
        loss_func=loss,
        opt_func=SGD,
        lr=LR,
        wd=0,
        train_bn=False,
        default_cbs=True,
    )
    learner._do_epoch_validate = lambda: None  # there is nothing to validate with
    with learner.no_logging(), learner.no_bar():
        schedule = ParamScheduler({"lr": lambda part: LR * fall(round(part * STEPS))})
        join(learner, case.callbacks).fit(EPOCHS, cbs=schedule)


def mmengine(case):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    from rdev.loop import join

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, samples, labels, mode):  # noqa: ARG002  # a model's signature
            case.computing()
            return {"loss": nn.functional.cross_entropy(self.net(samples), labels)}

    net = Net()
    # Its schedules move with each batch, also with those that the optimizer makes no step after.
    gamma = GAMMA if case.accumulated == 1 else 1.0
    runner = Runner(
        model=net,
        work_dir=os.environ["SCRATCH"],
        train_dataloader=loader(),
        train_cfg={"by_epoch": True, "max_epochs": EPOCHS},
        optim_wrapper={
            "optimizer": optimizer_of(net),
            "accumulative_counts": case.accumulated,
        },
        param_scheduler={"type": "ExponentialLR", "gamma": gamma, "by_epoch": False},
        default_hooks={"checkpoint": None, "logger": None},
        default_scope=None,
        experiment_name=f"run{id(case)}",
    )
    join(runner, case.callbacks).train()
