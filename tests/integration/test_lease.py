"""The lease of a stop, held in the stopped process: whoever dies, and whoever hangs, it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager

import pytest
from tests.support.hooked import SessionPipe, adapters, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

SERVED = {v: path for v, path in interpreters().items() if v != "3.10"}

# What hangs on the interpreter only in that it runs: the others are tried in `make test-all`.
MOSTLY_SLOW = [
    pytest.param(path, id=v, marks=[] if path == sys.executable else pytest.mark.slow)
    for v, path in SERVED.items()
]

# Line 10 is inside the step; what runs on says so in a file.
TRAIN = """\
import os
import sys
import threading

def step(number):
    return number * 2

total = step_number = 0
while not os.path.exists("stop"):
    total += step(step_number)
    step_number += 1
    threading.Event().wait(0.002)
for _ in range(500):  # a thread of the debugger's may be about to end
    left = sorted(t.name for t in threading._active.values())
    if len(left) == 2:
        break
    threading.Event().wait(0.01)
print("right" if total == step_number * (step_number - 1) else "wrong", sys.gettrace(), left)
"""
UNCHANGED = "right None ['MainThread', 'rdev-channel']\n"


@asynccontextmanager
async def held(manager, job):
    """A session whose breakpoint has been hit."""
    async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as client:
        await client.attach([Breakpoint(str(job.folder / "train.py"), 10)])
        async with asyncio.timeout(20):
            assert isinstance(await client.halted(), Stopped)
        yield client


async def lease(job, seconds: float):
    return await job.command("0", "hook", 0, "lease", {"seconds": seconds})


async def resumed(job, count: int = 1) -> str:
    return (await job.event("debug_resumed", count))["cause"]


@pytest.mark.parametrize("python", SERVED.values(), ids=SERVED.keys())
async def test_a_stop_that_nobody_renews_ends_and_so_does_the_session(tmp_path, python):
    async with hooked_job(tmp_path, TRAIN, python=python) as job, DebugManager(job) as manager:
        async with held(manager, job):
            paused = await job.event("debug_paused")
            assert (paused["lease"], paused["unattended"]) == (900.0, False)
            began = time.monotonic()
            status = await lease(job, 0.5)
            assert (status["paused"], status["attached"]) == (True, True)
            assert 0 < status["lease"] <= 0.5
            assert (await job.event("debug_renewed"))["lease"] == 0.5
            assert await resumed(job) == "lease"
            assert 0.5 <= time.monotonic() - began < 5
            await job.event("debug_detached")
        async with held(manager, job):
            # Breakpoints of the session before are gone, and a new one is what it was.
            assert (await job.event("debug_paused", 2))["lease"] == 900.0
        assert await resumed(job, 2) == "detached"
        assert await job.end() == UNCHANGED


async def test_a_renewed_lease_lasts_on_and_later_stops_have_its_length(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        async with held(manager, job) as client:
            await lease(job, 0.6)
            for number in range(2, 6):
                await asyncio.sleep(0.3)  # half of it: how long it has been is what is tested
                await lease(job, 0.6)
                await job.event("debug_renewed", number)
            assert job.count("debug_resumed") == 0
            await lease(job, 60.0)
            await client.resume("continue", 1)
            assert await resumed(job) == "client"
            assert (await job.event("debug_paused", 2))["lease"] == 60.0
            await client.detach()
        assert await resumed(job, 2) == "detached"
        assert await job.end() == UNCHANGED


async def test_a_lease_set_between_two_stops_is_no_renewal(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job:
        status = await lease(job, 5.0)
        assert (status["paused"], status["lease"]) == (False, None)
        assert await job.end() == UNCHANGED
        assert job.count("debug_renewed") == 0


@pytest.mark.parametrize("python", MOSTLY_SLOW)
async def test_an_adapter_that_hangs_at_a_stop_is_left_at_the_end_of_the_lease(tmp_path, python):
    async with hooked_job(tmp_path, TRAIN, python=python) as job, DebugManager(job) as manager:
        async with held(manager, job):
            [adapter] = adapters()
            os.kill(adapter, signal.SIGSTOP)
            try:
                await lease(job, 0.3)
                assert await resumed(job) == "lease"
                await job.event("debug_detached")
            finally:
                os.kill(adapter, signal.SIGKILL)
        assert await job.end() == UNCHANGED


@pytest.mark.slow
async def test_supervisor_and_client_are_gone_and_the_adapter_hangs_but_the_stop_ends(tmp_path):
    async with (
        hooked_job(tmp_path, TRAIN) as job,
        DebugManager(job) as manager,
        held(manager, job),
    ):
        [adapter] = adapters()
        os.kill(adapter, signal.SIGSTOP)
        try:
            await lease(job, 0.5)
            job.abandon()
            tasks = f"/proc/{job.process.pid}/task"
            async with asyncio.timeout(20):
                while len(os.listdir(tasks)) > 3:  # the main one, the channel, who watches groups
                    await asyncio.sleep(0.02)
            assert (await job.end()).startswith("right None")
        finally:
            os.kill(adapter, signal.SIGKILL)


async def test_an_adapter_that_dies_at_a_stop_ends_it_at_once_and_is_named(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        async with held(manager, job):
            began = time.monotonic()
            os.kill(adapters()[0], signal.SIGKILL)
            assert await resumed(job) == "adapter_lost"
            assert time.monotonic() - began < 3
        assert await job.end() == UNCHANGED


async def test_an_adapter_whose_end_the_agent_sees_first_is_named_as_well(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        async with held(manager, job):
            await job.command("0", "hook", 0, "detach", {"lost": True})
            assert await resumed(job) == "adapter_lost"
        assert await job.end() == UNCHANGED


# The main thread is stopped while it holds locks that much of the standard library wants.
GRASPING = """\
import logging
import os
import sys
import time

while not os.path.exists("go"):
    time.sleep(0.002)
if __name__ == "__main__":
    sys.path.insert(0, ".")
    with logging._lock:
        import train
    print("right")
else:
    mark = 1
"""


async def test_a_program_that_is_held_in_an_import_and_a_lock_of_logging_is_let_go(tmp_path):
    async with hooked_job(tmp_path, GRASPING) as job, DebugManager(job) as manager:
        async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as c:
            await c.attach([Breakpoint(str(tmp_path / "train.py"), 14)])
            await lease(job, 0.3)
            (tmp_path / "go").touch()
            assert await resumed(job) == "lease"
            await job.event("debug_detached")
        output, _ = await job.process.communicate()
        assert output == b"right\n"
