"""What a person sees when something is wrong: one line, a hint, a documented code, no traceback."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
import time

import pytest
from tests.support.command import BIN, DEADLINE
from tests.support.relay import relayed

from rdev.wire.home import Home, machine_id

pytestmark = pytest.mark.shared_agent


def assert_told(done, code, *words):
    """The failure is one `error:` line with the words, and one hint."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("rdev: synced")]
    assert lines[0].startswith("error: unable to "), done.stderr
    assert lines[1].startswith("hint: "), done.stderr
    assert len(lines) == 2, done.stderr
    for word in words:
        assert word in lines[0], done.stderr


def test_an_unknown_host(rdev):
    assert_told(rdev.run("run", "-H", "nowhere", "--", "true"), 255, "nowhere")
    assert_told(rdev.run("ps", "-H", "nowhere"), 69, "nowhere")


def test_a_script_that_does_not_exist(rdev):
    assert_told(rdev.run("run", "train.py"), 127, "train.py")
    assert_told(rdev.run("run", "no/such/folder/train.py"), 127, "train.py")


def test_a_folder_is_no_script(rdev):
    (rdev.cwd / "src").mkdir()
    assert_told(rdev.run("run", "src"), 127, "folder")


def test_a_script_outside_the_workspace(rdev):
    (rdev.home / "other.py").write_text("pass")
    assert_told(rdev.run("run", str(rdev.home / "other.py")), 2, "outside the workspace")


@pytest.mark.own_agent
def test_the_home_folder_as_a_workspace(rdev):
    (rdev.home / "train.py").write_text("pass")
    assert_told(rdev.run("run", "train.py", cwd=rdev.home), 2, "home")
    assert not (rdev.home / ".rdev" / "workspaces").exists()


