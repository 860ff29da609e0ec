"""What a command and its session say to each other, and by what they know each other."""

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.session import frames, front, place
from rdev.client.session.code import Code
from rdev.client.session.foreground import require_own_terminal
from rdev.client.session.running import running
from rdev.client.session.standing import standing_of

STATUS = b"""Name:\trdev
Umask:\t0027
Uid:\t1000\t1000\t1000\t1000
NStgid:\t4242
SigBlk:\t0000000000000000
SigIgn:\t0000000001001001
Cpus_allowed:\tff
"""
words = st.binary().filter(lambda word: b"\0" not in word)


@given(st.lists(words, min_size=1), st.lists(words), words, words, st.integers(-20, 19))
def test_a_request_arrives_as_it_was_sent(argv, environment, identity, status, nice):
    sent = frames.Request(
        identity,
        status,
        b"limits",
        nice=nice,
        is_foreground=True,
        words=argv,
        environment=environment,
    )
    data = frames.compose(sent)
    assert frames.length(data) == len(data)
    found = frames.parse(data)
    for name in frames.Request.__slots__:
        assert getattr(found, name) == getattr(sent, name)


@given(st.integers(0, 18))
def test_what_has_begun_to_arrive_is_waited_for(size):
    whole = frames.MAGIC + (7).to_bytes(4, "big")
    assert frames.length(whole[:size]) is None


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n", b"rdev-session-2\n", b"x"])
def test_what_is_no_request_is_refused_at_once(head):
    with pytest.raises(ValueError, match="no request"):
        frames.length(head)


def test_a_request_without_end_is_refused():
    with pytest.raises(ValueError, match="too many"):
        frames.length(frames.MAGIC + b"\xff\xff\xff\xff")


@given(st.binary())
def test_a_malformed_request_is_refused(body):
    try:
        frames.parse(frames.MAGIC + len(body).to_bytes(4, "big") + body)
    except ValueError:
        return
    assert body.count(b"\0") >= 6


def test_a_standing_is_read_from_the_kernels_words():
    found = standing_of(STATUS, b"Max open files 100", nice=3)
    assert found.umask == 0o027
    assert found.ignored == {1, 13, 25}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Uid:\t1000", b"Uid:\t0"),
        (b"SigBlk:\t0000000000000000", b"SigBlk:\t0000000000000002"),
        (b"Cpus_allowed:\tff", b"Cpus_allowed:\t1"),
        (b"NStgid:\t4242", b"NStgid:\t4242\t1"),
    ],
)
def test_who_stands_otherwise_has_nothing_in_common(before, after):
    ours = standing_of(STATUS, b"", nice=0)
    assert standing_of(STATUS.replace(before, after), b"", nice=0).shared != ours.shared


def test_another_process_umask_and_ignored_signals_make_no_difference():
    other = STATUS.replace(b"4242", b"17").replace(b"0027", b"0022").replace(b"1001001", b"1001000")
    assert standing_of(other, b"", nice=0).shared == standing_of(STATUS, b"", nice=0).shared


def test_another_limit_or_niceness_makes_a_difference():
    ours = standing_of(STATUS, b"Max open files 100", nice=0)
    assert standing_of(STATUS, b"Max open files 200", nice=0).shared != ours.shared
    assert standing_of(STATUS, b"Max open files 100", nice=1).shared != ours.shared


@pytest.mark.parametrize("name", ["PYTHONPATH", "LC_ALL", "GRPC_VERBOSITY", "LD_PRELOAD", "HOME"])
def test_what_is_read_at_the_start_has_a_session_of_its_own(monkeypatch, name):
    before = place.name_of(place.identity())
    monkeypatch.setenv(name, "/elsewhere")
    assert place.name_of(place.identity()) != before


