"""Jobs that claim GPUs: the real pynvml asks a stand-in for the driver's library."""

import asyncio
import contextlib
import ctypes
import getpass
import os
import secrets
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.gpus import Machine, library, login
from tests.support.jobs import DEADLINE, Jobs, await_gone, jobs_in, tidy

from rdev.agent.jobs import queue
from rdev.agent.jobs.store import JobStore
from rdev.protocol.errors import InvalidRequest, JobNotRunning
from rdev.wire.blocks import read_file, write_block, write_file
from rdev.wire.files import read_status
from rdev.wire.home import boot_id
from rdev.wire.job import ONE_PER_GPU, CommandKind, Gpu, GpuRequest, JobSpec, JobState, Reason

SHOW = 'echo "$CUDA_VISIBLE_DEVICES"'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    ctypes.CDLL(str(library()))  # found by its name from now on
    made = Machine(tmp_path / "gpus", count=2)
    os.environ["STANDIN_GPUS"] = str(made.path)  # the library's own getenv sees putenv only
    monkeypatch.setattr(queue, "_LOOK", 0.05)
    yield made
    del os.environ["STANDIN_GPUS"]


@pytest.fixture
async def jobs(tmp_path, machine):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, environment=login()) as jobs:
        yield jobs


async def claim(jobs: Jobs, *argv: str, **spec):
    gpus = GpuRequest(**{"count": 0} | {k: spec.pop(k) for k in ("count", "devices") if k in spec})
    return await jobs.start(*(argv or ("sleep", "600")), gpus=gpus, **spec)


async def end(jobs: Jobs, job):
    await jobs.manager.stop(job.id, now=True)
    return await jobs.end(job)


async def message(jobs: Jobs, job, part: str):
    async for seen in jobs.manager.watch(job.id):
        if part in seen.message:
            return seen
    raise AssertionError(f"{job.name} never said {part!r}")


async def test_a_job_sees_the_gpus_that_it_claimed_and_no_others(jobs, machine):
    job = await jobs.end(await claim(jobs, "sh", "-c", SHOW, devices=("1",)))
    assert (await jobs.printed(job)).stdout.decode() == f"{machine.uuid(1)}\n"
    assert [(gpu.index, gpu.uuid, gpu.name) for gpu in job.gpus] == [
        (1, machine.uuid(1), "Test GPU 1")
    ]
    both = await jobs.end(await claim(jobs, "sh", "-c", SHOW, count=2))
    assert (await jobs.printed(both)).stdout.decode() == f"{machine.uuid(0)},{machine.uuid(1)}\n"


async def test_a_job_waits_for_a_gpu_that_somebody_computes_on_and_says_who(jobs, machine):
    machine.hold((0, os.getpid()))
    job = await claim(jobs, "sh", "-c", SHOW, count=2)
    assert (job.state, job.pid) == (JobState.PENDING, 0)
    name = Path("/proc/self/comm").read_text().strip()
    held = f"GPU 0 is held by {name} (pid {os.getpid()}, user {getpass.getuser()})"
    assert job.message == f"waits for 2 GPUs: {held}"
    with pytest.raises(JobNotRunning, match="it has not begun"):
        await jobs.manager.signal(job.id, signal.SIGUSR1)
    machine.hold()
    ended = await jobs.end(job)
    assert (ended.state, ended.message, len(ended.gpus)) == (JobState.SUCCEEDED, "", 2)


async def test_two_jobs_have_two_gpus_and_the_third_waits_for_the_first_to_end(jobs):
    one, two = await claim(jobs, name="one", count=1), await claim(jobs, name="two", count=1)
    third = await claim(jobs, "sh", "-c", SHOW, name="third", count=1)
    assert {job.gpus[0].index for job in (one, two)} == {0, 1}
    assert third.state is JobState.PENDING
    assert "GPU 0 is held by the job one, GPU 1 is held by the job two" in third.message
    await end(jobs, two)
    assert [gpu.index for gpu in (await jobs.end(third)).gpus] == [1]


