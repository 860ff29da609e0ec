"""Jobs in a terminal of their own, at a real terminal: `run -t`, `attach`, `shell`, `exec -t`."""

import os
import random
import signal
import sys
from functools import partial

import pytest
from tests.support.command import DEADLINE
from tests.support.relay import relayed
from tests.support.terminal import in_terminal

from rdev.wire.home import Home, machine_id

pytestmark = pytest.mark.shared_agent

CTRL_C, CTRL_D = b"\x03", b"\x04"

# Says the size of its terminal, at first and whenever it is told of one.
SIZES = """
import os, signal, sys, time
def say(*_):
    size = os.get_terminal_size()
    print(f"size {size.lines}x{size.columns}.", flush=True)
signal.signal(signal.SIGWINCH, say)
say()
for line in sys.stdin:
    print("read", line.strip(), flush=True)
print("bye", flush=True)
"""


@pytest.fixture
def terminal(rdev):
    return partial(in_terminal, rdev)


@pytest.fixture
def relay(rdev, tmp_path):
    rdev.jobs()  # the agent runs
    home = Home(str(rdev.home / ".rdev"), machine_id())
    with relayed(tmp_path / "forwarded.sock", home.socket) as relay:
        yield relay


def test_a_job_has_our_size_and_learns_each_new_one(rdev, terminal):
    rdev.write("sizes.py", SIZES)
    with terminal("run", "-t", "sizes.py", rows=31, columns=97) as shown:
        shown.expect(b"size 31x97.")
        shown.resize(20, 60)
        shown.expect(b"size 20x60.")
        shown.resize(50, 132)
        shown.expect(b"size 50x132.")
        shown.type(b"\r" + CTRL_D)
        shown.expect(b"bye")
        assert shown.wait() == 0


def test_keys_reach_the_job_and_ctrl_c_is_one_of_them(terminal):
    script = "trap 'echo caught; exit 5' INT; echo ready; read line; echo got $line; sleep 60"
    with terminal("run", "-t", "--", "sh", "-c", script) as shown:
        shown.expect(b"ready")
        assert shown.is_raw
        shown.type(b"some words\r")
        shown.expect(b"got some words")
        shown.type(CTRL_C)
        shown.expect(b"caught")
        assert shown.wait() == 5
        assert shown.is_as_before


def test_keys_typed_while_the_agent_is_killed_are_neither_lost_nor_doubled(rdev, terminal):
    data = random.Random(8).randbytes(120_000).replace(b"~", b"-")
    script = f"stty raw -echo; echo ready; head -c {len(data)} > out; echo done"
    with terminal("run", "-t", "--", "sh", "-c", script) as shown:
        shown.expect(b"ready")
        for start in range(0, len(data), 30_000):
            type_all(shown, data[start : start + 30_000])
            kill_agent(rdev)
        shown.expect(b"done")
        assert shown.wait() == 0
    assert host_file(rdev, "out").read_bytes() == data


@pytest.mark.slow
def test_output_while_the_agent_is_killed_comes_once_and_in_order(rdev, terminal):
    script = 'read x; for n in 1 2 3; do seq -f "$n.%05g" 2000; read x; done; echo end'
    with terminal("run", "-t", "--quiet", "--", "sh", "-c", script) as shown:
        everything = b""
        for number in (1, 2, 3):
            shown.type(b"\r")
            shown.until(lambda n=number: b"%d.02000" % n in shown.seen)
            kill_agent(rdev)
        shown.type(b"\r")
        shown.until(lambda: b"end" in shown.seen)
        everything = shown.seen
        assert shown.wait() == 0
    lines = [line for line in everything.split() if b"." in line]
    assert lines == [b"%d.%05d" % (n, line) for n in (1, 2, 3) for line in range(1, 2001)]


@pytest.mark.slow
def test_a_long_break_is_told_and_what_is_typed_meanwhile_arrives(rdev, terminal, relay):
    with terminal("run", "-t", "-H", relay.host, "--", "cat") as shown:
        shown.type(b"before\r")
        shown.expect(b"before\r\nbefore\r\n")
        relay.kill()
        shown.expect(b"connection lost, trying again; Enter ~d leaves")
        shown.type(b"meanwhile\r")
        relay.start()
        shown.expect(b"meanwhile\r\nmeanwhile\r\n")
        relay.kill()
        shown.type(b"never\r~d")
        shown.expect(b"6 bytes that were typed did not reach cat")
        shown.expect(f"`rdev attach -H {relay.host} cat` returns".encode())
        assert shown.wait() == 0
        assert shown.is_as_before


