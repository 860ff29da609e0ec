"""A NaN in the data of a job: held before the update, the batch kept, and gone on with without it."""

import json

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.shared_agent

SCRIPT = """
import sys
import torch
from rdev.loop import Callback, Loop
from rdev.loop.callbacks import NanGuard
from rdev.loop.sampler import ShuffleSampler
from torch.utils.data import DataLoader, TensorDataset

folder = sys.argv[1]
torch.manual_seed(0)
inputs, targets = torch.randn(400, 4), torch.randn(400, 1)
sampler = ShuffleSampler(400)
bad = list(sampler)[36 * 8 + 5]  # row 5 of the batch of step 37
inputs[bad, 2] = float("nan")
loader = DataLoader(TensorDataset(inputs, targets), batch_size=8, sampler=sampler)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))

def weights(state):
    return {"step": state.step, "model": state.model.state_dict(), "opt": state.opt.state_dict()}

class Witness(Callback):
    def step_end(self, state):
        torch.save(weights(state), f"{folder}/after-{state.step}.pt")

    def pause(self, state):
        torch.save(weights(state), f"{folder}/paused.pt")

def step(state):
    inputs, targets = state.batch
    state.opt.zero_grad()
    loss = ((state.model(inputs) - targets) ** 2).mean()
    loss.backward()
    state.opt.step()
    return loss

guard = NanGuard("pause", folder=f"{folder}/nan")
optimizer = torch.optim.Adam(model.parameters())
print("bad", bad, flush=True)
Loop(step, loader, callbacks=[guard, Witness()], model=model, opt=optimizer).run()
print("finished", bool(torch.isfinite(model[0].weight).all()), flush=True)
"""


def same(one, other):
    """Whether two files of `weights` hold the same but for the step."""
    found = [torch.load(path) for path in (one, other)]
    pairs = zip(*(list(flat({**each, "step": 0})) for each in found), strict=True)
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


def flat(value):
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str)]
    if not isinstance(value, list | tuple):
        yield value
        return
    for one in value:
        yield from flat(one)


def test_a_nan_pauses_the_job_before_the_update_and_a_resume_leaves_it_out(rdev, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    rdev.write("train.py", SCRIPT)
    assert rdev.run("run", "-d", "train.py", str(folder)).returncode == 0
    with rdev.started("events", "-f", "--kind", "loop_paused") as watching:
        paused = json.loads(watching.stdout.readline())
    (guarded,) = map(json.loads, rdev.run("events", "--kind", "guarded").stdout.splitlines())
    bad = int(rdev.run("logs", "--stream", "stdout").stdout.split()[1])

    assert (paused["step"], guarded["step"]) == (37, 37)
    assert f"row 5 of batch[0] (index {bad})" in paused["reason"]
    assert (guarded["by"], guarded["action"], guarded["indices"]) == ("NanGuard", "pause", [bad])
    kept = torch.load(guarded["path"])
    assert kept["step"] == 37
    assert not torch.isfinite(kept["batch"][0]).all(1)[5]
    assert same(folder / "paused.pt", folder / "after-36.pt")
    assert not (folder / "after-37.pt").exists()

    resumed = rdev.run("ctl", "resume")
    assert (resumed.returncode, "37" in resumed.stdout) == (0, True), resumed.stderr
    assert rdev.run("wait").returncode == 0
    (gone_on,) = map(json.loads, rdev.run("events", "--kind", "loop_resumed").stdout.splitlines())
    assert gone_on["step"] == 37
    assert rdev.run("logs", "--stream", "stdout").stdout.splitlines()[-1] == "finished True"
    assert same(folder / "after-37.pt", folder / "after-36.pt")
    assert not same(folder / "after-38.pt", folder / "after-37.pt")
