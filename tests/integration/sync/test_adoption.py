"""A folder that exists on the host becomes the workspace's, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.sync import ID, Host, LocalEndpoint, content_of, serving, workspace_at

from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.own import read_marker
from rdev.client.sync.root import Workspace, find_workspace
from rdev.client.sync.sender import WorkspaceSync
from rdev.client.workspaces import endpoints, sync_workspace
from rdev.protocol.errors import AdoptionRefused, SyncFailed, VersionSkew, WorkspaceRefused
from rdev.protocol.exchange import Adoption, Opening
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot

EMPTY = {"": Snapshot.of().directories[""].digest}


@pytest.fixture(autouse=True)
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The login's home on the host."""
    home = tmp_path / "login"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def checkout(laptop: Path, login: Path) -> Path:
    """A copy of the laptop's project that lies on the host already."""
    shutil.copytree(laptop, login / "project", symlinks=True)
    return login / "project"


def named(laptop: Path, folder: str = "~/project", **fields) -> Workspace:
    return replace(workspace_at(laptop), folder=folder, **fields)


def stats(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, mode and mtime of all files: what a file that is left alone keeps."""
    found = {}
    for path in folder.rglob("*"):
        if ".rdev" not in path.parts and path.is_file() and not path.is_symlink():
            status = path.stat()
            found[str(path)] = status.st_ino, status.st_mode, status.st_mtime_ns
    return found


def yes(question: str) -> bool:
    return True


async def test_an_equal_checkout_is_taken_as_it_is_without_a_question(
    host: Host, laptop: Path, checkout: Path
):
    (checkout / "train.py").chmod(0o664)
    os.utime(checkout / "train.py", (1, 1))
    before = stats(checkout)
    receipt = await sync_workspace(host, named(laptop))
    assert (receipt.bytes, receipt.written, receipt.files) == (0, 0, 0)
    assert receipt.adoption == Adoption(same=4)
    assert receipt.folder == str(checkout)
    assert host.manager.folder(ID) == str(checkout)
    assert stats(checkout) == before
    assert f"adopted {checkout}: 4 files equal" in str(receipt)
    # From now on it is a workspace like any other.
    (laptop / "train.py").write_text("new\n")
    (laptop / "pkg" / "run.sh").unlink()
    receipt = await sync_workspace(host, named(laptop))
    assert (receipt.written, receipt.deleted, receipt.adoption) == (1, 1, None)
    assert content_of(checkout) == content_of(laptop)
    assert receipt.problems == ()


async def test_a_job_that_pins_what_was_adopted_finds_its_content(
    host: Host, laptop: Path, checkout: Path
):
    receipt = await sync_workspace(host, named(laptop))
    host.manager.pin(receipt.snapshot.hex(), "0123456789ab")
    assert host.manager.read(receipt.snapshot.hex(), "pkg/model.py") == b"SIZE = 1\n"


async def test_what_is_missing_there_is_sent_and_nothing_else(
    host: Host, laptop: Path, checkout: Path
):
    (checkout / "pkg" / "model.py").unlink()
    receipt = await sync_workspace(host, named(laptop))
    assert (receipt.bytes, receipt.written) == (len("SIZE = 1\n"), 1)
    assert content_of(checkout) == content_of(laptop)


async def test_without_a_yes_what_differs_is_listed_and_nothing_is_written(
    host: Host, laptop: Path, checkout: Path
):
    (checkout / "train.py").write_text("the host's\n")
    (checkout / "pkg" / "model.py").write_text("SIZE = 2\n")
    before = content_of(checkout), stats(checkout), sorted(os.listdir(checkout))
    asked = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    for confirm in (None, no):
        with pytest.raises(
            AdoptionRefused, match=r"2 files of it differ: pkg/model\.py, train\.py"
        ):
            await sync_workspace(host, named(laptop), confirm=confirm)
    assert "  pkg/model.py\n  train.py\noverwrite 2 files" in asked[0]
    assert (content_of(checkout), stats(checkout), sorted(os.listdir(checkout))) == before
    assert host.manager.folder(ID) is None


async def test_with_a_yes_the_laptop_wins_and_the_hosts_version_is_kept_beside(
    host: Host, laptop: Path, checkout: Path
):
    (checkout / "train.py").write_text("the host's\n")
    (checkout / "model").unlink()
    (checkout / "model").mkdir()
    (checkout / "model" / "weights").write_text("precious\n")
    receipt = await sync_workspace(host, named(laptop), confirm=yes)
    assert receipt.adoption is not None
    assert receipt.adoption.differing == ("model", "train.py")
    assert receipt.files == 2
    assert content_of(checkout) == content_of(laptop)
    conflicts = checkout / ".rdev" / "conflicts"
    kept = {path.name: path.read_text() for path in conflicts.rglob("*") if path.is_file()}
    assert kept == {"train.py": "the host's\n", "weights": "precious\n"}


async def test_who_may_read_what_is_replaced_may_do_so_still(
    host: Host, laptop: Path, checkout: Path
):
    (checkout / "train.py").chmod(0o664)
    await sync_workspace(host, named(laptop))
    (laptop / "train.py").write_text("print('for the group, too')\n")
    (laptop / "new.py").touch()
    await sync_workspace(host, named(laptop))
    assert (checkout / "train.py").read_text() == "print('for the group, too')\n"
    assert [(checkout / name).stat().st_mode & 0o7777 for name in ("train.py", "new.py")] == [
        0o664,
        0o600,
    ]
    (laptop / "train.py").chmod(0o755)
    await sync_workspace(host, named(laptop))
    assert (checkout / "train.py").stat().st_mode & 0o7777 == 0o775


async def test_what_only_the_host_has_stays_whatever_the_laptop_does(
    host: Host, laptop: Path, checkout: Path
):
    for name in ("out.log", "pkg/result.bin", "runs/1/metrics"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)
    receipt = await sync_workspace(host, named(laptop))
    assert receipt.adoption == Adoption(same=4, host_only=3)
    assert "3 only there, left as they are" in str(receipt)
    shutil.rmtree(laptop / "pkg")
    (laptop / "model").unlink()
    await sync_workspace(host, named(laptop))
    assert content_of(checkout) == {
        "out.log": b"out.log",
        "pkg": None,
        "pkg/result.bin": b"pkg/result.bin",
        "runs": None,
        "runs/1": None,
        "runs/1/metrics": b"runs/1/metrics",
        "train.py": b"import pkg.model\n",
    }


async def test_a_folder_that_has_nothing_in_common_is_asked_about(
    host: Host, laptop: Path, login: Path
):
    """A wrong path, or one that a stranger's repository names."""
    (login / "project").mkdir()
    (login / "project" / "theirs").write_text("1\n")
    for confirm in (None, lambda _: False):
        with pytest.raises(AdoptionRefused, match="nothing in common"):
            await sync_workspace(host, named(laptop), confirm=confirm)
    assert os.listdir(login / "project") == ["theirs"]
    receipt = await sync_workspace(host, named(laptop), confirm=yes)
    assert receipt.adoption == Adoption(host_only=1)
    assert content_of(login / "project") == {**content_of(laptop), "theirs": b"1\n"}


async def test_git_on_the_host_sees_nothing_of_an_adoption(
    host: Host, laptop: Path, checkout: Path
):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
        command = ["git", "-C", str(checkout), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    await sync_workspace(host, named(laptop))
    assert git("status", "--porcelain") == ""
    # Who cleans all that is ignored has to adopt again, and loses nothing by it.
    git("clean", "-fdxq")
    assert not (checkout / ".rdev").exists()
    receipt = await sync_workspace(host, named(laptop))
    assert (receipt.bytes, receipt.adoption) == (0, Adoption(same=4, host_only=1))


@pytest.mark.parametrize("exists", [True, False])
async def test_a_folder_that_is_empty_or_missing_is_simply_used(
    host: Host, laptop: Path, login: Path, exists: bool
):
    if exists:
        (login / "deep" / "project").mkdir(parents=True)
    receipt = await sync_workspace(host, named(laptop, "deep/project"))
    assert receipt.adoption is None
    assert content_of(login / "deep" / "project") == content_of(laptop)


async def test_a_second_laptop_meets_the_same_folder_with_or_without_the_path(
    host: Host, laptop: Path, checkout: Path, tmp_path: Path
):
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(laptop), *identity, *words], check=True)
    (laptop / "rdev.toml").write_text('[workspace]\npath = "~/project"\n')
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(laptop), str(other)], check=True)
    one, two = find_workspace(str(laptop)), find_workspace(str(other))
    assert (one.id, one.folder, two.folder) == (two.id, "~/project", "")
    first = await sync_workspace(host, one)
    (other / "theirs.py").write_text("1\n")
    second = await sync_workspace(host, two)
    assert second.folder == first.folder == str(checkout)
    assert (checkout / "theirs.py").exists()


