"""Fifty jobs and a hundred followers: how soon the agent answers, what it holds, what idling costs.

Busy: each job prints ten lines a second and two clients follow it; meanwhile jobs are looked up one
after the other. Idle: the jobs fall silent, everybody stays; ticks are counted of the agent and of
all supervisors and keepers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.jobs import lock_holder

from bench.measure import Figure
from bench.process import memory_of, ticks_of
from rdev.client.connection import Connection, connect
from rdev.client.jobs import Jobs
from rdev.client.logs import Logs
from rdev.wire.files import JobFiles
from rdev.wire.home import this_home
from rdev.wire.job import CommandKind, Job, JobSpec

JOBS, FOLLOWERS = 50, 100
LOOKUPS = 500
IDLE_SECONDS = 20.0
# Followers of one process share a connection; a person's are a few.
FOLLOWERS_A_PROCESS = 25
BIN = Path(sys.executable).parent

JOB = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    os.write(1, b"step 17 loss 0.25\\n")
    time.sleep(0.1)
time.sleep(3600)
"""


def main() -> None:
    if sys.argv[1:2] == ["follow"]:
        asyncio.run(_follow(sys.argv[2:]))
        return
    with tempfile.TemporaryDirectory(prefix="rdev-bench-") as name:
        os.environ |= {"RDEV_HOME": f"{name}/rdev", "HOME": name}
        os.chdir(name)
        try:
            asyncio.run(_measure(Path(name) / "quiet"))
        finally:
            subprocess.run([BIN / "rdev-agent", "stop"], capture_output=True, check=False)


async def _measure(quiet: Path) -> None:
    async with connect("local") as connection:
        jobs = Jobs(connection)
        argv = ("-I", "-S", "-c", JOB, str(quiet))
        spec = JobSpec(CommandKind.PROGRAM, os.path.realpath(sys.executable), argv, hook=False)
        crowd = [await jobs.create(spec) for _ in range(JOBS)]
        followers = [_follower(crowd, number) for number in range(FOLLOWERS // FOLLOWERS_A_PROCESS)]
        try:
            for follower in followers:
                assert follower.stdout is not None
                await asyncio.to_thread(follower.stdout.readline)
            await _report(connection, crowd, quiet)
        finally:
            for follower in followers:
                follower.kill()
                follower.communicate()
            for job in crowd:
                await jobs.stop(job.id, now=True)
            for job in crowd:
                await jobs.wait(job.id)


def _follower(crowd: list[Job], number: int) -> subprocess.Popen[bytes]:
    first = number * FOLLOWERS_A_PROCESS
    ids = [crowd[index % len(crowd)].id for index in range(first, first + FOLLOWERS_A_PROCESS)]
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "bench.crowd", "follow", *ids], cwd=root, stdout=subprocess.PIPE
    )


async def _follow(ids: list[str]) -> None:
    """Follows jobs until killed; says a line once something of each was read."""
    seen: set[int] = set()

    async def follow(number: int) -> None:
        async for _ in Logs(connection).tail(ids[number], follow=True):
            if number not in seen:
                seen.add(number)
                if len(seen) == len(ids):
                    print("following", flush=True)

    async with connect("local") as connection, asyncio.TaskGroup() as group:
        for number in range(len(ids)):
            group.create_task(follow(number))


async def _report(connection: Connection, crowd: list[Job], quiet: Path) -> None:
    jobs, agent, took = Jobs(connection), connection.agent.pid, []
    before, begin = ticks_of([agent]), time.monotonic()
    for number in range(LOOKUPS):
        asked = time.perf_counter()
        await jobs.get(crowd[number % JOBS].id)
        took.append((time.perf_counter() - asked) * 1000)
        await asyncio.sleep(0.01)
    busy = (ticks_of([agent]) - before) / (time.monotonic() - begin)
    high = sorted(took)[len(took) * 95 // 100]
    print(f"{JOBS} jobs, {FOLLOWERS} followers, each job prints 10 lines a second\n")
    print(f"GetJob                    {Figure(took)} ms, p95 {high:.1f} ms")
    print(f"agent's memory            {memory_of(agent) / 1e6:8.1f} MB (PSS)")
    print(f"agent's CPU               {busy:8.1f} %")
    quiet.touch()
    await asyncio.sleep(2)  # what was on its way has arrived
    folder = this_home().jobs
    files = [JobFiles(os.path.join(folder, job.id)) for job in crowd]
    supervisors = [lock_holder(each.supervisor_lock) for each in files]
    keepers = [lock_holder(each.keeper_lock) for each in files]
    groups = {"agent": [agent], "supervisors": supervisors, "keepers": keepers}
    counts = {name: ticks_of(pids) for name, pids in groups.items()}
    await asyncio.sleep(IDLE_SECONDS)
    for name, pids in groups.items():
        share = (ticks_of(pids) - counts[name]) / IDLE_SECONDS
        print(f"idle CPU, {name:15} {share:8.2f} %")
    memory = sum(memory_of(pid) for pid in supervisors) / len(supervisors)
    print(f"a supervisor's memory     {memory / 1e6:8.1f} MB (PSS)")


if __name__ == "__main__":
    main()
