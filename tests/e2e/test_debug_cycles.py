"""Debug sessions on one live job, ended in every way there is: no hit is missed.

Adapters, agents, supervisors and clients are killed at a stop; the job ends right, and has as many
descriptors and threads as before. A hundred sessions on the tests' own interpreter, with steps of
torch; numpy's on the others, where RDEV_DEBUG_CYCLES says how many (30, as each takes 2 s).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.foreign import python_with_numpy
from tests.support.interpreters import interpreters
from tests.support.jobs import lock_holder

from rdev.client.connection import connect
from rdev.client.debug.remote import attached
from rdev.client.debug.session import Breakpoint, Stopped, debugging
from rdev.client.debug.terms import Terms
from rdev.client.jobs import Jobs
from rdev.protocol.errors import RdevError
from rdev.wire.files import JobFiles
from rdev.wire.home import Home, machine_id
from rdev.wire.job import Job, JobState

# How a session ends, and how many of a hundred do.
WAYS = {"detach": 35, "adapter": 30, "client": 15, "agent": 10, "supervisor": 10}

STEPS = {
    "torch": """
import torch
weight = torch.zeros(4, requires_grad=True)
def update(number):
    loss = ((weight - number % 7) ** 2).sum()
    loss.backward()
    with torch.no_grad():
        weight.sub_(weight.grad * 0.1)
        weight.grad.zero_()
    return float(loss)
def forget():
    weight.data.zero_()
""",
    "numpy": """
import numpy as np
weight = np.zeros(4)
def update(number):
    gradient = 2 * (weight - number % 7)
    weight[:] -= gradient * 0.1
    return float((gradient ** 2).sum())
def forget():
    weight[:] = 0
""",
}

# Whether the result is right is seen by making the same steps again, undisturbed.
TRAIN = """
import os, time
{step}
def train(steps=None):
    number = 0
    while not os.path.exists("stop") if steps is None else number < steps:
        loss = update(number)
        number += 1
        if steps is None:
            time.sleep(0.001)
    return number, loss

number, loss = train()
forget()
again = train(number)
print("right" if again == (number, loss) else ("wrong", again, number, loss))
"""

# A client that is killed says nothing: its stop lasts this long.
LEASE = 1.0


class Cycles:
    """One job and what is done to it."""

    def __init__(self, rdev: Rdev, line: int) -> None:
        self.rdev = rdev
        self.line = line
        self.hits = 0

    async def cycle(self, way: str) -> None:
        """Attaches, hits, looks, and ends the session in some way."""
        async with connect("local") as connection:
            job = await Jobs(connection).get()
            assert job.state is JobState.RUNNING, job
            if way == "client":
                await self._kill_a_client()
                return
            try:
                terms = Terms(lease=60.0)
                async with (
                    attached(connection, job.id, terms=terms) as pipe,
                    debugging(pipe) as client,
                ):
                    await client.attach([Breakpoint(f"{job.directory}/train.py", self.line)])
                    async with asyncio.timeout(DEADLINE):
                        stop = await client.halted()
                    assert isinstance(stop, Stopped), stop
                    frame = (await client.stack(stop.thread))[0]
                    assert (frame.line, frame.function) == (self.line, "train")
                    assert (await client.evaluate("number + 1 > 0", frame)).value == "True"
                    self.hits += 1
                    await self._end(way, client, job)
            except RdevError:
                # The session of an agent or adapter that was killed ends with an error.
                if way not in ("adapter", "agent", "supervisor"):
                    raise

    async def _end(self, way: str, client, job: Job) -> None:
        if way == "detach":
            await client.detach()
        elif way == "adapter":
            _kill(_adapter_of(self.rdev.agent_pid))
            await client.over()
        elif way == "agent":
            self.rdev.kill_agent()
        elif way == "supervisor":
            _kill(_supervisor_of(self.rdev, job))

    async def _kill_a_client(self) -> None:
        words = ("debug", f"train.py:{self.line}", "--lease", f"{LEASE}s")
        with self.rdev.started(*words, stdin=-1) as process:
            seen = b""
            while b"paused at" not in seen:
                data = await asyncio.to_thread(os.read, process.stdout.fileno(), 65536)
                assert data, (seen, process.stderr.read())
                seen += data
            self.hits += 1
            process.kill()

    async def settled(self) -> Job:
        """The job once nothing holds it."""
        async with connect("local") as connection, asyncio.timeout(DEADLINE):
            jobs = Jobs(connection)
            async for job in jobs.watch((await jobs.get()).id):
                if not job.stops:
                    return job
        raise AssertionError("the watch ended")


def _adapter_of(agent: int) -> int:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    found = [
        int(pid) for pid in children if b"adapter.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(found) == 1, found
    return found[0]


def _supervisor_of(rdev: Rdev, job: Job) -> int:
    folder = Home(str(rdev.home / ".rdev"), machine_id()).jobs
    return lock_holder(JobFiles(f"{folder}/{job.id}").supervisor_lock)


def _kill(pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def _resources(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def _python(version: str, path: str) -> tuple[str, str]:
    """An interpreter and what it makes steps of."""
    if path == sys.executable:
        return path, "torch"
    return python_with_numpy(version, path), "numpy"


SERVED = {version: path for version, path in interpreters().items() if version != "3.10"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", SERVED)
async def test_sessions_however_they_end_miss_no_hit(rdev, monkeypatch, version):
    python, library = _python(version, SERVED[version])
    for name, value in rdev.environment.items():
        monkeypatch.setenv(name, value)
    source = TRAIN.format(step=STEPS[library])
    rdev.write("train.py", source)
    started = rdev.run("run", "-d", "--python", python, "train.py")
    assert started.returncode == 0, started.stderr
    cycles = Cycles(rdev, source.splitlines().index("        number += 1") + 1)
    await cycles.cycle("detach")  # what is loaded once is loaded now
    job = await cycles.settled()
    before = _resources(job.pid)
    ways = [way for way, count in WAYS.items() for _ in range(count)]
    random.Random(version).shuffle(ways)
    count = 100 if python == sys.executable else int(os.environ.get("RDEV_DEBUG_CYCLES", "30"))
    for way in ways[:count]:
        await cycles.cycle(way)
        await cycles.settled()
    assert cycles.hits == count + 1
    await cycles.cycle("detach")
    assert _resources((await cycles.settled()).pid) == before
    [workspace] = (rdev.home / ".rdev" / "workspaces").iterdir()
    (workspace / "stop").touch()
    assert rdev.run("wait", "train").returncode == 0
    assert rdev.run("logs", "train").stdout == "right\n"