async def test_another_path_is_another_folder_and_the_old_one_is_named_and_left(
    host: Host, laptop: Path, login: Path
):
    chosen = (await sync_workspace(host, workspace_at(laptop))).folder
    before = content_of(Path(chosen))
    moved = await sync_workspace(host, named(laptop))
    assert moved.folder == str(login / "project")
    assert (moved.problems[0].path, moved.problems[0].kind) == (chosen, "FOLDER")
    assert "it stays as it is" in moved.problems[0].message
    again = await sync_workspace(host, named(laptop, "~/elsewhere"))
    assert again.problems[0].path == str(login / "project")
    (laptop / "train.py").write_text("2\n")
    assert (await sync_workspace(host, named(laptop, "~/elsewhere"))).problems == ()
    assert content_of(Path(chosen)) == content_of(login / "project") == before
    # Without a path it stays where it is.
    assert (await sync_workspace(host, workspace_at(laptop))).folder == str(login / "elsewhere")


async def test_a_laptop_that_watches_the_old_folder_moves_along(
    host: Host, laptop: Path, login: Path
):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as watching:
        old = (await watching.sync()).folder
        await sync_workspace(host, named(laptop))
        (laptop / "train.py").write_text("2\n")
        assert (await watching.sync()).folder == str(login / "project")
    assert (Path(old) / "train.py").read_text() == "import pkg.model\n"


