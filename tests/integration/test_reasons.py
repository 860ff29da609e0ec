"""Why a job ended, where the kernel or the disk had a hand in it."""

import asyncio
import contextlib
import errno
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from tests.support.disk import small_disk_in
from tests.support.jobs import children_named, jobs_in, tidy
from tests.support.processes import until

from rdev.wire.files import output_size, read_exit
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
        await until(lambda: children_named("rdev-zygote"))
        (small_memory / "cgroup.procs").write_text(str(*children_named("rdev-zygote")))
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


@pytest.mark.slow
async def test_a_rank_killed_for_want_of_memory(starved, small_memory):
    # Enough for torchrun, and not for what a rank takes beside it.
    (small_memory / "memory.limit_in_bytes").write_text(str(600 << 20))
    greedy = GREEDY.replace("400", "700").replace("\n", "\n    ")
    source = f"import os, time\nif os.environ['RANK'] == '1':\n    {greedy}\ntime.sleep(600)\n"
    ended = await starved.end(await starved.start(sys.executable, "-c", source, processes=2))
    assert (ended.reason, ended.exit_code) == (Reason.OUT_OF_MEMORY, 1)
    assert ended.usage.peak_memory > 200 << 20


@pytest.mark.slow
async def test_a_rank_that_fails_by_itself_while_the_kernel_kills_another_process(
    starved, small_memory
):
    (small_memory / "memory.limit_in_bytes").write_text(str(600 << 20))
    # It copes with the death of its child, and fails for a reason of its own.
    child = GREEDY.replace("400", "700")
    source = (
        "import os, subprocess, sys, time\n"
        "if os.environ['RANK'] == '1':\n"
        f"    assert subprocess.run([sys.executable, '-c', {child!r}]).returncode == -9\n"
        "    sys.exit(3)\n"
        "time.sleep(600)\n"
    )
    ended = await starved.end(await starved.start(sys.executable, "-c", source, processes=2))
    assert (ended.reason, ended.exit_code) == (Reason.EXITED, 1)
    assert ended.message.startswith("the kernel killed a process for want of memory meanwhile")


async def test_a_kill_by_somebody_else_is_no_want_of_memory(jobs):
    ended = await jobs.run("sh", "-c", "kill -9 $$")
    assert (ended.reason, ended.message) == (Reason.SIGNALED, "")
    assert read_exit(jobs.files(ended), attempt=1).oom_kills == 0


@pytest.fixture
def small_disk(tmp_path):
    with small_disk_in(tmp_path, mebibytes=16) as disk:
        yield disk


FLOOD = "import os\nfor _ in range({count}): os.write(1, b'x' * 99_999 + b'\\n')\n"


def lost_of(printed):
    return [piece for piece in printed.lost if piece.stream == "stdout"]


async def test_40_mb_on_a_disk_of_16_mib_cost_the_job_nothing_and_every_byte_is_counted(small_disk):
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        ended = await jobs.end(await jobs.python(FLOOD.format(count=400)))
        printed = await jobs.printed(ended)
        recorded = read_exit(jobs.files(ended), attempt=1)
    assert (ended.state, ended.exit_code, recorded.status) == (JobState.SUCCEEDED, 0, 0)
    assert 1 << 20 < len(printed.stdout) < 16 << 20
    assert len(printed.stdout) + sum(piece.length for piece in lost_of(printed)) == 40_000_000
    assert {piece.reason for piece in lost_of(printed)} == {os.strerror(errno.ENOSPC).lower()}


async def test_a_supervisor_killed_while_it_drops_counts_one_pipe_too_many_at_most(small_disk):
    source = (
        "import os, time\n"
        "for _ in range(4000):\n"
        "    os.write(1, b'x' * 10_000)\n"
        "    time.sleep(0.0002)\n"
    )
    chance, kills = random.Random(4), 0
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        job = await jobs.python(source)
        await until_full(jobs, job, small_disk)
        while not jobs.manager.record(job.id).status.state.is_final:
            if kills < 20 and (pid := jobs.supervisor(job)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            await asyncio.sleep(chance.uniform(0.0, 0.02))
        ended = await jobs.end(job)
        printed = await jobs.printed(ended)
    assert (ended.state, ended.exit_code) == (JobState.SUCCEEDED, 0)
    assert kills >= 5
    counted = len(printed.stdout) + sum(piece.length for piece in lost_of(printed))
    assert 40_000_000 <= counted <= 40_000_000 + kills * (64 << 10)


async def test_a_job_that_asked_for_it_is_stopped_when_its_output_cannot_be_kept(small_disk):
    source = FLOOD.format(count=400) + "import time\ntime.sleep(600)\n"
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        ended = await jobs.end(await jobs.python(source, log_full=LogFull.STOP, retries=1))
        printed = await jobs.printed(ended)
        (stream, *_) = ended.streams
    assert (ended.state, ended.reason, ended.attempt) == (JobState.FAILED, Reason.QUOTA, 1)
    assert ended.message == "its output could not be kept: no space left on device"
    assert len(printed.stdout) + sum(piece.length for piece in lost_of(printed)) == stream.size


async def until_full(jobs, job, disk):
    """Returns once the job stands still because there is no room."""
    log = jobs.files(job), 0, "stdout"
    await until(lambda: not os.statvfs(disk).f_bavail and output_size(*log) >= 1 << 20)


async def test_a_job_that_asked_for_it_waits_until_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        ballast.write_bytes(bytes(8 << 20))
        job = await jobs.python(FLOOD.format(count=100), log_full=LogFull.BLOCK)
        await until_full(jobs, job, small_disk)
        no_room = "waits for room for its output: no space left on device"
        await until(lambda: jobs.manager.record(job.id).status.message == no_room)
        supervisor = jobs.supervisor(job)
        os.kill(supervisor, signal.SIGKILL)  # what waits in the pipe outlives it
        await until(lambda: jobs.supervisor(job) not in (0, supervisor))
        before = cpu_of(jobs.supervisor(job))
        await asyncio.sleep(1.5)
        assert cpu_of(jobs.supervisor(job)) - before < 20
        assert not jobs.manager.record(job.id).status.state.is_final
        ballast.unlink()
        ended = await jobs.end(job)
        printed = await jobs.printed(ended)
    assert (ended.state, ended.message, printed.lost) == (JobState.SUCCEEDED, "", [])
    assert printed.stdout == (b"x" * 99_999 + b"\n") * 100


async def test_a_stop_does_not_wait_for_room(small_disk):
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        job = await jobs.python(FLOOD.format(count=400), log_full=LogFull.BLOCK)
        await until_full(jobs, job, small_disk)
        await jobs.manager.stop(job.id)
        ended = await jobs.end(job)
        printed = await jobs.printed(ended)
    assert ended.state is JobState.CANCELLED
    assert len(printed.stdout) + sum(p.length for p in lost_of(printed)) == ended.streams[0].size


def cpu_of(pid):
    """Processor time of a process, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