async def test_a_later_job_takes_nothing_that_an_earlier_one_waits_for(jobs, machine):
    machine.hold((1, os.getpid()))
    first = await claim(jobs, "true", name="first", count=2)
    second = await claim(jobs, "true", name="second", count=1)
    assert "GPU 0 is wanted by the job first, which came first" in second.message
    machine.hold()
    one, two = await jobs.end(first), await jobs.end(second)
    assert (one.state, two.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert one.ended <= two.started


async def test_a_job_that_waits_is_cancelled_at_once(jobs, machine):
    machine.hold((0, os.getpid()))
    job = await claim(jobs, devices=("0",))
    there = set(os.listdir(jobs.files(job).directory))
    stopped = await jobs.manager.stop(job.id)
    assert (stopped.state, stopped.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert set(os.listdir(jobs.files(job).directory)) == there  # no space was needed
    assert (await jobs.end(job)).started == 0
    assert (await jobs.manager.stop(job.id)).state is JobState.CANCELLED
    await jobs.manager.delete(job.id)


async def test_a_job_whose_claim_cannot_be_completed_is_stopped_for_good(jobs, tmp_path):
    held = await claim(jobs, devices=("0",))
    job = await claim(jobs, devices=("0",))
    files = jobs.files(job)
    launch, aside = Path(files.launch), tmp_path / "aside"
    launch.rename(aside)  # as on a full disk: it cannot be told which GPUs it has
    await end(jobs, held)
    async with asyncio.timeout(DEADLINE):
        async for seen in jobs.manager.watch(job.id):
            if seen.gpus:
                break
    async with asyncio.timeout(DEADLINE):
        stopped = await jobs.manager.stop(job.id)
    assert (stopped.state, stopped.reason, stopped.gpus) == (
        JobState.CANCELLED,
        Reason.STOPPED,
        (),
    )
    aside.rename(launch)
    other = await jobs.end(await claim(jobs, "true", devices=("0",)))
    assert other.state is JobState.SUCCEEDED
    assert read_status(files).state is JobState.CANCELLED
    assert not jobs.keeper(job)


async def test_a_job_that_has_a_keeper_is_not_ended_behind_its_back(tmp_path, machine):
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, environment=login()) as jobs:
            job = await claim(jobs, devices=("1",))
            await jobs.reach(job, JobState.RUNNING)
        store = JobStore(str(folder))
        running = read_status(store.files(job.id))
        assert not store.end_unstarted(job.id, replace(running, state=JobState.CANCELLED))
        assert read_status(store.files(job.id)).state is JobState.RUNNING


@contextlib.asynccontextmanager
async def hanging(machine):
    """The driver does not answer; begins once somebody has asked it."""
    machine.path.unlink()
    os.mkfifo(machine.path)
    writer = await asyncio.to_thread(os.open, machine.path, os.O_WRONLY)
    try:
        yield
    finally:
        machine.hold()
        os.close(writer)


async def test_a_driver_that_hangs_keeps_no_job_from_being_stopped(jobs, machine):
    machine.hold((0, os.getpid()))
    job = await claim(jobs, devices=("0",))
    async with hanging(machine), asyncio.timeout(queue._PATIENCE / 2):
        assert (await jobs.manager.stop(job.id)).state is JobState.CANCELLED


async def test_a_claimed_job_that_has_begun_is_stopped_though_keeper_and_driver_are_mute(
    tmp_path, machine
):
    machine.hold((0, os.getpid()))
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, environment=login()) as jobs:
            waits = await claim(jobs, devices=("0",))
            has = await claim(jobs, devices=("1",))
            running = await jobs.reach(has, JobState.RUNNING)
            files, keeper, supervisor = jobs.files(has), jobs.keeper(has), jobs.supervisor(has)
        # As all of them leave it that are killed before the supervisor's first word.
        for pid in (keeper, supervisor):
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(await_gone, pid)
        begun = replace(read_status(files), state=JobState.PENDING, pid=0, started=0.0)
        write_block(files.state, begun.to_json())
        machine.path.unlink()
        os.mkfifo(machine.path)
        writer = os.open(machine.path, os.O_RDWR)  # who asks the driver now waits for ever
        async with jobs_in(folder, environment=login()) as jobs:
            async with asyncio.timeout(queue._PATIENCE / 2):
                await jobs.manager.stop(has.id, now=True)
                assert (await jobs.end(has)).state is JobState.LOST
                await asyncio.to_thread(await_gone, running.pid)
                await jobs.manager.stop(waits.id)
            machine.hold()
            os.close(writer)


