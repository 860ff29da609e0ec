"""Jobs from their start to their end, with every process real."""

import asyncio
import os
import signal
import socket
import stat
import threading
import time

import pytest
from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.protocol.errors import (
    InvalidRequest,
    JobConflict,
    JobNotFound,
    JobNotRunning,
    ScriptNotFound,
)
from rdev.supervisor.processes import look_at
from rdev.wire.files import read_exit, read_status
from rdev.wire.job import CommandKind, JobSpec, JobState, Reason
from rdev.wire.unix import short_socket_path


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
        jobs_in(folder, environment=login, hook_dir="/plant") as jobs,
    ):
        job = await jobs.start("env", environment={"A": "asked", "B": "1"})
        text = (await jobs.printed(job)).stdout.decode()
        plain = (await jobs.printed(await jobs.start("env", hook=False))).stdout.decode()
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


async def test_a_workspaces_own_python_comes_first(tmp_path):
    workspace = tmp_path / "project-1"
    (workspace / ".venv" / "bin").mkdir(parents=True)
    own = workspace / ".venv" / "bin" / "python"
    own.write_text("#!/bin/sh\necho own $@\n")
    own.chmod(0o700)
    spec = JobSpec(CommandKind.MODULE, "pkg.train", ("--fast",), workspace_id="w1")
    options = {"workspaces": {"w1": str(workspace)}}
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder, **options) as jobs:
        job = await jobs.manager.create("r1", spec)
        assert (await jobs.printed(job)).stdout == b"own -m pkg.train --fast\n"


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


async def test_a_stopped_job_gets_term_and_its_grace(jobs):
    source = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (print('bye'), sys.exit(3)))\n"
        "print('up')\n"
        "while True: time.sleep(60)\n"
    )
    job = await jobs.python(source, grace=30.0)
    await jobs.first_bytes(job)
    assert (await jobs.manager.stop(job.id)).state is JobState.STOPPING
    await jobs.manager.stop(job.id)  # again is harmless, and no second TERM
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert ended.exit_code == 3
    assert (await jobs.printed(job)).stdout == b"up\nbye\n"
    assert (await jobs.manager.stop(job.id)).state is JobState.CANCELLED


async def test_a_job_that_ignores_term_is_killed_after_its_grace_and_not_before(jobs):
    job = await jobs.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    await jobs.first_bytes(job)
    begun = time.monotonic()
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert (ended.state, ended.signal) == (JobState.CANCELLED, signal.SIGKILL)
    assert 1.0 <= time.monotonic() - begun < 10.0


async def test_daemons_that_ignore_term_are_gone_after_a_stop(jobs):
    source = (
        "import os, signal, time\n"
        "for _ in range(30):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        signal.signal(15, signal.SIG_IGN)\n"
        "        os.write(1, b'%d\\n' % os.getpid())\n"
        "        time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    job = await jobs.python(source)
    pids = b""
    async for piece in jobs.pieces(job):
        pids += piece.data
        if pids.count(b"\n") == 30:
            break
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert ended.state is JobState.CANCELLED
    assert [pid for pid in pids.split() if is_there(int(pid))] == []


async def test_a_job_that_ends_takes_its_children_along_but_no_daemon(jobs, tmp_path):
    source = "sleep 600 & echo $!; setsid sleep 600 >/dev/null 2>&1 & echo $!"
    job = await jobs.start("sh", "-c", source)
    await jobs.end(job)
    child, daemon = (int(word) for word in (await jobs.printed(job)).stdout.split())
    try:
        assert not is_there(child)
        assert is_there(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)
        await asyncio.to_thread(await_gone, daemon)


async def test_a_stop_hastens_the_end_of_what_an_ended_job_has_left(jobs):
    job = await jobs.start("sh", "-c", "(trap '' TERM; sleep 600) & exit 0", grace=600.0)
    async with asyncio.timeout(DEADLINE):
        while read_exit(jobs.files(job), attempt=1) is None:
            await asyncio.sleep(0.01)  # other processes set no event of ours
    assert (await jobs.reach(job, JobState.RUNNING)).state is JobState.RUNNING
    await jobs.manager.stop(job.id)  # its grace goes on
    await jobs.manager.stop(job.id, now=True)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.SUCCEEDED, Reason.EXITED, 0)


