"""What a job is started with and from, once a request, and what is left of it when it is deleted."""

import asyncio
import os
import stat
import threading

import pytest
from tests.support.jobs import DEADLINE, jobs_in, tidy

from rdev.agent.jobs.resolve import Surroundings
from rdev.protocol.errors import InvalidRequest, JobConflict, JobNotFound, ScriptNotFound
from rdev.wire.files import read_status
from rdev.wire.job import CommandKind, DebugStart, JobSpec, JobState


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_job_sees_a_clean_start(jobs):
    source = (
        "import os, signal, sys\n"
        "handled = [n for n in (1, 2, 3, 13, 15, 20) if signal.getsignal(n) is signal.SIG_IGN]\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))\n"
        "print(open('/proc/self/status').read().split('SigIgn:\\t')[1][:16])\n"
        "print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()))\n"
        "print(oct(os.umask(0)), os.environ['PYTHONUNBUFFERED'], os.environ['RDEV_JOB_ID'])\n"
    )
    job = await jobs.python(source)
    lines = (await jobs.printed(job)).stdout.decode().splitlines()
    assert lines[0] == "['0', '1', '2'] 4"  # and the one that lists them
    ignored = int(lines[1], 16) & ~(0b11 << 31)  # 32 and 33 are libc's own, and out of reach
    assert ignored == (1 << 12) | (1 << 24)  # SIGPIPE and SIGXFSZ, by Python itself
    assert lines[2:] == ["True ''", f"0o22 1 {job.id}"]


async def test_the_environment_is_the_login_less_what_is_not_the_jobs(tmp_path):
    login = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SSH_CONNECTION": "1", "A": "login"}
    login |= {"DISPLAY": ":0", "RDEV_HOME": "/x", "PYTHONPATH": "/mine"}
    async with (
        tidy(tmp_path / "jobs") as folder,
        jobs_in(folder, surroundings=Surroundings(login, 0o022, "/plant")) as jobs,
    ):
        job = await jobs.start("env", environment={"A": "asked", "B": "1"})
        text = (await jobs.printed(job)).stdout.decode()
        stops = DebugStart(at_start=True, on_exception=True, step=7)
        bare = await jobs.start("env", hook=False, debug=stops)
        plain = (await jobs.printed(bare)).stdout.decode()
        held = (await jobs.printed(await jobs.start("env", debug=stops))).stdout.decode()
    seen = dict(line.split("=", 1) for line in text.splitlines())
    assert seen.pop("RDEV_JOB_SOCKET").endswith(f"/{job.id}/job.sock")
    assert seen.pop("PATH") == os.environ["PATH"]
    assert seen == {
        "HOME": str(tmp_path),
        "PWD": str(tmp_path),
        "A": "asked",
        "B": "1",
        "PYTHONPATH": "/plant:/mine",
        "PYTHONUNBUFFERED": "1",
        "RDEV_JOB_ID": job.id,
        "RDEV_ATTEMPT": "1",
    }
    assert "PYTHONPATH=/mine\n" in plain
    assert "RDEV_JOB_DEBUG=start,exception,step=7\n" in held
    assert "RDEV_JOB_DEBUG" not in plain, "nobody there reads it"


async def test_a_script_runs_in_its_workspace(tmp_path):
    workspace = tmp_path / "project-1"
    (workspace / "sub").mkdir(parents=True)
    (workspace / "sub" / "a.py").write_text("import os, sys; print(os.getcwd(), sys.argv)")
    spec = JobSpec(CommandKind.SCRIPT, "sub/a.py", ("x",), workspace_id="w1", directory="sub")
    options = {"workspaces": {"w1": str(workspace)}}
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, **options) as jobs:
        job = await jobs.manager.create("r1", spec)
        assert (await jobs.printed(job)).stdout.decode() == f"{workspace}/sub ['a.py', 'x']\n"
        assert job.name == "a"
        with pytest.raises(ScriptNotFound):
            await jobs.manager.create("r2", JobSpec(CommandKind.SCRIPT, "b.py", workspace_id="w1"))
        outside = JobSpec(CommandKind.SCRIPT, "../b.py", workspace_id="w1")
        with pytest.raises(InvalidRequest):
            await jobs.manager.create("r3", outside)


