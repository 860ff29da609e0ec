"""`rdev doctor HOST`: the laptop, the way and the host, each trouble with its remedy."""

import contextlib
import json
import os
import re
import subprocess
import tempfile

import pytest
from tests.support.guest import guest
from tests.support.laptops import Laptop, installed_rdev
from tests.support.sshd import HOST, sshd

if os.geteuid() != 0:
    pytest.skip("only root can make a second user", allow_module_level=True)

# What a connection's server is put behind: every Python of the machine is no program any more.
_HIDE = """
for python in /usr/bin/python3* /usr/local/bin/python3*; do
    python=$(readlink -f "$python")
    [ -x "$python" ] && mount --bind /etc/hostname "$python"
done
exec "$@"
"""
NO_PYTHON = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A cache that all these tests share: an index is asked once."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "wheels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return installed_rdev(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def user():
    with guest() as person:
        yield person


@pytest.fixture
def meet(rdev, wheels, command):
    """Makes a laptop that reaches a server, with room for the sockets of a session."""
    with tempfile.TemporaryDirectory(prefix="rdev-run-") as runtime:
        yield lambda server: Laptop(rdev, server, wheels, command, {"XDG_RUNTIME_DIR": runtime})


def examined(laptop, code: int) -> dict[str, dict]:
    """The findings by what was looked at; whatever is not well has a remedy."""
    done = laptop.run("doctor", HOST, "--json")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    findings = json.loads(done.stdout)
    assert all(bool(finding["remedy"]) is not finding["ok"] for finding in findings), findings
    return {finding["what"]: finding for finding in findings}


@contextlib.contextmanager
def mounted(user, *options: str):
    """The user's home as a file system of its own."""
    words = ",".join([f"uid={user.uid}", f"gid={user.gid}", "mode=700", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", user.home], check=True)
    try:
        yield
    finally:
        user.end_processes()
        subprocess.run(["umount", "--lazy", user.home], check=True)


@pytest.mark.slow
def test_a_healthy_host(user, meet):
    user.venv("venvs/vision")
    with sshd(user.name) as server:
        laptop = meet(server)
        findings = examined(laptop, 0)
        way = findings[f"ssh to {HOST}"]["found"]
        assert re.search(rf"^openssh to {user.name}@127.0.0.1 port \d+, by \S+; .* \d+ ms$", way)
        release = re.match(r"rdev (\S+) here, (\S+) there", findings["releases"]["found"])
        assert release[1] == release[2]
        assert "venv vision" in findings["environments"]["found"]
        assert {"watches here", "cache here", "login node", "free space"} <= findings.keys()
        told = laptop.run("doctor", "-H", HOST)
        assert (told.returncode, "FAIL" in told.stdout) == (0, False)
        assert laptop.run("down", HOST, "--purge").returncode == 0


def test_a_host_that_is_down_is_asked_once(user, meet):
    with sshd(user.name) as server:
        server.stop()
        findings = examined(meet(server), 1)
        way = findings[f"ssh to {HOST}"]
        assert "connection refused" in way["found"].lower()
        assert "sshd" in way["remedy"]
        assert not any("agent" in what for what in findings)


def test_a_host_without_python_is_described_all_the_same(user, meet):
    with sshd(user.name, inside=NO_PYTHON) as server:
        findings = examined(meet(server), 1)
        agent, pythons = findings[f"agent of {HOST}"], findings["Pythons"]
        assert (agent["ok"], pythons["ok"]) == (False, False)
        assert pythons["found"] == "none was found"
        assert "--bootstrap-python" in pythons["remedy"]
        assert findings["system"]["found"].startswith("Linux ")
        assert findings["rdev's folder"]["ok"]
        assert list(user.home.iterdir()) == []


def test_a_full_disk_is_described_in_numbers(user, meet):
    with sshd(user.name) as server, mounted(user, "size=4m"):
        findings = examined(meet(server), 1)
        room = findings["rdev's folder"]
        assert (room["ok"], "MB free" in room["found"]) == (False, True)
        assert "--home" in room["remedy"]
        assert findings["Pythons"]["ok"]


@pytest.mark.slow
def test_a_noexec_home(user, meet):
    with sshd(user.name) as server, mounted(user, "noexec"):
        laptop = meet(server)
        noexec = examined(laptop, 1)["noexec"]
        assert (noexec["ok"], "--home" in noexec["remedy"]) == (False, True)
        assert laptop.run("down", HOST, "--purge").returncode == 0
