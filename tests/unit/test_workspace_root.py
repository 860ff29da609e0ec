"""Where a workspace begins, and what tells it apart from others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rdev.client.sync.cache import ScanCache
from rdev.client.sync.receipt import Receipt
from rdev.client.sync.root import client_id, find_workspace
from rdev.client.sync.scan import Scanner
from rdev.client.ui.sizes import human_size
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import ConfigError, WorkspaceRefused
from rdev.protocol.snapshot import Problem
from rdev.protocol.stamp import RACY_NS, Stamp


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name))
    return home


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


@pytest.mark.parametrize("marker", ["rdev.toml", "pyproject.toml", ".git"])
def test_the_nearest_marker_is_the_root(tmp_path: Path, marker: str):
    inner = tmp_path / "outer" / "inner"
    (inner / "src").mkdir(parents=True)
    (tmp_path / "outer" / "rdev.toml").touch()
    (inner / marker).touch()
    (inner / "src" / "train.py").touch()
    for path in (inner, inner / "src", inner / "src" / "train.py", inner / "src" / "missing.py"):
        found = find_workspace(str(path))
        assert (found.root, found.name) == (str(inner), "inner")


def test_without_a_marker_the_scripts_folder_is_the_root(tmp_path: Path):
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a.py").touch()
    assert find_workspace(str(folder / "a.py")).root == str(folder)


def test_two_clones_of_one_repository_are_one_workspace(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "sub").mkdir(parents=True)
    git(one, "init", "-q")
    (one / "sub" / "rdev.toml").touch()
    before = find_workspace(str(one)).id
    git(one, "add", "-A")
    git(one, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(one), str(two))
    assert find_workspace(str(one)).id == find_workspace(str(two)).id != before
    assert find_workspace(str(one / "sub")).id == find_workspace(str(two / "sub")).id
    assert find_workspace(str(one / "sub")).id != find_workspace(str(one)).id
    git(one, "commit", "-qm", "second", "--allow-empty")
    assert find_workspace(str(one)).id == find_workspace(str(two)).id


def test_a_chosen_id_counts(tmp_path: Path):
    (tmp_path / "rdev.toml").write_text('[workspace]\nid = "mine"\n')
    assert find_workspace(str(tmp_path)).id == "mine"
    (tmp_path / "rdev.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text('[tool.rdev.workspace]\nid = "theirs"\n')
    assert find_workspace(str(tmp_path)).id == "theirs"


@pytest.mark.parametrize(
    "text", ['[workspace]\nid = "../up"\n', "[workspace]\nid = 3\n", "not toml"]
)
def test_a_wrong_id_is_said(tmp_path: Path, text: str):
    (tmp_path / "rdev.toml").write_text(text)
    with pytest.raises(ConfigError):
        find_workspace(str(tmp_path))


def test_without_git_the_laptop_and_the_path_count(tmp_path: Path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("PATH", "")
    ids = {find_workspace(str(tmp_path / name)).id for name in ("a", "b", "a")}
    assert len(ids) == 2
    assert client_id() == client_id()


def test_folders_that_hold_far_too_much_are_refused(tmp_path: Path, home: Path):
    for path in ("/", str(home)):
        with pytest.raises(WorkspaceRefused):
            find_workspace(path)
    (tmp_path / "everybodys").mkdir()
    (tmp_path / "everybodys").chmod(0o1777)
    with pytest.raises(WorkspaceRefused, match="everybody"):
        find_workspace(str(tmp_path / "everybodys"))
    (tmp_path / "x" / ".ssh").mkdir(parents=True)
    (tmp_path / "x" / "rdev.toml").touch()
    with pytest.raises(WorkspaceRefused, match=r"\.ssh"):
        find_workspace(str(tmp_path / "x"))


def test_a_large_tree_is_asked_about_once(tmp_path: Path):
    for number in range(50):
        with open(tmp_path / f"{number}.bin", "wb") as file:
            file.truncate(45 << 20)
    for confirm in (None, lambda _: False):
        with pytest.raises(WorkspaceRefused, match="large"):
            Scanner(str(tmp_path), confirm).scan()
    asked = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return True

    claim(tmp_path, *(f"{number}.bin" for number in range(50)))  # spares us reading them all
    scanner = Scanner(str(tmp_path), confirm)
    scanner.scan()
    scanner.scan()
    assert len(asked) == 1
    assert "2.4 GB" in asked[0]


def claim(root: Path, *names: str, age_ns: int = RACY_NS) -> bytes:
    """Has the cache say of files what is not true, as seen `age_ns` after they last changed.

    Who believes it has not read the file.
    """
    untrue = content_digest(b"untrue")
    cache = ScanCache(str(root))
    for name in names:
        status = os.stat(root / name)
        cache.note(name, Stamp.of(status, status.st_ctime_ns + age_ns), untrue)
    cache.save(names)
    return untrue


def scanned_digest(root: Path, name: str) -> bytes:
    entry = Scanner(str(root)).scan().snapshot.get(name)
    assert entry is not None
    return entry.digest


def test_a_scan_reads_only_what_may_have_changed(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("a")
    truth = scanned_digest(tmp_path, "a")
    assert scanned_digest(tmp_path, "a") == truth == content_digest(b"a")
    # A settled file is not read again; one that was younger when it was hashed is not believed.
    claim(tmp_path, "a", age_ns=RACY_NS - 1)
    assert scanned_digest(tmp_path, "a") == truth
    untrue = claim(tmp_path, "a")
    assert scanned_digest(tmp_path, "a") == untrue
    # An equally sized edit whose mtime is put back changes the ctime, which nobody can put back.
    before = path.stat()
    path.write_text("z")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scanned_digest(tmp_path, "a") == content_digest(b"z")


def test_a_receipt_says_what_was_done_and_left_out():
    receipt = Receipt(
        snapshot=bytes.fromhex("9f3c" + "00" * 30),
        files=3,
        written=4,
        deleted=1,
        bytes=14_000,
        seconds=0.041,
        ignored=12,
        secrets=tuple(f".env{number}" for number in range(7)),
        problems=(Problem("x.bin", "TOO_LARGE", "not synced: 60 MiB"),),
    )
    assert str(receipt).splitlines() == [
        "synced 3 files, removed 1, 14 kB in 41 ms; 12 ignored (rdev sync why PATH); snapshot 9f3c",
        "not sent, may hold secrets: .env0, .env1, .env2, .env3, .env4 and 2 more",
        "x.bin: not synced: 60 MiB",
    ]
    assert " in 13.5 s" in Receipt(snapshot=bytes(32), seconds=13.492).summary
    many = tuple(Problem(f"{number}.bin", "TOO_LARGE", "too long") for number in range(8))
    assert Receipt(snapshot=bytes(32), problems=many).lines[-1].startswith("and 3 more;")
    assert [human_size(size) for size in (0, 999, 1000, 2_500_000, 3_000_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "2.5 MB",
        "3.0 GB",
    ]