async def test_a_place_outlives_the_agent(laptop: Path, checkout: Path, tmp_path: Path):
    async with serving(tmp_path / "home") as host:
        await sync_workspace(host, named(laptop))
    async with serving(tmp_path / "home") as host:
        assert host.manager.folder(ID) == str(checkout)
        assert host.manager.collect() == 0
        receipt = await sync_workspace(host, workspace_at(laptop))
        assert (receipt.folder, receipt.written) == (str(checkout), 0)


async def test_a_link_on_the_way_is_shown_once(host: Host, laptop: Path, login: Path):
    (login / "disk").mkdir()
    (login / "project").symlink_to(login / "disk")
    receipt = await sync_workspace(host, named(laptop))
    assert receipt.folder == str(login / "disk")
    assert receipt.problems[0].path == str(login / "project")
    assert f"the workspace's folder is {login / 'disk'}" in receipt.problems[0].message
    assert (await sync_workspace(host, named(laptop))).problems == ()


@pytest.mark.parametrize("fields", [{"folder": "~/project"}, {"links": {"data": "/d"}}])
async def test_an_agent_that_knows_no_folders_is_not_asked_for_one(
    host: Host, laptop: Path, fields: dict
):
    """As one of an earlier release, which would put it somewhere else without a word."""
    older = replace(host.agent, capabilities=host.agent.capabilities - {"folders"})
    with pytest.raises(VersionSkew, match=r"knows no `\[workspace\] path` and `links`"):
        await sync_workspace(replace(host, agent=older), replace(workspace_at(laptop), **fields))
    assert host.manager.folder(ID) is None


async def test_folders_that_are_none_of_ours_are_refused_by_the_agent(
    host: Host, laptop: Path, login: Path, tmp_path: Path
):
    await sync_workspace(host, replace(named(laptop), id="another", name="vision"))
    (login / ".ssh").mkdir()
    refused = ["/", "~", "~/.ssh/x", str(host.home), str(host.home / "store"), "~/project/pkg"]
    for folder in [*refused, "~/project", "../x", "~/../x", str(tmp_path)]:
        with pytest.raises(WorkspaceRefused):
            await sync_workspace(host, named(laptop, folder))
    assert host.manager.folder(ID) is None


async def test_a_commit_without_a_yes_is_refused_whatever_the_client_says(
    host: Host, checkout: Path
):
    (checkout / "train.py").write_text("the host's\n")
    before = content_of(checkout)
    endpoint = LocalEndpoint(host.manager)
    opened = await endpoint.open(Opening(ID, "p", "c", EMPTY, folder="~/project"))
    assert (opened.adopting, opened.entries) == (True, ())
    change = Change((Entry("train.py", Kind.DIRECTORY),))
    await endpoint.stage(change)
    assert (await endpoint.needs()).adoption == Adoption(0, ("train.py",), 1, 2)
    with pytest.raises(AdoptionRefused, match=r"1 file of it differs: train\.py"):
        await endpoint.commit(Snapshot.of(change.upserts).digest)
    assert content_of(checkout) == before
    await endpoint.close()


