"""`rdev sync`, as a person types it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.support.command import Rdev


@pytest.fixture
def project(rdev: Rdev) -> Path:
    (rdev.cwd / "a.py").write_text("print(1)\n")
    (rdev.cwd / ".env").write_text("TOKEN=1\n")
    return rdev.cwd


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
    assert rdev.run("sync", "why").returncode == 2
    assert rdev.run("sync", "why", "/etc/passwd").returncode == 2


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


def test_a_watch_pushes_saves_until_ctrl_c(rdev: Rdev, project: Path):
    with rdev.started("sync", "--watch", "--json", text=True) as watching:
        folder = Path(json.loads(watching.stdout.readline())["folder"])
        (project / "a.py").write_text("print(2)\n")
        pushed = json.loads(watching.stdout.readline())
        assert pushed["written"] == 1
        assert (folder / "a.py").read_text() == "print(2)\n"
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=20)
        assert (watching.returncode, errors) == (0, "")


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
