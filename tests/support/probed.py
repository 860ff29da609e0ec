"""A training that knows nothing of rdev, in a real job, and what its live probe is asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.support.jobs import DEADLINE, Jobs, jobs_in, tidy

from rdev.agent.jobs.resolve import Surroundings
from rdev.hook import PLANT
from rdev.wire.job import Job

# Every step prints its loss and its rate; the file `stop` ends it, and it prints its weights.
PLAIN = """\
import os
import sys
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.999)
steps, number = int(sys.argv[1]), 0
stop = os.path.join(os.path.dirname(__file__), "stop")


def loss_of(inputs):
    return model(inputs).square().mean()


while number < steps and not os.path.exists(stop):
    number += 1
    loss = loss_of(torch.randn(16, 8))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    print(number, repr(loss.item()), repr(optimizer.param_groups[0]["lr"]), flush=True)
    time.sleep(0.002)
print("weights", model.weight.tolist(), flush=True)
"""


class Probed:
    """One job and its probe; numbers of steps are the probe's."""

    def __init__(self, jobs: Jobs, job: Job, folder: Path) -> None:
        self.jobs, self.job, self.folder = jobs, job, folder
        self._ids = itertools.count(1)

    async def hook(self, name: str, *, pid: int | None = None, **args: Any) -> dict[str, Any]:
        return await self.jobs.manager.command(self.job.id, "hook", 0, name, args, pid=pid)

    async def loop(self, name: str, **args: Any) -> dict[str, Any]:
        return await self.jobs.manager.command(self.job.id, "loop", 0, name, args)

    async def arm(self) -> dict[str, Any]:
        """Arms it; if it is armed, waits until its loop has dialed."""
        answer = await self.hook("probe", armed=True)
        if answer["armed"]:
            await self.dialed("loop")
        return answer

    async def dialed(self, role: str) -> None:
        """Waits until the hook or the loop of the process is connected."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            peers = await self.jobs.manager.peers(self.job.id)
            if any(peer["role"] == role for peer in peers):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"no {role} has dialed")

    async def disarm(self) -> dict[str, Any]:
        return await self.hook("probe", armed=False)

    async def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        """Asks for something; the event that tells what came of it."""
        number = f"test-{next(self._ids)}"
        await self.loop("control", id=number, verb=verb, args=args, by="test", at=0)
        return await self.event(lambda event: event.get("id") == number)

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            text = Path(self.jobs.files(self.job).events).read_text()
            found = [
                json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"
            ]
            return [event for event in found if kind in ("", event["kind"])]
        return []

    async def event(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            found = [event for event in self.events() if wanted(event)]
            if found:
                return found[-1]
            await asyncio.sleep(0.01)
        raise AssertionError("no such event")

    async def of_kind(self, kind: str) -> dict[str, Any]:
        return await self.event(lambda event: event["kind"] == kind)

    async def step(self, least: int) -> int:
        """Waits until the training is in that step or a later one."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            number = (await self.loop("where")).get("step", 0)
            if number >= least:
                return int(number)
            await asyncio.sleep(0.01)
        raise AssertionError(f"step {least} did not come")

    async def lines(self) -> list[str]:
        """The whole lines that the script has printed so far."""
        printed = await self.jobs.printed(self.job, is_endless=False)
        return printed.stdout.decode().rpartition("\n")[0].splitlines()

    async def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        """Waits until the script has printed what is wanted."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            lines = await self.lines()
            if wanted(lines):
                return lines
            await asyncio.sleep(0.01)
        raise AssertionError("the script did not print that")

    async def end(self) -> list[str]:
        (self.folder / "stop").touch()
        await self.jobs.end(self.job)
        return await self.lines()


@contextlib.asynccontextmanager
async def probed(folder: Path, source: str, *argv: str) -> AsyncIterator[Probed]:
    """Runs a script as a job with a hook, and waits until it prints."""
    around = Surroundings(dict(os.environ), 0o022, PLANT)
    work = folder / "work"
    work.mkdir()
    (work / "train.py").write_text(source)
    async with tidy(folder / "jobs") as place, jobs_in(place, surroundings=around) as jobs:
        job = await jobs.start(sys.executable, str(work / "train.py"), *argv)
        await jobs.first_bytes(job)
        script = Probed(jobs, job, work)
        await script.dialed("hook")
        yield script
