"""What clients write into a job's input, with every process real."""

import asyncio
import contextlib
import hashlib
import os
import random
import signal

import pytest
from tests.support.disk import small_disk_in
from tests.support.jobs import await_gone, jobs_in, tidy
from tests.support.processes import kill
from tests.support.typist import Typist

from rdev.protocol.errors import DiskFull, InvalidRequest, JobConflict, JobNotFound
from rdev.wire.job import JobState, Reason

WRITER, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
COUNTS = (
    "import hashlib, sys\n"
    "data = sys.stdin.buffer.read()\n"
    "print(len(data), hashlib.sha256(data).hexdigest())\n"
)


def digest_of(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}\n".encode()


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_job_reads_what_is_written_and_then_the_end(jobs):
    data = random.Random(3).randbytes(1 << 20)
    job = await jobs.python(COUNTS, stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        for start in range(0, len(data), 100_000):
            await writer.write(data[start : start + 100_000])
        assert (writer.accepted, writer.has_ended) == (len(data), False)
        await writer.end()
        assert writer.has_ended
    assert (await jobs.end(job)).state is JobState.SUCCEEDED
    assert (await jobs.printed(job)).stdout == digest_of(data)


async def test_input_reaches_a_job_before_its_end_does(jobs):
    job = await jobs.start("cat", stdin=True)
    async with Typist(jobs, job) as typist:
        await typist.types(b"one\n")
        await typist.reads(b"one\n")
        await typist.types(b"two")
        await typist.reads(b"two")
        await typist.writer.end()
        assert (await jobs.end(job)).state is JobState.SUCCEEDED


async def test_an_input_that_ends_before_it_begins(jobs):
    job = await jobs.start("sh", "-c", "sleep 0.3; cat; echo over", stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        await writer.end()
    assert (await jobs.end(job)).exit_code == 0
    assert (await jobs.printed(job)).stdout == b"over\n"


async def test_the_end_wakes_a_job_that_waits_with_poll(jobs):
    # A FIFO opened while nobody writes never tells poll(2) of its end; ours must.
    source = (
        "import os, select\n"
        "poll = select.poll()\n"
        "poll.register(0, select.POLLIN)\n"
        "while True:\n"
        "    poll.poll()\n"
        "    if not os.read(0, 100): break\n"
        "print('over')\n"
    )
    job = await jobs.start("sh", "-c", f'sleep 0.3; exec python3 -c "{source}"', stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        await writer.write(b"some")
        await writer.end()
    assert (await jobs.end(job)).exit_code == 0
    assert (await jobs.printed(job)).stdout == b"over\n"


async def test_input_is_exact_whoever_is_killed(tmp_path):
    data, chance = random.Random(4).randbytes(5_000_000), random.Random(5)
    kills = agents = 0
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(COUNTS, stdin=True)
        accepted = 0
        while accepted < len(data):
            agents += 1
            async with jobs_in(folder) as jobs, jobs.manager.write_input(job.id, WRITER) as writer:
                assert writer.accepted >= accepted
                accepted = writer.accepted
                for _ in range(chance.randint(1, 6)):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(chance.uniform(0.001, 0.1)):
                            part = data[writer.accepted : writer.accepted + 100_000]
                            await writer.write(part)
                            await asyncio.sleep(0.02)
                    if chance.random() < 0.7 and (pid := jobs.supervisor(job)):
                        kill(pid)
                        kills += 1
        async with jobs_in(folder) as jobs:
            assert not (await jobs.manager.get(job.id)).state.is_final  # no early end of file
            kill(jobs.supervisor(job))
            async with jobs.manager.write_input(job.id, WRITER) as writer:
                await writer.end()
            kill(jobs.supervisor(job))
            assert (await jobs.end(job)).exit_code == 0
            assert (await jobs.printed(job)).stdout == digest_of(data)
    assert kills > 10
    assert agents > 5


async def test_what_is_written_while_nobody_is_there_arrives(tmp_path):
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(COUNTS, stdin=True)
            await jobs.reach(job, JobState.RUNNING)
            supervisor = jobs.supervisor(job)
            os.kill(supervisor, signal.SIGSTOP)
            async with jobs.manager.write_input(job.id, WRITER) as writer:
                for _ in range(500):
                    await writer.write(b"x" * 100)
                await writer.end()
            kill(supervisor)
        async with jobs_in(folder) as jobs:
            await jobs.end(job)
            assert (await jobs.printed(job)).stdout == digest_of(b"x" * 50_000)


async def test_a_job_that_never_reads_costs_no_time_and_ends_as_it_likes(jobs):
    source = "trap 'exit 4' USR1; echo begun; sleep 1; echo slept; sleep 60 & wait"
    job = await jobs.start("sh", "-c", source, stdin=True)
    async with Typist(jobs, job) as typist:
        await typist.reads(b"begun")
        for _ in range(16):
            await typist.types(bytes(256 << 10))
        spent = cpu_seconds(jobs.supervisor(job))
        await typist.reads(b"slept")
        assert cpu_seconds(jobs.supervisor(job)) - spent < 0.2
        await jobs.manager.signal(job.id, signal.SIGUSR1)
        assert (await jobs.end(job)).exit_code == 4
        assert typist.writer.has_ended
        await typist.types(b"too late")
        assert typist.writer.accepted == 16 * (256 << 10)


async def test_a_job_that_closes_its_input_goes_on(jobs):
    job = await jobs.start("sh", "-c", "exec 0<&-; sleep 0.5; echo done", stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        for _ in range(8):
            await writer.write(bytes(100_000))
        await writer.end()
    assert (await jobs.end(job)).state is JobState.SUCCEEDED
    assert (await jobs.printed(job)).stdout == b"done\n"


async def test_two_writers_each_in_its_own_order(jobs):
    job = await jobs.start("cat", stdin=True)

    async def write(writer_id, letter):
        async with jobs.manager.write_input(job.id, writer_id) as writer:
            for number in range(200):
                await writer.write(b"%s%d\n" % (letter, number))
            assert writer.accepted == sum(len(b"x%d\n" % n) for n in range(200))

    async with asyncio.TaskGroup() as group:
        group.create_task(write(WRITER, b"a"))
        group.create_task(write(OTHER, b"b"))
    async with jobs.manager.write_input(job.id, OTHER) as writer:
        await writer.end()
    await jobs.end(job)
    lines = (await jobs.printed(job)).stdout.splitlines()
    for letter in (b"a", b"b"):
        mine = [line for line in lines if line.startswith(letter)]
        assert mine == [b"%s%d" % (letter, number) for number in range(200)]
    assert len(lines) == 400


async def test_a_writer_that_opens_again_shuts_its_old_self_out(jobs):
    job = await jobs.start("cat", stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as old:
        await old.write(b"once ")
        async with jobs.manager.write_input(job.id, WRITER) as new:
            assert new.accepted == 5
            with pytest.raises(JobConflict, match="gone on in another connection"):
                await old.write(b"twice ")
            await new.write(b"and on")
            await new.end()
    await jobs.end(job)
    assert (await jobs.printed(job)).stdout == b"once and on"


async def test_a_write_that_is_broken_off_is_read_if_it_was_recorded(jobs):
    chance = random.Random(8)
    job = await jobs.start("cat", stdin=True)
    async with Typist(jobs, job) as typist:
        for number in range(60):
            before = typist.writer.accepted
            task = asyncio.ensure_future(typist.types(b"<%d>" % number))
            await asyncio.sleep(chance.choice([0, 0, 0.0002, 0.0005]))
            task.cancel()
            await asyncio.wait([task])
            if typist.writer.accepted > before:  # nobody says so again, and it arrives
                await typist.reads(b"<%d>" % number)
        assert len(typist.seen) == typist.writer.accepted > 0


async def test_who_may_not_write(jobs):
    job = await jobs.start("sleep", "60")
    with pytest.raises(JobConflict, match="takes no input") as refused:
        async with jobs.manager.write_input(job.id, WRITER):
            pass
    assert "-i" in refused.value.hint
    with pytest.raises(JobNotFound):
        jobs.manager.write_input("0" * 12, WRITER)
    other = await jobs.start("cat", stdin=True)
    for wrong in ("", "x" * 32, WRITER.upper(), WRITER + "00"):
        with pytest.raises(InvalidRequest, match="writer id"):
            async with jobs.manager.write_input(other.id, wrong):
                pass


async def test_the_input_of_an_ended_job_has_ended(jobs):
    job = await jobs.start("head", "-c", "4", stdin=True)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        await writer.write(b"more than four")
        await jobs.end(job)
        assert writer.has_ended
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        assert (writer.accepted, writer.has_ended) == (14, True)
        await writer.write(b"nothing of this")
        await writer.end()
        assert writer.accepted == 14
    async with jobs.manager.write_input(job.id, OTHER) as writer:
        assert (writer.accepted, writer.has_ended) == (0, True)
    # What was typed may be a secret; nobody needs it any more.
    assert not os.path.exists(jobs.files(job).input)


async def test_a_stop_ends_a_job_that_waits_for_input(jobs):
    job = await jobs.start("cat", stdin=True)
    await jobs.reach(job, JobState.RUNNING)
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)


async def test_a_killed_keeper_takes_no_input_with_it(jobs):
    job = await jobs.start("cat", stdin=True)
    async with Typist(jobs, job) as typist:
        await typist.types(b"before ")
        await typist.reads(b"before ")
        keeper = jobs.keeper(job)
        kill(keeper)
        await asyncio.to_thread(await_gone, keeper)
        await typist.types(b"after ")
        await typist.reads(b"after ")
        await typist.writer.end()
    assert (await jobs.end(job)).state is JobState.LOST


async def test_the_next_attempt_goes_on_where_the_one_before_left_off(jobs):
    source = "read line; echo got $line; test $line = second"
    job = await jobs.start("sh", "-c", source, stdin=True, retries=2)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        await writer.write(b"first\nsecond\n")
        await writer.end()
    ended = await jobs.end(job)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert (await jobs.printed(job)).stdout == b"got first\ngot second\n"


async def test_an_attempt_that_comes_after_the_end_of_the_input(jobs):
    job = await jobs.start("sh", "-c", "cat; test $RDEV_ATTEMPT = 2", stdin=True, retries=1)
    async with jobs.manager.write_input(job.id, WRITER) as writer:
        await writer.write(b"once\n")
        await writer.end()
    assert (await jobs.end(job)).state is JobState.SUCCEEDED
    assert (await jobs.printed(job)).stdout == b"once\n"


@pytest.fixture
def small_disk(tmp_path):
    with small_disk_in(tmp_path) as disk:
        yield disk


async def test_a_full_disk_takes_all_of_a_write_or_nothing(small_disk):
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        job = await jobs.python(COUNTS, stdin=True)
        ballast = small_disk / "ballast"
        async with jobs.manager.write_input(job.id, WRITER) as writer:
            await writer.write(b"before ")
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            with pytest.raises(DiskFull):
                await writer.write(bytes(100_000))
            assert (writer.accepted, writer.has_ended) == (7, False)
            ballast.unlink()
            await writer.write(b"after")
            await writer.end()
        await jobs.end(job)
        assert (await jobs.printed(job)).stdout == digest_of(b"before after")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
