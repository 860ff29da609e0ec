"""Streams, agents and disks that give up in the middle."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.sync import ID, Host, content_of, remote_endpoint, serving, sync, workspace_at

from rdev.client.sync import scan as scanning
from rdev.client.workspaces import sync_workspace
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import ConnectionLost, DiskFull, RdevError
from rdev.protocol.exchange import ContentRun, Encoding, Opening
from rdev.protocol.snapshot import Change, Entry, Kind, diff


async def test_a_stream_killed_in_the_middle_of_contents_changes_nothing(host: Host, laptop: Path):
    await sync(host, laptop)
    before = content_of(host.folder)
    data = os.urandom(3 << 20)
    digest = content_digest(data)
    remote = scanning.Scanner(str(laptop)).scan().snapshot
    wanted = remote.changed(Change((Entry("big", Kind.FILE, digest, len(data)),), ("train.py",)))
    endpoint = remote_endpoint(host)
    digests = {path: each.digest for path, each in remote.directories.items()}
    opened = await endpoint.open(Opening(ID, "project", "c", digests))
    assert opened.differing == ()
    await endpoint.stage(diff(remote, wanted))
    assert (await endpoint.needs()).digests == {digest}
    half = ContentRun(digest, len(data), Encoding.IDENTITY, data[: 1 << 20], last=False)
    await endpoint.send([half])
    await endpoint.close()
    async with asyncio.timeout(40):
        while os.listdir(host.home / "store" / "incoming"):
            await asyncio.sleep(0.01)
    assert content_of(host.folder) == before
    (laptop / "train.py").write_text("after\n")
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_an_agent_killed_in_the_middle_is_found_again_and_nothing_is_sent_twice(
    tmp_path: Path, laptop: Path
):
    """A stream breaks once, after the contents and before the commit."""
    (laptop / "big.bin").write_bytes(os.urandom(2 << 20))
    broken = asyncio.Event()

    class Breaking:
        def __init__(self, host: Host) -> None:
            self.host = host

        @property
        def channel(self):
            return self.host.channel

        async def recover(self) -> None:
            broken.set()

    def seam(point: str) -> None:
        if point == "journalled" and not broken.is_set():
            # What grpc reports when the process at the other end is gone.
            raise ConnectionLost("sync", "the agent died")

    async with serving(tmp_path / "home", seam) as host:
        receipt = await sync_workspace(Breaking(host), workspace_at(laptop))
        assert broken.is_set()
        assert receipt.bytes < 1000
        assert content_of(host.folder) == content_of(laptop)


@pytest.fixture
def small_disk(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_said_and_nothing_half_done_is_left(small_disk: Path, laptop: Path):
    async with serving(small_disk / "home") as host:
        await sync(host, laptop)
        before = content_of(host.folder)
        (laptop / "train.py").write_text("changed\n")
        (laptop / "a.bin").write_bytes(os.urandom(6 << 20))
        with pytest.raises(DiskFull) as caught:
            await sync(host, laptop)
        assert "MiB are needed" in str(caught.value)
        assert content_of(host.folder) == before
        assert os.listdir(host.home / "store" / "incoming") == []
        (laptop / "a.bin").unlink()
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)


async def test_a_disk_that_fills_up_while_files_are_staged_changes_nothing(
    small_disk: Path, laptop: Path
):
    filler = small_disk / "filler"

    def fill(point: str) -> None:
        if point == "staging" and not filler.exists() and armed:
            with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                while True:
                    file.write(bytes(1 << 16))

    armed = False
    async with serving(small_disk / "home", fill) as host:
        await sync(host, laptop)
        before = content_of(host.folder)
        armed = True
        for number in range(3):
            (laptop / f"{number}.bin").write_bytes(os.urandom(300_000))
        with pytest.raises(DiskFull):
            await sync(host, laptop)
        assert content_of(host.folder) == before
        armed = False
        filler.unlink()
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)


async def test_an_agent_that_dies_between_the_renames_finishes_them_later(
    tmp_path: Path, laptop: Path
):
    class DiedError(Exception):
        pass

    armed = False

    def seam(point: str) -> None:
        if armed and point == "placing":
            raise DiedError

    async with serving(tmp_path / "home", seam) as host:
        await sync(host, laptop)
        (laptop / "train.py").write_text("two\n")
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        armed = True
        with pytest.raises(RdevError):
            await sync(host, laptop)
    armed = False
    async with serving(tmp_path / "home") as host:
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)
        assert not (host.folder / ".rdev" / "journal").exists()
        assert not (host.folder / ".rdev" / "conflicts").exists()
