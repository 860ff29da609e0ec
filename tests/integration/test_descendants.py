"""Children of a hooked process, made in every way: each has a hook of its own, none is held."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

SERVED = {v: path for v, path in interpreters().items() if v != "3.10"}

# Every way by which a training makes processes. A child says who it is once its hook is there.
FAMILY = """\
import json
import multiprocessing
import os
import subprocess
import sys
import time

def linger(_=None):
    deadline = time.monotonic() + 30
    while not os.path.exists("stop") and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()

def daemonize():
    # As daemons do: two forks, a session of its own, and no descriptor of its parents'.
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.closerange(3, 256)
        linger()
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.wait()
    return pid

if __name__ == "__main__":
    family = {"daemon": daemonize()}
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        child = context.Process(target=linger)
        child.start()
        family[method] = child
    code = "import train; train.linger()"
    family["subprocess"] = subprocess.Popen([sys.executable, "-W", "error", "-c", code])
    with open("new", "w") as file:
        json.dump([getattr(child, "pid", child) for child in family.values()], file)
    os.rename("new", "family")
    linger()
    done = {}
    for name, child in family.items():
        if name == "daemon":
            continue
        code = child.wait() if name == "subprocess" else (child.join(), child.exitcode)[1]
        done[name] = [child.pid, code]
    done["daemon"] = [family["daemon"], 0]
    print(json.dumps(done))
"""


@pytest.mark.parametrize("version", SERVED)
async def test_every_child_has_a_hook_of_its_own_whatever_made_it(tmp_path, version):
    options = ("-W", "error")
    async with hooked_job(tmp_path, FAMILY, python=SERVED[version], options=options) as job:
        async with asyncio.timeout(40):
            while not (tmp_path / "family").exists():
                await asyncio.sleep(0.02)
        daemon, *family = json.loads((tmp_path / "family").read_text())
        # A daemon that closes its descriptors closes the hook's too, which then leaves it alone.
        await job.until(lambda: set(family) <= {hello["pid"] for hello in job.hellos}, 40)
        assert Path(f"/proc/{daemon}").exists()
        # Nobody of them has brought the parent out of order.
        assert (await job.command("0", "hook", 0, "status"))["pid"] == job.process.pid
        children = json.loads(await job.end())
        assert {pid for pid, _ in children.values()} == {daemon, *family}
        assert {code for _, code in children.values()} == {0}, children


# The thread runs on while the main one is held, and forks.
FORKS_AT_A_STOP = """\
import os, sys, threading, time, warnings
from rdev.wire.clock import active_monotonic

warnings.simplefilter("ignore")

def beat():
    last = time.monotonic()
    while not os.path.exists("stop"):
        time.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
        if os.path.exists("fork"):
            child = os.fork()
            if child == 0:
                began = active_monotonic()
                for number in range(1000):
                    body(number)
                time.sleep(0.05)
                runs = active_monotonic() - began > 0.04
                os._exit(0 if runs and sys.gettrace() is None else 1)
            print(os.waitpid(child, 0)[1], flush=True)
            os.remove("fork")
            last = time.monotonic()

def body(number):
    return number + 1

gaps = []
thread = threading.Thread(target=beat)
thread.pydev_do_not_trace = True
thread.start()
wall, active = time.monotonic(), active_monotonic()
while not os.path.exists("stop"):
    body(0)
    time.sleep(0.002)
held = time.monotonic() - wall - (active_monotonic() - active)
thread.join()
print(held, max(gaps))
"""


@pytest.mark.parametrize("version", SERVED)
async def test_a_thread_that_is_not_traced_runs_through_a_stop_and_may_fork(tmp_path, version):
    python = SERVED[version]
    async with hooked_job(tmp_path, FORKS_AT_A_STOP, python=python) as job:
        async with (
            DebugManager(job) as manager,
            manager.session("0" * 12, 0) as session,
            debugging(SessionPipe(session)) as client,
        ):
            await client.attach([Breakpoint(str(tmp_path / "train.py"), 28)])
            async with asyncio.timeout(20):
                assert isinstance(await client.halted(), Stopped)
            (tmp_path / "fork").touch()
            async with asyncio.timeout(20):
                while (tmp_path / "fork").exists():
                    await asyncio.sleep(0.01)
            # The parent is held as before, and answers.
            assert (await job.command("0", "hook", 0, "status"))["paused"]
            await client.detach()
        resumed = await job.event("debug_resumed")
        status, figures = (await job.end()).splitlines()
        held, gap = map(float, figures.split())
        assert status == "0"
        assert abs(held - resumed["seconds"]) < 0.2
        assert gap < 0.5
        assert job.count("debug_paused") == job.count("debug_resumed") == 1