async def test_what_changes_between_the_look_and_the_commit_is_not_overwritten(
    host: Host, laptop: Path, checkout: Path
):
    class Late(LocalEndpoint):
        async def commit(self, snapshot: bytes):
            (checkout / "train.py").write_text("just now\n")
            return await super().commit(snapshot)

    async with WorkspaceSync(named(laptop), lambda: Late(host.manager)) as syncing:
        with pytest.raises(AdoptionRefused, match=r"train\.py"):
            await syncing.sync()
    assert (checkout / "train.py").read_text() == "just now\n"


@pytest.mark.parametrize("point", ["staged", "journalled", "placing", "indexed", "done"])
async def test_an_adoption_that_is_interrupted_is_finished_or_begun_again(
    laptop: Path, checkout: Path, tmp_path: Path, point: str
):
    (checkout / "train.py").write_text("the host's\n")
    (checkout / "pkg" / "model.py").unlink()

    class CrashError(Exception):
        pass

    def seam(reached: str) -> None:
        if reached == point:
            raise CrashError

    async with serving(tmp_path / "home", seam) as host:
        connect = lambda: LocalEndpoint(host.manager)  # noqa: E731  # shorter than a function
        async with WorkspaceSync(named(laptop), connect, confirm=yes) as syncing:
            with pytest.raises(CrashError):
                await syncing.sync()
        assert host.manager.folder(ID) is None
    async with serving(tmp_path / "home") as host:
        await sync_workspace(host, named(laptop), confirm=yes)
        assert content_of(checkout) == content_of(laptop)
        kept = (checkout / ".rdev" / "conflicts").rglob("train.py")
        assert [path.read_text() for path in kept] == ["the host's\n"]
        assert (await sync_workspace(host, named(laptop))).problems == ()


async def test_the_folder_says_who_synced_last(
    host: Host, laptop: Path, login: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings = tmp_path / "config" / "rdev" / "config.toml"
    settings.parent.mkdir(parents=True)
    for name in ("ana@mbp", "ben@tower"):
        settings.write_text(f'[user]\nowner = "{name}"\n')
        receipt = await sync_workspace(host, workspace_at(laptop))
        marker = read_marker(receipt.folder)
        assert marker is not None
        assert (marker.id, marker.owner) == (ID, name)


@pytest.mark.parametrize("is_link", [True, False])
async def test_what_lies_where_our_own_folder_belongs_is_neither_followed_nor_replaced(
    host: Host, laptop: Path, checkout: Path, tmp_path: Path, is_link: bool
):
    (tmp_path / "elsewhere").mkdir()
    if is_link:
        (checkout / ".rdev").symlink_to(tmp_path / "elsewhere")
    else:
        (checkout / ".rdev").write_text("a file\n")
    before = content_of(checkout)
    with pytest.raises(SyncFailed, match="unable to adopt the folder"):
        await sync_workspace(host, named(laptop), confirm=yes)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert content_of(checkout) == before


async def test_two_laptops_that_adopt_at_once_both_arrive(
    host: Host, laptop: Path, checkout: Path, tmp_path: Path
):
    shutil.copytree(laptop, tmp_path / "other", symlinks=True)
    await asyncio.gather(
        *(sync_workspace(host, named(root)) for root in (laptop, tmp_path / "other"))
    )
    assert content_of(checkout) == content_of(laptop)


async def test_a_machine_that_shares_the_home_meets_the_folder_that_another_adopted(
    laptop: Path, checkout: Path, tmp_path: Path
):
    for machine in ("one", "two"):
        place = tmp_path / "home" / "hosts" / machine
        manager = WorkspaceManager(str(tmp_path / "home"), machine=str(place))
        assert manager.folder(ID) is None
        connect = functools.partial(LocalEndpoint, manager)
        async with WorkspaceSync(named(laptop), connect) as syncing:
            receipt = await syncing.sync()
        assert (receipt.folder, receipt.adoption is None) == (str(checkout), machine == "two")
        assert manager.folder(ID) == str(checkout)
        manager.close()
