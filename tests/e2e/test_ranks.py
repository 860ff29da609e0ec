"""Ranks and attempts as a person sees them."""

import json
import re
from functools import partial

import pytest
from tests.support.command import DEADLINE
from tests.support.gpus import Machine, RdevWithGpus
from tests.support.terminal import in_terminal

pytestmark = pytest.mark.shared_agent

TWO = """
import os, sys
print("hello from", os.environ["RANK"], flush=True)
print("trouble", os.environ["RANK"], file=sys.stderr, flush=True)
"""
ONCE = """
import os, sys
print("attempt", os.path.exists("seen"), flush=True)
if not os.path.exists("seen"):
    open("seen", "w").close()
    sys.exit(3)
"""


@pytest.fixture
def terminal(rdev):
    return partial(in_terminal, rdev)


def test_two_ranks_are_told_apart_on_a_terminal_and_in_files(rdev, terminal):
    rdev.write("train.py", TWO)
    done = rdev.run("run", "--nproc", "2", "-q", "train.py")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["hello from 0", "hello from 1"]
    assert rdev.run("logs", "--rank", "1", "--stream", "stdout").stdout == "hello from 1\n"
    job = rdev.jobs(ended=True)[0]
    assert job["ranks"] == 2
    assert {(s["rank"], s["stream"]) for s in job["streams"]} >= {(1, "stderr"), (0, "launcher")}
    with terminal("logs") as shown:
        assert shown.wait() == 0
        lines = re.sub(rb"\x1b\[\d*[mK]", b"", shown.seen).decode().split("\r\n")
    assert {"[rank 0] hello from 0", "[rank 1] trouble 1"} <= set(lines)
    assert all(re.match(r"\[(rank \d|launcher)\] ", line) for line in lines if line)
    with terminal("logs", "--no-prefix", "--rank", "0", "--stream", "stdout") as shown:
        assert shown.wait() == 0
        assert shown.seen == b"hello from 0\r\n"


def test_a_second_attempt_is_announced_and_has_its_own_log(rdev):
    rdev.write("train.py", ONCE)
    done = rdev.run("run", "--retries", "1", "train.py")
    assert (done.returncode, done.stdout) == (0, "attempt False\nattempt True\n")
    assert "rdev: attempt 1 failed with exit code 3; attempt 2 of 2 starts\n" in done.stderr
    assert rdev.run("logs", "--attempt", "1").stdout == "attempt False\n"
    assert rdev.run("logs", "--attempt", "2", "-f").stdout == "attempt True\n"
    assert rdev.run("logs", "--attempt", "3").returncode == 1
    (attempt,) = rdev.jobs(ended=True)[0]["attempts"]
    assert (attempt["number"], attempt["exit_code"]) == (1, 3)


def test_following_an_attempt_ends_with_it_and_not_with_the_job(rdev):
    script = "if [ -e seen ]; then echo two; sleep 60; fi; touch seen; echo one; sleep 0.5; exit 1"
    rdev.run("run", "-d", "--retries", "1", "--", "sh", "-c", script)
    done = rdev.run("logs", "-f", "--attempt", "1")
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert rdev.jobs()[0]["attempt"] == 2
    rdev.await_state("running")
    assert "RUNNING, attempt 2 of 2" in rdev.run("ps").stdout


def test_the_last_line_says_what_a_job_took(rdev):
    done = rdev.run("run", "--retries", "1", "--", "sh", "-c", "exit 4")
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert "failed with exit code 4" in last
    assert re.search(r"peak memory \d+(\.\d)? [kMG]B, attempt 2 of 2$", last)


def test_what_no_machine_can_give_is_said_before_anything_runs(rdev):
    done = rdev.run("run", "--gpus", "two", "--", "true")
    assert done.returncode == 2
    assert "'two' is neither a count" in done.stderr
    assert rdev.jobs(ended=True) == []


def test_json_of_a_job_says_what_it_used(rdev):
    done = rdev.run("run", "-q", "--", "true")
    assert done.returncode == 0
    rdev.run("wait")
    job = json.loads(rdev.run("wait", "--json").stdout)
    assert job["usage"]["peak_memory"] > 0
    assert (job["attempt"], job["ranks"], job["spared"], job["gpus"]) == (1, 1, [], [])


def test_a_job_that_waits_for_a_gpu_says_why_and_starts_when_it_is_free(tmp_path):
    folders = tmp_path / "owner", tmp_path / "work"
    for folder in folders:
        folder.mkdir(mode=0o700)
    (folders[1] / "rdev.toml").touch()
    rdev = RdevWithGpus(*folders, machine=Machine(tmp_path / "gpus", 1))
    try:
        rdev.run("run", "-d", "--name", "first", "--gpus", "all", "--", "sleep", "300")
        done = rdev.run("run", "-d", "--name", "second", "--gpus", "1", "--", "echo", "mine")
        assert (done.returncode, done.stdout.split()[0]) == (0, "second")
        assert "rdev: second waits: " in done.stderr
        shown = rdev.run("ps").stdout
        assert re.search(r"^ID +NAME +STATE +GPU ", shown)
        assert re.search(r"second +PENDING, .*first.* - ", shown)
        with rdev.started("attach", "second") as process:
            rdev.run("stop", "first", "--now")
            assert process.stdout.read() == b"mine\n"
            assert process.wait(DEADLINE) == 0
        (job,) = [job for job in rdev.jobs(ended=True) if job["name"] == "second"]
        assert [gpu["index"] for gpu in job["gpus"]] == [0]
    finally:
        rdev.tidy()
