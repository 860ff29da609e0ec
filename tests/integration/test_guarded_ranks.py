"""Guards of two gloo ranks: what one of them must leave out, both do, and their weights stay alike."""

import json
import os
import subprocess
import sys

import pytest
from tests.support.interpreters import ROOT

pytest.importorskip("torch")

RANKS = """
import json, os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from rdev.loop import Loop, log
from rdev.loop.callbacks import EarlyStop, NanGuard, SpikeGuard

torch._dynamo  # optimizers import it, and it takes seconds

def rank(number, folder):
    os.environ["RANK"] = str(number)
    store = dist.FileStore(folder + "/store", 2)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2, timeout=timedelta(seconds=30))
    found = train(number, folder)
    with open(f"{folder}/{number}.json", "w") as file:
        json.dump(found, file)
    dist.destroy_process_group()

{train}
pids = []
for number in (0, 1):
    pids.append(os.fork())
    if pids[-1] == 0:
        torch.set_num_threads(1)
        rank(number, sys.argv[1])
        os._exit(0)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""

GUARDED = """
def train(number, folder):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    weights = []

    def step(state):
        optimizer.zero_grad()
        loss = state.model(torch.ones(1)).sum() * (1 + number)
        if number == 1 and state.step == 7:
            loss = loss + float("nan")  # the gradients stay finite, on both
        if number == 1 and state.step == 40:
            loss = loss + 1000.0
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        weights.append(model.weight.item())
        return loss

    guards = [NanGuard("skip", folder=folder + "/nan"), SpikeGuard("skip")]
    Loop(step, range(50), callbacks=guards, model=model, optimizer=optimizer).run()
    return weights
"""

# Only rank 0 evaluates, and by its own loss alone it would go on for ever.
STOPPED = """
def train(number, folder):
    def step(state):
        dist.all_reduce(torch.ones(1))
        if state.epoch > 1 and not number:
            log(accuracy=[0.5, 0.9, 0.8, 0.7, 1.0][state.epoch - 2])
        return state.epoch if number else -state.epoch

    def epochs(stop):
        return Loop(step, range(3), epochs=9, callbacks=[stop]).run().epoch

    return [epochs(EarlyStop("accuracy", patience=2, mode="max")), epochs(EarlyStop(patience=3))]
"""


def ranks(train, folder):
    environment = {"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"], "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", RANKS.replace("{train}", train), str(folder)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], done.stderr


@pytest.mark.slow
def test_an_update_that_one_rank_must_leave_out_is_left_out_by_both(tmp_path):
    (one, other), told = ranks(GUARDED, tmp_path)
    assert one == other
    stood = [number + 1 for number in range(1, 50) if one[number] == one[number - 1]]
    assert stood == [7, 40]
    told = [line for line in told.splitlines() if "Guard: skip" in line]
    assert sorted(line.split(":")[1] for line in told) == [" step 40"] * 2 + [" step 7"] * 2
    assert sum("a loss or a gradient of another rank is not finite" in line for line in told) == 1


@pytest.mark.slow
def test_ranks_of_which_one_alone_evaluates_stop_after_the_same_epoch(tmp_path):
    (one, other), _ = ranks(STOPPED, tmp_path)
    # The mean loss of both ranks is 0 in every epoch: the first is the best.
    assert one == other == [5, 4]
