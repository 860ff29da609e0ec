"""Saves are pushed as they come."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.jobs import DEADLINE
from tests.support.sync import Host, content_of, workspace_at

from rdev.client.sync.sender import WorkspaceSync
from rdev.client.sync.watch import watch
from rdev.client.sync.watcher import InotifyWatcher, ObserverWatcher
from rdev.client.workspaces import endpoints


# watchdog's observer warns when it meets a new folder on two ways at once, and watches it then.
@pytest.mark.filterwarnings("ignore:Callback with id")
@pytest.mark.parametrize("make", [InotifyWatcher, ObserverWatcher])
@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_a_save_is_pushed(host: Host, laptop: Path, make):
    async with (
        asyncio.timeout(DEADLINE),
        WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing,
    ):
        receipts = watch(syncing, str(laptop), make, on_hold=print)
        await anext(receipts)

        async def until(done):
            while not done():
                await anext(receipts)

        (laptop / "train.py").write_text("saved\n")
        await until(lambda: (host.folder / "train.py").read_text() == "saved\n")
        # As editors do: beside, then by rename.
        (laptop / "train.py~").write_text("renamed\n")
        (laptop / "train.py~").replace(laptop / "train.py")
        await until(lambda: (host.folder / "train.py").read_text() == "renamed\n")
        # A folder that is made and filled before anybody can watch it.
        (laptop / "deep" / "er").mkdir(parents=True)
        (laptop / "deep" / "er" / "new.py").write_text("1")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deep" / "er" / "new.py").write_text("22")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deep").rename(laptop / "deeper")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deeper" / "er" / "new.py").write_text("333")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        # An ignore file concerns what lies anywhere.
        (laptop / ".gitignore").write_text("er/\n")
        await until(lambda: not (host.folder / "deeper" / "er").exists())
        await receipts.aclose()


async def test_a_watched_root_that_is_emptied_is_held(host: Host, laptop: Path):
    held = asyncio.Event()
    async with (
        asyncio.timeout(DEADLINE),
        WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing,
    ):
        receipts = watch(syncing, str(laptop), InotifyWatcher, on_hold=lambda _: held.set())
        await anext(receipts)
        subprocess.run(["find", str(laptop), "-mindepth", "1", "-delete"], check=True)
        following = asyncio.ensure_future(anext(receipts))
        await held.wait()
        assert (host.folder / "train.py").exists()
        (laptop / "train.py").write_text("back\n")
        await following
        assert content_of(host.folder) == content_of(laptop)
        await receipts.aclose()
