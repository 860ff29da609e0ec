"""First contact: a real sshd, a second user with an empty home, and one command."""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.guest import guest, torch_site
from tests.support.interpreters import interpreters
from tests.support.laptops import Laptop, installed_rdev, no_network, wheel_cache
from tests.support.sshd import HOST, NO_NETWORK, sshd

from rdev.client.bootstrap.lock import Target, fitting, locked

if os.geteuid() != 0:
    pytest.skip("only root can make a second user", allow_module_level=True)

DEADLINE = 60.0
TRAIN = "import os, sys\nprint('trained as', os.getuid(), 'by', sys.executable)\n"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return wheel_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """An installed rdev, which does not change while somebody edits the checkout."""
    return installed_rdev(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def user():
    with guest() as person:
        yield person


@pytest.fixture
def host(user):
    """A server whose machine has no network but the connection itself."""
    with sshd(user.name, inside=NO_NETWORK) as server:
        yield server


@pytest.fixture
def laptop(rdev, host, wheels, command):
    rdev.write("train.py", TRAIN)
    return Laptop(rdev, host, wheels, command)


def sessions(server) -> int:
    return len(re.findall(r"^Starting session: ", server.log.read_text(), re.MULTILINE))


def releases(user) -> list[Path]:
    return [path for path in user.home.glob(".rdev/dist/*") if path.is_dir()]


def assert_one_line(done, code: int) -> str:
    """A person was told in one line and a hint what went wrong; returns what was said."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(re.findall(r"(?m)^error: ", done.stderr)) == 1
    assert len(re.findall(r"(?m)^hint: ", done.stderr)) == 1
    return done.stderr


def await_that(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)  # a folder of another user cannot be waited on


def test_one_command_from_nothing_to_a_finished_job_and_the_next_asks_nothing(laptop, user, host):
    done = laptop.job("train.py")
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["trained", "as", str(user.uid)]), (
        done.stderr
    )
    told = [line for line in done.stderr.splitlines() if f"rdev: {HOST}: " in line]
    told = [line for line in told if "hold it up" not in line]  # as a busy machine does
    assert 1 <= len(told) <= 5
    assert f"{user.home}/.rdev" in told[-1]
    assert re.search(r"\(\d+ MB\)", told[-1])
    assert sessions(host) == 3, "a probe, the wheels, a bridge"
    before = sessions(host)
    again = laptop.job("train.py")
    assert again.returncode == 0
    assert f"rdev: {HOST}: " not in again.stderr
    assert sessions(host) - before == 1, "a bridge, and nothing else"
    (release,) = releases(user)
    for path in (user.home / ".rdev", release):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert sorted(path.name for path in user.home.iterdir()) == [".rdev"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["openssh", "paramiko"])
def test_a_torch_job_in_the_users_own_environment(laptop, user, transport):
    laptop.rdev.write("train.py", "import torch\nprint(float(torch.ones(3).sum()))\n")
    with torch_site(user) as site:
        python = user.venv("env", site=site) / "bin" / "python"
        laptop.variables["RDEV_TRANSPORT"] = transport
        done = laptop.job("--python", str(python), "train.py")
        user.end_processes()
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "shell",
    [
        "/usr/bin/tcsh",
        pytest.param("/usr/bin/fish", marks=pytest.mark.slow),
        pytest.param("/bin/sh", marks=pytest.mark.slow),
    ],
)
def test_other_login_shells(rdev, wheels, command, shell):
    if not os.path.exists(shell):
        pytest.skip(f"{shell} is not installed")
    rdev.write("train.py", TRAIN)
    with guest(shell=shell) as user, sshd(user.name) as server:
        user.write(".cshrc", "echo 'csh greets'\n")
        user.write(".config/fish/config.fish", "echo 'fish greets'\n")
        done = Laptop(rdev, server, wheels, command).job("train.py")
    assert (done.returncode, done.stdout.split()[0]) == (0, "trained"), done.stderr


@pytest.mark.slow
def test_rc_files_that_talk(laptop, user):
    noise = "echo 'Welcome! rdev-probe begin'; printf 'uid=0 no line end'; echo warned >&2\n"
    user.write(".bashrc", noise)
    user.write(".profile", noise)
    done = laptop.job("train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained")


@pytest.mark.slow
def test_an_rc_file_that_waits_is_told_as_one(laptop, user):
    user.write(".bashrc", "sleep 600\n")
    said = assert_one_line(laptop.job("train.py"), 125)
    assert "login shell" in said
    assert ".bashrc" in said


@pytest.mark.slow
def test_a_profile_that_waits_is_told_meanwhile_and_given_up(laptop, user):
    user.write(".profile", "sleep 600\n")
    done = laptop.job("train.py")
    assert (done.returncode, done.stdout.split()[0]) == (0, "trained"), done.stderr
    assert "its agent asks the login's shell what jobs get" in done.stderr
    assert done.stderr.count("jobs do not get what a login has there") == 1
    assert "jobs do not get" not in laptop.job("train.py").stderr, "it was said"


@pytest.mark.slow
def test_neither_end_has_a_network_but_the_wheels_are_known(rdev, user, wheels, command):
    with sshd(user.name, inside=NO_NETWORK) as server:  # the cache may be filled by this
        assert Laptop(rdev, server, wheels, command).run("up", HOST).returncode == 0
    user.end_processes()
    shutil.rmtree(user.home / ".rdev")
    rdev.write("train.py", TRAIN)
    with no_network(), sshd(user.name) as server:
        laptop = Laptop(rdev, server, wheels, command)
        assert laptop.run("host", "rm", HOST).returncode == 0
        done = laptop.job("train.py")
        user.end_processes()
    assert done.returncode == 0, done.stderr
    assert "fetching" not in done.stderr


def _wheelhouse(user, wheels) -> Path:
    """The locked wheels under their own names, where the guest's pip looks."""
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys, os; print(*sys.version_info[:2], os.uname().machine)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    glibc = int(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])
    target = Target((int(version[0]), int(version[1])), version[2], glibc)
    folder = user.home.parent / "wheelhouse"
    folder.mkdir()
    for wheel in fitting(target, locked())[0]:
        shutil.copy(wheels / "rdev" / "wheels" / f"{wheel.sha256}.whl", folder / wheel.file)
    return folder


