"""Where the threads of a process are: told while it runs, while it is held, while it is in C."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

SERVED = {v: path for v, path in interpreters().items() if v != "3.10"}

RUNNING = """\
import os, sys, threading, time

class Trainer:
    def train(self):
        while not os.path.exists("stop"):
            time.sleep(0.002)

def load():
    deeper(200)

def deeper(more):
    if more:
        deeper(more - 1)
    while not os.path.exists("stop"):
        time.sleep(0.002)

loader = threading.Thread(target=load, name="loader")
loader.start()
Trainer().train()
loader.join()
print("right")
"""


async def threads(job):
    return (await job.command("0", "hook", 0, "stack"))["threads"]


async def under_way(job):
    """The threads once the script has come to where it stays."""
    async with asyncio.timeout(20):
        while True:
            found = await threads(job)
            depth = [len(thread["frames"]) for thread in found]
            is_there = len(found) == 2 and found[1]["frames"][0][2] == "deeper"
            if is_there and depth[1] > 100 and "train" in found[0]["frames"][0][2]:
                return found


@pytest.mark.parametrize("python", SERVED.values(), ids=SERVED.keys())
async def test_a_running_and_a_held_process_say_where_every_thread_is(tmp_path, python):
    script = str(tmp_path / "train.py")
    async with hooked_job(tmp_path, RUNNING, python=python) as job, DebugManager(job) as manager:
        main, loader = await under_way(job)
        assert job.answers["stack"]["title"].endswith(script)
        assert (main["name"], main["main"], main["paused"]) == ("MainThread", True, False)
        assert main["frames"][0][::2] == [script, "Trainer.train"]
        assert main["frames"][-1] == [script, 19, "<module>"]
        assert (loader["name"], loader["main"]) == ("loader", False)
        # A long recursion is told by both of its ends.
        assert ["", 0, "... 105 more ..."] in loader["frames"]
        assert len(loader["frames"]) == 101
        assert loader["frames"][0][2] == "deeper"

        async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as c:
            await c.attach([Breakpoint(script, 6)])
            async with asyncio.timeout(20):
                assert isinstance(await c.halted(), Stopped)
            await job.until(lambda: job.count("debug_paused"))
            main, loader = await threads(job)
            assert (main["paused"], main["frames"][0]) == (True, [script, 6, "Trainer.train"])
            # What holds a thread is none of its calls, and the debugger's threads are nobody's.
            assert all(script == file for file, _, _ in main["frames"])
            await c.detach()
        assert await job.end() == "right\n"


IN_C = """\
import os, time, zlib

data = os.urandom(1 << 20) * 64
print(len(data), flush=True)
while not os.path.exists("stop"):
    zlib.crc32(data)
"""


async def test_a_main_thread_inside_of_c_is_told_with_its_python_frames(tmp_path):
    async with hooked_job(tmp_path, IN_C) as job:
        await job.command("0", "hook", 0, "status")
        for _ in range(5):
            [main] = await threads(job)
            assert main["frames"][-1][2] == "<module>"
        await job.end()


@pytest.mark.skipif(shutil.which("py-spy") is None, reason="py-spy is not on the PATH")
@pytest.mark.parametrize("python", SERVED.values(), ids=SERVED.keys())
async def test_py_spy_tells_native_frames_and_stops_nothing_for_long(tmp_path, python):
    async with hooked_job(tmp_path, RUNNING, python=python) as job, DebugManager(job) as manager:
        await under_way(job)
        [found] = await manager.stacks("0" * 12, rank=None, is_native=True)
        assert (found.source, found.cause, found.pid) == ("py-spy", "", job.process.pid)
        assert found.title.endswith(str(tmp_path / "train.py"))
        main = found.threads[0]
        assert any(
            frame.function == "Trainer.train" or frame.function == "train" for frame in main.frames
        )
        assert any("libc" in frame.file for thread in found.threads for frame in thread.frames)
        assert any(thread.name.endswith("loader") for thread in found.threads)
        assert await job.end() == "right\n"
