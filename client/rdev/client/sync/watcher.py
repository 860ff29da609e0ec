"""Watchers: what may have changed in a folder tree, as the operating system tells it.

A watcher says where to look, never what is there: the content is decided by a look at the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from rdev.protocol.errors import RdevError, SyncFailed

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyEvent,
        InotifyFD,
        WatchDescriptor,
    )

# Told a path relative to the root ("" for the root itself), or None when events were lost and
# anything may have changed.
OnDirty = Callable[[str | None], None]


class Watcher(Protocol):
    """Reports paths that may have changed.

    `on_dirty` is called from a thread of the watcher, at least once after each change to an entry
    of a watched folder that happens after `watch` returned, in no particular order. It may be
    called for changes that did not happen. After `close` it is not called any more.
    """

    def watch(self, folders: Mapping[str, int]) -> frozenset[str]:
        """Watches exactly these folders (relative path to inode); returns those that are new.

        What changed in a new folder before the call is not reported: look into it afterwards.
        """
        ...

    def close(self) -> None:
        """Stops and waits for the watcher's threads."""
        ...


def best_watcher(root: str, on_dirty: OnDirty) -> Watcher:
    """Drives inotify by itself where there is one, else takes watchdog's observer.

    Args:
        root: The workspace's root.
        on_dirty: See `Watcher`.
    """
    if sys.platform == "linux":
        with contextlib.suppress(ImportError):
            return InotifyWatcher(root, on_dirty)
    return ObserverWatcher(root, on_dirty)


class ObserverWatcher:
    """watchdog's public observer over the whole tree, ignored folders included."""

    def __init__(self, root: str, on_dirty: OnDirty) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in ("opened", "closed_no_write"):
                    on_dirty(_relative(root, os.fsdecode(event.src_path)))
                    if event.dest_path:
                        on_dirty(_relative(root, os.fsdecode(event.dest_path)))

        self._known: dict[str, int] = {}
        self._observer = Observer()
        self._observer.schedule(Handler(), root, recursive=True)
        self._observer.start()

    def watch(self, folders: Mapping[str, int]) -> frozenset[str]:
        """See `Watcher`."""
        new = frozenset(path for path, inode in folders.items() if self._known.get(path) != inode)
        self._known = dict(folders)
        return new

    def close(self) -> None:
        """See `Watcher`."""
        self._observer.stop()
        self._observer.join()


class InotifyWatcher:
    """watchdog's inotify layer, one instance, with a watch of ours for each folder that is kept.

    The public observer cannot leave out an environment inside the tree, tells of an overflow only
    in its log, and stalls all events by half a second after a file was moved out of the tree.
    """

    def __init__(self, root: str, on_dirty: OnDirty) -> None:
        from watchdog.observers.inotify_c import InotifyConstants as Bits
        from watchdog.observers.inotify_c import InotifyFD, Mask

        self._root = root
        self._on_dirty = on_dirty
        self._watched: dict[str, tuple[WatchDescriptor, int]] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Descriptors, never used twice, of watches that the kernel ended by itself.
        self._ended: set[WatchDescriptor] = set()
        self._mask = Mask(
            Bits.IN_MODIFY
            | Bits.IN_ATTRIB
            | Bits.IN_CLOSE_WRITE
            | Bits.IN_MOVED_FROM
            | Bits.IN_MOVED_TO
            | Bits.IN_CREATE
            | Bits.IN_DELETE
            | Bits.IN_DELETE_SELF
            | Bits.IN_MOVE_SELF
            | Bits.IN_ONLYDIR
            | Bits.IN_DONT_FOLLOW
        )
        try:
            self._inotify: InotifyFD = InotifyFD()
        except OSError as error:
            raise _limit_reached(error, "max_user_instances") from error
        self._inotify.start()

    def watch(self, folders: Mapping[str, int]) -> frozenset[str]:
        """See `Watcher`."""
        gone = [
            path
            for path, (descriptor, inode) in self._watched.items()
            if folders.get(path) != inode or descriptor in self._ended
        ]
        # First all that go: a folder that was renamed keeps its descriptor otherwise.
        for path in gone:
            descriptor, _ = self._watched.pop(path)
            self._inotify.remove_callbacks([(descriptor, _callback_id())])
            self._ended.discard(descriptor)
        new = [path for path in folders if path not in self._watched]
        added = []
        for path in new:
            whole = os.path.join(self._root, path) if path else self._root
            try:
                descriptor = self._inotify.add_callback(
                    os.fsencode(whole), self._mask, _Folder(self, path), _callback_id()
                )
            except (FileNotFoundError, NotADirectoryError):
                # It is gone again. Its parent's watch tells of that; of the root nobody else does.
                if not path:
                    self.dirty("")
                continue
            except OSError as error:
                raise _limit_reached(error, "max_user_watches") from error
            self._watched[path] = (descriptor, folders[path])
            added.append(path)
        return frozenset(added)

    def close(self) -> None:
        """See `Watcher`."""
        with self._lock:
            self._closed = True
        self._inotify.stop()
        self._inotify.join()

    def ended(self, descriptor: WatchDescriptor) -> None:
        """Notes a watch whose folder was deleted or unmounted; another may take its inode."""
        self._ended.add(descriptor)

    def dirty(self, path: str | None) -> None:
        """Reports a path, unless the watcher is closed."""
        with self._lock:
            if not self._closed:
                self._on_dirty(path)


class _Folder:
    """watchdog's callback for one folder."""

    def __init__(self, watcher: InotifyWatcher, path: str) -> None:
        self._watcher = watcher
        self._path = path

    def on_event(self, event: InotifyEvent) -> None:
        name = os.fsdecode(event.name)
        self._watcher.dirty(f"{self._path}/{name}" if self._path and name else self._path or name)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self._watcher.ended(wd)

    def on_queue_overflow(self) -> None:
        self._watcher.dirty(None)


def _limit_reached(error: OSError, setting: str) -> RdevError:
    """What a refused watch means: inotify reports its own limits as a full disk or table."""
    action = "watch the workspace"
    if error.errno not in (errno.ENOSPC, errno.EMFILE):
        return SyncFailed(action, error.strerror or str(error))
    cause = f"the limit fs.inotify.{setting} of this machine is reached"
    hint = f"raise it: `sudo sysctl fs.inotify.{setting}=524288`; or sync without --watch"
    return SyncFailed(action, cause, hint=hint)


def _callback_id() -> CallbackId:
    from watchdog.observers.inotify_c import CallbackId

    return CallbackId(1)


def _relative(root: str, path: str) -> str | None:
    relative = os.path.relpath(path, root)
    if relative == os.curdir:
        return ""
    return None if relative.startswith(os.pardir) else relative