async def test_a_job_within_a_job_survives_the_outer_ones_stop(jobs, tmp_path):
    inner = tmp_path / "inner"
    source = (
        "import asyncio, pathlib, sys\n"
        f"sys.path[:0] = {[str(p) for p in _roots()]!r}\n"
        "from tests.support.jobs import jobs_in\n"
        "async def main():\n"
        f"    async with jobs_in(pathlib.Path({str(inner)!r})) as jobs:\n"
        "        job = await jobs.start('sleep', '600')\n"
        "        print(job.id, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    async with tidy(inner):
        outer = await jobs.python(source)
        inner_id = (await jobs.first_bytes(outer)).decode().strip()
        await jobs.manager.stop(outer.id)
        assert (await jobs.end(outer)).state is JobState.CANCELLED
        async with jobs_in(inner) as nested:
            found = await nested.manager.get(inner_id)
            assert (await nested.reach(found, JobState.RUNNING)).state is JobState.RUNNING


def is_there(pid):
    found = look_at(pid)
    return found is not None and not found.is_dead


def _roots():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [root, *(os.path.join(root, part) for part in ("agent", "client", "protos"))]


@pytest.mark.parametrize("number", [0, -1, 32, 65, 1000])
async def test_a_signal_that_there_is_not(jobs, number):
    job = await jobs.start("sleep", "600")
    await jobs.reach(job, JobState.RUNNING)
    with pytest.raises(InvalidRequest, match=f"send the signal {number}: "):
        await jobs.manager.signal(job.id, number)


async def test_a_timeout_stops_the_job(jobs):
    job = await jobs.run("sleep", "60", timeout=0.3)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.TIMEOUT)
    assert 0.3 <= job.ended - job.started < 10.0


async def test_a_timeout_and_a_grace_of_a_month_are_waited_for(jobs):
    month = 30 * 86400.0
    job = await jobs.start("sh", "-c", "echo here; sleep 60", timeout=month, grace=month)
    await jobs.reach(job, JobState.RUNNING)
    supervisor = jobs.supervisor(job)
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert ended.state is JobState.CANCELLED
    assert (await jobs.printed(job)).stdout == b"here\n"
    assert supervisor


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"type":"event","kind":"x","time":1,"seq":1e999}',
        b'{"type":"event","kind":"x","time":NaN,"seq":1}',
        b'{"type":"hello","role":7,"rank":1e99,"pid":[],"script":"\\udce9"}',
    ],
    ids=["brackets", "sequence", "time", "hello"],
)
async def test_no_line_on_its_socket_ends_a_supervisor(jobs, line):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    before = jobs.supervisor(job)
    with socket.socket(socket.AF_UNIX) as peer:
        with short_socket_path(jobs.files(job).socket) as path:
            peer.connect(path)
        peer.sendall(b'{"type":"hello","role":"loop","pid":1}\n' + line + b"\n")
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(DEADLINE)
        while peer.recv(4096):
            pass
    await jobs.manager.peers(job.id)
    assert jobs.supervisor(job) == before
    await jobs.manager.stop(job.id, now=True)


async def test_a_signal_reaches_the_whole_group(jobs):
    source = "trap 'echo outer' USR1; sh -c 'trap \"echo inner\" USR1; echo up; sleep 2 & wait; wait' & wait; wait"
    job = await jobs.start("sh", "-c", source)
    await jobs.first_bytes(job)
    await jobs.manager.signal(job.id, signal.SIGUSR1)
    await jobs.end(job)
    lines = (await jobs.printed(job)).stdout.split()
    assert {b"outer", b"inner"} <= set(lines)
    with pytest.raises(JobNotRunning):
        await jobs.manager.signal(job.id, signal.SIGUSR1)


async def test_a_job_interrupted_on_request_counts_as_stopped(jobs):
    job = await jobs.start("sh", "-c", "echo up; exec sleep 60")
    await jobs.first_bytes(job)
    await jobs.manager.signal(job.id, signal.SIGINT)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert (ended.exit_code, ended.signal) == (130, signal.SIGINT)


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
    job = await jobs.start("sleep", "0.3")
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
