"""The agent as a process: one a home, private, started on demand."""

import os
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from tests.support.command import BIN, DEADLINE

from rdev.wire.home import Home, answers, check_private, machine_id
from rdev.wire.unix import short_socket_path

pytestmark = pytest.mark.filterwarnings("error")


def test_the_first_command_starts_the_agent_and_the_second_meets_it(rdev):
    assert rdev.command("rdev-agent", "status").returncode == 1
    assert rdev.run("ps").returncode == 0
    first = rdev.agent_pid
    assert rdev.run("ps").returncode == 0
    assert rdev.agent_pid == first


def test_the_agent_takes_all_descriptors_and_a_job_has_what_the_login_has(rdev):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    login = f"ulimit -Sn 300; exec {BIN / 'rdev-agent'} serve --detach"
    subprocess.run(["sh", "-c", login], env=rdev.environment, check=True, capture_output=True)
    assert resource.prlimit(rdev.agent_pid, resource.RLIMIT_NOFILE) == (hard, hard)
    done = rdev.run("run", "--", "sh", "-c", "ulimit -Sn; ulimit -Hn")
    assert done.stdout == f"300\n{hard}\n"


def test_a_second_agent_is_refused_in_one_line(rdev):
    assert rdev.command("rdev-agent", "serve", "--detach").returncode == 0
    for words in (["serve"], ["serve", "--detach"]):
        done = rdev.command("rdev-agent", *words)
        assert done.returncode == 75
        assert done.stderr.splitlines()[0] == (
            f"error: unable to serve this home: process {rdev.agent_pid} does"
        )
        assert "Traceback" not in done.stderr


def test_two_clients_that_start_the_agent_at_once_share_one(rdev):
    with rdev.started("ps") as one, rdev.started("ps") as two:
        assert (one.wait(60), two.wait(60)) == (0, 0)
    assert rdev.agent_pid


def test_a_killed_agent_is_replaced_by_the_next_command(rdev):
    rdev.run("ps")
    first = rdev.agent_pid
    rdev.kill_agent()
    assert rdev.run("ps").returncode == 0
    assert rdev.agent_pid != first


def test_a_stopped_agent_says_that_jobs_go_on(rdev):
    rdev.run("ps")
    done = rdev.command("rdev-agent", "stop")
    assert (done.returncode, "its jobs go on" in done.stdout) == (0, True)
    assert rdev.command("rdev-agent", "stop").returncode == 0


def test_sigterm_and_a_closed_terminal(rdev):
    rdev.run("ps")
    pid = rdev.agent_pid
    os.kill(pid, signal.SIGHUP)
    assert rdev.run("ps").returncode == 0
    assert rdev.agent_pid == pid


def test_nothing_of_the_agent_is_open_to_others(rdev):
    rdev.run("ps")
    home = rdev.home / ".rdev"
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


@pytest.mark.slow
def test_an_agent_whose_home_is_removed_ends(rdev):
    rdev.run("ps")
    handle = os.pidfd_open(rdev.agent_pid)
    try:
        shutil.rmtree(rdev.home / ".rdev")
        assert select.select([handle], [], [], DEADLINE)[0]
    finally:
        os.close(handle)


def test_a_long_log_begins_anew_with_the_next_agent(rdev):
    assert rdev.run("ps").returncode == 0
    (log,) = (rdev.home / ".rdev" / "hosts").glob("*/agent.log")
    assert rdev.command("rdev-agent", "stop").returncode == 0
    with log.open("a") as file:
        file.write("an old line\n" * (1 << 19))
    assert rdev.run("ps").returncode == 0
    assert "an old line" not in log.read_text()
    earlier = log.with_name("agent.log.1")
    assert earlier.stat().st_size > 1 << 22
    assert earlier.stat().st_mode & 0o777 == 0o600


def test_a_home_that_others_may_enter_is_refused(rdev):
    home = rdev.home / ".rdev"
    home.mkdir(mode=0o755)
    done = rdev.command("rdev-agent", "serve")
    assert done.returncode == 77
    assert "mode 0755" in done.stderr
    for words, code in ((["ps"], 77), (["run", "--", "true"], 125)):
        done = rdev.run(*words)
        assert (done.returncode, "mode 0755" in done.stderr) == (code, True)


def test_a_home_that_is_a_link_is_refused_with_how_to_name_another(rdev):
    (rdev.home / "scratch").mkdir(mode=0o700)
    (rdev.home / ".rdev").symlink_to(rdev.home / "scratch")
    done = rdev.run("ps")
    assert done.returncode == 77
    assert "is a symbolic link" in done.stderr
    assert "RDEV_HOME" in done.stderr


def test_a_socket_path_beyond_the_limit_is_reached(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = str(folder / "agent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        with short_socket_path(path) as short:
            listener.bind(short)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as dialer, short_socket_path(path) as short:
            dialer.connect(short)


def test_a_symbolic_link_is_not_private(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError, match="symbolic link"):
        check_private(str(tmp_path / "link"))


def test_a_socket_that_nobody_serves_does_not_count_as_an_agent(tmp_path):
    home = Home(str(tmp_path), machine_id())
    Path(home.run).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, short_socket_path(home.socket) as short:
        listener.bind(short)
    assert not answers(home)