def test_enter_tilde_d_detaches_and_attach_returns(rdev, terminal):
    rdev.write("sizes.py", SIZES)
    with terminal("run", "-t", "sizes.py") as shown:
        shown.expect(b"size 24x80.")
        shown.type(b"first\r~?")
        shown.expect(b"~d or ~. detaches")
        shown.expect(b"read first")
        shown.type(b"~d")
        shown.expect(b"`rdev attach sizes` returns")
        assert shown.wait() == 0
        assert shown.is_as_before
    with terminal("attach", rows=30, columns=90) as shown:
        shown.expect(b"read first")
        shown.expect(b"size 30x90.")
        shown.type(b"second\r")
        shown.expect(b"read second")
        shown.type(CTRL_D)
        shown.expect(b"bye")
        assert shown.wait() == 0
        assert shown.is_as_before


def test_keys_of_ones_own_detach_too(terminal):
    keys = ("--detach-keys", "ctrl-p,ctrl-q")
    script = "stty raw -echo; echo ready; exec cat -v"
    with terminal("run", "-t", *keys, "--", "sh", "-c", script) as shown:
        shown.expect(b"ready")
        shown.type(b"\x10x")
        shown.expect(b"^Px")
        shown.type(b"\x10\x11")
        shown.expect(b"`rdev attach sh` returns")
        assert shown.wait() == 0
    with terminal("attach", *keys) as shown:
        shown.expect(b"^Px")
        shown.type(b"\x10\x11")
        shown.expect(b"`rdev attach sh` returns")
        assert shown.wait() == 0


@pytest.mark.slow
def test_returning_with_the_same_size_makes_programs_redraw(rdev, terminal):
    rdev.write("sizes.py", SIZES)
    assert rdev.run("run", "-dt", "sizes.py").returncode == 0
    for _ in range(2):
        with terminal("attach") as shown:
            shown.until(lambda: shown.seen.count(b"size 24x80.") >= 2)
            shown.type(b"~d")
            assert shown.wait() == 0


def test_a_question_to_the_terminal_is_not_asked_again_of_one_who_returns(rdev, terminal):
    script = r"printf 'before\033[6nafter\n'; exec sleep 60"
    start(rdev, script)
    while "after" not in rdev.run("logs").stdout:  # each look is a command of its own
        pass
    with terminal("attach") as shown:
        shown.expect(b"beforeafter")
        shown.type(b"~d")
        assert shown.wait() == 0


def test_what_a_program_switched_on_is_switched_off_for_one_who_leaves(terminal):
    script = r"printf '\033[?1049h\033[?1000h\033[?25l'; echo ready; exec sleep 60"
    with terminal("run", "-t", "--", "sh", "-c", script) as shown:
        shown.expect(b"ready")
        shown.type(b"~d")
        shown.expect(b"\x1b[?25h\x1b[?1000l\x1b[?1049l")
        assert shown.wait() == 0


def test_a_signal_detaches_and_the_terminal_is_as_before(rdev, terminal):
    start(rdev, "echo ready; exec sleep 60")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        with terminal("attach") as shown:
            shown.expect(b"ready")
            assert shown.is_raw
            shown.process.send_signal(number)
            shown.expect(b"returns to it")
            assert shown.wait() == 128 + number
            assert shown.is_as_before
    rdev.await_state("running")


@pytest.mark.own_agent
def test_an_error_leaves_the_terminal_as_it_was(rdev, terminal):
    home = rdev.home / ".rdev"
    with terminal("run", "-t", "--", "sh", "-c", "echo ready; exec sleep 60") as shown:
        shown.expect(b"ready")
        assert shown.is_raw
        home.chmod(0o755)  # no agent starts in a home that others may read
        rdev.kill_agent()
        try:
            shown.expect(b"error: unable to")
            assert shown.wait() == 125
        finally:
            home.chmod(0o700)
        assert shown.is_as_before


def test_a_command_that_does_not_exist_leaves_the_terminal_as_it_was(terminal):
    with terminal("run", "-t", "--", "no-such-command") as shown:
        shown.expect(b"no-such-command")
        assert shown.wait() == 127
        assert shown.is_as_before


def test_a_client_killed_in_raw_mode_leaves_the_job_and_attach_returns(rdev, terminal):
    with terminal("run", "-t", "--", "cat") as shown:
        shown.type(b"one\r")
        shown.expect(b"one\r\none\r\n")
        shown.process.kill()
        shown.process.wait(DEADLINE)
    with terminal("attach") as shown:
        shown.expect(b"one\r\none\r\n")
        shown.type(b"two\r")
        shown.expect(b"two\r\ntwo\r\n")
        shown.type(CTRL_D)
        assert shown.wait() == 0


def test_two_attached_see_the_same_may_both_type_and_the_last_size_counts(rdev, terminal):
    rdev.write("sizes.py", SIZES)
    with terminal("run", "-t", "sizes.py", rows=24, columns=80) as left:
        left.expect(b"size 24x80.")
        with terminal("attach", rows=40, columns=100) as right:
            for shown in (left, right):
                shown.expect(b"size 40x100.")
            left.type(b"from the left\r")
            for shown in (left, right):
                shown.expect(b"read from the left")
            right.type(b"from the right\r")
            for shown in (left, right):
                shown.expect(b"read from the right")
            left.resize(25, 81)
            for shown in (left, right):
                shown.expect(b"size 25x81.")
            right.type(CTRL_D)
            for shown in (left, right):
                shown.expect(b"bye")
                assert shown.wait() == 0