def test_a_folder_that_nothing_marks_is_not_synced_by_itself(rdev):
    (rdev.cwd / "rdev.toml").unlink()
    done = rdev.run("sync")
    assert_told(done, 2, "rdev.toml")
    assert "rdev init" in done.stderr
    assert rdev.run("run", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_wrong_option_is_usage(rdev):
    for words in (
        ["run"],
        ["run", "--"],
        ["run", "--no-such-option", "x"],
        ["nonsense"],
        ["logs", "-n", "x"],
    ):
        done = rdev.run(*words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr
    assert "see `rdev run --help`" in rdev.run("run").stderr


def test_a_job_that_does_not_exist(rdev):
    for verb in ("logs", "stop", "rm"):
        assert_told(rdev.run(verb, "nobody"), 1, "nobody")
    for verb in ("attach", "wait"):
        assert_told(rdev.run(verb, "nobody"), 125, "nobody")


def test_an_error_as_json(rdev):
    done = rdev.run("wait", "nobody", "--json")
    assert '"reason": "JOB_NOT_FOUND"' in done.stderr
    assert '"code": 125' in done.stderr


def test_a_live_job_keeps_its_name(rdev):
    assert rdev.run("run", "-d", "--name", "one", "--", "sleep", "30").returncode == 0
    assert_told(rdev.run("run", "--name", "one", "--", "true"), 125, "one")


def test_a_bad_job_name(rdev):
    for name in ("No Good", "exp_1", "stop"):
        done = rdev.run("run", "--name", name, "--", "true")
        assert_told(done, 2, name)
    assert "--name exp-1" in rdev.run("run", "--name", "exp_1", "--", "true").stderr


@pytest.mark.parametrize("limit", ["nan", "inf", "-5", "soon"])
def test_a_time_limit_that_is_none(rdev, limit):
    for option in ("--timeout", "--grace"):
        done = rdev.run("run", f"{option}={limit}", "--", "true")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    rdev.write("rdev.toml", f"timeout = {limit if limit != 'soon' else True}".lower())
    assert_told(rdev.run("run", "--", "true"), 125, "timeout")


def test_words_that_are_not_utf8(rdev):
    assert_told(
        rdev.run("run", "--", "echo", b"a\xff".decode(errors="surrogateescape")), 2, "UTF-8"
    )


def test_a_program_written_as_a_script(rdev):
    done = rdev.run("run", "sh", "-c", "true")
    assert_told(done, 127, "no such file")
    assert "rdev run -- sh" in done.stderr


def test_a_folder_that_was_removed(rdev):
    folder = rdev.cwd / "gone"
    folder.mkdir()
    script = f"cd {folder} && rmdir {folder} && exec {BIN / 'rdev'} ps"
    done = subprocess.run(
        ["sh", "-c", script], env=rdev.environment, capture_output=True, text=True, check=False
    )
    assert_told(done, 2, "removed")


def test_a_closed_stdout_receives_nothing_and_harms_nothing(rdev):
    script = f"exec {BIN / 'rdev'} run -- echo out >&-"
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=rdev.cwd,
        env=rdev.environment,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_locale_that_cannot_print_a_name(rdev):
    rdev.run("run", "--", "echo", "ä")
    done = rdev.run("ps", "-a", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0, done.stderr


def test_a_file_name_cannot_drive_the_terminal(rdev):
    os.mkfifo(rdev.cwd / "x\x1b[31m.py")
    assert "\x1b" not in rdev.run("run", "--", "true").stderr


def test_a_job_that_could_not_start_says_so_wherever_one_looks(rdev):
    started = rdev.run("run", "-d", "--", "no-such-command")
    assert started.returncode == 127
    assert "did not start" in started.stderr
    assert "did not start" in rdev.run("logs").stderr


def test_a_broken_configuration_file_is_named(rdev):
    rdev.write("rdev.toml", "hots = 'gpu1'")
    assert_told(rdev.run("run", "--", "true"), 125, "hots")
    assert_told(rdev.run("ps"), 78, "hots")
    rdev.write("rdev.toml", "host = [")
    assert_told(rdev.run("run", "--", "true"), 125, "rdev.toml")


def test_an_env_file_that_is_not_there(rdev):
    done = rdev.run("run", "--env-file", "none", "--", "true")
    assert_told(done, 2, "unable to read the env file none: No such file or directory")


def test_a_file_over_the_limit_is_named_and_the_rest_runs(rdev):
    rdev.write("train.py", "print('ran')")
    with open(rdev.cwd / "huge.bin", "wb") as file:
        file.truncate(51 << 20)
    done = rdev.run("run", "train.py")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "huge.bin" in done.stderr


def test_a_pipe_is_named_and_the_rest_runs(rdev):
    rdev.write("train.py", "print('ran')")
    os.mkfifo(rdev.cwd / "pipe.py")
    done = rdev.run("run", "train.py")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "pipe.py: not synced: a socket, FIFO or device" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to a second user needs root")
def test_an_unreadable_file_is_named_and_the_rest_runs(rdev):
    """A file that is another user's, and rdev without root's power to read it all the same."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    rdev.write("train.py", "print('ran')")
    theirs = rdev.write("theirs.py", "secret = 1")
    theirs.chmod(0o600)
    os.chown(theirs, 65534, 65534)
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]

    def as_a_person(*words):
        return subprocess.run(
            [*powerless, "rdev", *words],
            cwd=rdev.cwd,
            env=rdev.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    done = as_a_person("run", "train.py")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "theirs.py: not synced: it cannot be read (Permission denied)" in done.stderr
    assert "No such file" in as_a_person("run", "--quiet", "--", "cat", "theirs.py").stderr
    why = as_a_person("sync", "why", "theirs.py")
    assert (why.returncode, why.stdout.split(": ")[1]) == (1, "not synced")


def _await_content(rdev, process):
    """Returns once some content, and not all of it, has arrived at the host."""
    store = rdev.home / ".rdev" / "store"
    while not any(path.is_file() for path in store.rglob("*")):
        assert process.poll() is None, process.stderr.read()


@pytest.mark.own_agent
def test_ctrl_c_in_the_middle_of_a_sync_starts_nothing(rdev):
    rdev.run("ps")  # the agent runs
    for finished in range(10):
        shutil.rmtree(rdev.home / ".rdev" / "store" / "objects")
        (rdev.home / ".rdev" / "store" / "objects").mkdir()
        for number in range(400):
            (rdev.cwd / f"data_{number}.txt").write_bytes(os.urandom(200_000))
        with rdev.started("run", "--", "true") as process:
            _await_content(rdev, process)
            process.send_signal(signal.SIGINT)
            code = process.wait(DEADLINE)
            said = process.stderr.read().decode()
        assert "Traceback" not in said
        if code == 130:
            assert len(rdev.jobs(ended=True)) == finished
            return
        assert code == 0, said
    pytest.fail("every sync was over before Ctrl-C came")


@pytest.mark.own_agent
def test_kill_9_of_the_agent_in_the_middle_of_a_sync(rdev):
    for number in range(400):
        (rdev.cwd / f"data_{number}.txt").write_bytes(os.urandom(200_000))
    rdev.run("ps")
    with rdev.started("run", "--", "sh", "-c", "ls data_* | wc -l") as process:
        _await_content(rdev, process)
        rdev.kill_agent()
        out, said = process.communicate(timeout=DEADLINE)
    assert b"Traceback" not in said
    if process.returncode == 0:  # it came back by itself
        assert out.strip() == b"400"
    else:
        assert process.returncode in (125, 255)
        assert said.startswith(b"error: unable to ")
    # Either way nothing half done is left: the next run has every file.
    assert rdev.run("run", "--quiet", "--", "sh", "-c", "ls data_* | wc -l").stdout.strip() == "400"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.own_agent
def test_a_full_disk_on_the_host(rdev):
    home = rdev.home / ".rdev"
    home.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", home], check=False
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        (rdev.cwd / "train.py").write_text("print('ran')")
        (rdev.cwd / "data.bin").write_bytes(os.urandom(12 << 20))
        assert_told(rdev.run("run", "train.py"), 125, "space")
        assert rdev.jobs(ended=True) == []
        (rdev.cwd / "data.bin").unlink()
        assert rdev.run("run", "train.py").stdout == "ran\n"
        rdev.tidy()
    finally:
        subprocess.run(["umount", "--lazy", home], check=True)
        shutil.rmtree(home, ignore_errors=True)


def test_a_reader_that_leaves_is_told_that_the_job_goes_on(rdev):
    with rdev.started("run", "-q", "--name", "noisy", "--", "yes") as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        said = process.stderr.read().decode()
        process.stdout = None
    assert said.count("\n") == 1
    assert "noisy goes on: `rdev attach noisy` returns to it, `rdev stop noisy` ends it" in said
    rdev.await_state("running")


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_a_full_disk_here_is_no_full_disk_there_and_no_end_of_the_job(rdev, verb):
    command = ("--name", "noisy", "--", "sh", "-c", "while sleep 0.1; do echo y; done")
    if verb == "attach":
        rdev.run("run", "-d", *command)
    words = ("run", "-q", *command) if verb == "run" else ("attach", "noisy")
    with open("/dev/full", "w") as full, rdev.started(*words, stdout=full) as process:
        assert process.wait(DEADLINE) == 125
        error, hint = process.stderr.read().decode().splitlines()
    assert error.startswith("error: unable to show what noisy prints: No space left on device")
    assert "`rdev attach noisy` returns to it" in hint
    rdev.await_state("running")


@pytest.mark.parametrize("words", [["ps", "-a"], ["logs", "brief"]])
def test_a_full_disk_under_our_output_is_told_as_such(rdev, words):
    rdev.run("run", "--name", "brief", "--", "echo", "hi")
    with open("/dev/full", "w") as full, rdev.started(*words, stdout=full) as process:
        assert process.wait(DEADLINE) == 1
        error, hint = process.stderr.read().decode().splitlines()
    assert error == "error: unable to write the output: No space left on device"
    assert "rdev rm" not in hint


@pytest.fixture
def held(rdev, tmp_path):
    """A way to the agent that passes on no question for a job's state, and so is waited on."""
    rdev.jobs()  # the agent runs
    home = Home(str(rdev.home / ".rdev"), machine_id())
    with relayed(tmp_path / "held.sock", home.socket, loses="WatchJob...") as relay:
        yield relay


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["wait", "lasting"], "hint: jobs are not touched by this"),
        (["run", "-q", "-d", "--name", "new", "--", "sleep", "300"], "new goes on: `rdev attach"),
    ],
)
def test_ctrl_c_says_that_nothing_was_started_only_if_nothing_was(rdev, held, words, hint):
    rdev.run("run", "-d", "--name", "lasting", "--", "sleep", "300")
    with rdev.started(words[0], "-H", held.host, *words[1:]) as process:
        held.expect_held()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        said = process.stderr.read().decode()
    assert hint in said.splitlines()[1]
    assert {job["state"] for job in rdev.jobs()} <= {"running", "starting"}


