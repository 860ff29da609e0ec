"""Why a job ended, where the kernel or the disk had a hand in it."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.jobs import DEADLINE, jobs_in, tidy

from rdev.supervisor.processes import look_at
from rdev.wire.files import read_exit
from rdev.wire.job import JobState, LogFull, Reason

MEMORY = Path("/sys/fs/cgroup/memory")

# Takes more memory than it may have, a page of each MiB written.
GREEDY = "blocks = []\nfor _ in range(400): blocks.append(bytearray(1 << 20))\n"


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


@pytest.fixture
def small_memory():
    """A control group of 80 MB, of version 1."""
    own = next(
        (
            line.rpartition(":")[2]
            for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
            if line.split(":")[1] == "memory"
        ),
        None,
    )
    if own is None or os.geteuid() != 0 or not os.access(MEMORY, os.W_OK):
        pytest.skip("a control group for memory, version 1, needs root and its mount")
    group = MEMORY / own.strip("/") / f"rdev-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(80 << 20))
    yield group
    for _ in range(100):
        with contextlib.suppress(OSError):  # the last one in it is about to go
            group.rmdir()
            return


@pytest.fixture
async def starved(tmp_path, small_memory):
    """Jobs whose keepers, supervisors and all are in the small group."""
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        async with asyncio.timeout(DEADLINE):
            while not (zygotes := children_named("rdev-zygote")):
                await asyncio.sleep(0.01)  # other processes set no event of ours
        (small_memory / "cgroup.procs").write_text(str(*zygotes))
        yield jobs


async def test_a_job_killed_for_want_of_memory_says_so(starved):
    ended = await starved.end(await starved.python(GREEDY))
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.OUT_OF_MEMORY)
    assert (ended.exit_code, ended.signal) == (137, signal.SIGKILL)
    assert 40 << 20 < ended.usage.peak_memory < 100 << 20
    assert ended.message.startswith("killed by the kernel for want of memory; its largest")


async def test_a_command_of_a_shell_killed_for_want_of_memory(starved):
    ended = await starved.run("sh", "-c", f"{sys.executable} -c '{GREEDY}'; exit $?")
    assert (ended.reason, ended.exit_code, ended.signal) == (Reason.OUT_OF_MEMORY, 137, 0)


async def test_a_job_that_copes_with_a_child_killed_for_want_of_memory(starved):
    source = f"{sys.executable} -c '{GREEDY}'; exit {{}}"
    assert (await starved.run("sh", "-c", source.format(0))).state is JobState.SUCCEEDED
    failed = await starved.run("sh", "-c", source.format(3))
    assert (failed.reason, failed.exit_code) == (Reason.EXITED, 3)
    assert failed.message.startswith("the kernel killed a process for want of memory meanwhile")


async def test_a_kill_by_somebody_else_is_no_want_of_memory(jobs):
    ended = await jobs.run("sh", "-c", "kill -9 $$")
    assert (ended.reason, ended.message) == (Reason.SIGNALED, "")
    assert read_exit(jobs.files(ended), attempt=1).oom_kills == 0


def children_named(name):
    found = [look_at(int(entry)) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [p.pid for p in found if p and (p.parent, p.name) == (os.getpid(), name)]
