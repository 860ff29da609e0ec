"""Commands that a session runs: the same to whoever types them as if they ran in process."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import termios
from pathlib import Path

import pytest
from tests.support.command import BIN, DEADLINE, Rdev
from tests.support.session import Sessioned, sessioned
from tests.support.terminal import Terminal, in_terminal

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


def shell(person: Rdev, command: str) -> subprocess.CompletedProcess:
    """What a command line does in a person's shell, in their workspace."""
    return subprocess.run(
        ["bash", "-c", command],
        env=person.environment,
        cwd=person.cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
        text=True,
        check=False,
    )


def told(done: subprocess.CompletedProcess) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("version",), marks=pytest.mark.slow),
        ("ps", "--json"),
        pytest.param(("ps", "--help"), marks=pytest.mark.slow),
        pytest.param(("ps", "--bogus"), marks=pytest.mark.slow),
        pytest.param(("logs", "nobody"), marks=pytest.mark.slow),
        ("run", "-q", "--", "sh", "-c", "echo out; echo err >&2; pwd; exit 3"),
        pytest.param(("run", "-q", "--", "sh", "-c", "kill -9 $$"), marks=pytest.mark.slow),
        pytest.param(("run", "-q", "missing.py"), marks=pytest.mark.slow),
        ("run", "-q", "-e", "WHO", "--", "sh", "-c", "echo $WHO"),
    ],
    ids=str,
)
def test_a_command_says_and_returns_what_it_does_in_process(rdev, words):
    before = rdev.served()
    env = {"WHO": "somebody"}
    assert told(rdev.run(*words, env=env)) == told(rdev.alone.run(*words, env=env))
    rdev.until(lambda: rdev.served() > before)


@pytest.mark.slow
def test_what_is_piped_in_reaches_the_job(rdev):
    done = shell(rdev, f"head -c 300000 /dev/zero | {BIN}/rdev run -q -- wc -c")
    assert told(done) == (0, "300000\n", "")


def test_a_file_that_the_shell_makes_of_a_command_is_read(rdev):
    done = shell(rdev, "rdev run -q --env-file <(echo WHO=somebody) -- sh -c 'echo $WHO'")
    assert told(done) == (0, "somebody\n", "")


def test_a_job_starts_no_session_which_would_end_with_it(rdev):
    before = {path.name for path in rdev.folder.glob("*.lock")}
    done = rdev.run("run", "-q", "--", f"{BIN}/rdev", "version")
    assert done.returncode == 0, done.stderr
    # As the first thing that a session does, it locks a file of its own.
    assert {path.name for path in rdev.folder.glob("*.lock")} == before


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


