"""Leaving a host: a real sshd, a second user with a home of their own, and nothing left behind."""

import json
import os
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE
from tests.support.guest import guest
from tests.support.laptops import Laptop, installed_rdev
from tests.support.sshd import HOST, sshd

if os.geteuid() != 0:
    pytest.skip("only root can make a second user", allow_module_level=True)

TRAIN = """
import os
print('trained')
os.mkdir('runs')
open('runs/model.pt', 'wb').write(b'weights')
os.chmod('runs', 0o500)
"""

# Where programs leave what belongs to no home.
ELSEWHERE = ("/tmp", "/var/tmp", "/dev/shm", "/run")


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
def server(user):
    with sshd(user.name) as running:
        yield running


@pytest.fixture
def laptop(rdev, server, wheels, command):
    # Where a session's sockets lie; a test's own folder has too long a name for one.
    with tempfile.TemporaryDirectory(prefix="rdev-run-") as runtime:
        yield Laptop(rdev, server, wheels, command, {"XDG_RUNTIME_DIR": runtime})
        assert not list(Path(runtime).glob("rdev/*")), "a connection is still open"


def furnish(user) -> None:
    """Makes a home of somebody who has worked there for a while."""
    user.write(".bashrc", "export WANDB_MODE=offline\n", mode=0o640)
    user.write("data/train.csv", "1,2\n", mode=0o444)
    user.write("bin/tool", "#!/bin/sh\n", mode=0o755)
    for link, target in (("latest", "data"), ("nowhere", "/does/not/exist")):
        os.symlink(target, user.home / link)
        os.lchown(user.home / link, user.uid, user.gid)
    (user.home / "data").chmod(0o2750)