@pytest.mark.slow
def test_a_laptop_without_an_index_lets_the_hosts_pip_fetch(laptop, user, wheels, tmp_path):
    assert laptop.run("up", HOST).returncode == 0  # fills the cache
    user.end_processes()
    shutil.rmtree(user.home / ".rdev")
    laptop.run("host", "rm", HOST)
    laptop.cache = tmp_path / "empty"
    laptop.variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    said = assert_one_line(laptop.job("train.py"), 125)
    assert "no index is reached from here" in said
    assert "pip brings no" in said, "both ends are named"
    assert not (user.home / ".rdev").exists()
    folder = _wheelhouse(user, wheels)
    user.write(".config/pip/pip.conf", f"[global]\nno-index = true\nfind-links = {folder}\n")
    done = laptop.job("train.py")
    assert done.returncode == 0, done.stderr
    assert "fetches the rest" in done.stderr


def _with_python_310(folder: Path, old: Path, new: Path) -> list[str]:
    """A machine whose own Python is of the prefix `old`, and where all can enter it and `new`."""
    wrapper = folder / "python3.10"
    wrapper.write_text(f'#!/bin/sh\nexec {old}/bin/python3.10 "$@"\n')
    wrapper.chmod(0o755)
    closed = [path for path in old.parents if not path.stat().st_mode & 0o001]
    # Their libraries are found by absolute paths, so they have to be entered where they lie.
    opened = [
        f"mount -t tmpfs -o mode=755 tmpfs {closed[-1]}" if closed else "true",
        f"mkdir -p {old} {new}",
        f"mount --bind /opt/old {old}",
        f"mount --bind /opt/new {new}",
    ]
    steps = [
        "mount -t tmpfs -o mode=755 tmpfs /opt",
        "mkdir /opt/old /opt/new",
        f"mount --bind {old} /opt/old",
        f"mount --bind {new} /opt/new",
        *opened,
        f"mount --bind {wrapper} {os.path.realpath('/usr/bin/python3')}",
        'exec "$@"',
    ]
    return ["unshare", "--mount", "sh", "-c", " && ".join(steps), "sh"]