def test_an_interrupt_ends_a_command_whose_session_was_stopped(rdev):
    rdev.write("train.py", ENDING)
    with rdev.started("run", "-q", "train.py") as process:
        assert process.stdout.readline() == b"ready\n"
        session = rdev.pid
        os.kill(session, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 9
            assert process.stdout.read() == b"interrupted\n"
        finally:
            os.kill(session, signal.SIGCONT)


def test_a_signal_reaches_the_worker(rdev):
    rdev.write("train.py", ENDING)
    with rdev.started("run", "-q", "train.py") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"interrupted\n"
        assert process.wait(DEADLINE) == 9


@pytest.mark.slow
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


def test_a_session_that_is_killed_lets_the_command_hang_up(apart):
    with apart.started(
        "run", "--name", "left", "--", "sh", "-c", "echo ready; sleep 60"
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        apart.end(signal.SIGKILL)
        assert process.wait(DEADLINE) == 128 + signal.SIGHUP
        assert b"left" in process.stderr.read()
    # Its socket is still there, and nobody listens.
    assert [job["name"] for job in apart.json("ps")] == ["left"]


def test_code_that_was_changed_is_not_run_by_a_session_of_the_old(rdev, tmp_path):
    added = {"PYTHONPATH": str(tmp_path)}
    before = rdev.pids
    old = rdev.start(env=added)
    assert before
    assert rdev.run("version", env=added).returncode == 0
    (tmp_path / "sitecustomize.py").write_text("print('another release')")
    done = rdev.run("version", env=added)
    assert done.stdout.startswith("another release\nrdev ")
    rdev.until(lambda: old not in rdev.pids)
    assert rdev.pids == before


@pytest.mark.slow
def test_a_command_of_another_niceness_or_limit_runs_in_process(rdev):
    for how in ("nice -n 3", "ulimit -n 100;"):
        before = rdev.served()
        done = shell(rdev, f"{how} {BIN}/rdev ps")
        assert (done.returncode, rdev.served()) == (0, before), done.stderr


@pytest.mark.parametrize(
    "closed",
    [">&-", *(pytest.param(how, marks=pytest.mark.slow) for how in ("<&-", "2>&-"))],
)
def test_a_closed_stream_is_as_in_process(rdev, closed):
    command = f"exec {BIN}/rdev logs nobody {closed}"
    done = [shell(person, command) for person in (rdev, rdev.alone)]
    assert told(done[0]) == told(done[1])


@pytest.mark.slow
def test_a_removed_folder_is_told_as_in_process(rdev, tmp_path):
    gone = tmp_path / "gone"
    command = f"mkdir {gone}; cd {gone}; rmdir {gone}; exec {BIN}/rdev ps"
    done = [shell(person, command) for person in (rdev, rdev.alone)]
    assert told(done[0]) == told(done[1])
    assert "was removed" in done[0].stderr


def test_a_reader_that_has_enough_ends_the_command(rdev):
    rdev.write(
        "long.py", "print('x' * 70, flush=True)\n" * 2 + "for _ in range(200000): print('y' * 70)"
    )
    assert rdev.run("run", "-q", "--name", "long", "long.py", timeout=DEADLINE).returncode == 0
    command = f"{BIN}/rdev logs long | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = shell(rdev, command)
    assert (done.stdout.split(), done.stderr) == (["x" * 70, "141"], "")


def test_only_this_user_is_served(rdev):
    if os.geteuid():
        pytest.skip("another user can only be had by root")
    socket_path = next(path for path in rdev.folder.iterdir() if path.is_socket())
    socket_path.chmod(0o666)
    rdev.folder.chmod(0o711)
    folder = os.open(rdev.folder, os.O_PATH)
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect('/proc/self/fd/{folder}/{socket_path.name}')\n"
        "s.settimeout(20)\n"
        "sys.exit(len(s.recv(1)))\n"
    )
    try:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", script], pass_fds=[folder], timeout=DEADLINE, check=False
        )
        assert done.returncode == 0
    finally:
        os.close(folder)
        rdev.folder.chmod(0o700)
        socket_path.chmod(0o600)


@pytest.mark.slow
def test_another_users_listener_is_told_nothing(apart):
    if os.geteuid():
        pytest.skip("another user can only be had by root")
    (name,) = [path.name for path in apart.folder.iterdir() if path.is_socket()]
    apart.end()
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(apart.folder, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/{name}")
        os.close(folder)
        script = "import os, socket, sys; os.setuid(65534); socket.socket(fileno=int(sys.argv[1])).listen(5); print()"
        words = ["/usr/bin/python3", "-c", script, str(listener.fileno())]
        subprocess.run(words, pass_fds=[listener.fileno()], check=True, stdout=subprocess.DEVNULL)
        assert apart.run("version").stdout == apart.alone.run("version").stdout
        listener.settimeout(DEADLINE)
        with listener.accept()[0] as connection:
            assert connection.recv(1) == b""


@pytest.mark.slow
def test_many_commands_at_once_start_one_session(apart):
    apart.end()
    for lock in apart.folder.glob("*.lock"):
        os.utime(lock, (0, 0))
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(apart.started("version")) for _ in range(6)]
        assert [process.wait(DEADLINE) for process in running] == [0] * 6
    apart.until(lambda: apart.pids)
    assert len(sessions_of(apart)) == 1


