"""What the owner of a machine says, and what the machine is, as a person meets it."""

import contextlib
import os
import select
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.gpus import Machine, RdevWithGpus
from tests.support.jobs import lock_holder

from rdev.wire.files import JobFiles
from rdev.wire.home import Home, answers, machine_id


@pytest.fixture
def serve(rdev: Rdev, tmp_path: Path):
    """Starts an agent under a site's file."""

    def start(text: str, **options):
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return rdev.command("rdev-agent", "serve", "--detach", "--site", str(path), **options)

    return start


def test_a_mistyped_limit_starts_no_agent_and_is_named(rdev: Rdev, serve):
    done = serve("jobs = 4\nstor = 5\n")
    assert done.returncode == 78
    assert "line 2: `stor` is no key" in done.stderr
    assert "hint: " in done.stderr
    assert rdev.command("rdev-agent", "status").returncode == 1


def test_the_hook_may_be_off(rdev: Rdev, serve):
    assert serve("hook = false\n").returncode == 0
    rdev.write("show.py", "import os; print(os.environ.get('PYTHONPATH', 'no path'))\n")
    assert rdev.run("run", "-q", "show.py").stdout == "no path\n"


@pytest.mark.slow
def test_an_upgraded_and_a_restarted_agent_keep_to_the_sites_file(rdev: Rdev, serve):
    serve("hook = false\n")
    rdev.write("show.py", "import os; print(os.environ.get('PYTHONPATH', 'no path'))\n")
    assert rdev.command("rdev-agent", "upgrade").returncode == 0
    assert rdev.run("run", "-q", "show.py").stdout == "no path\n"
    rdev.run("run", "-d", "--", "sleep", "60")
    rdev.kill_agent()
    assert rdev.run("run", "-q", "show.py").stdout == "no path\n"


@pytest.mark.slow
def test_an_idle_agent_ends_and_the_next_command_starts_one(rdev: Rdev, serve):
    serve('idle_exit = "10s"\n')
    first = rdev.agent_pid
    handle = os.pidfd_open(first)
    try:
        assert rdev.run("run", "-q", "--", "sleep", "1").returncode == 0
        begun = time.monotonic()
        assert select.select([handle], [], [], DEADLINE)[0], "it serves on"
        assert time.monotonic() - begun > 5
    finally:
        os.close(handle)
    assert rdev.jobs(ended=True)[0]["state"] == "succeeded"
    assert rdev.agent_pid != first