@pytest.mark.slow
def test_only_an_old_python_is_named_and_another_can_be_given(rdev, user, wheels, command):
    found = interpreters()
    if not {"3.10", "3.12"} <= found.keys():
        pytest.skip("neither Python 3.10 nor 3.12 is here to be found there")
    rdev.write("train.py", TRAIN)
    old, new = (Path(os.path.realpath(found[v])).parents[1] for v in ("3.10", "3.12"))
    inside = _with_python_310(user.home.parent, old, new)
    with sshd(user.name, inside=inside) as server:
        laptop = Laptop(rdev, server, wheels, command)
        said = assert_one_line(laptop.job("train.py"), 125)
        assert "Python 3.10." in said
        assert f"rdev up {HOST} --bootstrap-python" in said
        assert_one_line(laptop.run("up", HOST), 69)
        assert not (user.home / ".rdev").exists()
        wrong = assert_one_line(laptop.run("up", HOST, "--bootstrap-python", old), 69)
        assert f"{old}/bin/python3 is Python 3.10." in wrong
        done = laptop.run("up", HOST, "--bootstrap-python", new)
        assert done.returncode == 0, done.stderr
        assert "Python 3.12." in done.stdout
        job = laptop.job("train.py")
        assert job.returncode == 0, job.stderr
        user.end_processes()


