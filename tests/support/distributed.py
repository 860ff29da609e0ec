"""A distributed training, and when it starts, leaves, hangs and stops: files in its folder tell it."""

from __future__ import annotations

# A distributed training that knows nothing of rdev. Line 21 is inside the step.
STEP = 21
TRAIN = """\
import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

SECONDS, FOLDER = float(sys.argv[1]), sys.argv[2]

def timeouts():
    found = {}
    for group, (_, store) in c10d._world.pg_map.items():
        backend = group._get_backend(torch.device("cpu"))
        found[group.group_name] = (backend.options._timeout.total_seconds(), store.timeout.total_seconds())
    return found

def step(number):
    gradient = torch.full((4,), float(number))
    scale = gradient.sum()
    dist.all_reduce(gradient)
    dist.all_reduce(scale, group=pairs)
    if number % 10 == 0:
        dist.all_reduce(scale, group=seldom)
    time.sleep(0.02)
    return bool(gradient[0] == number * dist.get_world_size())

def absent():
    while not os.path.exists(FOLDER + "/back"):
        time.sleep(0.02)

def train():
    number, right = 0, True
    stop = torch.zeros(1)
    while not stop.item():
        number += 1
        right = step(number) and right
        if number == 20:
            open(FOLDER + "/trains", "w").close()
        if dist.get_rank() == 0 and os.path.exists(FOLDER + "/stop"):
            stop[0] = 1
        dist.broadcast(stop, 0)
        if os.path.exists(f"{FOLDER}/hang-{dist.get_rank()}"):
            os.unlink(f"{FOLDER}/hang-{dist.get_rank()}")
            absent()
        if os.path.exists(f"{FOLDER}/break-{dist.get_rank()}"):
            os.unlink(f"{FOLDER}/break-{dist.get_rank()}")
            breakpoint()
    return right

LATE = os.path.exists(FOLDER + "/late")
if LATE:
    absent()
# Ranks that start one after the other on a busy machine meet in a minute, not in SECONDS.
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
timeout = timedelta(seconds=SECONDS if LATE else 60)
pairs = dist.new_group(list(range(dist.get_world_size())), timeout=timeout)
seldom = dist.new_group(list(range(dist.get_world_size())), timeout=timeout)
dist.barrier()
if not LATE:
    for group, (_, store) in c10d._world.pg_map.items():
        c10d._set_pg_timeout(timedelta(seconds=SECONDS + (group is seldom)), group)
        store.set_timeout(timedelta(seconds=SECONDS))
before = timeouts()
if LATE:  # the debugger came first, and has raised them
    before = {name: (60.0 if name == dist.group.WORLD.group_name else SECONDS, 60.0) for name in before}
open(f"{FOLDER}/ready-{dist.get_rank()}", "w").close()
right = train()
print("rank", dist.get_rank(), "right" if right else "wrong", timeouts() == before, flush=True)
dist.barrier()
"""
