"""Watching: the watcher on Linux, which we drive by ourselves, and the wait for what it tells."""

from __future__ import annotations

import asyncio
import queue
import sys
from pathlib import Path

import pytest

from rdev.client.sync.watch import DirtySet
from rdev.client.sync.watcher import InotifyWatcher


@pytest.mark.parametrize("steps", range(6))
async def test_a_ctrl_c_that_comes_with_an_event_is_not_lost(steps: int):
    dirty = DirtySet()
    waiting = asyncio.ensure_future(dirty.wait(10))
    await asyncio.sleep(0)
    dirty.add("a.py")
    for _ in range(steps):
        await asyncio.sleep(0)
    if waiting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        await waiting


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_a_folder_that_took_the_inode_of_a_deleted_one_is_watched_anew(tmp_path: Path):
    told: queue.Queue[str | None] = queue.Queue()
    (tmp_path / "d").mkdir()
    watcher = InotifyWatcher(str(tmp_path), told.put)
    try:
        folders = {"": 1, "d": 2}  # the inodes that the scan saw, the same before and after
        assert watcher.watch(folders) == {"", "d"}
        assert watcher.watch(folders) == frozenset()
        (tmp_path / "d").rmdir()
        (tmp_path / "d").mkdir()
        (tmp_path / "later").touch()
        while told.get(timeout=10) != "later":
            pass  # events come in order: by now the kernel's word on the old watch has been read
        assert watcher.watch(folders) == {"d"}
        (tmp_path / "d" / "file").touch()
        while told.get(timeout=10) != "d/file":
            pass
    finally:
        watcher.close()
