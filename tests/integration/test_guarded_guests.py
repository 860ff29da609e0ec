"""The built-in callbacks in trainings that other libraries drive: each update is judged, by each."""

import csv
import os
import subprocess
import sys

import pytest
from tests.support.interpreters import ROOT

pytest.importorskip("torch")

COMMON = """
import logging, sys, warnings
warnings.filterwarnings("ignore")
import torch
from torch.utils.data import DataLoader, TensorDataset
from rdev.loop import Callback, join
from rdev.loop.callbacks import Csv, NanGuard, Norms, SpikeGuard, TensorBoard, Throughput

torch.manual_seed(0)
inputs, targets = torch.randn(96, 4), torch.randn(96, 1)
inputs[40] = float("nan")
layer = torch.nn.Linear(4, 1)

class Witness(Callback):
    before = None

    def step_end(self, state):
        now = layer.weight.detach().clone()
        if self.before is not None and torch.equal(self.before, now):
            print("stood", state.step, flush=True)
        self.before = now

    def run_end(self, state):
        print("finite", bool(torch.isfinite(layer.weight).all()), state.step, flush=True)

callbacks = [NanGuard("skip"), SpikeGuard("rollback"), Norms(every=1), Csv("metrics.csv"),
             TensorBoard("board"), Throughput(), Witness(order=300)]
loader = DataLoader(TensorDataset(inputs, targets), batch_size=8)
"""

IGNITE = """
from ignite.engine import Engine
optimizer = torch.optim.Adam(layer.parameters(), 0.1)

def update(engine, batch):
    optimizer.zero_grad()
    loss = ((layer(batch[0]) - batch[1]) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss

engine = Engine(update)
join(engine, callbacks=callbacks, model=layer, optimizer=optimizer)
engine.run(loader, max_epochs=1)
"""

LIGHTNING = """
import lightning

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = layer

    def training_step(self, batch, number):
        return ((self.layer(batch[0]) - batch[1]) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)

trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
join(trainer, callbacks=callbacks)
trainer.fit(Module(), loader)
"""

TRANSFORMERS = """
from transformers import Trainer, TrainingArguments

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = layer

    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}

arguments = TrainingArguments("out", num_train_epochs=1, per_device_train_batch_size=8, use_cpu=True,
                              report_to=[], save_strategy="no", disable_tqdm=True,
                              dataloader_pin_memory=False, learning_rate=0.1)
data = [{"x": x, "labels": y} for x, y in zip(inputs, targets)]
trainer = Trainer(Model(), arguments, train_dataset=data)
join(trainer, callbacks=callbacks)
trainer.train()
"""

LIBRARIES = {"ignite": IGNITE, "lightning": LIGHTNING, "transformers": TRANSFORMERS}


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_update_with_the_nan_is_left_out_whoever_drives_the_training(library, tmp_path):
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", COMMON + LIBRARIES[library]],
        env={"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines() if line[:5] in ("stood", "finit")]
    ((_, step), ended) = said
    assert ended == ["finite", "True", "12"]
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("rdev.loop:")]
    assert told.startswith(f"rdev.loop: step {step}: the loss is nan; not finite: row ")
    assert len(list((tmp_path / "nan").iterdir())) == 1
    with (tmp_path / "metrics.csv").open() as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    assert list(rows) == [str(number) for number in range(1, 13)]
    assert rows[step]["loss"] == "nan"
    assert float(rows[step]["update_norm"]) == 0.0
    assert all(float(row["update_norm"]) > 0 for number, row in rows.items() if number != step)