def test_an_exec_that_is_lost_on_its_way_is_run_once(rdev, tmp_path):
    rdev.jobs()  # the agent runs
    home = Home(str(rdev.home / ".rdev"), machine_id())
    ran = tmp_path / "ran"
    rdev.run("run", "-d", "--name", "lasting", "--", "sleep", "300")
    with relayed(tmp_path / "loses.sock", home.socket, loses="CreateJob") as relay:
        command = ("sh", "-c", f"echo ran | tee -a {ran}; exit 3")
        done = rdev.run("exec", "-H", relay.host, "lasting", "--", *command)
    assert (done.returncode, done.stdout, ran.read_text()) == (3, "ran\n", "ran\n")


@pytest.mark.slow
def test_further_attempts_that_nobody_reads_of_hold_nobody_up(rdev):
    """The job itself has filled our stderr when its second attempt is to be told."""
    script = "[ -e once ] && exit 4; touch once; head -c 65536 /dev/zero >&2; read line; exit 3"
    words = ("run", "--retries", "1", "-i", "--", "sh", "-c", script)
    with rdev.started(*words, stdin=subprocess.PIPE, bufsize=0) as process:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 65536)
        deadline = time.monotonic() + DEADLINE
        told = len(process.stderr.readline())  # that it was synced
        while bytes_in(process.stderr) < 65536:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert told
        process.stdin.close()
        assert process.wait(20) == 4


