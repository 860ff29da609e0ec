"""Jobs of several ranks, by a real torchrun with real gloo collectives."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from tests.support.jobs import jobs_in, tidy

from rdev.agent.jobs.resolve import Surroundings, login_ground, resolve
from rdev.agent.jobs.store import JobStore
from rdev.agent.server import _plant_folder
from rdev.protocol.errors import InvalidRequest
from rdev.supervisor.processes import look_at
from rdev.wire.files import JobFiles
from rdev.wire.home import boot_id
from rdev.wire.job import ONE_PER_GPU, CommandKind, GpuRequest, JobSpec, JobState, Reason, Window
from rdev.wire.records import Accepted, Launch

DDP = """
import os, sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(20):
    loss = model(torch.full((8, 4), float(rank + 1))).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sys.stdout.write(f"rank {rank} step {step}\\n")
    sys.stderr.write(f"error of {rank} in {step}\\n")
    if os.path.exists(sys.argv[1]) and rank == 1 and step == 10:
        os.unlink(sys.argv[1])
        os.kill(os.getpid(), 9)
weights = [torch.zeros(1, 4) for _ in range(2)]
dist.all_gather(weights, model.module.weight.detach())
assert torch.equal(*weights)
dist.destroy_process_group()
"""


def printed_by(rank, *, steps=20):
    return {
        "stdout": "".join(f"rank {rank} step {step}\n" for step in range(steps)),
        "stderr": "".join(f"error of {rank} in {step}\n" for step in range(steps)),
    }


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


def log_of(jobs, job, rank, stream):
    with open(jobs.files(job).log(rank, stream), encoding="utf-8") as file:
        return file.read()


async def ddp(jobs, tmp_path, **spec):
    script = tmp_path / "train.py"
    script.write_text(DDP)
    return await jobs.start(
        sys.executable, str(script), str(tmp_path / "fatal"), processes=2, **spec
    )


async def test_a_killed_rank_fails_the_job_and_takes_the_others_along(jobs):
    source = (
        "import os, time\n"
        "print(os.getpid())\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\n"
        "time.sleep(600)\n"
    )
    ended = await jobs.end(await jobs.start(sys.executable, "-c", source, processes=2))
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.FAILED, Reason.EXITED, 1)
    pids = [int(log_of(jobs, ended, rank, "stdout")) for rank in (0, 1)]
    assert not any(is_there(pid) for pid in pids)
    assert "SIGKILL" in log_of(jobs, ended, 0, "launcher")


# Ranks that need no torch themselves: they say who they are and stay.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.environ["RANK"], os.getpid(), os.environ["OMP_NUM_THREADS"], sys.argv[1:])
time.sleep(600)
"""


async def said(jobs, job, *, ranks):
    """The first line of each rank, in words."""
    lines = {}
    async for piece in jobs.pieces(job):
        if piece.stream == "stdout":
            lines[piece.rank] = lines.get(piece.rank, b"") + piece.data
        if len(lines) == ranks and all(line.endswith(b"\n") for line in lines.values()):
            return [lines[rank].decode().split() for rank in range(ranks)]
    raise AssertionError("the job ended")


async def test_ranks_that_ignore_term_are_killed_with_the_job_and_only_they_have_a_hook(tmp_path):
    async with (
        tidy(tmp_path / "jobs") as folder,
        jobs_in(
            folder, surroundings=Surroundings(dict(os.environ), 0o022, _plant_folder())
        ) as jobs,
    ):
        job = await jobs.start(sys.executable, "-c", STUBBORN, "a b", "--nproc", "--", processes=2)
        heads = await said(jobs, job, ranks=2)
        assert [head[0] for head in heads] == ["0", "1"]
        assert [head[2:] for head in heads] == [["1", "['a", "b',", "'--nproc',", "'--']"]] * 2
        pids = [int(head[1]) for head in heads]
        peers = await jobs.manager.peers(job.id)
        assert sorted((peer["rank"], peer["pid"]) for peer in peers) == list(enumerate(pids))
        await jobs.manager.stop(job.id)
        ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert not any(is_there(pid) for pid in pids)


async def test_ranks_do_not_outlive_a_launcher_that_is_killed(jobs):
    job = await jobs.start(sys.executable, "-c", STUBBORN, processes=2)
    pids = [int(head[1]) for head in await said(jobs, job, ranks=2)]
    os.kill((await jobs.manager.get(job.id)).pid, signal.SIGKILL)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.SIGNALED)
    assert not any(is_there(pid) for pid in pids)


@pytest.mark.slow
async def test_a_rank_whose_command_is_missing_says_so_in_its_own_log(jobs):
    ended = await jobs.run("no-such-command", processes=1, python=sys.executable)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 1)
    expected = "rdev: unable to execute no-such-command: No such file or directory\n"
    assert log_of(jobs, ended, 0, "stderr") == expected


def is_there(pid):
    found = look_at(pid)
    return found is not None and not found.is_dead


def asked(**spec):
    surroundings = Surroundings({"PATH": os.environ["PATH"]}, 0o022, "/plant")
    wanted = JobSpec(CommandKind.MODULE, "train", **spec)
    ground = login_ground(wanted, surroundings, "/w")
    files = JobFiles("/jobs/0")
    return resolve(wanted, surroundings, job_id="0" * 12, files=files, folder="/w", ground=ground)


def test_one_process_a_gpu_is_as_many_as_are_asked_for():
    assert asked(processes=ONE_PER_GPU, gpus=GpuRequest(count=3)).ranks == 3
    assert asked(processes=ONE_PER_GPU, gpus=GpuRequest(devices=("0", "2"))).ranks == 2


