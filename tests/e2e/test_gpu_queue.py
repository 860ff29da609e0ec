"""Jobs that wait for GPUs, through the real command and over the death of the agent."""

import os
import signal
import subprocess

import pytest
from tests.e2e.test_guard import Host, kill, until
from tests.support.command import DEADLINE
from tests.support.gpus import Machine, RdevWithGpus


@pytest.fixture
def rdev(tmp_path):
    home, cwd = tmp_path / "home", tmp_path / "project"
    home.mkdir(mode=0o700)
    cwd.mkdir()
    (cwd / "rdev.toml").touch()
    person = RdevWithGpus(home, cwd, machine=Machine(tmp_path / "gpus", count=2))
    yield person
    person.tidy()


@pytest.mark.slow
def test_a_run_that_waits_outlives_its_agent_and_starts_once(rdev):
    host = Host(rdev)
    host.start("--gpus", "2", "--name", "first", "--", "sleep", "600")
    command = ["run", "--gpus", "1", "--name", "second", "--", "sh", "-c"]
    shown = "echo once >> ran; echo $CUDA_VISIBLE_DEVICES"
    with rdev.started(*command, shown, stderr=subprocess.STDOUT) as second:
        until(lambda: len(rdev.jobs()) == 2)
        (waiting,) = (job for job in rdev.jobs() if job["name"] == "second")
        assert waiting["state"] == "pending"
        assert "GPU 0 is held by the job first" in waiting["message"]
        before = host.agent
        kill(before)
        until(lambda: host.served_by_another(before))
        assert {job["state"] for job in rdev.jobs()} == {"running", "pending"}
        assert rdev.run("stop", "--now", "first").returncode == 0
        said = second.stdout.read().decode()
        assert second.wait(DEADLINE) == 0, said
    assert rdev.machine.uuid(0) in said
    assert "waits for 1 GPU: GPU 0 is held by the job first" in said
    (ended,) = (job for job in rdev.jobs(ended=True) if job["name"] == "second")
    assert [gpu["index"] for gpu in ended["gpus"]] == [0]
    (folder,) = rdev.home.glob(".rdev/workspaces/*/ran")
    assert folder.read_text() == "once\n"


def test_a_run_that_waits_is_stopped_by_its_person(rdev):
    rdev.machine.hold((0, os.getpid()), (1, os.getpid()))
    with rdev.started("run", "--gpus", "0,1", "--", "sleep", "600") as run:
        until(lambda: len(rdev.jobs()) == 1)
        run.send_signal(signal.SIGINT)
        assert run.wait(DEADLINE) == 130, run.stderr.read()
    (job,) = rdev.jobs(ended=True)
    assert (job["state"], job["started"]) == ("cancelled", None)


def test_gpus_that_are_not_there_are_refused_at_once(rdev):
    for words, cause in (
        (["--gpus", "3"], "3 GPUs: the machine has 2"),
        (["--gpus", "7,"], "GPU 7: the machine has 2: 0, 1"),
    ):
        done = rdev.run("run", *words, "--", "true")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"error: unable to give the job {cause}"), done.stderr
    # Before anything was sent.
    assert not list(rdev.home.glob(".rdev/workspaces/*"))


@pytest.mark.parametrize("words", [["--gpus", "1"], ["--nproc", "gpu"]])
def test_gpus_on_a_machine_without_are_refused_before_anything_is_sent(rdev, words):
    rdev.machine = Machine(rdev.machine.path, count=0)
    done = rdev.run("run", *words, "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("error: unable to give the job"), done.stderr
    assert "the machine has none" in done.stderr
    assert not list(rdev.home.glob(".rdev/workspaces/*"))
