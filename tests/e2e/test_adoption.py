"""`[workspace] path` and `links`, as a person meets them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.support.command import Rdev
from tests.support.terminal import in_terminal

pytestmark = pytest.mark.shared_agent


@pytest.fixture
def checkout(rdev: Rdev) -> Path:
    """The project lies on the host already, in the home there."""
    rdev.write("train.py", "import os; print(os.getcwd())\n")
    rdev.write("rdev.toml", '[workspace]\npath = "~/checkout"\n')
    shutil.copytree(rdev.cwd, rdev.home / "checkout")
    return rdev.home / "checkout"


def test_a_job_runs_in_the_checkout_that_was_there(rdev: Rdev, checkout: Path):
    (checkout / "results").mkdir()
    done = rdev.run("run", "train.py")
    assert (done.returncode, done.stdout.strip()) == (0, str(checkout))
    assert f"adopted {checkout}: 2 files equal; 1 only there, left as they are" in done.stderr
    assert "synced 0 files, 0 B in " in done.stderr
    again = rdev.run("run", "--no-sync", "train.py")
    assert again.stdout.strip() == str(checkout)
    assert not list((rdev.home / ".rdev" / "workspaces").iterdir())


@pytest.mark.parametrize("verb", [["sync"], ["run", "train.py"]])
def test_without_a_terminal_what_differs_is_listed_with_the_remedy(
    rdev: Rdev, checkout: Path, verb: list[str]
):
    (checkout / "train.py").write_text("the host's\n")
    refused = rdev.run(*verb)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"unable to adopt {checkout}: 1 file of it differs: train.py" in refused.stderr
    assert "hint: `rdev sync --yes` says yes to it" in refused.stderr
    assert sorted(os.listdir(checkout)) == ["rdev.toml", "train.py"]
    agreed = rdev.run(verb[0], "--yes", *verb[1:])
    assert agreed.returncode == 0, agreed.stderr
    assert "1 overwritten" in agreed.stdout + agreed.stderr
    (kept,) = (checkout / ".rdev" / "conflicts").rglob("train.py")
    assert kept.read_text() == "the host's\n"


def test_at_a_terminal_the_list_is_shown_and_asked_about(rdev: Rdev, checkout: Path):
    (checkout / "train.py").write_text("the host's\n")
    for answer, code in ((b"n\n", 2), (b"y\n", 0)):
        with in_terminal(rdev, "sync") as shown:
            shown.expect(b"exists on the host, and these differ there:")
            shown.expect(b"  train.py")
            shown.expect(b"overwrite 1 file, keeping the old below .rdev/conflicts? [y/N]")
            shown.type(answer)
            assert shown.wait() == code
        assert ((checkout / "train.py").read_text() == "the host's\n") == (code == 2)


@pytest.mark.parametrize("path", ["~", "/", "~/.rdev/store", "~/.ssh", "train.py"])
def test_a_path_that_may_not_be_is_refused(rdev: Rdev, path: str):
    (rdev.home / ".ssh").mkdir()
    (rdev.home / "train.py").touch()
    rdev.write("rdev.toml", f'[workspace]\npath = "{path}"\n')
    done = rdev.run("sync")
    assert (done.returncode, done.stdout) == (2, "")
    assert "as the workspace's folder" in done.stderr
    assert "hint: name another folder as `[workspace] path`" in done.stderr


@pytest.mark.own_agent
def test_what_the_file_says_wrongly_is_said_before_anything_is_sent(rdev: Rdev):
    rdev.write("rdev.toml", '[workspace]\nlinks = {data = "relative"}\n')
    done = rdev.run("sync")
    assert done.returncode == 78
    assert "'data': its target is not absolute" in done.stderr
    assert not (rdev.home / ".rdev").exists()


def test_a_link_leads_a_job_to_its_data(rdev: Rdev, tmp_path: Path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "x").write_text("much\n")
    table = f'[workspace]\nlinks = {{data = "{tmp_path}/datasets", gone = "{tmp_path}/none"}}\n'
    rdev.write("rdev.toml", table)
    rdev.write("data/sample", "little\n")
    done = rdev.run("run", "--", "cat", "data/x")
    assert (done.returncode, done.stdout) == (0, "much\n")
    assert "data: not synced: on the host `[workspace] links` makes a link" in done.stderr
    assert f"gone: links to {tmp_path}/none, which does not exist on the host" in done.stderr
    assert rdev.run("sync", "why", "data/sample").returncode == 1
    assert os.listdir(tmp_path / "datasets") == ["x"]
