"""A training of two ranks that draws random numbers on each, several times in one program.

`python -m tests.support.ranks FOLDER`, and for each line on stdin, JSON of what `run` is given, two
ranks are forked; a line of JSON on stdout tells what both made of it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from rdev.loop import Loop
from rdev.loop.archive import CheckpointError
from rdev.loop.callbacks.checkpoint import Checkpoint
from rdev.loop.sampler import ShuffleSampler, seeded

RANKS = 2


class Noise:
    def __len__(self):
        return 26

    def __getitem__(self, index):
        return torch.randn(4) + index / 26


def train(resume, epochs, hows):
    torch.manual_seed(dist.get_rank())  # each rank drops out what it likes
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 1))
    model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lines = []

    def step(state):
        loss = state.model(state.batch).square().mean()
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        lines.append([state.step, state.epoch, loss.item().hex()])
        return loss

    data = seeded(Noise())
    loader = DataLoader(data, batch_size=4, sampler=ShuffleSampler(data))
    keep = Checkpoint(**hows[dist.get_rank()])
    loop = Loop(step, loader, epochs=epochs, callbacks=[keep], model=model, optimizer=optimizer)
    try:
        loop.run(resume=resume)
    except CheckpointError as error:
        return str(error)
    weights = [value.flatten().tolist() for value in model.state_dict().values()]
    return [lines, weights]


def rank(number, folder, attempt, wanted):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{attempt}"), RANKS)
    dist.init_process_group("gloo", store=store, rank=number, world_size=RANKS)
    made = train(**wanted)
    (folder / f"made-{attempt}-{number}").write_text(json.dumps(made))
    dist.destroy_process_group()


def main():
    folder = Path(sys.argv[1])
    importlib.import_module("torch._dynamo")  # Optimizers do, and it takes seconds.
    for attempt, line in enumerate(sys.stdin):
        pids = []
        for number in range(RANKS):
            pids.append(os.fork())
            if pids[-1] == 0:
                rank(number, folder, attempt, json.loads(line))
                os._exit(0)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
        files = (folder / f"made-{attempt}-{number}" for number in range(RANKS))
        print(json.dumps([json.loads(file.read_text()) for file in files]), flush=True)


if __name__ == "__main__":
    main()
