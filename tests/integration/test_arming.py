"""One process is armed by its hook: what can be raised is, what cannot is named, nothing is left."""

from __future__ import annotations

import asyncio
import sys

import pytest
from tests.support.hooked import hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager, Order
from rdev.protocol.errors import DebuggerUnavailable, JobConflict

PYTHONS = {version: path for version, path in interpreters().items() if version != "3.10"}

# A job of two ranks of which this machine has one, on a backend that has no timeout.
FAKE = """\
import os
import time
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
open("ready", "w").close()
while not os.path.exists("stop"):
    time.sleep(0.01)
"""

LOADS = """\
import os
import time
from torch.utils.data import DataLoader

def train():
    batches = iter(DataLoader(range(1000), num_workers=1, timeout=5))
    next(batches)
    open("ready", "w").close()
    while not os.path.exists("stop"):
        time.sleep(0.01)

if __name__ == "__main__":
    train()
"""

FORKS = """\
import os
import time

def train(loss):
    while not os.path.exists("armed"):
        time.sleep(0.01)
    for _ in range(20):
        if (child := os.fork()) == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    open("forked", "w").close()
    while not os.path.exists("stop"):
        time.sleep(0.01)

train(0.5)
"""


async def until_there(path):
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_group_that_cannot_be_armed_refuses_the_attach_unless_it_may_be_unsafe(tmp_path):
    async with hooked_job(tmp_path, FAKE) as job, DebugManager(job) as manager:
        await until_there(tmp_path / "ready")
        with pytest.raises(DebuggerUnavailable) as refused:
            await manager.open(Order("0" * 12, 0))
        assert "process group 0 (fake): its backend does not tell its timeout" in str(refused.value)
        assert "rank 1 of its process group cannot be reached" in str(refused.value)
        assert "--unsafe" in (refused.value.hint or "")
        session = await manager.open(Order("0" * 12, 0, unsafe=True))
        assert any("not armed: rank 1 of its" in line for line in session.attached.warnings)
    await job.event("debug_detached")


@pytest.mark.parametrize("version", PYTHONS)
async def test_a_process_forks_while_it_is_armed_and_ends_without_being_disarmed(tmp_path, version):
    options = ("-W", "error")
    async with hooked_job(tmp_path, FORKS, python=PYTHONS[version], options=options) as job:
        answer = await job.command("", "hook", 0, "arm", {"seconds": 100.0})
        assert (answer["rank"], answer["size"], answer["groups"]) == (None, 0, [])
        (tmp_path / "armed").touch()
        await until_there(tmp_path / "forked")
        order = {"expression": "[loss for _ in range(2)]", "function": "train"}
        shown = await job.command("", "hook", 0, "evaluate", order)
        assert shown["value"] == "[0.5, 0.5]"
        assert shown["place"] == "train.py:13 in train"
        with pytest.raises(JobConflict, match="the main thread is not in dance"):
            await job.command("", "hook", 0, "evaluate", {**order, "function": "dance"})
        assert await job.end() == ""


async def test_a_thread_that_always_computes_in_one_call_is_not_taken_for_a_hang(tmp_path):
    source = """\
        import os
        numbers = list(range(1 << 22))
        while not os.path.exists("stop"):
            sum(numbers)
    """
    async with hooked_job(tmp_path, source, python=sys.executable) as job:
        await job.command("", "hook", 0, "arm", {"seconds": 100.0})
        stuck = []
        for _ in range(10):
            await asyncio.sleep(0.1)
            stuck.append((await job.command("", "hook", 0, "progress"))["stuck"])
        assert max(stuck) < 0.5
        await job.end()


@pytest.mark.slow
async def test_a_loader_waits_for_its_workers_as_long_as_everybody_does(tmp_path):
    async with hooked_job(tmp_path, LOADS) as job:
        await until_there(tmp_path / "ready")
        looked = []
        for name, args in (("arm", {"seconds": 100.0}), ("disarm", {})):
            await job.command("", "hook", 0, name, args)
            order = {"expression": "batches._timeout", "function": "train"}
            looked.append((await job.command("", "hook", 0, "evaluate", order))["value"])
        assert looked == ["100.0", "5"]
        await job.end()
