"""Keepers and supervisors whose system calls fail for a while: no job is lost by that."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest
from tests.support.jobs import DEADLINE, children_named, jobs_in, tidy
from tests.support.limits import limited, unable_to_fork
from tests.support.processes import until

from rdev.supervisor.processes import all_processes
from rdev.wire.files import read_exit, read_started, read_status
from rdev.wire.job import JobState, Reason

# The second slot of the started marker and of the exit status begins here, and a new block's first
# record goes there; complaints are shorter.
SECOND_SMALL_SLOT = 2 << 10

# Of the status so; see rdev.wire.files.
SECOND_STATE_SLOT = 64 << 10


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def waiting(jobs, tmp_path, *, then="exit 7"):
    """A job that runs until the test says go."""
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await jobs.start("sh", "-c", f"echo up; read word < {go}; {then}")
    await jobs.first_bytes(job)
    await jobs.reach(job, JobState.RUNNING)
    return job, lambda: go.write_bytes(b"go\n")


async def complained(files, word, *, times=1, unless=lambda: False):
    """Returns once a keeper or a supervisor has complained of that."""
    async with asyncio.timeout(DEADLINE):
        while Path(files.complaints).read_text(encoding="utf-8").count(word) < times:
            assert not unless(), f"nobody complained of {word}"
            await asyncio.sleep(0.01)  # other processes set no event of ours


async def test_a_keeper_that_cannot_fork_a_supervisor_tries_again(jobs, tmp_path):
    job, go = await waiting(jobs, tmp_path)
    keeper, files = jobs.keeper(job), jobs.files(job)
    with unable_to_fork(keeper):
        os.kill(jobs.supervisor(job), signal.SIGKILL)
        await complained(files, "BlockingIOError", times=2, unless=lambda: not jobs.keeper(job))
        await asyncio.to_thread(go)
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 7)


async def test_a_keeper_without_descriptors_records_the_end_once_it_has_some(jobs, tmp_path):
    job, go = await waiting(jobs, tmp_path)
    keeper, files = jobs.keeper(job), jobs.files(job)
    with limited(keeper, resource.RLIMIT_NOFILE, 3):
        await asyncio.to_thread(go)
        await complained(files, "Too many open files", unless=lambda: not jobs.keeper(job))
        assert read_exit(files, attempt=1) is None
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 7)


async def test_an_exit_status_that_cannot_be_written_is_written_later(jobs, tmp_path):
    job, go = await waiting(jobs, tmp_path)
    keeper, files = jobs.keeper(job), jobs.files(job)
    with limited(keeper, resource.RLIMIT_FSIZE, SECOND_SMALL_SLOT):
        await asyncio.to_thread(go)
        await complained(files, "File too large", unless=lambda: not jobs.keeper(job))
        assert read_exit(files, attempt=1) is None
        assert not read_status(files).state.is_final
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 7)


async def test_a_command_is_executed_once_its_marker_can_be_written_and_not_before(jobs, tmp_path):
    await until(lambda: children_named("rdev-zygote"))
    (zygote,) = children_named("rdev-zygote")
    mark = tmp_path / "mark"
    with limited(zygote, resource.RLIMIT_FSIZE, SECOND_SMALL_SLOT):
        job = await jobs.start("sh", "-c", f"echo x >> {mark}; exit 7")
        keeper, files = jobs.keeper(job), jobs.files(job)
        await complained(
            files, "File too large", times=2, unless=lambda: jobs.keeper(job) != keeper
        )
    assert not mark.exists()
    assert read_started(files, attempt=1) is None
    for pid in (keeper, *children_of(keeper)):  # it has its limits from the zygote, the job its
        resource.prlimit(pid, resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code, mark.read_text()) == (JobState.FAILED, 7, "x\n")


async def test_a_status_that_cannot_be_written_is_told_and_the_last_one_waits(jobs, tmp_path):
    job, _ = await waiting(jobs, tmp_path)
    supervisor, files = jobs.supervisor(job), jobs.files(job)
    if records_of(files.state) % 2 == 1:  # the next record goes where it may be written: make one
        await jobs.manager.signal(job.id, signal.SIGCONT)
    with limited(supervisor, resource.RLIMIT_FSIZE, SECOND_STATE_SLOT):
        await jobs.manager.signal(job.id, signal.SIGTERM)
        await complained(
            files, "File too large", times=3, unless=lambda: jobs.supervisor(job) != supervisor
        )
        on_disk = read_status(files)
        assert not on_disk.state.is_final
        assert signal.SIGTERM not in on_disk.signals
        assert not jobs.manager.record(job.id).status.state.is_final
    ended = await jobs.end(job)
    # It was remembered that somebody had asked for the signal.
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert read_status(files).state is JobState.CANCELLED


def children_of(pid):
    return [process.pid for process in all_processes() if process.parent == pid]


def records_of(path):
    """How many records were written into a block: the number of the newest."""
    content = Path(path).read_bytes()
    numbers = (part.partition(b'"sequence": ')[2].partition(b",")[0] for part in halves(content))
    return max(int(number or 0) for number in numbers)


def halves(content):
    half = len(content) // 2
    return content[:half], content[half:]
