"""One home on two machines, homes of odd names, logins of containers, and what a login gives jobs."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.guest import guest
from tests.support.laptops import Laptop, installed_rdev
from tests.support.sshd import HOST, NO_NETWORK, sshd

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces or a second user")


class Elsewhere(Rdev):
    """The same person on another machine, with the same home: of another host name, that is."""

    def command(self, program: str, *words: str, cwd=None, text=True, **options):
        renamed = 'echo elsewhere > /proc/sys/kernel/hostname && exec "$@"'
        done = subprocess.run(
            ["unshare", "--uts", "sh", "-c", renamed, "sh", shutil.which("env"), program, *words],
            cwd=cwd or self.cwd,
            env=self.environment | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=text,
            timeout=DEADLINE,
            check=False,
        )
        assert socket.gethostname() != "elsewhere"
        return done

    @property
    def agent_pid(self) -> int:
        return json.loads(self.command("rdev-agent", "status", "--json").stdout)["pid"]

    def tidy(self) -> None:
        for job in json.loads(self.run("ps", "--json").stdout or "[]"):
            self.run("stop", job["id"], "--now")
        self.command("rdev-agent", "stop")


@pytest.fixture
def other(rdev: Rdev) -> Iterator[Elsewhere]:
    person = Elsewhere(rdev.home, rdev.cwd)
    yield person
    person.tidy()


@pytest.mark.slow
@AS_ROOT
def test_two_machines_with_one_home_leave_each_others_agents_and_jobs_alone(rdev, other):
    """Done means seen, 2: live jobs on both, and every way to end or tidy something on one."""
    rdev.write("train.py", "import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    for person, name in ((rdev, "here"), (other, "there")):
        done = person.run("run", "-d", "--name", name, "train.py")
        assert done.returncode == 0, done.stderr
    assert len(list(rdev.home.glob(".rdev/hosts/*/run/agent.sock"))) == 2
    assert len(list(rdev.home.glob(".rdev/workspaces/*"))) == 1
    assert [job["name"] for job in rdev.json("ps")] == ["here"]
    assert [job["name"] for job in other.json("ps")] == ["there"]
    agents = rdev.agent_pid, other.agent_pid
    assert agents[0] != agents[1]

    # Edited, synced and run through both, in turn.
    for number, person in enumerate((other, rdev, other)):
        rdev.write("other.py", f"print({number})\n")
        done = person.run("run", "-q", "other.py")
        assert (done.stdout, done.stderr) == (f"{number}\n", "")

    # An agent that starts tidies the store, and looks after jobs: after its own.
    rdev.kill_agent()
    assert rdev.run("logs", "here").stdout == "begun\n"
    assert rdev.command("rdev-agent", "upgrade").returncode == 0
    assert rdev.run("stop", "here", "--now").returncode == 0
    assert rdev.run("rm", "--ended", "--yes").returncode == 0
    assert rdev.command("rdev-agent", "stop").returncode == 0
    assert (other.agent_pid, other.json("ps")[0]["state"]) == (agents[1], "running")
    assert other.run("logs", "there").stdout == "begun\n"
    purged = rdev.command("rdev-agent", "purge", "--json")
    assert purged.returncode == 0, purged.stderr
    assert "another machine uses too" in json.loads(purged.stdout)["kept"]
    assert (other.agent_pid, other.json("ps")[0]["state"]) == (agents[1], "running")
    assert other.run("run", "-q", "other.py").stdout == "2\n"


@pytest.mark.parametrize("name", ["ein Übungsheim 日本", "x" * 120])
def test_a_home_of_any_name_and_length_works(rdev, tmp_path, name):
    env = {"RDEV_HOME": str(tmp_path / name)}
    try:
        done = rdev.run("run", "-q", "--", "sh", "-c", "echo hi", env=env)
        assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
        assert rdev.run("logs", "sh", env=env).stdout == "hi\n"
    finally:
        rdev.command("rdev-agent", "stop", env=env)
    assert not (rdev.home / ".rdev").exists()


# Laid over /etc, not bound to its files: a user who is added meanwhile replaces those, and what was
# bound to them is gone.
CONTAINER = """
set -e
mount -t overlay overlay -o lowerdir={etc}:/etc /etc
echo container > /proc/sys/kernel/hostname
exec "$@"
"""


# As a shell has them that nobody logged in to.
_NOBODYS = ("USER", "LOGNAME", "SHELL", "HOME", "RDEV_HOME")


@pytest.fixture
def contained(rdev: Rdev, tmp_path: Path):
    """Runs a command as root in a container: no name, no machine id, a read-only /etc."""
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("machine-id", "passwd"):
        (etc / name).touch()
    (etc / "nsswitch.conf").write_text("passwd: files\n")
    script = CONTAINER.format(etc=etc)

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess:
        own = {k: v for k, v in rdev.environment.items() if k not in _NOBODYS}
        return subprocess.run(
            ["unshare", "--mount", "--uts", "sh", "-c", script, "sh", *command],
            cwd=rdev.cwd,
            env=own | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


@AS_ROOT
@pytest.mark.parametrize(
    "variables",
    [{}, pytest.param({"HOME": "/"}, marks=pytest.mark.slow)],
    ids=["HOME unset", "HOME=/"],
)
def test_a_login_of_a_container_works(contained, tmp_path, variables):
    told = "import os; print(os.environ['HOME'], os.environ['USER'], os.getuid())"
    script = (
        'rdev run -q -- python3 -c "$0" && rdev-agent upgrade --login >/dev/null &&'
        ' rdev run -q -- python3 -c "$0"; rdev-agent stop >/dev/null'
    )
    done = contained("sh", "-c", script, told, RDEV_HOME=str(tmp_path / "state"), **variables)
    assert done.stdout.splitlines()[-1:] == ["/ 0 0"], done.stderr
    assert done.stderr == ""


@AS_ROOT
@pytest.mark.parametrize("command", [("rdev-agent", "status"), ("rdev", "ps")])
def test_a_login_without_any_home_is_told_to_name_one(contained, command):
    done = contained(*command)
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    assert "RDEV_HOME" in done.stderr


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return installed_rdev(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """The cache of the tests of first contact."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "wheels"
    folder.mkdir(exist_ok=True)
    return folder


