"""Jobs from their start to their end, with every process real."""

import asyncio
import os
import signal

import pytest
from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.wire.files import read_exit
from rdev.wire.job import JobState, Reason


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_job_that_succeeds(jobs):
    job = await jobs.run("true")
    assert (job.state, job.reason, job.exit_code) == (JobState.SUCCEEDED, Reason.EXITED, 0)
    assert 0 < job.created <= job.started <= job.ended
    assert job.pid > 0


async def test_a_job_that_fails_keeps_its_exit_code(jobs):
    job = await jobs.run("sh", "-c", "exit 7")
    assert (job.state, job.reason, job.exit_code) == (JobState.FAILED, Reason.EXITED, 7)


async def test_an_exit_code_of_137_is_not_taken_for_a_signal(jobs):
    job = await jobs.run("sh", "-c", "exit 137")
    assert (job.reason, job.exit_code, job.signal) == (Reason.EXITED, 137, 0)


async def test_a_job_killed_by_somebody_else(jobs):
    job = await jobs.run("sh", "-c", "kill -9 $$")
    assert (job.state, job.reason) == (JobState.FAILED, Reason.SIGNALED)
    assert (job.exit_code, job.signal) == (137, signal.SIGKILL)


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_start(jobs, program, code):
    job = await jobs.run(program)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.START_FAILED)
    assert job.exit_code == code
    assert job.message.startswith(f"unable to execute {program}: ")


@pytest.mark.parametrize("step", ["a/", "/\N{GRINNING FACE}"])
async def test_a_command_that_cannot_start_and_is_very_long(jobs, step):
    job = await jobs.run(step * (3000 // len(step.encode())))
    assert (job.state, job.reason, job.exit_code) == (JobState.FAILED, Reason.START_FAILED, 127)
    assert job.message.startswith(f"unable to execute {step}{step}")
    assert job.message.endswith("…: No such file or directory")


async def test_a_program_of_no_known_format(jobs, tmp_path):
    program = tmp_path / "noise"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o700)
    job = await jobs.run(str(program))
    assert (job.reason, job.exit_code) == (Reason.START_FAILED, 126)


async def test_an_argument_that_no_system_can_pass_on(jobs):
    job = await jobs.run("echo", "a\0b")
    assert (job.reason, job.exit_code) == (Reason.START_FAILED, 126)


async def test_stdout_and_stderr_stay_apart_and_in_order(jobs):
    source = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done"
    job = await jobs.run("sh", "-c", source)
    printed = await jobs.printed(job)
    assert printed.stdout == b"out1\nout2\nout3\n"
    assert printed.stderr == b"err1\nerr2\nerr3\n"
    assert [stream for stream, _ in printed.order] == ["stdout", "stderr"] * 3
    assert [(s.name, s.size) for s in job.streams] == [("stdout", 15), ("stderr", 15)]


async def test_50_000_lines_arrive_byte_for_byte_while_they_are_written(jobs):
    job = await jobs.python("for i in range(50_000): print('line', i)")
    printed = await jobs.printed(job)
    assert printed.stdout == b"".join(b"line %d\n" % i for i in range(50_000))


async def test_a_line_of_a_mebibyte_and_bytes_that_are_no_text(jobs):
    source = "import os; os.write(2, bytes(range(256))); print('x' * (1 << 20))"
    printed = await jobs.printed(await jobs.python(source))
    assert printed.stdout == b"x" * (1 << 20) + b"\n"
    assert printed.stderr == bytes(range(256))


async def test_a_reader_goes_on_where_it_left_off(jobs):
    job = await jobs.run("seq", "20000")
    whole = b"".join(b"%d\n" % i for i in range(1, 20_001))
    assert (await jobs.printed(job, {(0, "stdout"): 54_321})).stdout == whole[54_321:]
    assert (await jobs.printed(job, {(0, "stdout"): len(whole)})).stdout == b""


async def test_a_reader_that_does_not_follow_ends_while_the_job_runs(jobs):
    job = await jobs.start("sh", "-c", "echo begun; sleep 60")
    assert await jobs.first_bytes(job) == b"begun\n"
    assert (await jobs.printed(job, is_endless=False)).stdout == b"begun\n"


async def test_a_watcher_sees_every_stage_once_and_the_end_at_last(jobs):
    job = await jobs.start("sh", "-c", "sleep 0.2")
    seen = []
    async with asyncio.timeout(DEADLINE):
        async for state in jobs.manager.watch(job.id):
            seen.append(state)
    revisions = [state.revision for state in seen]
    assert revisions == sorted(set(revisions))
    assert seen[-1].state is JobState.SUCCEEDED
    assert JobState.RUNNING in [state.state for state in seen]


def is_asleep(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


async def test_a_keeper_ends_though_its_job_was_deleted_before_it_looked(jobs):
    job = await jobs.start("sleep", "1")
    await jobs.reach(job, JobState.RUNNING)
    keeper = jobs.keeper(job)
    supervisor = jobs.supervisor(job)
    os.kill(supervisor, signal.SIGSTOP)
    async with asyncio.timeout(DEADLINE):  # no event of ours: recorded, and asleep until the next
        while read_exit(jobs.files(job), attempt=1) is None or not is_asleep(keeper):
            await asyncio.sleep(0.01)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGCONT)
    await jobs.end(job)
    await jobs.manager.delete(job.id)
    os.kill(keeper, signal.SIGCONT)
    await asyncio.to_thread(await_gone, keeper)
