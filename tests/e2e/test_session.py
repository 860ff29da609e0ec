"""Commands that a session runs: the same to whoever types them as if they ran in process."""

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.command import BIN, DEADLINE
from tests.support.session import Sessioned, sessioned

ENDING = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("interrupted", flush=True), sys.exit(9)))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with sessioned(tmp_path_factory.mktemp("served")) as person:
        yield person


@pytest.fixture
def rdev(served: Sessioned):
    """The person, with a session that takes commands."""
    if not served.pids:
        served.start()
    return served


@pytest.fixture
def apart(tmp_path):
    """A person with a session of the test's own."""
    with sessioned(tmp_path) as person:
        yield person


def told(done: subprocess.CompletedProcess) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("version",),
        ("ps", "--json"),
        ("ps", "--help"),
        ("ps", "--bogus"),
        ("logs", "nobody"),
        ("run", "-q", "--", "sh", "-c", "echo out; echo err >&2; pwd; exit 3"),
        ("run", "-q", "--", "sh", "-c", "kill -9 $$"),
        ("run", "-q", "missing.py"),
        ("run", "-q", "-e", "WHO", "--", "sh", "-c", "echo $WHO"),
    ],
    ids=lambda words: " ".join(words)[:24],
)
def test_a_command_says_and_returns_what_it_does_in_process(rdev, words):
    before = rdev.served()
    env = {"WHO": "somebody"}
    assert told(rdev.run(*words, env=env)) == told(rdev.alone.run(*words, env=env))
    rdev.until(lambda: rdev.served() > before)


def test_what_is_piped_in_reaches_the_job(rdev):
    with contextlib.ExitStack() as stack:
        done = subprocess.run(
            [BIN / "rdev", "run", "-q", "--", "wc", "-c"],
            input=b"x" * 300_000,
            cwd=rdev.cwd,
            env=rdev.environment,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert stack is not None
    assert (done.returncode, done.stdout.strip()) == (0, b"300000")


def test_a_worker_has_what_the_command_has(rdev, tmp_path):
    here = tmp_path / "elsewhere"
    here.mkdir()
    command = f"umask 031; trap '' USR1; cd {here}; exec {BIN}/rdev run -q -- sh -c 'echo ready; sleep 60'"
    with subprocess.Popen(
        ["sh", "-c", command],
        env=rdev.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        (worker,) = rdev.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        said = dict(line.split(":\t", 1) for line in status.splitlines())
        assert said["Umask"] == "0031"
        assert int(said["SigIgn"], 16) >> (signal.SIGUSR1 - 1) & 1
        assert os.readlink(f"/proc/{worker}/cwd") == str(here)
        assert os.readlink(f"/proc/{worker}/fd/1") == os.readlink(f"/proc/{process.pid}/fd/1")
        process.terminate()
        assert process.wait(DEADLINE) == 128 + signal.SIGTERM


def test_a_signal_reaches_the_worker(rdev):
    rdev.write("train.py", ENDING)
    with rdev.started("run", "-q", "train.py") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"interrupted\n"
        assert process.wait(DEADLINE) == 9


def test_a_command_that_dies_by_a_signal_is_seen_to(rdev):
    with rdev.started("run", "-q", "--", "sh", "-c", "echo ready; sleep 60") as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(rdev.workers()[0], signal.SIGKILL)
        assert process.wait(DEADLINE) == -signal.SIGKILL


def test_a_killed_command_has_its_worker_leave_the_job(rdev):
    with rdev.started(
        "run", "-q", "--name", "left", "--", "sh", "-c", "echo ready; sleep 60"
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        handle = os.pidfd_open(rdev.workers()[0])
        try:
            process.kill()
            assert select.select([handle], [], [], DEADLINE)[0], "the worker stays"
        finally:
            os.close(handle)
    assert "left" in [job["name"] for job in rdev.json("ps")]


def test_nothing_of_the_command_is_kept_by_the_session_that_it_starts(rdev):
    rdev.end()
    for lock in rdev.folder.glob("*.lock"):
        os.utime(lock, (0, 0))
    ours, theirs = os.pipe()
    with rdev.started("version", pass_fds=[theirs]) as process:
        os.close(theirs)
        process.communicate(timeout=DEADLINE)
    rdev.until(lambda: rdev.pids)
    with open(ours, "rb") as end:
        assert end.read() == b""
    assert os.getsid(rdev.pid) == rdev.pid
    assert b"SECRET" not in Path(f"/proc/{rdev.pid}/environ").read_bytes()