@contextlib.contextmanager
def _mounted(user, *options: str):
    words = ",".join([f"uid={user.uid}", f"gid={user.gid}", "mode=700", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", user.home], check=True)
    try:
        yield
    finally:
        user.end_processes()
        subprocess.run(["umount", "--lazy", user.home], check=True)


@pytest.mark.slow
def test_a_home_that_may_not_execute(laptop, user):
    with _mounted(user, "noexec"):
        try:
            done = laptop.job("train.py")
            assert done.returncode == 0, done.stderr
            (folder,) = Path("/var/tmp").glob(f"rdev-{user.uid}-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert (user.home / ".rdev" / "dist-folder").read_text() == f"{folder}\n"
            laptop.run("host", "rm", HOST)
            again = laptop.run("up", HOST)
            assert again.returncode == 0, again.stderr
            assert "pushing" not in again.stderr, "it is found where it lies"
            user.end_processes()
            folder.rename(folder.with_name(f"{folder.name}-gone"))
            folder.mkdir()  # somebody else's
            (release,) = [p.name for p in Path(f"{folder}-gone").iterdir() if p.is_dir()]
            program = folder / release / "bin" / "rdev-agent"
            program.parent.mkdir(parents=True)
            program.write_text(f"#!/bin/sh\ntouch {user.home}/harm\n")
            program.chmod(0o755)
            done = laptop.job("train.py")
            assert done.returncode == 0, done.stderr
            assert "pushing" in done.stderr, "what is not ours any more is not run"
            assert not (user.home / "harm").exists()
        finally:
            user.end_processes()
            for folder in Path("/var/tmp").glob(f"rdev-{user.uid}-*"):
                shutil.rmtree(folder)


def test_a_full_home_is_told_in_numbers_and_left_as_it_was(laptop, user):
    with _mounted(user, "size=4m"):
        said = assert_one_line(laptop.job("train.py"), 125)
        assert re.search(r"has \d MB free and rdev takes \d\d+ MB", said)
        assert list(user.home.iterdir()) == []


@pytest.mark.slow
def test_a_home_of_ones_own_choice_is_kept_to(laptop, user):
    folder = user.home / "scratch space" / "rdev"
    assert laptop.run("up", HOST, "--home", folder).returncode == 0
    assert laptop.job("train.py").returncode == 0
    assert sorted(path.name for path in user.home.iterdir()) == ["scratch space"]
    shutil.rmtree(folder / "dist")
    done = laptop.job("train.py")
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder}/dist/" in done.stderr, "what was gone is put there again, at once"
    (row,) = [r for r in json.loads(laptop.run("host", "ls", "--json").stdout) if r["name"] == HOST]
    assert row["home"] == str(folder)


@pytest.mark.slow
def test_a_contact_that_is_killed_half_way_leaves_nothing_and_can_be_repeated(laptop, user):
    with laptop.started("up", HOST) as process:
        await_that(lambda: list(user.home.glob(".rdev/dist/*.new-*")), "the installer begins")
        os.killpg(process.pid, 9)
        process.wait()
    await_that(lambda: not user.processes, "all of it ends there")
    done = laptop.job("train.py")
    assert done.returncode == 0, done.stderr
    assert len(releases(user)) == 1


@pytest.mark.slow
def test_a_name_that_leads_to_two_machines_with_one_home(laptop, user):
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname login2 && exec "$@"', "sh"]
    assert laptop.job("train.py").returncode == 0
    with sshd(user.name, inside=renamed) as other:
        elsewhere = Laptop(laptop.rdev, other, laptop.cache, laptop.command)
        there = json.loads(elsewhere.run("up", HOST, "--json").stdout)
        assert there["hostname"] == "login2"
        assert elsewhere.job("train.py").returncode == 0
        back = laptop.job("train.py")
        assert back.returncode == 0, back.stderr
        assert f"rdev: {HOST}: " not in back.stderr
    assert len(releases(user)) == 1


@pytest.mark.slow
def test_a_machine_that_was_replaced_is_refused_until_it_is_forgotten(laptop, user):
    assert laptop.run("up", HOST).returncode == 0
    user.end_processes()
    shutil.rmtree(user.home / ".rdev")
    said = assert_one_line(laptop.run("up", HOST), 77)
    assert "another agent answers" in said
    assert laptop.run("host", "rm", HOST).returncode == 0
    assert laptop.run("up", HOST).returncode == 0


@pytest.mark.slow
def test_an_older_agent_is_followed_and_a_newer_one_never(laptop, user, tmp_path):
    laptop.rdev.write("wait.py", "import time\ntime.sleep(600)\n")
    command = installed_rdev(tmp_path / "old", "0.0.9")
    older = Laptop(laptop.rdev, laptop.server, laptop.cache, command)
    older.variables["XDG_STATE_HOME"] = str(tmp_path / "older")
    started = older.run("run", "-H", HOST, "-d", "--name", "long", "wait.py")
    assert started.returncode == 0, started.stderr
    old = json.loads(older.run("up", HOST, "--json").stdout)
    assert old["version"] == "0.0.9"
    listed = laptop.run("ps", "-H", HOST, "--json")
    assert listed.returncode == 0, listed.stderr
    assert "takes over" in listed.stderr
    (job,) = json.loads(listed.stdout)
    assert job["state"] == "running"
    new = json.loads(laptop.run("up", HOST, "--json").stdout)
    assert new["version"] != "0.0.9"
    assert new["pid"] != old["pid"]
    assert len(releases(user)) == 2, "a live job runs by the older one"
    back = json.loads(older.run("up", HOST, "--json").stdout)
    assert (back["version"], back["pid"]) == (new["version"], new["pid"])
    user.run(f"{new['dist']}/bin/rdev-agent", "stop", timeout=30)
    restarted = json.loads(older.run("up", HOST, "--json").stdout)
    assert restarted["version"] == new["version"], "it keeps to the later release that is there"
    assert older.run("stop", "-H", HOST, "--now", "long").returncode == 0