def slurm(folder: Path) -> dict[str, str]:
    """A login's PATH on which Slurm's commands are."""
    folder.mkdir()
    (folder / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (folder / "sbatch").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_on_a_login_node_without_a_gpu_run_asks_first(rdev: Rdev, tmp_path):
    env = slurm(tmp_path / "slurm")
    assert rdev.command("rdev-agent", "serve", "--detach", env=env).returncode == 0
    refused = rdev.run("run", "--", "true")
    assert refused.returncode == 2
    assert "local is a Slurm login node without a GPU" in refused.stderr
    assert "hint: name a node of an allocation" in refused.stderr
    assert "--yes" in refused.stderr
    assert rdev.jobs(ended=True) == []
    assert rdev.run("run", "--yes", "--", "echo", "hi").stdout == "hi\n"


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_within_an_allocation_run_asks_nothing(rdev: Rdev, tmp_path):
    env = slurm(tmp_path / "slurm") | {"SLURM_JOB_ID": "7"}
    rdev.command("rdev-agent", "serve", "--detach", env=env)
    assert rdev.run("run", "--", "echo", "hi").stdout == "hi\n"


@pytest.fixture
def gpus(rdev: Rdev, tmp_path: Path) -> RdevWithGpus:
    """The same person, on a machine with two GPUs."""
    return RdevWithGpus(rdev.home, rdev.cwd, machine=Machine(tmp_path / "gpus", count=2))


def test_a_cluster_node_with_a_gpu_is_no_login_node(gpus, tmp_path):
    env = slurm(tmp_path / "slurm")
    assert gpus.command("rdev-agent", "serve", "--detach", env=env).returncode == 0
    assert gpus.run("run", "--", "echo", "hi").stdout == "hi\n"


def test_jobs_get_no_gpus_but_those_of_the_sites_file(gpus, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text("gpus = [1]\n")
    gpus.command("rdev-agent", "serve", "--detach", "--site", str(path))
    shown = ("--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert gpus.run("run", "-q", *shown).stdout == "1\n"
    assert gpus.run("run", "-q", "--gpus", "1", *shown).stdout == f"{gpus.machine.uuid(1)}\n"
    refused = gpus.run("run", "-q", "--gpus", "2", *shown)
    assert refused.returncode == 125
    assert "allows 1 of 2" in refused.stderr


class OnLocalDisk:
    """A person whose home is said to be no place for sockets."""

    def __init__(self, rdev: Rdev, disk: Path) -> None:
        self.rdev = rdev
        self.disk = disk
        self.home = Home(str(rdev.home / ".rdev"), machine_id())

    @property
    def live(self) -> Path:
        (found,) = self.disk.iterdir()
        return found


@pytest.fixture
def elsewhere(rdev: Rdev, serve, tmp_path: Path) -> OnLocalDisk:
    disk = tmp_path / "local disk"
    disk.mkdir()
    done = serve(f'local_state = "{disk}"\n')
    assert done.returncode == 0, done.stderr
    return OnLocalDisk(rdev, disk)


def _kinds(folder: Path) -> set[str]:
    tests = {"socket": stat.S_ISSOCK, "fifo": stat.S_ISFIFO}
    modes = [path.lstat().st_mode for path in folder.rglob("*")]
    return {kind for kind, is_one in tests.items() for mode in modes if is_one(mode)}


def test_sockets_fifos_locks_and_logs_lie_on_the_local_disk_and_nothing_else_does(elsewhere):
    rdev = elsewhere.rdev
    rdev.run("run", "-d", "--name", "one", "--", "sh", "-c", "echo from afar; exec sleep 60")
    assert _kinds(elsewhere.live) == {"socket", "fifo"}
    assert _kinds(Path(elsewhere.home.root)) == set()
    own = {path.name for path in Path(elsewhere.home.host).iterdir()}
    assert own.isdisjoint({"run", "jobs", "agent.log"})
    assert {"local", "agent-id"} <= own
    assert rdev.run("logs", "one").stdout == "from afar\n"


@pytest.mark.slow
def test_a_killed_agent_is_found_again_on_the_local_disk(elsewhere):
    rdev = elsewhere.rdev
    rdev.run("run", "-d", "--name", "one", "--", "sleep", "60")
    before = rdev.agent_pid
    rdev.kill_agent()
    rdev.await_state("running")
    assert rdev.agent_pid != before
    assert rdev.run("stop", "one").returncode == 0
    assert rdev.command("rdev-agent", "stop").returncode == 0
    assert rdev.run("ps", "-a").returncode == 0
    assert elsewhere.live.is_dir()


def test_an_agent_that_a_supervisor_brought_back_there_survives_the_stop_of_everything(elsewhere):
    rdev = elsewhere.rdev
    rdev.run("run", "-d", "--name", "one", "--", "sleep", "60")
    before = rdev.agent_pid
    handle = os.pidfd_open(before)
    os.kill(before, signal.SIGKILL)
    select.select([handle], [], [], DEADLINE)
    os.close(handle)
    deadline = time.monotonic() + DEADLINE
    while not answers(elsewhere.home):  # nobody asks for it: a supervisor brings it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    agent = rdev.agent_pid
    stopped = rdev.run("stop", "one", "--now", "--all")
    assert stopped.returncode == 0
    assert "left alone" not in stopped.stderr
    assert rdev.agent_pid == agent


def test_jobs_whose_local_disk_is_wiped_are_lost_and_say_so_and_ended_ones_are_not(elsewhere):
    rdev = elsewhere.rdev
    rdev.run("run", "-q", "--name", "ended", "--", "true")
    rdev.run("run", "-d", "--name", "alive", "--", "sleep", "60")
    (job,) = rdev.jobs()
    ours = (lock_holder(JobFiles(f"{elsewhere.home.jobs}/{job['id']}").keeper_lock), job["pid"])
    agent = rdev.agent_pid
    shutil.rmtree(elsewhere.live)
    for pid in (agent, *ours):  # nobody can reach them any more
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (lost,) = rdev.jobs(ended=True)
    assert (lost["id"], lost["state"]) == (job["id"], "lost")
    assert "vanished" in lost["message"]
    assert rdev.run("wait", "alive").returncode == 125
    assert rdev.run("rm", "alive").returncode == 0
    assert rdev.jobs(ended=True) == []


@pytest.mark.slow
def test_more_jobs_than_the_site_allows_wait_and_say_so(rdev: Rdev, serve):
    serve("jobs = 1\n")
    rdev.run("run", "-d", "--name", "first", "--", "sleep", "60")
    waits = rdev.run("run", "-d", "--name", "second", "--", "true")
    assert waits.returncode == 0
    assert "waits for its turn: the site lets each user have 1 live here" in waits.stderr
    assert rdev.run("exec", "first", "--", "echo", "beside").stdout == "beside\n"
    rdev.run("stop", "first", "--now")
    assert rdev.run("wait", "second").returncode == 0


def test_output_and_store_keep_within_what_the_site_allows(rdev: Rdev, serve):
    serve('log = "64K"\nstore = "1M"\n')
    rdev.write("train.py", "print('x' * 200_000)\n")
    done = rdev.run("run", "--name", "loud", "train.py")
    assert done.returncode == 0
    assert len(done.stdout) == 65_536
    assert "lost" in done.stderr
    (rdev.cwd / "data.bin").write_bytes(os.urandom(2 << 20))
    refused = rdev.run("run", "train.py")
    assert refused.returncode == 125
    assert "the site lets each user keep 1 MiB of synced files here" in refused.stderr
    assert ".rdevignore" in refused.stderr
