"""The limits, niceness and CPUs of the login, and the site's cap on a job's output."""

import os
import resource
import sys

from tests.support.jobs import jobs_in, tidy

from rdev.agent.jobs.resolve import Surroundings
from rdev.wire.job import JobState, LogFull, Reason
from rdev.wire.output import read_gaps

TELL = (
    "import os, resource\n"
    "print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE))\n"
    "print(os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)))\n"
)


async def test_a_job_has_what_its_login_has_and_its_supervisor_has_not(tmp_path):
    cpus = (min(os.sched_getaffinity(0)),)
    around = Surroundings(
        dict(os.environ),
        0o022,
        None,
        limits={"nofile": (321, 432), "fsize": (1 << 20, 1 << 20), "unheard-of": (1, 1)},
        nice=os.getpriority(os.PRIO_PROCESS, 0) + 3,
        cpus=cpus,
    )
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, surroundings=around) as jobs:
        job = await jobs.python(f"{TELL}import sys; sys.stdout.flush(); input()", stdin=True)
        job = await jobs.reach(job, JobState.RUNNING)
        supervisor = jobs.supervisor(job)
        beside = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
        nice = os.getpriority(os.PRIO_PROCESS, supervisor)
        async with jobs.manager.write_input(job.id, "0" * 32) as writer:
            await writer.write(b"\n")
        lines = (await jobs.printed(job)).stdout.decode().splitlines()
    assert lines == [f"(321, 432) ({1 << 20}, {1 << 20})", f"{around.nice} {list(cpus)}"]
    assert beside == resource.getrlimit(resource.RLIMIT_FSIZE)
    assert nice == around.nice - 3


async def test_a_limit_above_what_the_agent_may_set_leaves_the_job_what_it_can_have(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    around = Surroundings(dict(os.environ), 0o022, None, limits={"nofile": (1 << 40, 1 << 41)})
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, surroundings=around) as jobs:
        job = await jobs.python(TELL)
        assert (await jobs.printed(job)).stdout.decode().startswith(f"({hard}, {hard}) ")


def _prints(count: int) -> str:
    return f"import sys; sys.stdout.write('x' * {count}); sys.stderr.write('the end')"


async def test_output_beyond_the_sites_cap_is_dropped_and_counted_exactly(tmp_path):
    most, count = 100_000, 1_000_000
    around = Surroundings(dict(os.environ), 0o022, None, log_most=most)
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, surroundings=around) as jobs:
        job = await jobs.end(await jobs.python(_prints(count)))
        assert (job.state, job.exit_code) == (JobState.SUCCEEDED, 0)
        assert {stream.name: stream.size for stream in job.streams} == {
            "stdout": count,
            "stderr": 7,
        }
        files = jobs.files(job)
        gaps = read_gaps(files.gaps(0, "stdout"))
        assert os.stat(files.log(0, "stdout")).st_size == most
        assert (gaps[0].offset, gaps[-1].end) == (most, count)
        seen = await jobs.printed(job)
        assert len(seen.stdout) + sum(lost.length for lost in seen.lost) == count
        assert (len(seen.stdout), seen.stderr) == (most, b"the end")


async def test_a_job_that_asked_for_it_is_stopped_at_the_sites_cap(tmp_path):
    around = Surroundings(dict(os.environ), 0o022, None, log_most=100_000)
    endless = "import sys\nwhile True: sys.stdout.write('x' * 1000)"
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, surroundings=around) as jobs:
        job = await jobs.end(await jobs.start(sys.executable, "-c", endless, log_full=LogFull.STOP))
    assert job.reason is Reason.QUOTA


async def test_a_job_that_would_wait_for_room_is_not_kept_waiting_for_ever_at_the_sites_cap(
    tmp_path,
):
    around = Surroundings(dict(os.environ), 0o022, None, log_most=100_000)
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, surroundings=around) as jobs:
        job = await jobs.start(sys.executable, "-c", _prints(1_000_000), log_full=LogFull.BLOCK)
        assert (await jobs.end(job)).exit_code == 0