@pytest.mark.parametrize(
    "spec",
    [
        {"processes": ONE_PER_GPU},
        {"processes": 257},
        {"processes": -2},
        {"processes": 2, "terminal": Window()},
        {"retries": 10_000},
        {"retries": -1},
        {"processes": 256, "retries": 30},
    ],
)
def test_ranks_and_retries_that_nobody_can_have(spec):
    with pytest.raises(InvalidRequest):
        asked(**spec)


def test_more_ranks_than_the_machine_has_descriptors_for():
    # In a process of its own: a hard limit cannot be raised again.
    source = (
        "import resource\n"
        "from rdev.agent.jobs.resolve import _check_descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "_check_descriptors(1)\n"
        "_check_descriptors(23)\n"
        "try: _check_descriptors(24)\n"
        "except Exception as error: print(type(error).__name__, error.message, error.hint)\n"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == (
        "InvalidRequest unable to start 24 processes: a process may have 256 descriptors here "
        "(`ulimit -Hn`), and they take more ask for 23 at most, or have the limit raised\n"
    )


@pytest.mark.parametrize(
    "spec",
    [
        *({"timeout": seconds} for seconds in (float("nan"), float("inf"), 0.0, -1.0, 4e8)),
        *({"grace": seconds} for seconds in (float("nan"), float("inf"), -0.1, 4e8)),
    ],
)
def test_times_that_are_none(spec):
    with pytest.raises(InvalidRequest) as caught:
        asked(**spec)
    assert "\n" not in caught.value.message


def test_times_that_are_short_or_long():
    launch = asked(timeout=0.1, grace=0.0)
    assert (launch.timeout, launch.grace) == (0.1, 0.0)
    assert asked(timeout=3e8).timeout == 3e8


def test_the_users_python_path_and_threads_stay_and_torchrun_has_no_plant():
    environment = {"PYTHONPATH": "/mine", "OMP_NUM_THREADS": "4"}
    launch = asked(processes=2, environment=environment)
    assert environment.items() <= launch.environment.items()
    assert launch.environment["RDEV_PLANT"] == "/plant"
    assert "RDEV_PLANT" not in asked(processes=2, hook=False).environment
    assert "OMP_NUM_THREADS" not in asked(processes=1).environment


@pytest.mark.slow  # six processes import torch
async def test_two_ranks_train_apart_and_one_killed_is_an_attempt_whose_logs_are_kept(
    jobs, tmp_path
):
    (tmp_path / "fatal").touch()
    ended = await jobs.end(await ddp(jobs, tmp_path, retries=1))
    assert (ended.state, ended.exit_code, ended.ranks) == (JobState.SUCCEEDED, 0, 2)
    (failed,) = ended.attempts
    assert (ended.attempt, failed.reason, failed.exit_code) == (2, Reason.EXITED, 1)
    ends = {(end.rank, end.name): end.size for end in failed.ends}
    outputs = [(rank, stream) for rank in (0, 1) for stream in ("stderr", "stdout")]
    assert sorted(ends) == [(0, "launcher"), *outputs]
    for rank, stream in outputs:
        first, second = cut(jobs, ended, rank, stream, at=ends[rank, stream])
        assert first.startswith(printed_by(rank, steps=11)[stream])
        assert second == printed_by(rank)[stream]
    launcher = log_of(jobs, ended, 0, "launcher").encode()
    assert b"SIGKILL" in launcher[: ends[0, "launcher"]]
    assert launcher[ends[0, "launcher"] :] == b""


def cut(jobs, job, rank, stream, *, at):
    """What the script printed in each of two attempts."""
    log = log_of(jobs, job, rank, stream).encode()
    return [own_lines(part.decode()) for part in (log[:at], log[at:])]


def own_lines(text):
    """What the script printed; gloo has its own to say on stderr."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(("rank ", "error of ")))


async def test_the_outputs_of_256_ranks(tmp_path):
    # The ranks themselves would take all of a small machine: one process stands for all of them.
    source = (
        "import os\n"
        "for rank in range(256):\n"
        "    for stream in ('stdout', 'stderr'):\n"
        "        path = f'{os.path.dirname(os.environ[\"RDEV_JOB_SOCKET\"])}/fifo/{rank}.{stream}'\n"
        "        fifo = os.open(path, os.O_RDWR)\n"
        "        os.write(fifo, f'{rank} {stream}\\n'.encode())\n"
        "        os.close(fifo)\n"
    )
    store = JobStore(str(tmp_path / "jobs"))
    store.load()
    files = store.files("0123456789ab")
    environment = {"RDEV_JOB_SOCKET": files.socket}
    argv = (sys.executable, "-c", source)
    launch = Launch("0123456789ab", argv, environment, "/", umask=0o077, grace=1.0, timeout=None)
    launch = replace(launch, launcher=True, ranks=256)
    spec = JobSpec(CommandKind.PROGRAM, "x")
    accepted = Accepted(launch.id, "x", "r", 1.0, boot_id(), spec, argv, "/", ranks=256)
    store.create(accepted, launch)
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        ended = await jobs.end(await jobs.manager.get(launch.id))
        assert (ended.state, ended.exit_code) == (JobState.SUCCEEDED, 0)
        for rank in range(256):
            for stream in ("stdout", "stderr"):
                assert log_of(jobs, ended, rank, stream) == f"{rank} {stream}\n"