def bytes_in(pipe) -> int:
    count = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


@pytest.mark.parametrize(
    ("words", "code"), [(["run", "--", "sh", "-c", "exit 3"], 3), (["logs", "nobody"], 1)]
)
def test_a_stderr_that_nobody_reads_holds_nobody_up(rdev, words, code):
    ours, theirs = os.pipe()
    with os.fdopen(ours), os.fdopen(theirs, "wb", buffering=0) as full:
        os.set_blocking(theirs, False)
        while full.write(bytes(4096)) is not None:
            pass
        os.set_blocking(theirs, True)
        with rdev.started(*words, stderr=theirs) as process:
            assert process.wait(20) == code


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [("exit 3", 3, ""), ("kill -9 $$", 137, ""), ("exec ./nothing", 127, "")],
)
def test_quiet_says_nothing_of_a_jobs_own_end(rdev, script, code, said):
    done = rdev.run("run", "-q", "--retries", "1", "--", "sh", "-c", f"echo out; {script} 2>&1")
    assert (done.returncode, done.stderr) == (code, said)


def test_quiet_still_says_what_is_no_end_of_the_jobs_own(rdev):
    done = rdev.run("run", "-q", "--", "no-such-command")
    assert done.returncode == 127
    assert done.stderr.startswith("rdev: job no-such-command (")
    assert "did not start" in done.stderr