def sessions_of(person: Sessioned) -> list[int]:
    """Of all processes, those that were started as a session of this person."""
    mark = f"XDG_STATE_HOME={person.home}/state".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_session = b"rdev.client.session.serve" in (folder / "cmdline").read_bytes()
            if is_session and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def test_ctrl_z_stops_command_and_worker_and_fg_continues_both(rdev):
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            ["bash", "--norc", "-i"],
            cwd=rdev.cwd,
            env=rdev.environment | {"PS1": "$ ", "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: _take(theirs),  # noqa: PLW1509  # no thread of ours is running
        ) as process:
            shown = Terminal(ours, theirs, process)
            shown.type(f"{BIN}/rdev run -q -- sh -c 'echo rea''dy; sleep 60'\n".encode())
            shown.expect(b"ready")
            (worker,) = rdev.workers()
            shown.type(b"\x1a")
            shown.expect(b"Stopped")
            assert state_of(worker) == "T"
            shown.type(b"fg\n")
            rdev.until(lambda: state_of(worker) in "SR")
            shown.type(b"\x03")
            shown.expect(b"d = detach")
            shown.type(b"d")
            shown.expect(b"$ ")
            shown.type(b"exit\n")
            shown.wait()
    finally:
        os.close(ours)
        os.close(theirs)


def _take(descriptor: int) -> None:
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_ssh_might_ask_is_left_to_the_command_itself(rdev):
    with in_terminal(rdev, "ps", "-H", "nobody.invalid") as shown:
        assert shown.wait() == 69
    assert shown.seen.count(b"error: ") == 1


def test_input_from_a_terminal_is_read_by_the_command_itself(rdev):
    with in_terminal(rdev, "run", "-q", "-i", "--", "head", "-n", "1") as shown:
        shown.type(b"typed\n")
        shown.expect(b"typed")
        assert shown.wait() == 0
        assert rdev.workers() == []


@pytest.mark.slow
def test_a_terminal_job_by_a_worker_has_the_terminal_raw_and_gives_it_back(rdev):
    with in_terminal(
        rdev, "run", "-q", "-t", "--", "sh", "-c", "stty size; read x; exit $x"
    ) as shown:
        shown.expect(b"24 80")
        assert (len(rdev.workers()), shown.is_raw) == (1, True)
        shown.type(b"4\r")
        assert shown.wait() == 4
        assert shown.is_as_before


def test_a_session_is_named_by_doctor_and_ended_by_down(apart):
    pid = apart.pid
    modes = {path.stat().st_mode & 0o777 for path in apart.folder.iterdir()}
    assert (modes, apart.folder.stat().st_mode & 0o777) == ({0o600}, 0o700)
    assert f"session: process {pid}; " in apart.run("doctor").stdout
    handle = os.pidfd_open(pid)
    try:
        assert apart.run("down", "local").stdout == "local: session ended; its jobs go on\n"
        assert select.select([handle], [], [], DEADLINE)[0], "it goes on"
    finally:
        os.close(handle)
    assert apart.run("down", "local").stdout == "local: no session ran; its jobs go on\n"


def test_a_session_that_was_given_up_does_not_run_the_command_as_well(apart):
    os.kill(apart.pid, signal.SIGSTOP)
    try:
        done = apart.run("run", "-q", "-d", "--name", "once", "--", "true")
        assert done.returncode == 0, done.stderr
    finally:
        os.kill(apart.pid, signal.SIGCONT)
    served = apart.served()
    assert [job["name"] for job in apart.json("ps", "-a")] == ["once"]
    assert apart.served() >= served  # by the session, which came to our request after the first


@pytest.mark.slow
def test_an_interrupt_while_the_session_is_waited_for_ends_the_command(apart):
    os.kill(apart.pid, signal.SIGSTOP)
    try:
        with apart.started("wait", "nobody") as process:
            # It has connected: signals are written to the session from then on.
            apart.until(lambda: b"socket:" in links_of(process.pid))
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            assert b"it was interrupted" in process.stderr.read()
    finally:
        os.kill(apart.pid, signal.SIGCONT)


def links_of(pid: int) -> bytes:
    """Where the descriptors of a process lead."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(os.fsencode(path)))
    return b" ".join(found)


def test_what_is_said_after_ctrl_c_has_a_line_of_its_own(rdev, tmp_path):
    here = os.open(tmp_path, os.O_PATH)  # its own path is too long for a socket
    try:
        path = f"/proc/{os.getpid()}/fd/{here}/s"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(path)
            silent.listen()
            silent.settimeout(DEADLINE)
            with in_terminal(rdev, "ps", "-H", f"unix:{path}") as shown:
                connection, _ = silent.accept()
                with connection:
                    shown.type(b"\x03")
                    shown.expect(b"^C\r\nerror: ")
                    assert shown.wait() == 130
    finally:
        os.close(here)
