"""What a debugger leaves in a process once it has gone: nothing, on every interpreter."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.support.hooked import SessionPipe, adapters, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

SERVED = {v: path for v, path in interpreters().items() if v != "3.10"}

# Threads, generators and coroutines of every kind are under way while a debugger is there; line 13
# is executed by all of them, and line 19 by a generator, whose frame is suspended at the end.
BUSY = """\
import asyncio
import dis
import gc
import json
import os
import sys
import threading
import time
import types

def work(number):
    global count
    count = number + number
    return count

def generate():
    while True:
        work(0)
        yield 1

class Pause:
    def __await__(self):
        yield

async def turn():
    while True:
        work(0)
        await Pause()

async def generate_asynchronously():
    while True:
        work(0)
        yield 1

def run(found):
    while not os.path.exists("stop"):
        work(0)
        time.sleep(0.002)
    sum(number for number in range(1))  # a thread that is traced drops that at its next call
    found.append(sys.gettrace() is None)

def step_all():
    next(generator)
    coroutine.send(None)
    try:
        stepper.__anext__().send(None)
    except StopIteration:
        pass
    work(0)

def fused():
    # 3.12 alone fuses instructions once, when a code object is made.
    if sys.version_info[:2] != (3, 12):
        return []
    found = [i for f in (work, run, step_all) for i in dis.get_instructions(f, adaptive=True)]
    return [(i.offset, i.opname) for i in found if "__" in i.opname]

def left():
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        assert monitoring.get_tool(0) is None
        monitoring.use_tool_id(0, "test")
        codes = [o for o in gc.get_referrers(types.CodeType) if isinstance(o, types.CodeType)]
        codes += [f.__code__ for f in (work, generate, turn, run, step_all, Pause.__await__)]
        local = [c for c in codes if monitoring.get_local_events(0, c)]
        events = monitoring.get_events(0)
        monitoring.free_tool_id(0)
        assert (local, events) == ([], 0)
    frames = [generator.gi_frame, coroutine.cr_frame, stepper.ag_frame, *sys._current_frames().values()]
    outer = [f for frame in frames for f in (frame, frame.f_back) if f is not None]
    return {
        "fused": fused(),
        "traced": [f.f_code.co_name for f in outer if f.f_trace is not None],
        "trace": sys.gettrace() is None and threading.gettrace() is None,
        "threads": sorted(t.name for t in threading._active.values()),
        "tasks": len(os.listdir("/proc/self/task")),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").split(":")[0] for n in fds()),
        "breakpoint": type(sys.breakpointhook.__self__).__name__,
        "path": [p for p in sys.path if "debugpy" in p or "pydevd" in p],
        "environment": [name for name in os.environ if name.startswith(("PYDEVD", "DEBUGPY"))],
    }

def fds():
    return [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}") or is_socket(n)]

def is_socket(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket")
    except OSError:
        return False

count = 0
generator, coroutine, stepper = generate(), turn(), generate_asynchronously()
ended = []
threads = [threading.Thread(target=run, args=(ended,), name="worker") for _ in range(2)]
[thread.start() for thread in threads]
while not os.path.exists("stop"):
    step_all()
    time.sleep(0.002)
    if os.path.exists("look"):
        print(json.dumps(left()), flush=True)
        os.remove("look")
[thread.join() for thread in threads]
print(ended, sys.gettrace())
"""


async def cycle(manager, folder, *, is_killed: bool = False) -> None:
    async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as client:
        script = str(folder / "train.py")
        await client.attach([Breakpoint(script, 13), Breakpoint(script, 19)])
        async with asyncio.timeout(20):
            stop = await client.halted()
            assert isinstance(stop, Stopped)
            await client.resume("next", stop.thread)
            await client.halted()
        if is_killed:
            os.kill(adapters()[0], signal.SIGKILL)
        else:
            await client.detach()


async def look(folder) -> None:
    (folder / "look").touch()
    async with asyncio.timeout(20):
        while (folder / "look").exists():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", SERVED)
async def test_nothing_is_left_of_three_sessions(tmp_path, version):
    async with hooked_job(tmp_path, BUSY, python=SERVED[version]) as job:
        await job.command("0", "hook", 0, "status")  # its first use imports what it needs
        await look(tmp_path)
        async with DebugManager(job) as manager:
            for number in range(3):
                await cycle(manager, tmp_path, is_killed=number == 1)
                await job.event("debug_detached", number + 1)
                assert job.answers["detach"]["clean"] is True or number == 1
        # The last event is told before the thread that tells it is gone.
        for _ in range(5):
            await look(tmp_path)
            await asyncio.sleep(0.05)
        before, *_, after, end = (await job.end()).splitlines()
        assert after == before
        assert end == "[True, True] None"


SAMPLES = """\
import os, sys, time
usual = least = sys.getswitchinterval()
while not os.path.exists("stop"):
    least = min(least, sys.getswitchinterval())
    time.sleep(0.001)
print(least < usual / 5, sys.getswitchinterval() == usual)
"""


async def test_the_program_runs_between_more_often_while_a_debugger_comes_in(tmp_path):
    async with hooked_job(tmp_path, SAMPLES) as job:
        async with DebugManager(job) as manager, manager.session("0" * 12, 0):
            pass
        assert await job.end() == "True True\n"
