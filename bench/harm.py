"""What rdev's troubles cost a job: a reader who does not read, a supervisor and an agent killed.

A follower's pipe stays full while the job floods 600 MB: beside the same flood with nobody there.
Kills: the job writes 50 MB/s and notes every write that took long; the agent and its supervisor are
killed again and again, alone and together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.jobs import await_gone, lock_holder

from bench.measure import Figure, table
from bench.process import memory_of
from rdev.client.connection import Connection, connect
from rdev.client.jobs import Jobs
from rdev.protocol.starting import ensure_agent
from rdev.wire.files import JobFiles
from rdev.wire.home import this_home
from rdev.wire.job import CommandKind, Job, JobSpec

ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "5"))
KILLS = 10
BIN = Path(sys.executable).parent

# 600 MB as fast as they are taken; the time goes into a file.
FLOOD = """
import os, sys, time
os.write(1, b"ready\\n")
while not os.path.exists(sys.argv[1]): time.sleep(0.001)
block, begin = b"x" * 65536, time.monotonic()
for _ in range(9155):
    view = memoryview(block)
    while view: view = view[os.write(1, view):]
with open(sys.argv[2] + ".new", "w") as file: file.write(str(time.monotonic() - begin))
os.rename(sys.argv[2] + ".new", sys.argv[2])
"""

# 50 MB/s until told to end; each write of more than 2 ms is noted with its begin and end.
STEADY = """
import os, sys, time
block, due = b"x" * 50_000, time.monotonic()
with open(sys.argv[1], "w", buffering=1) as held:
    while not os.path.exists(sys.argv[2]):
        begin = time.monotonic()
        view = memoryview(block)
        while view: view = view[os.write(1, view):]
        end = time.monotonic()
        if end - begin > 0.002: print(begin, end, file=held)
        due = max(due + 0.001, end - 0.1)
        time.sleep(max(0.0, due - end))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rdev-bench-") as name:
        os.environ |= {"RDEV_HOME": f"{name}/rdev", "HOME": name}
        os.chdir(name)
        try:
            asyncio.run(_measure(Path(name)))
        finally:
            subprocess.run([BIN / "rdev-agent", "stop"], capture_output=True, check=False)


async def _measure(folder: Path) -> None:
    alone, beside, growth = [], [], []
    for turn in range(ROUNDS):
        alone.append((await flood(folder / f"alone-{turn}", is_followed=False))[0])
        seconds, grown = await flood(folder / f"beside-{turn}", is_followed=True)
        beside.append(seconds)
        growth.append(grown / 1e6)
    rows = [("nobody reads", Figure([600 / s for s in alone]))]
    rows += [("a reader is stalled", Figure([600 / s for s in beside]))]
    print(f"600 MB, {ROUNDS} interleaved rounds\n\n{table('MB/s', rows, base=rows[0][1])}\n")
    print(f"the agent grew by {Figure(growth)} MB (PSS)\n")
    print("the longest write of a job that writes 50 MB/s, each time when was killed\n")
    for what in ((), ("supervisor",), ("agent",), ("agent", "supervisor")):
        stalls = await stalls_of(folder, what)
        print(f"{' and '.join(what) or 'nobody':22} {Figure([s * 1000 for s in stalls])} ms")


async def flood(place: Path, *, is_followed: bool) -> tuple[float, int]:
    """Seconds that a job took to write 600 MB, and bytes by which the agent grew meanwhile."""
    place.mkdir()
    go, took = place / "go", place / "took"
    async with connect("local") as connection:
        jobs = Jobs(connection)
        job = await _start(connection, FLOOD, str(go), str(took))
        with _stalled_reader(job, is_there=is_followed):
            before = memory_of(connection.agent.pid)
            go.touch()
            await _until(took)
            grown = memory_of(connection.agent.pid) - before
        await jobs.wait(job.id)
        await jobs.delete(job.id)
    return float(took.read_text()), grown


@contextlib.contextmanager
def _stalled_reader(job: Job, *, is_there: bool):
    if not is_there:
        yield
        return
    command = [str(BIN / "rdev"), "logs", "-f", job.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        try:
            yield
        finally:
            reader.kill()


async def stalls_of(folder: Path, killed: tuple[str, ...]) -> list[float]:
    """Seconds of the job's longest write in the second after each of some kills."""
    held, finish = folder / f"held-{'-'.join(killed)}", folder / f"finish-{'-'.join(killed)}"
    async with connect("local") as connection:
        job = await _start(connection, STEADY, str(held), str(finish))
    files = JobFiles(os.path.join(this_home().jobs, job.id))
    await _until(held)
    moments = []
    for _ in range(KILLS):
        await asyncio.to_thread(ensure_agent, this_home())
        await asyncio.sleep(0.5)  # a time with nothing to disturb it
        moments.append(time.monotonic())
        for who in killed:
            pid = lock_holder(files.supervisor_lock) if who == "supervisor" else _agent()
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(1.5)
    finish.touch()
    async with connect("local") as connection:
        jobs = Jobs(connection)
        await jobs.wait(job.id)
        await jobs.delete(job.id)
    await asyncio.to_thread(await_gone, lock_holder(files.keeper_lock))
    writes = [tuple(map(float, line.split())) for line in held.read_text().splitlines()]
    return [
        max((end - begin for begin, end in writes if moment - 0.1 < end < moment + 1.4), default=0)
        for moment in moments
    ]


def _agent() -> int:
    return int(Path(this_home().lock).read_text(encoding="ascii"))


async def _start(connection: Connection, source: str, *words: str) -> Job:
    argv = ("-I", "-S", "-c", source, *words)
    spec = JobSpec(CommandKind.PROGRAM, os.path.realpath(sys.executable), argv, hook=False)
    return await Jobs(connection).create(spec)


async def _until(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    main()
