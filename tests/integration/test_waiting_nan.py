"""Trainings that nobody prepared stop at their first number that is not finite, and wait."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.test_waiting import debugger, output_of, stopped
from tests.support.hooked import hooked_job

from rdev.agent.debug.manager import DebugManager

AT_NAN = {"RDEV_JOB_DEBUG": "nan"}

PLAIN = """\
import os, time
import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.01)

def step(number):
    batch = torch.ones(4, 2)
    if number == 30:
        batch[1, 0] = float("nan")
    optimizer.zero_grad()
    loss = model(batch).square().mean()
    loss.backward()
    optimizer.step()
    return number

for number in range(40):
    while number == 20 and not os.path.exists("begin"):
        open("there", "w").close(), time.sleep(0.01)
    step(number)
import rdev.loop.callbacks.updates as updates
deadline = time.monotonic() + 20
while updates._watches and time.monotonic() < deadline:  # it is given back by another thread
    time.sleep(0.01)
print("right", number, updates._watches, hasattr(torch.Tensor.backward, "rdev_plain"))
"""

LOOP = """\
from rdev.loop import Loop

def step(state):
    loss = float("inf") if state.step == 37 else state.step * 2
    return loss

print("right", Loop(step, range(50)).run().step)
"""


@pytest.mark.slow
async def test_a_plain_torch_script_stops_before_the_update_that_would_ruin_its_weights(tmp_path):
    async with (
        hooked_job(tmp_path, PLAIN, environment=AT_NAN) as job,
        DebugManager(job) as manager,
    ):
        (tmp_path / "begin").touch()
        stop = await job.event("debug_paused")
        assert (stop["reason"], stop["line"], stop["unattended"]) == ("nan", 14, True)
        async with debugger(manager) as client:
            halt, frames = await stopped(client)
            assert "the loss is nan" in halt.text
            assert [(f.function, f.line) for f in frames[:2]] == [("step", 14), ("<module>", 20)]
            assert (await client.evaluate("number", frames[0])).value == "30"
            finite = "bool(model.weight.isfinite().all())"
            assert (await client.evaluate(finite, frames[0])).value == "True"
            await client.resume("next", halt.thread)
            halt, frames = await stopped(client)
            assert frames[0].line == 15
            await client.detach()
        out, code = await output_of(job)
        assert (out, code) == ("right 39 {} False\n", 0)


@pytest.mark.slow
async def test_a_running_script_is_watched_and_left_as_it_was(tmp_path):
    source = PLAIN.replace("number == 30", "number == 50")
    async with hooked_job(tmp_path, source) as job:
        async with asyncio.timeout(60):
            while not (tmp_path / "there").exists():
                await asyncio.sleep(0.05)
        told = await job.command("", "hook", 0, "stops", {"nan": True, "token": "a"})
        assert told["blind"] == ""
        await job.command("", "hook", 0, "stops", {"nan": False, "token": "a"})
        (tmp_path / "begin").touch()
        assert await output_of(job) == ("right 39 {} False\n", 0)


async def test_a_loop_without_torch_stops_after_its_step(tmp_path):
    async with (
        hooked_job(tmp_path, LOOP, environment=AT_NAN) as job,
        DebugManager(job) as manager,
    ):
        assert (await job.event("debug_paused"))["reason"] == "nan"
        async with debugger(manager) as client:
            halt, _ = await stopped(client)
            assert "step 37: the loss is inf" in halt.text
            await client.detach()
        assert await output_of(job) == ("right 50\n", 0)
