"""The input of jobs without a terminal: piped, redirected, typed, declined."""

import contextlib
import hashlib
import os
import random
import subprocess
import time

import pytest
from tests.support.command import DEADLINE
from tests.support.terminal import in_terminal

pytestmark = pytest.mark.shared_agent

CTRL_C, CTRL_D = b"\x03", b"\x04"


def piped(rdev, data: bytes, *words: str):
    return rdev.run(*words, stdin=None, input=data, text=False)


def started_with_pipe(rdev, *words: str):
    return rdev.started(*words, stdin=subprocess.PIPE, bufsize=0)


def write_all(pipe, data: bytes) -> None:
    while data:
        data = data[pipe.write(data) :]


def test_what_is_piped_in_is_the_jobs_input(rdev):
    data = random.Random(1).randbytes(5_000_000)
    done = piped(rdev, data, "run", "--quiet", "--", "sha256sum")
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert piped(rdev, b"", "run", "--quiet", "--", "wc", "-c").stdout == b"0\n"


def test_a_file_is_input_too_and_exec_takes_any(rdev):
    path = rdev.write("data.txt", "one\ntwo\n")
    with open(path) as file:
        assert rdev.run("run", "--quiet", "--", "wc", "-l", stdin=file).stdout == "2\n"
    assert piped(rdev, b"abc", "exec", "@-1", "--", "wc", "-c").stdout == b"3\n"


def test_input_is_declined(rdev):
    assert piped(rdev, b"abc", "run", "--quiet", "--no-stdin", "--", "wc", "-c").stdout == b"0\n"
    assert piped(rdev, b"abc", "run", "--detach", "--", "wc", "-c").returncode == 0
    rdev.run("wait")
    assert rdev.run("logs").stdout == "0\n"


def test_a_job_that_ends_before_its_input_ends_the_run_at_once(rdev):
    reading, writing = os.pipe()  # which nobody closes
    try:
        assert rdev.run("run", "--", "sh", "-c", "exit 3", stdin=reading).returncode == 3
        os.write(writing, b"first\nsecond\n")
        command = ("run", "--quiet", "--", "head", "-n1")
        assert rdev.run(*command, stdin=reading).stdout == "first\n"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.slow
def test_a_job_that_reads_nothing_of_much_input_ends(rdev):
    with started_with_pipe(rdev, "run", "--quiet", "--", "true") as process:
        with pytest.raises(BrokenPipeError):
            while True:
                process.stdin.write(b"x" * 65536)
        assert process.wait(DEADLINE) == 0


def test_no_byte_is_lost_or_doubled_when_the_agent_is_killed(rdev):
    data = random.Random(2).randbytes(3_000_000)
    with started_with_pipe(rdev, "run", "--quiet", "--", "sha256sum") as process:
        for start in range(0, len(data), 1_000_000):
            write_all(process.stdin, data[start : start + 1_000_000])
            rdev.jobs()  # there is an agent again
            rdev.kill_agent()
        process.stdin.close()
        assert process.wait(DEADLINE) == 0, process.stderr.read()
        assert process.stdout.read().split()[0].decode() == hashlib.sha256(data).hexdigest()


