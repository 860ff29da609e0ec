"""Watching: pushes on save, over one stream that stays open.

full sync -> watch the kept folders -> wait -> settle -> sync the dirty folders -> wait ...
                                        |                        |
                          60 s idle, or events lost: full sync   trouble: held, tried again
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import unicodedata
from collections.abc import AsyncGenerator, Callable

from rdev.client.sync.receipt import Receipt
from rdev.client.sync.scan import Scanner
from rdev.client.sync.sender import WorkspaceSync
from rdev.client.sync.watcher import OnDirty, Watcher
from rdev.protocol.errors import DiskFull, SyncFailed
from rdev.protocol.paths import RESERVED

# An editor's save is several system calls within a millisecond or two.
SETTLE_FIRST = 0.002
# While events keep coming, wait for this long a quiet; a save that is caught half done is only sent
# twice, ...
SETTLE_QUIET = 0.004
# ... but a file that is written all the time does not hold up the others for longer than this.
SETTLE_MOST = 0.050

# More dirty paths than this is a checkout or an unpacking, which is worth waiting for.
STORM = 200
STORM_QUIET = 0.030
# Git holds its lock as long as it writes the tree; one left behind by a crash is not waited for.
STORM_MOST = 10.0

# vim and JetBrains write by rename: a file may be missing for a moment.
DELETION_HOLD = 0.150

# Against events that an operating system loses without a word, and a laptop that slept.
SAFETY_SCAN = 60.0

# Between tries while something holds changes back: no event tells of a disk that has space again,
# or is mounted again.
HOLD_SCAN = 1.0


class DirtySet:
    """Paths that may have changed, from the watcher's thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wakened = asyncio.Event()
        self._paths: set[str] = set()
        self._all = False
        self.changed = 0.0

    def add(self, path: str | None) -> None:
        """Adds a path, or all with None; from any thread."""
        with contextlib.suppress(RuntimeError):  # The loop was closed before the watcher.
            self._loop.call_soon_threadsafe(self._add, path)

    def _add(self, path: str | None) -> None:
        if path is None:
            self._all = True
        elif path != RESERVED and not path.startswith(RESERVED + "/"):
            self._paths.add(path)
        else:
            return
        self.changed = time.monotonic()
        self._wakened.set()

    def __len__(self) -> int:
        return len(self._paths)

    async def wait(self, seconds: float) -> None:
        """Waits until there is something, or marks all dirty after `seconds` without."""
        try:
            # Not wait_for: before Python 3.12 it loses a Ctrl-C that comes with the event.
            async with asyncio.timeout(seconds):
                await self._wakened.wait()
        except TimeoutError:
            self._all = True

    def take(self) -> set[str] | None:
        """The dirty paths, which are forgotten; None is all."""
        paths, everything = self._paths, self._all
        self._paths, self._all = set(), False
        self._wakened.clear()
        return None if everything else paths


async def watch(
    syncing: WorkspaceSync,
    root: str,
    make_watcher: Callable[[str, OnDirty], Watcher],
    *,
    on_hold: Callable[[str], None],
    resuming: bool = False,
) -> AsyncGenerator[Receipt, None]:
    """Syncs, then syncs again whenever something is saved; yields every receipt that says so.

    Args:
        syncing: Stays open all the while.
        root: The workspace's root.
        make_watcher: Makes the watcher.
        on_hold: Told why changes are held back, once for each reason.
        resuming: An earlier watch broke off, so that trouble is held from the beginning.

    Raises:
        RdevError: What the first `WorkspaceSync.sync` raises; later, and when resuming, all but
            SyncFailed and DiskFull: those hold changes back until the next try that succeeds.
    """
    dirty = DirtySet()
    watcher = await asyncio.to_thread(make_watcher, root, dirty.add)
    begun, held = False, ""
    folders: set[str] | None = None
    try:
        while True:
            try:
                receipt = await syncing.sync(folders, hold_deletions=DELETION_HOLD)
            except (SyncFailed, DiskFull) as error:
                if not begun and not resuming:
                    raise
                if error.message != held:
                    on_hold(f"{error.message}; nothing is sent until that is mended")
                held = error.message
                await asyncio.sleep(HOLD_SCAN)
                folders = None  # What was seen before the trouble may be only half of it.
                continue
            if not begun or receipt.written or receipt.deleted:
                yield receipt
            begun, held = True, ""
            folders = await _next_folders(dirty, watcher, syncing.scanner, root)
    finally:
        await asyncio.to_thread(watcher.close)


async def _next_folders(
    dirty: DirtySet, watcher: Watcher, scanner: Scanner, root: str
) -> set[str] | None:
    """Waits until there are folders to look into, and returns them; None is all."""
    fresh = await asyncio.to_thread(watcher.watch, scanner.folders)
    if fresh:
        # What happened in them before they were watched is known to nobody.
        told = _folders(dirty.take(), scanner.ignored)
        return None if told is None else told | {_travelling(path) for path in fresh}
    while True:
        await dirty.wait(SAFETY_SCAN)
        await _settle(dirty, root)
        folders = _folders(dirty.take(), scanner.ignored)
        if folders is None or folders:
            return folders


async def _settle(dirty: DirtySet, root: str) -> None:
    """Waits until a save, or a storm of them, is over."""
    started = time.monotonic()
    await asyncio.sleep(SETTLE_FIRST)
    if dirty.changed <= started:
        return
    while True:
        now = time.monotonic()
        storm = len(dirty) > STORM
        quiet = now - dirty.changed
        locked = storm and _is_git_writing(root)
        if quiet >= (STORM_QUIET if storm else SETTLE_QUIET) and not locked:
            return
        if now - started >= (STORM_MOST if storm else SETTLE_MOST):
            return
        await asyncio.sleep(SETTLE_FIRST)


def _is_git_writing(root: str) -> bool:
    return os.path.exists(os.path.join(root, ".git", "index.lock"))


def _folders(paths: set[str] | None, ignored: frozenset[str]) -> set[str] | None:
    """The folders to look into; None is all.

    A change of the rules themselves may concern everything.
    """
    if paths is None:
        return None
    folders = set()
    for path in paths:
        parent, _, name = path.rpartition("/")
        if name in (".gitignore", ".rdevignore"):
            return None
        if _travelling(path) not in ignored:
            folders |= {_travelling(parent), _travelling(path)}
    return folders


def _travelling(local: str) -> str:
    """The path under which a local one travels."""
    return local if local.isascii() else unicodedata.normalize("NFC", local)
