"""Stops that wait for a debugger: real processes, real hook, and a debugger that comes, or not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Stopped, debugging

SERVED = {v: path for v, path in interpreters().items() if v != "3.10"}

PLAIN = """\
first = 1
second = 2
print("right", first + second)
"""

BREAKPOINT = """\
import time

def step(number):
    breakpoint()
    total = number * 2
    return total

began = time.monotonic()
print([step(n) for n in range(3)], time.monotonic() - began < 30)
"""

FAILS = """\
def divide(batch):
    size = len(batch)
    return 1 / (size - 3)

def train():
    divide([1, 2, 3])

train()
"""

LOOP = """\
from rdev.loop import Loop

def step(state):
    loss = state.step * 2
    return loss

state = Loop(step, range(50)).run()
print("right", state.step)
"""


@asynccontextmanager
async def debugger(manager: DebugManager):
    """Attaches and sets no breakpoint: what stops is the program."""
    async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as client:
        await client.attach([])
        yield client


async def stopped(client) -> tuple[Stopped, list]:
    async with asyncio.timeout(20):
        halt = await client.halted()
    assert isinstance(halt, Stopped), halt
    return halt, await client.stack(halt.thread)


async def output_of(job) -> tuple[str, int]:
    async with asyncio.timeout(30):
        output, _ = await job.process.communicate()
    return output.decode(), job.process.returncode


@pytest.mark.parametrize("python", SERVED.values(), ids=SERVED.keys())
async def test_a_job_that_waits_at_its_start_stops_at_its_first_line(tmp_path, python):
    at_start = {"RDEV_JOB_DEBUG": "start"}
    async with (
        hooked_job(tmp_path, PLAIN, python=python, environment=at_start) as job,
        DebugManager(job) as manager,
    ):
        paused = await job.event("debug_paused")
        assert (paused["reason"], paused["unattended"], paused["lease"]) == ("entry", True, 60.0)
        async with debugger(manager) as client:
            _, frames = await stopped(client)
            assert [(frame.line, frame.function) for frame in frames] == [(1, "<module>")]
            await client.detach()
        assert await output_of(job) == ("right 3\n", 0)
        assert (await job.event("debug_resumed"))["cause"] == "client"


@pytest.mark.parametrize("python", SERVED.values(), ids=SERVED.keys())
async def test_breakpoint_waits_for_a_debugger_and_stops_in_its_own_frame(tmp_path, python):
    async with (
        hooked_job(tmp_path, BREAKPOINT, python=python) as job,
        DebugManager(job) as manager,
    ):
        paused = await job.event("debug_paused")
        assert (paused["line"], paused["function"]) == (4, "step")
        async with debugger(manager) as client:
            for number in range(3):
                stop, frames = await stopped(client)
                assert (frames[0].line, frames[0].function) == (5, "step")
                assert (await client.evaluate("number", frames[0])).value == str(number)
                if number < 2:
                    await client.resume("continue", stop.thread)
            await client.detach()
        assert await output_of(job) == ("[0, 2, 4] True\n", 0)


async def test_an_exception_that_nothing_catches_is_looked_at_with_its_frames(tmp_path):
    at_exception = {"RDEV_JOB_DEBUG": "exception"}
    async with (
        hooked_job(tmp_path, FAILS, environment=at_exception) as job,
        DebugManager(job) as manager,
    ):
        raised = await job.event("exception_raised")
        assert (raised["exception"], raised["message"]) == ("ZeroDivisionError", "division by zero")
        innermost = raised["frames"][0]
        assert (innermost["line"], innermost["function"]) == (3, "divide")
        assert innermost["locals"] == {"batch": "[1, 2, 3]", "size": "3"}
        paused = await job.event("debug_paused")
        assert (paused["reason"], paused["line"], paused["lease"]) == ("exception", 3, 120.0)
        async with debugger(manager) as client:
            halt, frames = await stopped(client)
            assert halt.reason == "exception"
            assert [f.function.split()[0] for f in frames] == ["divide", "train", "<module>"]
            assert (await client.evaluate("size", frames[0])).value == "3"
            await client.detach()
        output, code = await output_of(job)
        assert code == 1
        assert output.count("Traceback") == 1
        assert output.endswith("ZeroDivisionError: division by zero\n")


async def test_an_exception_is_looked_at_though_the_program_has_a_hook_of_its_own(tmp_path):
    own = "import sys\nsys.excepthook = lambda *_: print('mine')\n" + FAILS
    at_exception = {"RDEV_JOB_DEBUG": "exception"}
    async with (
        hooked_job(tmp_path, own, environment=at_exception) as job,
        DebugManager(job) as manager,
    ):
        await job.event("debug_paused")
        async with debugger(manager) as client:
            _, frames = await stopped(client)
            assert frames[0].function == "divide"
            await client.detach()
        assert await output_of(job) == ("mine\n", 1)


async def test_a_loop_stops_in_the_step_that_was_asked_for(tmp_path):
    at_step = {"RDEV_JOB_DEBUG": "step=37"}
    async with (
        hooked_job(tmp_path, LOOP, environment=at_step) as job,
        DebugManager(job) as manager,
    ):
        assert (await job.event("debug_paused"))["reason"] == "step 37"
        async with debugger(manager) as client:
            _, frames = await stopped(client)
            assert (frames[0].function, frames[0].line) == ("step", 4)
            assert (await client.evaluate("state.step", frames[0])).value == "37"
            await client.detach()
        assert await output_of(job) == ("right 50\n", 0)


async def test_whoever_asks_a_running_job_is_told_whether_steps_are_counted(tmp_path):
    endless = "import os, time\nwhile not os.path.exists('stop'): time.sleep(0.01)\nprint('right')"
    async with hooked_job(tmp_path, endless) as job:
        answer = await job.command("", "hook", 0, "stops", {"exception": True, "step": 5})
        assert answer["counted"] is False
        assert await job.end() == "right\n"


async def test_a_variable_of_the_users_own_keeps_breakpoint_as_it_is(tmp_path):
    source = "import sys\nprint(breakpoint())\n"
    async with hooked_job(
        tmp_path, source, environment={"PYTHONBREAKPOINT": "builtins.dict"}, connected=False
    ) as job:
        assert await output_of(job) == ("{}\n", 0)