@pytest.fixture
def small_disk(rdev):
    """The host's home on a disk of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = rdev.home / ".rdev"
    disk.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    rdev.tidy()
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
@pytest.mark.own_agent
def test_input_waits_for_a_full_disk_and_says_so_once(rdev, small_disk):
    data = random.Random(3).randbytes(500_000)
    with started_with_pipe(rdev, "run", "--quiet", "--", "sha256sum") as process:
        write_all(process.stdin, data[:1000])
        wait_until(lambda: [job["state"] for job in rdev.jobs()] == ["running"])
        ballast = small_disk / "ballast"
        fill(ballast)
        write_all(process.stdin, data[1000:])
        assert b"the input waits: No space left on device" in process.stderr.readline()
        ballast.unlink()
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == b""
        assert process.stdout.read().split()[0].decode() == hashlib.sha256(data).hexdigest()


@pytest.mark.own_agent
def test_a_job_that_waits_for_room_for_its_output_says_so_and_when_it_goes_on(rdev, small_disk):
    ballast = small_disk / "ballast"
    first, then = "head -c 800000 /dev/zero", "head -c 2200000 /dev/zero"
    script = f"read line; {first}; read line; {then}; read line; echo on"
    words = ("run", "-q", "--name", "full", "--log-full", "block", "--", "sh", "-c", script)
    with started_with_pipe(rdev, *words) as process:
        wait_until(lambda: [job["state"] for job in rdev.jobs()] == ["running"])
        with rdev.started("logs", "-f", stdout=subprocess.DEVNULL) as follower:
            ballast.write_bytes(bytes(room_of(small_disk) - (1 << 20)))
            process.stdin.write(b"go\n")
            expect(process.stdout, 500_000)
            # Nobody reads more of its output for now, and it says so all the same.
            process.stdin.write(b"go\n")
            waits = b"rdev: full waits for room for its output: no space left on device\n"
            goes_on = b"rdev: full goes on: there is room again\n"
            assert process.stderr.readline() == waits
            assert follower.stderr.readline() == waits
            assert "RUNNING, waits for room for its output: no space left" in rdev.run("ps").stdout
            ballast.unlink()
            expect(process.stdout, 2_500_000)
            assert process.stderr.readline() == goes_on
            process.stdin.close()
            assert process.stdout.read() == b"on\n"
            assert process.wait(DEADLINE) == 0
            assert follower.wait(DEADLINE) == 0
            assert follower.stderr.read() == goes_on


def expect(pipe, size: int) -> None:
    """Reads so many bytes."""
    while size:
        size -= len(pipe.read(size) or pytest.fail("it has ended"))


def room_of(disk) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def wait_until(condition) -> None:
    """Returns once the condition holds; each look is a command of its own."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline


def fill(path) -> None:
    """Leaves no byte of the disk free."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_lines_typed_at_a_terminal_and_ctrl_d(rdev):
    with in_terminal(rdev, "run", "-i", "--quiet", "--", "sh", "-c", "echo ready; wc -l") as shown:
        shown.expect(b"ready")
        assert not shown.is_raw
        shown.type(b"one\ntwo\n" + CTRL_D)
        shown.expect(b"two\r\n2\r\n")
        assert shown.wait() == 0


def test_the_question_after_ctrl_c_takes_its_answer_from_the_same_keyboard(rdev):
    script = "read line; echo ready $line; wc -l"
    with in_terminal(rdev, "run", "-i", "--quiet", "--", "sh", "-c", script) as shown:
        shown.type(b"one\n")
        shown.expect(b"ready one")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(b"xd")
        shown.expect(b"its input is not complete")
        assert shown.wait() == 0
        assert shown.is_as_before
    done = piped(rdev, b"two\nthree\n", "attach", "-i")
    assert (done.returncode, done.stdout) == (0, b"ready one\n2\n")


@pytest.mark.slow
def test_input_is_brought_later(rdev):
    assert rdev.run("run", "-di", "--", "wc", "-c").returncode == 0
    assert piped(rdev, b"12345", "attach", "-i").stdout == b"5\n"


def test_attach_refuses_input_for_a_job_that_takes_none(rdev):
    rdev.run("run", "-d", "--", "sleep", "60")
    done = piped(rdev, b"x", "attach", "-i")
    assert done.returncode == 2
    assert b"it takes none" in done.stderr


@pytest.mark.slow
def test_keys_can_be_piped_into_a_job_with_a_terminal(rdev):
    rdev.run("run", "-dt", "--", "sh", "-c", "read a; read b; echo $b $a; exit 4")
    done = piped(rdev, b"one\rtwo\r", "attach", "-i")
    assert done.returncode == 4
    assert b"two one\r\n" in done.stdout