TELL = "umask; ulimit -n; ulimit -Hn; id -G; echo $FROM_RC"


@AS_ROOT
@pytest.mark.slow
def test_umask_limits_groups_and_variables_of_a_job_are_those_of_the_login(rdev, command, wheels):
    """Done means seen, 3: what `ssh host` gives."""
    with guest() as user, sshd(user.name, inside=NO_NETWORK) as server:
        rc = "echo welcome\numask 002\nulimit -n 4096\nexport FROM_RC='two words'\n"
        user.write(".profile", rc)
        laptop = Laptop(rdev, server, wheels, command)
        login = ["bash", "-l", "-c", f"'{TELL}'"]
        ssh = subprocess.run(
            [*server.ssh, HOST, *login],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        wanted = ssh.stdout.split("welcome\n")[-1]
        assert wanted.splitlines()[:3] == ["0002", "4096", "4096"]
        done = laptop.job("-q", "--", "sh", "-c", TELL)
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr
        # Captured once: a job starts no login shell, and another agent none either.
        user.write(".profile", "touch was-run\n" + rc.replace("002", "027"))
        user.end_processes()
        again = laptop.job("-q", "--", "sh", "-c", TELL)
        assert (again.stdout, (user.home / "was-run").exists()) == (wanted, False), again.stderr
        (record,) = user.home.glob(".rdev/hosts/*/login.json")
        assert record.stat().st_mode & 0o777 == 0o600
        # And anew when a person asks.
        renewed = laptop.run("up", HOST)
        assert renewed.returncode == 0, renewed.stderr
        later = laptop.job("-q", "--", "sh", "-c", TELL)
        assert later.stdout == wanted.replace("0002", "0027"), later.stderr
        # What cannot be had is said to whoever asked.
        assert "rdev doctor" not in renewed.stderr
        user.write(".profile", "exit 1\n")
        failed = laptop.run("up", HOST)
        assert failed.returncode == 0, failed.stderr
        assert f"jobs do not get what a login has there; `rdev doctor {HOST}`" in failed.stderr
        assert "bash did not run a command" in laptop.run("doctor", HOST).stdout
