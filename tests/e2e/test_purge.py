"""Taking rdev off a machine: refused while something would be lost, and complete."""

import json
import os

import pytest
from tests.support.command import DEADLINE


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def used(rdev):
    """A person whose machine has run a job that left a file."""
    rdev.write("train.py", "open('model.pt', 'wb').write(b'weights')")
    assert rdev.run("run", "train.py").returncode == 0
    return rdev


def test_outputs_that_only_the_host_has_are_named_and_kept(used):
    done = used.command("rdev-agent", "purge")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "model.pt" in done.stderr
    assert "--discard-outputs" in done.stderr
    assert used.run("ps", "-a").stdout.count("train.py") == 1


def test_with_leave_to_discard_nothing_is_left(used):
    done = used.command("rdev-agent", "purge", "--discard-outputs", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["size"] > 0
    assert not any(os.path.exists(path) for path in said["paths"])
    assert not (used.home / ".rdev").exists()


def test_live_jobs_are_named_and_go_on(rdev):
    rdev.write("train.py", "import time; time.sleep(300)")
    assert rdev.run("run", "-d", "--name", "night", "train.py").returncode == 0
    done = rdev.command("rdev-agent", "purge", "--discard-outputs")
    assert (done.returncode, "night" in done.stderr, "rdev stop" in done.stderr) == (1, True, True)
    (job,) = rdev.jobs()
    assert job["state"] == "running"
    rdev.run("stop", "--now", "night")


def test_synced_files_are_no_outputs_and_changed_ones_are(rdev):
    rdev.write("train.py", "print('ran')")
    rdev.write("notes.txt", "as synced")
    assert rdev.run("run", "train.py").returncode == 0
    rdev.write("train.py", "open('notes.txt', 'a').write(' and grown')")
    assert rdev.run("run", "train.py").returncode == 0
    done = rdev.command("rdev-agent", "purge")
    assert ("notes.txt" in done.stderr, "train.py" in done.stderr) == (True, False)


def test_what_others_keep_in_the_home_stays(used):
    (used.home / ".rdev" / "mine.txt").write_text("not rdev's")
    assert used.command("rdev-agent", "purge", "--discard-outputs").returncode == 0
    assert everything_in(used.home / ".rdev") == ["mine.txt"]


def test_a_home_of_several_machines_loses_only_this_ones_part(used):
    other = used.home / ".rdev" / "hosts" / "0123456789abcdef" / "jobs"
    other.mkdir(parents=True, mode=0o700)
    done = used.command("rdev-agent", "purge")
    assert (done.returncode, "kept" in done.stdout) == (0, True)
    assert other.exists()
    assert (used.home / ".rdev" / "workspaces").exists()
    assert len(os.listdir(used.home / ".rdev" / "hosts")) == 1


def test_where_nothing_is_there_is_nothing_to_do(rdev):
    done = rdev.command("rdev-agent", "purge", timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (0, "nothing is here\n")