async def test_a_repeated_request_starts_nothing_new(tmp_path):
    spec = JobSpec(CommandKind.PROGRAM, "sh", ("-c", "echo run >> $MARKS"))
    marks = tmp_path / "marks"
    spec = JobSpec(spec.kind, spec.target, spec.args, environment={"MARKS": str(marks)})
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            made = await asyncio.gather(*(jobs.manager.create("same", spec) for _ in range(5)))
            assert len({job.id for job in made}) == 1
            await jobs.end(made[0])
        async with jobs_in(folder) as jobs:  # after a restart of the agent, too
            again = await jobs.manager.create("same", spec)
            assert (again.id, again.state) == (made[0].id, JobState.SUCCEEDED)
    assert marks.read_text() == "run\n"


class SlowSnapshots:
    """Keeps snapshots as slowly as a test wants."""

    def __init__(self):
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def pin(self, snapshot, job_id):  # noqa: ARG002  # as the manager calls it
        self.is_asked.set()
        assert self.may_go_on.wait(DEADLINE)

    def unpin(self, job_id):
        pass


async def test_a_start_nobody_waits_for_any_more_is_finished_and_found_again(tmp_path):
    spec = JobSpec(CommandKind.PROGRAM, "sleep", ("600",), snapshot="0" * 64)
    slow = SlowSnapshots()
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, snapshots=slow) as jobs:
        asked = asyncio.ensure_future(jobs.manager.create("same", spec))
        assert await asyncio.to_thread(slow.is_asked.wait, DEADLINE)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        slow.may_go_on.set()
        job = await jobs.manager.create("same", spec)
        assert [known.id for known in await jobs.manager.list(ended=True)] == [job.id]
        assert os.listdir(folder) == [job.id]
        await jobs.reach(job, JobState.RUNNING)


async def test_an_agent_that_ends_finishes_what_it_was_starting(tmp_path):
    spec = JobSpec(CommandKind.PROGRAM, "sleep", ("600",), snapshot="0" * 64)
    slow = SlowSnapshots()
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder, snapshots=slow) as jobs:
            asked = asyncio.ensure_future(jobs.manager.create("same", spec))
            assert await asyncio.to_thread(slow.is_asked.wait, DEADLINE)
            asked.cancel()
            asyncio.get_running_loop().call_soon(slow.may_go_on.set)
        async with jobs_in(folder) as jobs:
            job = await jobs.manager.create("same", spec)
            assert [known.id for known in await jobs.manager.list()] == [job.id]


async def test_a_start_that_is_refused_harms_no_other(jobs):
    taken = await jobs.start("sleep", "600", name="train")
    spec = JobSpec(CommandKind.PROGRAM, "true", name="train")
    both = (jobs.manager.create("same", spec) for _ in range(2))
    assert [type(each) for each in await asyncio.gather(*both, return_exceptions=True)] == [
        JobConflict,
        JobConflict,
    ]
    assert (await jobs.reach(taken, JobState.RUNNING)).id == taken.id


async def test_a_live_job_keeps_its_name_to_itself(jobs):
    first = await jobs.start("sleep", "60", name="train")
    with pytest.raises(JobConflict):
        await jobs.start("true", name="train")
    assert (await jobs.start("sleep", "60")).name == "sleep"
    assert (await jobs.start("sleep", "60")).name == "sleep-2"
    await jobs.manager.stop(first.id, now=True)
    await jobs.end(first)
    second = await jobs.start("true", name="train")
    assert (await jobs.manager.get("train")).id == second.id
    await jobs.end(second)


async def test_deleting_is_for_ended_jobs_and_leaves_nothing(jobs):
    job = await jobs.start("sleep", "60")
    with pytest.raises(JobConflict):
        await jobs.manager.delete(job.id)
    await jobs.manager.stop(job.id, now=True)
    await jobs.end(job)
    files = jobs.files(job)
    await jobs.manager.delete(job.id)
    await jobs.manager.delete(job.id)
    with pytest.raises(FileNotFoundError):
        read_status(files)
    with pytest.raises(JobNotFound):
        await jobs.manager.get(job.id)


async def test_no_file_of_a_job_is_for_others(jobs):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    for folder, folders, names in os.walk(jobs.files(job).directory):
        for name in (*folders, *names, "."):
            found = os.lstat(os.path.join(folder, name))
            wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
            assert stat.S_IMODE(found.st_mode) == wanted, os.path.join(folder, name)