async def test_a_driver_that_hangs_is_said_and_asked_again(jobs, machine, monkeypatch):
    monkeypatch.setattr(queue, "_PATIENCE", 0.1)
    machine.hold((0, os.getpid()))
    job = await claim(jobs, "true", devices=("0",))
    async with hanging(machine):
        await message(jobs, job, "waits for GPUs: the NVIDIA driver does not answer")
    assert (await jobs.end(job)).state is JobState.SUCCEEDED


async def test_an_agent_that_comes_back_goes_on_with_who_waits_and_who_has(tmp_path, machine):
    count = "echo once >> $0; " + SHOW
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, environment=login()) as jobs:
            has = await claim(jobs, name="has", devices=("0",))
            waits = await claim(
                jobs, "sh", "-c", count, str(tmp_path / "ran"), name="waits", devices=("0",)
            )
            assert waits.state is JobState.PENDING
        async with jobs_in(folder, environment=login()) as jobs:
            assert (await message(jobs, waits, "held by the job has")).state is JobState.PENDING
            await end(jobs, has)
            assert (await jobs.end(waits)).gpus == has.gpus
    assert (tmp_path / "ran").read_text() == "once\n"


async def test_a_job_that_waits_outlives_a_reboot(tmp_path, machine):
    machine.hold((0, os.getpid()))
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, environment=login()) as jobs:
            job = await claim(jobs, "true", devices=("0",))
            files = jobs.files(job)
        spec = read_file(files.spec)
        write_file(files.spec, {**spec, "boot_id": "another boot"})
        machine.hold()
        async with jobs_in(folder, environment=login()) as jobs:
            assert (await jobs.end(job)).state is JobState.SUCCEEDED
            assert jobs.manager.record(job.id).accepted.boot_id == boot_id()
        assert read_file(files.spec)["boot_id"] == boot_id()


async def test_a_claim_whose_agent_died_before_the_start_is_kept(tmp_path, machine):
    machine.hold((1, os.getpid()))
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, environment=login()) as jobs:
            job = await claim(jobs, "sh", "-c", SHOW, devices=("1",))
            files = jobs.files(job)
        # As an agent leaves it that is killed just after the claim.
        status = read_status(files)
        gpu = Gpu(1, machine.uuid(1), "Test GPU 1")
        claimed = replace(status, gpus=(gpu,), revision=status.revision + 1)
        write_block(files.state, claimed.to_json())
        async with jobs_in(folder, environment=login()) as jobs:
            ended = await jobs.end(job)
            assert (ended.state, ended.gpus) == (JobState.SUCCEEDED, (gpu,))
            assert (await jobs.printed(job)).stdout.decode() == f"{machine.uuid(1)}\n"


async def test_an_inherited_restriction_holds(tmp_path, machine):
    environment = login(CUDA_VISIBLE_DEVICES="1")
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, environment=environment) as jobs:
        with pytest.raises(InvalidRequest, match="of the login allows 1 of 2"):
            await claim(jobs, count=2)
        job = await jobs.end(await claim(jobs, "true", count=1))
        assert [gpu.index for gpu in job.gpus] == [1]


async def test_a_process_for_each_gpu_is_known_before_the_job_starts(jobs, machine):
    machine.hold((0, os.getpid()))
    wanted = JobSpec(CommandKind.PROGRAM, "true", processes=ONE_PER_GPU)
    job = await jobs.manager.create(secrets.token_hex(8), wanted)
    assert (job.state, job.ranks) == (JobState.PENDING, 2)
    assert {stream.rank for stream in job.streams} == {0, 1}
    await jobs.manager.stop(job.id)


async def test_without_a_driver_a_job_that_wants_gpus_is_refused(jobs, machine):
    machine.path.unlink()
    with pytest.raises(InvalidRequest) as caught:
        await claim(jobs, count=1)
    assert caught.value.message == "unable to give the job GPUs: the machine has no NVIDIA driver"
    assert await jobs.manager.list(ended=True) == []
