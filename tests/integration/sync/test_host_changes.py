"""What was changed, created or removed on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support.disk import small_disk_in
from tests.support.sync import Host, content_of, sync, workspace_at

from rdev.client.sync.sender import WorkspaceSync
from rdev.client.workspaces import endpoints
from rdev.protocol.errors import PermissionRefused


async def test_a_file_changed_on_the_host_is_kept_beside_and_said_once(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "train.py").write_text("the host's own words\n")
    receipt = await sync(host, laptop)
    assert [each.kind for each in receipt.problems] == ["CONFLICT"]
    assert (host.folder / "train.py").read_bytes() == (laptop / "train.py").read_bytes()
    kept = list((host.folder / ".rdev" / "conflicts").rglob("train.py"))
    assert [path.read_text() for path in kept] == ["the host's own words\n"]
    assert (await sync(host, laptop)).problems == ()


async def test_an_unknown_file_in_the_way_is_kept_beside(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "new.py").write_text("made on the host\n")
    (host.folder / "data").mkdir()
    (host.folder / "data" / "big").write_text("made on the host too\n")
    (laptop / "new.py").write_text("made on the laptop\n")
    (laptop / "data").write_text("a file here\n")
    receipt = await sync(host, laptop)
    assert sorted(each.path for each in receipt.problems) == ["data", "new.py"]
    assert content_of(host.folder) == content_of(laptop)
    conflicts = (host.folder / ".rdev" / "conflicts").rglob("*")
    kept = sorted(path.read_text() for path in conflicts if path.is_file())
    assert kept == ["made on the host\n", "made on the host too\n"]


async def test_a_file_and_what_lies_in_a_folder_of_its_name_are_both_kept_in_one_second(
    host: Host, laptop: Path
):
    await sync(host, laptop)
    (laptop / "d").mkdir()
    (host.folder / "d").write_text("a file\n")
    await sync(host, laptop)
    (host.folder / "d" / "x").write_text("in a folder\n")
    (laptop / "d" / "x").write_text("the laptop's\n")
    assert len((await sync(host, laptop)).problems) == 1
    assert content_of(host.folder) == content_of(laptop)
    conflicts = (host.folder / ".rdev" / "conflicts").rglob("*")
    kept = sorted(path.read_text() for path in conflicts if path.is_file())
    assert kept == ["a file\n", "in a folder\n"]


async def test_a_file_system_that_is_mounted_in_the_folder_is_synced_into(host: Host, laptop: Path):
    await sync(host, laptop)
    with small_disk_in(host.folder) as disk:
        (laptop / "disk").mkdir()
        (laptop / "disk" / "run.sh").write_text("#!/bin/sh\n")
        (laptop / "disk" / "run.sh").chmod(0o755)
        (laptop / "disk" / "link").symlink_to("run.sh")
        assert (await sync(host, laptop)).problems == ()
        assert (disk / "run.sh").stat().st_dev != (host.folder / "train.py").stat().st_dev
        assert (disk / "run.sh").stat().st_mode & 0o777 == 0o700
        (disk / "run.sh").write_text("the host's own words\n")
        (laptop / "disk" / "run.sh").write_text("#!/bin/bash\n")
        receipt = await sync(host, laptop)
        assert [each.kind for each in receipt.problems] == ["CONFLICT"]
        assert content_of(disk) == content_of(laptop / "disk")
        kept = list((host.folder / ".rdev" / "conflicts").rglob("run.sh"))
        assert [path.read_text() for path in kept] == ["the host's own words\n"]


async def test_a_folder_that_may_not_be_changed_is_named_before_anything_is_changed(
    host: Host, laptop: Path
):
    await sync(host, laptop)
    with small_disk_in(host.folder) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        (laptop / "disk").mkdir()
        (laptop / "disk" / "x.py").write_text("1\n")
        (laptop / "a.py").write_text("2\n")
        with pytest.raises(PermissionRefused, match="disk: Permission denied"):
            await sync(host, laptop)
        assert not (host.folder / "a.py").exists()
        # What is in the way no more is in nobody's way.
        (laptop / ".rdevignore").write_text("disk/\n")
        assert (await sync(host, laptop)).problems == ()
        assert (host.folder / "a.py").exists()


async def test_what_the_host_created_is_never_touched(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "pkg" / "result.txt").write_text("42")
    (laptop / "pkg" / "model.py").unlink()
    (laptop / "pkg" / "run.sh").unlink()
    (laptop / "model").unlink()
    (laptop / "pkg").rmdir()
    await sync(host, laptop)
    assert content_of(host.folder / "pkg") == {"result.txt": b"42"}


async def test_a_file_deleted_here_and_changed_there_stays_there(host: Host, laptop: Path):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        (host.folder / "train.py").write_text("changed there\n")
        (laptop / "train.py").unlink()
        receipt = await syncing.sync()
    assert [each.kind for each in receipt.problems] == ["KEPT"]
    assert (host.folder / "train.py").read_text() == "changed there\n"


async def test_the_same_edit_on_both_sides_is_no_conflict(host: Host, laptop: Path):
    await sync(host, laptop)
    for folder in (laptop, host.folder):
        (folder / "train.py").write_text("both\n")
    assert (await sync(host, laptop)).problems == ()
    (laptop / "train.py").write_text("then only the laptop\n")
    assert (await sync(host, laptop)).problems == ()
    assert (host.folder / "train.py").read_text() == "then only the laptop\n"


async def test_a_folder_deleted_on_the_host_comes_back(host: Host, laptop: Path):
    await sync(host, laptop)
    for path in (host.folder / "pkg").iterdir():
        path.unlink()
    (host.folder / "pkg").rmdir()
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_a_folder_that_vanishes_on_the_host_under_an_open_stream_comes_back(
    host: Host, laptop: Path
):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        subprocess.run(["rm", "-rf", str(host.folder / "pkg")], check=True)
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        await syncing.sync()
        assert (host.folder / "pkg" / "model.py").read_text() == "SIZE = 2\n"
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_a_folder_moved_away_on_the_host_under_an_open_stream_is_not_written_to(
    host: Host, laptop: Path, tmp_path: Path
):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        await syncing.sync()
        (host.folder / "pkg").rename(tmp_path / "moved")
        before = content_of(tmp_path / "moved")
        (laptop / "pkg" / "model.py").write_text("SIZE = 3\n")
        await syncing.sync()
        assert content_of(tmp_path / "moved") == before
        assert (host.folder / "pkg" / "model.py").read_text() == "SIZE = 3\n"


async def test_a_folder_that_became_a_link_to_elsewhere_is_not_written_through(
    host: Host, laptop: Path, tmp_path: Path
):
    await sync(host, laptop)
    elsewhere = tmp_path / "elsewhere"
    (host.folder / "pkg").rename(elsewhere)
    before = content_of(elsewhere)
    (host.folder / "pkg").symlink_to(elsewhere)
    (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
    receipt = await sync(host, laptop)
    assert content_of(elsewhere) == before
    assert content_of(host.folder) == content_of(laptop)
    assert "pkg" in [each.path for each in receipt.problems]


async def test_a_workspace_folder_deleted_on_the_host_is_made_again(host: Host, laptop: Path):
    await sync(host, laptop)
    subprocess.run(["rm", "-rf", str(host.folder)], check=True)
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)