def test_what_comes_with_each_command_has_the_same_session(monkeypatch):
    before = place.name_of(place.identity())
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("SECRET", "word")
    assert place.name_of(place.identity()) == before
    assert not {"SSH_AUTH_SOCK", "SECRET"} & place.start_environment().keys()


def test_only_a_folder_of_ours_that_nobody_else_enters_is_used(tmp_path):
    folder = tmp_path / "session"
    assert not place.is_private(str(folder))
    folder.mkdir(mode=0o700)
    assert place.is_private(str(folder))
    (tmp_path / "link").symlink_to(folder)
    assert not place.is_private(str(tmp_path / "link"))
    folder.chmod(0o750)
    assert not place.is_private(str(folder))


def test_code_that_is_added_or_changed_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    code = Code()
    assert code.is_current
    (tmp_path / "new.py").touch()
    assert not code.is_current


def test_an_edit_is_noticed_and_bytecode_is_not(tmp_path, monkeypatch):
    import rdev

    folder = tmp_path / "rdev" / "client"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("before")
    monkeypatch.setattr(rdev, "__path__", [str(tmp_path / "rdev")])
    code = Code()
    (folder / "__pycache__").mkdir()
    assert code.is_current
    (folder / "one.py").write_text("and after")
    assert not code.is_current


def test_a_lock_that_nobody_holds_names_no_session(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert running() == []
    folder = tmp_path / "rdev" / "session"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "abc.lock").write_text(f"{os.getpid()}\n")
    assert running() == []


def test_the_front_imports_nothing_that_takes_long():
    import subprocess

    script = (
        "import sys; before = set(sys.modules); import rdev.client.session.front; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    found = {name for name in done.stdout.split() if not name.startswith("rdev")}
    assert found <= {"__future__", "_socket", "_signal"}


def test_whoever_is_no_worker_may_use_the_terminal():
    require_own_terminal()


def test_every_file_of_ours_is_looked_at():
    assert str(Path(place.__file__)) in Code()._seen


ENDED_TOGETHER = """
import os, signal, socket, sys
from rdev.client.session.code import Code
from rdev.client.session.command import Command
from rdev.client.session.server import Session

os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind("name.new")
listener.listen()
listener.settimeout(0)
session = Session(listener, "name", os.open("lock", os.O_CREAT), identity=b"x", code=Code())
ours, theirs = socket.socketpair()
command = Command(ours, None, worker=os.fork() or os._exit(0))
session._commands.append(command)
session._selector.register(ours, 1, command)
os.waitid(os.P_PID, command.worker, os.WEXITED | os.WNOWAIT)
session._waker.send(bytes((signal.SIGCHLD, signal.SIGTERM)))
theirs.close()
session.serve()
print("served")
"""


def test_a_command_that_ends_in_the_moment_its_worker_does_ends_no_session(tmp_path):
    command = [sys.executable, "-c", ENDED_TOGETHER, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("served\n", "")


def test_another_root_has_a_session_of_its_own(tmp_path, monkeypatch):
    here, stat = place.identity(), os.stat
    monkeypatch.setattr(os, "stat", lambda path: stat(tmp_path if path == "/" else path))
    assert place.identity() != here


def test_what_a_loop_over_hash_seeds_starts_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = Path(place.folder())
    folder.mkdir(parents=True, mode=0o700)
    name = place.name_of(place.identity())
    command = [sys.executable, "-P", "-m", "rdev.client.session.serve", name]
    with contextlib.ExitStack() as held:
        for number in range(6):
            file = held.enter_context((folder / f"{number}.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            print(os.getpid(), file=file, flush=True)
        done = subprocess.run(command, env=place.start_environment(), timeout=30, check=False)
    assert done.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_sudo_leaves_no_folder_in_the_home_of_whoever_typed_it(tmp_path):
    assert front._is_writable(str(tmp_path / "rdev" / "session"))
    os.chown(tmp_path, 1234, 1234)
    assert not front._is_writable(str(tmp_path / "rdev" / "session"))
