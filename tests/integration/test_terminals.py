"""Jobs in terminals, with every process real."""

import asyncio
import contextlib
import os
import random
import time

import pytest
from tests.support.jobs import await_gone, jobs_in, tidy
from tests.support.processes import kill, until
from tests.support.typist import Typist

from rdev.protocol.errors import JobConflict, JobNotRunning
from rdev.supervisor.processes import look_at
from rdev.wire.job import JobState, Reason, Window

RAW = "import os, sys, tty\ntty.setraw(0)\nos.write(1, b'ready')\n"
SHELL = ("bash", "--norc", "--noprofile", "-i")


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


@contextlib.asynccontextmanager
async def shell(jobs, **options):
    options = {"terminal": Window(), "environment": {"PS1": "$ "}} | options
    job = await jobs.start(*SHELL, **options)
    async with Typist(jobs, job) as typist:
        await typist.reads(b"$ ")
        await jobs.reach(job, JobState.RUNNING)
        yield job, typist


async def test_a_job_in_a_terminal(tmp_path):
    login = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    source = "tty; stty size; echo $TERM; echo no >&2"
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, environment=login) as jobs:
        job = await jobs.run("sh", "-c", source, terminal=Window(11, 22))
        lines = (await jobs.printed(job)).stdout.decode().splitlines()
    assert lines[0].startswith("/dev/")
    assert lines[1:] == ["11 22", "xterm-256color", "no"]
    assert [stream.name for stream in job.streams] == ["stdout"]


async def test_the_exit_code_and_the_last_words_of_a_job_in_a_terminal(jobs):
    source = "import sys\nfor i in range(20_000): print('line', i)\nsys.exit(9)"
    job = await jobs.python(source, terminal=Window())
    assert (await jobs.end(job)).exit_code == 9
    expected = b"".join(b"line %d\r\n" % i for i in range(20_000))
    assert (await jobs.printed(job)).stdout == expected


async def test_a_shell_is_typed_into(jobs):
    async with shell(jobs) as (job, typist):
        await typist.types(b"echo $((6 * 7))\r")
        await typist.reads(b"42\r\n")
        await typist.types(b"exit 3\r")
        ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 3)


async def test_a_shell_has_job_control(jobs):
    async with shell(jobs) as (job, typist):
        await typist.types(b"sleep 600\r")
        await until(lambda: foreground(jobs, job) == b"sleep")
        await typist.types(b"\x1a")  # Ctrl-Z
        await typist.reads(b"Stopped")
        await typist.types(b"fg\r")
        await until(lambda: foreground(jobs, job) == b"sleep")
        await typist.types(b"\x03")  # Ctrl-C
        await until(lambda: foreground(jobs, job) == b"bash")
        await typist.types(b"echo $?\r")
        await typist.reads(b"130\r\n")
    assert b"job control" not in typist.seen


async def test_the_end_of_input_that_a_keyboard_can_give(jobs):
    async with shell(jobs) as (job, typist):
        await typist.writer.end()  # a terminal has none
        assert not typist.writer.has_ended
        await typist.types(b"cat\r")
        await until(lambda: foreground(jobs, job) == b"cat")
        await typist.types(b"more\r\x04")  # Ctrl-D
        await typist.reads(b"more\r\nmore\r\n")
        await typist.reads(b"$ ")
        await typist.types(b"\x04")
        assert (await jobs.end(job)).state is JobState.SUCCEEDED


async def test_programs_see_the_size_change(jobs):
    source = (
        "import os, signal\n"
        "def tell(*_): print('size', *os.get_terminal_size(0), flush=True)\n"
        "signal.signal(signal.SIGWINCH, tell)\n"
        "tell()\n"
        "while True: signal.pause()\n"
    )
    job = await jobs.python(source, terminal=Window(24, 80))
    async with Typist(jobs, job) as typist:
        await typist.reads(b"size 80 24\r\n")
        await jobs.manager.resize(job.id, Window(50, 200))
        await typist.reads(b"size 200 50\r\n")
        await jobs.manager.resize(job.id, Window(50, 200))  # a second look: it redraws
        await typist.reads(b"size 200 50\r\n")
        kill(jobs.supervisor(job))
        await jobs.manager.resize(job.id, Window(1, 1 << 20))
        await typist.reads(b"size 65535 1\r\n")
        await jobs.manager.stop(job.id)
        await jobs.end(job)
    with pytest.raises(JobNotRunning):
        await jobs.manager.resize(job.id, Window())


async def test_what_has_no_terminal_has_no_size(jobs):
    job = await jobs.start("cat", stdin=True)
    with pytest.raises(JobConflict, match="it has none"):
        await jobs.manager.resize(job.id, Window())