def record(folder: Path) -> dict[str, tuple]:
    """All that can be seen of a tree: names, kinds, modes, owners, contents, targets of links."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        name = str(path.relative_to(folder))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def strewn(user) -> list[str]:
    """What belongs outside of their home to this user, or to one of before with the same id."""
    command = ["find", *ELSEWHERE, "-path", user.home, "-prune", "-o", "-uid", str(user.uid)]
    found = subprocess.run([*command, "-print"], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def await_end_of_processes(user) -> None:
    deadline = time.monotonic() + DEADLINE
    while user.processes:
        assert time.monotonic() < deadline, user.processes
        time.sleep(0.05)


def assert_refused(done, code: int, *words: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    missing = [word for word in ("error: ", "hint: ", *words) if word not in done.stderr]
    assert not missing, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["openssh", "paramiko"])
def test_a_purge_leaves_the_home_as_it_was(laptop, user, transport):
    laptop.variables["RDEV_TRANSPORT"] = transport
    furnish(user)
    before, others = record(user.home), strewn(user)
    laptop.rdev.write("train.py", TRAIN)
    assert laptop.job("train.py").stdout == "trained\n"
    refused = laptop.run("down", HOST, "--purge")
    assert_refused(refused, 1, "runs/model.pt", f"rdev exec -H {HOST} JOB -- tar c PATH | tar x")
    assert "SUCCEEDED" in laptop.run("ps", "-a", "-H", HOST).stdout

    folder = laptop.rdev.home / "state" / "rdev" / "hosts"
    met = (folder / f"{HOST}.json").read_text()
    (folder / "again.json").write_text(met.replace(f'"{HOST}"', '"again"'))  # by another name
    done = laptop.run("down", HOST, "--purge", "--discard-outputs", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (str(user.home / ".rdev/dist") in said["removed"], said["kept"]) == (True, "")
    assert said["size"] > 10e6
    assert record(user.home) == before
    await_end_of_processes(user)
    assert strewn(user) == others
    assert not list(folder.iterdir()), "another name would wait for the agent that was there"

    again = laptop.run("down", HOST, "--purge")
    assert (again.returncode, "never contacted" in again.stdout) == (0, True)


@pytest.mark.slow
def test_live_jobs_outlive_the_connection_and_the_agent_and_bar_a_purge(laptop, user, server):
    laptop.rdev.write("train.py", "import time\ntime.sleep(300)\n")
    assert laptop.job("-d", "--name", "night", "train.py").returncode == 0
    logins = server.logins
    assert laptop.run("ps", "-H", HOST).returncode == 0
    assert server.logins == logins  # the connection stood ready

    left = laptop.run("down", HOST)
    assert (left.returncode, left.stdout) == (0, f"{HOST}: disconnected; its jobs go on\n")
    again = laptop.run("down", HOST)
    assert again.stdout == f"{HOST}: no connection was open; its jobs go on\n"
    assert server.logins == logins

    stopped = laptop.run("down", HOST, "--agent", "--json")
    pid = json.loads(stopped.stdout)["stopped_agent"]
    assert pid not in user.processes
    assert json.loads(laptop.run("down", HOST, "--agent", "--json").stdout)["stopped_agent"] is None
    (job,) = json.loads(laptop.run("ps", "-H", HOST, "--json").stdout)
    assert job["state"] == "running"

    assert_refused(laptop.run("down", HOST, "--purge"), 1, "night", f"rdev stop -H {HOST}")
    assert laptop.run("stop", "-H", HOST, "night", "--now").returncode == 0
    assert laptop.run("down", HOST, "--purge").returncode == 0
    assert list(user.home.iterdir()) == []


@pytest.mark.slow
def test_what_was_interrupted_is_finished_the_next_time(laptop, user):
    assert laptop.job("--", "true").returncode == 0
    (user.home / ".rdev/dist").rename(user.home / ".rdev/.leaving-1")
    user.write(".rdev/dist-folder.17", "/var/tmp/nowhere\n")
    done = laptop.run("down", HOST, "--purge")
    assert done.returncode == 0, done.stderr
    assert list(user.home.iterdir()) == []


@pytest.mark.slow
def test_a_folder_that_a_person_named_stays_with_its_files(laptop, user):
    user.write("project/train.py", "print('as it was')\n")
    user.write("project/notes.txt", "the host's own\n")
    links = f'links = {{ data = "{user.home}/project/notes.txt" }}\n'
    laptop.rdev.write("rdev.toml", f'[workspace]\npath = "~/project"\n{links}')
    laptop.rdev.write("train.py", "print('as it was')\n")
    laptop.rdev.write("new.py", "")
    assert laptop.job("--yes", "train.py").stdout == "as it was\n"
    assert (user.home / "project/data").is_symlink()
    laptop.rdev.write("train.py", "open('result.txt', 'w').write('42')\n")
    assert laptop.job("train.py").returncode == 0

    done = laptop.run("down", HOST, "--purge")
    assert (done.returncode, done.stderr.count("error")) == (0, 0)
    assert f"kept {user.home}/project, which is yours" in done.stdout
    left = sorted(str(path.relative_to(user.home)) for path in user.home.rglob("*"))
    names = ["new.py", "notes.txt", "rdev.toml", "result.txt", "train.py"]
    assert left == ["project", *(f"project/{name}" for name in names)]


@pytest.mark.slow
def test_a_release_outside_of_a_noexec_home_goes_too(laptop, user, server):
    options = f"noexec,uid={user.uid},gid={user.gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", user.home], check=True)
    others = strewn(user)
    try:
        assert laptop.job("--", "true").returncode == 0
        assert any("rdev-agent" in path for path in strewn(user))
        done = laptop.run("down", HOST, "--purge")
        assert done.returncode == 0, done.stderr
        assert list(user.home.iterdir()) == []
        await_end_of_processes(user)
        assert strewn(user) == others
    finally:
        user.end_processes()
        subprocess.run(["umount", "--lazy", user.home], check=True)


@pytest.mark.slow
def test_a_client_that_brings_the_agent_back_meanwhile_does_no_harm(rdev):
    assert rdev.run("run", "--", "true").returncode == 0
    over = threading.Event()
    said = []

    def return_again_and_again() -> None:
        while not over.is_set():
            said.append(rdev.run("ps").stderr)

    client = threading.Thread(target=return_again_and_again)
    client.start()
    try:
        purged = [rdev.run("down", "local", "--purge") for _ in range(3)]
    finally:
        over.set()
        client.join()
    assert not any("Traceback" in text for text in [*said, *(done.stderr for done in purged)])
    assert all(done.returncode in (0, 1) for done in purged), purged
    done = rdev.run("down", "local", "--purge")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (rdev.home / ".rdev").exists()


def test_the_agent_of_this_machine_is_stopped_and_removed(rdev):
    assert rdev.run("run", "--", "true").returncode == 0
    pid = rdev.agent_pid
    assert (
        rdev.run("down", "local", "--agent").stdout
        == f"local: agent {pid} stopped; its jobs go on\n"
    )
    assert rdev.agent_pid is None
    done = rdev.run("down", "local", "--purge")
    assert (done.returncode, "freed" in done.stdout) == (0, True)
    assert not (rdev.home / ".rdev").exists()
    assert "nothing of rdev was there" in rdev.run("down", "local", "--purge").stdout


def test_what_cannot_be_left_is_said(rdev, tmp_path):
    config = tmp_path / "ssh_config"
    config.write_text("Host gpu9\n  HostName 127.0.0.1\n")
    done = rdev.run("down", "gpu9", "--purge", env={"RDEV_SSH_CONFIG": str(config)})
    assert (done.returncode, "never contacted" in done.stdout) == (0, True)
    assert_refused(rdev.run("down", f"unix:{tmp_path}/agent.sock"), 2, "somebody else")
    assert_refused(rdev.run("down", "local", "--discard-outputs"), 2, "--purge")