@pytest.mark.slow
def test_one_who_only_watches_types_nothing(rdev, terminal):
    start(rdev, "echo ready; exec cat")
    with terminal("attach", "--no-stdin") as shown:
        shown.expect(b"ready")
        assert not shown.is_raw
        shown.type(CTRL_C)
        shown.expect(b"detached")
        assert shown.wait() == 0


def test_a_terminal_is_asked_for_where_there_is_none(rdev):
    done = rdev.run("run", "-t", "--", "true")
    assert done.returncode == 2
    assert "no terminal here" in done.stderr
    done = rdev.run("shell")
    assert done.returncode == 2
    assert "no terminal here" in done.stderr


def test_without_t_a_job_has_no_terminal_even_at_one(terminal):
    with terminal("run", "--", "sh", "-c", "test -t 0 || test -t 1 || echo none") as shown:
        shown.expect(b"none")
        assert shown.wait() == 0


def test_a_shell_is_a_job_that_vanishes_at_exit(rdev, terminal):
    with terminal("shell", "--sync") as shown:
        shown.type(b"pwd; echo $((6*7)); tty\r")
        shown.expect(b"workspaces/project-")
        shown.expect(b"42")
        shown.expect(b"/dev/pts/")
        assert [job["name"] for job in rdev.jobs()] == ["shell"]
        shown.type(b"exit 3\r")
        assert shown.wait() == 3
        assert b"rdev:" not in shown.seen
        assert shown.is_as_before
    assert rdev.jobs(ended=True) == []


@pytest.mark.own_agent
def test_python_in_a_shell_is_what_jobs_run_with(rdev, terminal, monkeypatch):
    # As on Debian, where /etc/profile knows better.
    (rdev.home / ".profile").write_text("PATH=/usr/bin:/bin\n")
    venv = rdev.cwd / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    (venv.parent / "pyvenv.cfg").touch()
    monkeypatch.setenv("SHELL", "/bin/bash")
    with terminal("run", "-m", "this") as shown:
        shown.expect(b"Namespaces")
        assert shown.wait() == 0
    argv = rdev.jobs(ended=True)[0]["argv"]
    assert argv[0] == str(venv / "python")
    with terminal("shell") as shown:
        shown.type(b"echo got $(command -v python) $VIRTUAL_ENV/\r")
        shown.expect(f"got {argv[0]} {venv.parent}/".encode())
        shown.type(b"exit 0\r")
        assert shown.wait() == 0


def test_a_shell_that_is_left_stays(rdev, terminal):
    with terminal("shell") as shown:
        shown.expect(b"never synced")
        shown.type(b"\recho in $((40+2))\r")
        shown.expect(b"in 42")
        shown.type(b"\r~d")
        shown.expect(b"`rdev attach shell` returns")
        assert shown.wait() == 0
    with terminal("shell") as shown:
        shown.type(b"echo $((2*3*7))\r")
        shown.expect(b"42")
        assert {job["name"] for job in rdev.jobs()} == {"shell", "shell-2"}
        # Who names no job does not mean a shell.
        assert "there are no jobs here yet" in rdev.run("stop").stderr
        assert "there are no jobs here yet" in rdev.run("logs").stderr
        shown.type(b"exit\r")
        assert shown.wait() == 0
    with terminal("attach", "shell") as shown:
        shown.expect(b"in 42")
        shown.type(b"exit 4\r")
        assert shown.wait() == 4


@pytest.mark.slow
def test_exec_in_a_terminal(rdev, terminal):
    rdev.run("run", "-d", "--", "sleep", "60")
    with terminal("exec", "-t", "@-1", "--", "sh", "-c", "stty size; read x; exit $x") as shown:
        shown.expect(b"24 80")
        shown.type(b"6\r")
        assert shown.wait() == 6
    assert len(rdev.jobs(ended=True)) == 1


def start(rdev, script: str) -> None:
    """Starts a shell's script in a terminal that nobody looks at yet."""
    done = rdev.run("run", "-dt", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr


def kill_agent(rdev) -> None:
    """Kills the agent, once there is one again."""
    rdev.jobs()
    rdev.kill_agent()


def type_all(shown, data: bytes) -> None:
    """Types much, reading what is shown meanwhile, as a terminal does."""
    sent = 0
    while sent < len(data):
        sent += os.write(shown.descriptor, data[sent : sent + 1024])


def host_file(rdev, name: str):
    (found,) = (rdev.home / ".rdev" / "workspaces").glob(f"*/{name}")
    return found