async def test_a_stop_ends_a_shell_that_ignores_term(jobs):
    async with shell(jobs, grace=30.0) as (job, typist):
        await typist.types(b"sleep 600 &\rsleep 601\r")
        await until(lambda: foreground(jobs, job) == b"sleep")
        begun = time.monotonic()
        await jobs.manager.stop(job.id)
        ended = await jobs.end(job)
    assert time.monotonic() - begun < 10
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)


async def test_what_a_shell_leaves_in_the_background_does_not_delay_its_end(jobs):
    async with shell(jobs) as (job, typist):
        # In a session of its own, with the terminal open and chattering: it stays until that goes.
        await typist.types(b"setsid sh -c 'while echo tick $$; do sleep 0.001; done' &\r")
        await typist.reads(b"\r\ntick ")
        daemon = int(await typist.reads(b"\r\n"))
        await typist.types(b"exit\r")
        begun = time.monotonic()
        assert (await jobs.end(job)).exit_code == 0
        assert time.monotonic() - begun < 10
    await asyncio.to_thread(await_gone, daemon)


async def test_bytes_through_a_raw_terminal_are_exact_whoever_is_killed(tmp_path):
    data, chance = random.Random(6).randbytes(400_000), random.Random(7)
    source = (
        RAW + "left = 400_000\n"
        "while left:\n"
        "    part = os.read(0, 4096)\n"
        "    left -= len(part)\n"
        "    while part: part = part[os.write(1, part):]\n"
    )
    accepted = kills = 0
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(source, terminal=Window())
            async with Typist(jobs, job) as typist:
                await typist.reads(b"ready")
        while accepted < len(data):
            async with (
                jobs_in(folder) as jobs,
                jobs.manager.write_input(job.id, "0" * 32) as writer,
            ):
                for _ in range(chance.randint(1, 8)):
                    size = chance.randint(1, 20_000)
                    await writer.write(data[writer.accepted : writer.accepted + size])
                    await asyncio.sleep(chance.uniform(0, 0.03))
                    if chance.random() < 0.6 and (pid := jobs.supervisor(job)):
                        kill(pid)
                        kills += 1
                accepted = writer.accepted
        async with jobs_in(folder) as jobs:
            assert (await jobs.end(job)).exit_code == 0
            printed = await jobs.printed(job)
    assert printed.stdout == b"ready" + data
    assert kills > 10


async def test_a_flood_in_a_terminal_is_exact_whoever_is_killed(jobs):
    source = RAW + "for i in range(300_000): os.write(1, b'%d\\n' % i)\n"
    job = await jobs.python(source, terminal=Window())
    follower, kills = asyncio.ensure_future(jobs.printed(job)), 0
    while not jobs.manager.record(job.id).status.state.is_final and kills < 15:
        if pid := jobs.supervisor(job):
            kill(pid)
            kills += 1
        await asyncio.sleep(0.05)
    assert (await follower).stdout == b"ready" + b"".join(b"%d\n" % i for i in range(300_000))
    assert kills > 5


async def test_a_terminal_outlives_its_supervisors(jobs):
    async with shell(jobs) as (job, typist):
        await typist.types(b"trap 'echo hung up' HUP; echo ${#PS1} set\r")
        await typist.reads(b"2 set\r\n")
        for _ in range(5):
            before = jobs.supervisor(job)
            kill(before)
            await until(lambda before=before: jobs.supervisor(job) not in (0, before))
        await typist.types(b"echo still $((40 + 2))\r")
        await typist.reads(b"still 42\r\n")
    assert b"\nhung up" not in typist.seen


async def test_input_that_came_before_the_job_reads_is_kept(jobs):
    job = await jobs.start("sh", "-c", "sleep 0.5; read line; echo got $line", terminal=Window())
    async with jobs.manager.write_input(job.id, "0" * 32) as writer:
        await writer.write(b"early\r")
    await jobs.end(job)
    assert b"got early\r\n" in (await jobs.printed(job)).stdout


async def test_the_next_attempt_finds_the_terminal_as_new(jobs):
    source = "stty -a | grep -o '.icanon'; stty size; stty raw; test $RDEV_ATTEMPT = 2"
    job = await jobs.run("sh", "-c", source, terminal=Window(7, 8), retries=1)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert (await jobs.printed(job)).stdout == b" icanon\r\n7 8\r\n" * 2


def foreground(jobs, job):
    """The name of the program that has the terminal."""
    with open(f"/proc/{jobs.manager.record(job.id).status.pid}/stat", "rb") as file:
        group = int(file.read().rpartition(b")")[2].split()[5])
    found = look_at(group)
    return found.name.encode() if found else b""
