"""Jobs that fail and are started again: each attempt once, with its own part of the logs."""

import asyncio
import contextlib
import os
import random
import signal

import pytest
from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.supervisor.processes import look_at
from rdev.wire.files import read_exit, read_status
from rdev.wire.job import JobState, Reason


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


def ends_of(attempt):
    return {(end.rank, end.name): end.size for end in attempt.ends}


async def test_a_job_that_fails_once_is_started_again_and_both_outputs_are_kept(jobs):
    source = (
        "echo attempt $RDEV_ATTEMPT; echo trouble $RDEV_ATTEMPT >&2; "
        "[ $RDEV_ATTEMPT = 2 ] || exit 7"
    )
    ended = await jobs.run("sh", "-c", source, retries=3)
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.SUCCEEDED, Reason.EXITED, 0)
    assert ended.attempt == 2
    (failed,) = ended.attempts
    assert (failed.number, failed.reason, failed.exit_code) == (1, Reason.EXITED, 7)
    assert ended.created <= failed.started <= failed.ended <= ended.started
    printed = await jobs.printed(ended)
    assert printed.stdout == b"attempt 1\nattempt 2\n"
    assert printed.stderr == b"trouble 1\ntrouble 2\n"
    assert ends_of(failed) == {(0, "stdout"): 10, (0, "stderr"): 10}


async def test_the_last_attempt_says_how_the_job_ended_and_use_is_of_all(jobs):
    source = "import os, time\nwhile time.process_time() < 0.2: pass\nos.kill(os.getpid(), 6)"
    ended = await jobs.end(await jobs.python(source, retries=2))
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.SIGNALED)
    assert (ended.attempt, ended.exit_code) == (3, 134)
    assert [attempt.signal for attempt in ended.attempts] == [6, 6]
    assert ended.usage.user_seconds + ended.usage.system_seconds >= 0.6
    assert 5 << 20 < ended.usage.peak_memory < 1 << 30


async def test_what_is_no_failure_of_its_own_is_not_tried_again(jobs):
    missing = await jobs.run("no-such-program", retries=1)
    assert (missing.reason, missing.attempt) == (Reason.START_FAILED, 1)
    late = await jobs.run("sleep", "60", retries=1, timeout=0.2)
    assert (late.reason, late.attempt) == (Reason.TIMEOUT, 1)
    job = await jobs.start("sleep", "60", retries=1)
    await jobs.reach(job, JobState.RUNNING)
    await jobs.manager.stop(job.id)
    assert ((await jobs.end(job)).state, job.attempt) == (JobState.CANCELLED, 1)
    done = await jobs.run("true", retries=1)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, ())


@pytest.mark.slow
async def test_the_timeout_is_that_of_each_attempt(jobs):
    # Two attempts together take longer than one may.
    source = "[ $RDEV_ATTEMPT = 2 ] && exec sleep 600; sleep 2.1; exit 1"
    ended = await jobs.run("sh", "-c", source, retries=2, timeout=4.0)
    assert (ended.reason, ended.attempt) == (Reason.TIMEOUT, 2)
    assert ended.ended - ended.started >= 4.0


STUBBORN_DAEMON = (
    "import os, signal, time\n"
    "ready, tell = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    signal.signal(15, signal.SIG_IGN)\n"
    "    os.write(1, b'%d\\n' % os.getpid())\n"
    "    os.write(tell, b'.')\n"
    "    time.sleep(600)\n"
    "os.read(ready, 1)\n"
)


async def test_nobody_of_a_failed_attempt_lives_to_see_the_next(jobs):
    source = (
        "import os, sys\n"
        "if os.environ['RDEV_ATTEMPT'] == '2': sys.exit(0)\n"
        f"{STUBBORN_DAEMON}"
        "sys.exit(1)\n"
    )
    ended = await jobs.end(await jobs.python(source, retries=1, grace=0.2))
    assert ended.state is JobState.SUCCEEDED
    daemon = int((await jobs.printed(ended)).stdout)
    assert look_at(daemon) is None or look_at(daemon).is_dead


async def test_a_stop_while_a_failed_attempt_is_swept_up_means_the_job(jobs):
    source = STUBBORN_DAEMON + "raise SystemExit(1)\n"
    job = await jobs.python(source, retries=5, grace=600.0)
    async with asyncio.timeout(DEADLINE):
        while read_exit(jobs.files(job), attempt=1) is None:
            await asyncio.sleep(0.01)  # other processes set no event of ours
    await jobs.manager.stop(job.id, now=True)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason, ended.attempt) == (JobState.CANCELLED, Reason.STOPPED, 1)


def kill(pid):
    if pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def storm(jobs, job, chance, *, keepers):
    """Kills the job's supervisor, and its keeper so often, until the job is over."""
    supervisors = 0
    while not jobs.manager.record(job.id).status.state.is_final:
        await asyncio.sleep(chance.uniform(0.0, 0.03))
        if supervisors >= 8:
            continue
        if keepers and chance.random() < 0.3:
            kill(jobs.keeper(job))
            keepers -= 1
        if pid := jobs.supervisor(job):
            kill(pid)
            supervisors += 1


@pytest.mark.slow
@pytest.mark.parametrize("keepers", [0, 1])
async def test_each_attempt_is_executed_once_whoever_is_killed_around_the_change(
    jobs, tmp_path, keepers
):
    marks, chance, last = tmp_path / "marks", random.Random(3 + keepers), []
    source = f"echo $RDEV_JOB_ID $RDEV_ATTEMPT >> {marks}; exit $((10 + RDEV_ATTEMPT))"
    for _ in range(20):
        job = await jobs.start("sh", "-c", source, retries=3)
        await storm(jobs, job, chance, keepers=keepers)
        last.append(await jobs.end(job))
        await asyncio.to_thread(await_gone, jobs.keeper(job))
    executed = marks.read_text().splitlines()
    for job in last:
        mine = [int(mark.split()[1]) for mark in executed if mark.startswith(job.id)]
        assert mine in ([*range(1, job.attempt + 1)], [*range(1, job.attempt)])
        assert [attempt.exit_code for attempt in job.attempts] == [
            10 + number for number in range(1, job.attempt)
        ]
        assert read_status(jobs.files(job)).state.is_final
        if job.state is not JobState.LOST:
            assert (mine, job.exit_code) == ([1, 2, 3, 4], 14)
    if not keepers:
        assert {job.state for job in last} == {JobState.FAILED}
