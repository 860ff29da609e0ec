"""`rdev sync`, as a person types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev

pytestmark = pytest.mark.shared_agent


@pytest.fixture
def project(rdev: Rdev) -> Path:
    (rdev.cwd / "a.py").write_text("print(1)\n")
    (rdev.cwd / ".env").write_text("TOKEN=1\n")
    return rdev.cwd


@pytest.mark.own_agent
def test_a_sync_ends_in_a_receipt_that_names_secrets(rdev: Rdev, project: Path):
    done = rdev.run("sync")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("synced 2 files, 9 B in ")
    assert "; 1 ignored (rdev sync why PATH); snapshot " in first
    assert second == "not sent, may hold secrets: .env"
    again = json.loads(rdev.run("sync", "flush", "--json").stdout)
    assert (again["written"], again["bytes"], again["secrets"]) == (0, 0, [".env"])
    assert sorted(each.name for each in Path(again["folder"]).iterdir()) == [
        ".rdev",
        "a.py",
        "rdev.toml",
    ]
    # Nobody else may look into what was synced.
    for path in (rdev.home / ".rdev").rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path


def test_why_names_the_rule_and_says_it_by_its_exit_code(rdev: Rdev, project: Path):
    done = rdev.run("sync", "why", ".env")
    assert (done.returncode, done.stdout) == (1, ".env is not synced, by secret: .env*\n")
    done = rdev.run("sync", "why", "a.py")
    assert (done.returncode, done.stdout) == (0, "a.py is synced\n")
    done = rdev.run("sync", "why", "b.py")
    assert (done.returncode, done.stdout) == (1, "b.py does not exist; it would be synced\n")
    assert rdev.run("sync", "why").returncode == 2
    assert rdev.run("sync", "why", "/etc/passwd").returncode == 2


def test_why_says_of_a_file_what_the_receipt_says_of_it(rdev: Rdev, project: Path):
    with open(project / "huge.bin", "wb") as file:
        file.truncate(51 << 20)
    os.mkfifo(project / "pipe")
    receipt = rdev.run("sync").stdout.splitlines()
    for name in ("huge.bin", "pipe"):
        done = rdev.run("sync", "why", name)
        assert done.returncode == 1
        assert done.stdout.rstrip() in receipt
        assert done.stdout.startswith(f"{name}: not synced: ")


@pytest.mark.own_agent
def test_status_sends_nothing(rdev: Rdev, project: Path):
    done = rdev.run("sync", "status", "--json")
    assert json.loads(done.stdout)["entries"] == 2
    assert not (rdev.home / ".rdev" / "workspaces").exists()


def test_a_home_folder_is_refused(rdev: Rdev, project: Path):
    done = rdev.run("sync", cwd=rdev.home)
    assert done.returncode == 2
    assert "it is your home folder" in done.stderr
    assert "hint: " in done.stderr
    (project / ".ssh").mkdir()
    assert rdev.run("sync").returncode == 2


def save(path: Path, text: str) -> None:
    """Writes a file at once, as editors do: who watches never sees it empty."""
    scratch = path.parent.with_name("being written")
    scratch.write_text(text)
    scratch.replace(path)


def test_a_watch_pushes_saves_until_ctrl_c(rdev: Rdev, project: Path):
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        save(project / "a.py", "print(2)\n")
        pushed = json.loads(watching.stdout.readline())
        assert pushed["written"] == 1
        assert (folder / "a.py").read_text() == "print(2)\n"
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=20)
        assert (watching.returncode, errors) == (0, "")


def _await_line(process, *words: str) -> str:
    """The next line on stderr, which has to hold the words."""
    line = process.stderr.readline()
    assert all(word in line for word in words), line
    return line


def test_a_watch_outlives_the_removal_of_its_folder_on_the_host(rdev: Rdev, project: Path):
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        for text in ("print(2)\n", "print(3)\n"):
            shutil.rmtree(folder)
            save(project / "a.py", text)
            pushed = json.loads(watching.stdout.readline())
            assert pushed["written"] == 2
            assert (folder / "a.py").read_text() == text
            assert (folder / "rdev.toml").exists()


@pytest.mark.own_agent
def test_a_watch_outlives_the_removal_of_the_store(rdev: Rdev, project: Path):
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        shutil.rmtree(rdev.home / ".rdev" / "store")
        save(project / "a.py", "print(2)\n")
        assert json.loads(watching.stdout.readline())["written"] >= 1
        assert (folder / "a.py").read_text() == "print(2)\n"


def test_a_watch_holds_while_the_laptops_folder_is_away(rdev: Rdev, project: Path):
    away = project.with_name("away")
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        project.rename(away)
        _await_line(watching, "unable to read the workspace", "nothing is sent until")
        assert (folder / "a.py").exists()
        (away / "a.py").write_text("print(2)\n")
        away.rename(project)
        assert json.loads(watching.stdout.readline())["written"] == 1
        assert (folder / "a.py").read_text() == "print(2)\n"
        # And it watches on.
        save(project / "a.py", "print(3)\n")
        assert json.loads(watching.stdout.readline())["written"] == 1


def test_a_watch_holds_while_an_empty_folder_lies_where_the_laptops_was(rdev: Rdev, project: Path):
    """As a mount point does when its disk is unmounted."""
    away = project.with_name("away")
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        project.rename(away)
        project.mkdir()
        while "2 of 2 files are gone" not in _await_line(watching, "nothing is sent until"):
            pass
        assert (folder / "a.py").exists()
        (away / "a.py").write_text("print(2)\n")
        project.rmdir()
        away.rename(project)
        assert json.loads(watching.stdout.readline())["written"] == 1
        save(project / "a.py", "print(3)\n")
        assert json.loads(watching.stdout.readline())["written"] == 1


@pytest.mark.own_agent
def test_too_few_inotify_watches_are_named_as_such(rdev: Rdev, project: Path):
    for number in range(8):
        (project / f"d{number}").mkdir()
    limited = "echo 4 > /proc/sys/user/max_inotify_watches && exec rdev sync --watch"
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False).returncode
    ):
        pytest.skip("no user namespace with limits of its own can be made here")
    rdev.run("sync")  # the agent runs outside
    done = subprocess.run(
        [*unshare, limited],
        cwd=project,
        env=rdev.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "unable to watch the workspace" in done.stderr
    assert "fs.inotify.max_user_watches" in done.stderr
    assert "rdev rm" not in done.stderr


@pytest.mark.slow
@pytest.mark.own_agent
def test_an_agent_killed_while_contents_arrive_is_started_again_and_all_arrives(
    rdev: Rdev, project: Path
):
    assert rdev.run("sync").returncode == 0
    for number in range(3):
        (project / f"{number}.bin").write_bytes(os.urandom(40 << 20))
    incoming = rdev.home / ".rdev" / "store" / "incoming"
    with rdev.started("sync", "--json", text=True) as syncing:
        deadline = time.monotonic() + 30
        while not os.listdir(incoming):
            assert syncing.poll() is None, "the sync was over before the agent could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        rdev.kill_agent()
        output, errors = syncing.communicate(timeout=60)
    assert syncing.returncode == 0, errors
    folder = Path(json.loads(output)["folder"])
    for number in range(3):
        name = f"{number}.bin"
        assert (folder / name).read_bytes() == (project / name).read_bytes()
    assert not (folder / ".rdev" / "journal").exists()
