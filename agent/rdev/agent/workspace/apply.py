"""Applying one transaction: stage everything, write the journal, then rename into place.

    stage ----> journal ----> place ----> index ----> done
      |            |            |           |
      crash: stage is dropped   crash: the journal is replayed when the workspace is next opened

Nothing of a transaction is visible before its journal is complete, and once it is, the rest is
renames that a replay can finish. Deletes happen before upserts. What a person or a job changed on
the host is moved to `.rdev/conflicts/` before the laptop's version takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.bytecode import drop_bytecode, fresh_mtime
from rdev.agent.workspace.index import Applied, Index, entry_row, row_entry
from rdev.agent.workspace.store import Store, file_mode
from rdev.protocol.digest import descriptor_digest
from rdev.protocol.errors import RdevError, SyncFailed, os_failure
from rdev.protocol.snapshot import Change, Entry, Kind, Problem, ProblemKind
from rdev.protocol.stamp import Stamp

STAGE = ".rdev/stage"
JOURNAL = ".rdev/journal"
CONFLICTS = ".rdev/conflicts"

# Points at which a test may let the process die; production passes a function that does nothing.
Seam = Callable[[str], None]


def no_seam(point: str) -> None:
    """The seam of production: nothing happens."""


@dataclass(frozen=True, slots=True)
class Applying:
    """What applying needs: the folder, what we know of it, and the contents."""

    root: Root
    index: Index
    store: Store
    seam: Seam = no_seam


def apply_change(context: Applying, change: Change) -> list[Problem]:
    """Makes a change visible, whole or not at all; returns what it had to say.

    Contents are in the store; the change fits the tree.

    Raises:
        DiskFull, SyncFailed: Nothing of the change is visible, unless the disk failed in the
            middle of the renames; then the next opening finishes it.
    """
    transaction = context.index.transaction + 1
    context.root.forget()  # A job may have moved directories since the last transaction.
    try:
        clear_stage(context.root)
        _require_folders(context.root, change)
        staged = [_stage(context, number, entry) for number, entry in enumerate(change.upserts)]
        context.seam("staged")
        _write_journal(context, transaction, Change(tuple(staged), change.deletes))
    except OSError as error:
        clear_stage(context.root)
        raise os_failure("write the workspace", error, otherwise=SyncFailed) from error
    except RdevError:
        clear_stage(context.root)
        raise
    context.seam("journalled")
    return replay(context)


def replay(context: Applying) -> list[Problem]:
    """Finishes the transaction in the journal, if there is one.

    Raises:
        DiskFull, SyncFailed: It could not be finished; the journal stays.
    """
    context.root.forget()  # What was opened when it failed may be reached through no path now.
    journal = _read_journal(context.root)
    if journal is None:
        clear_stage(context.root)
        return []
    transaction, change = journal
    if transaction > context.index.transaction:
        try:
            problems = _place_all(context, transaction, change)
        except OSError as error:
            raise os_failure("write the workspace", error, otherwise=SyncFailed) from error
    else:
        problems = []
    context.root.remove(JOURNAL)
    context.seam("done")
    clear_stage(context.root)
    return problems


def clear_stage(root: Root) -> None:
    """Leaves an empty stage."""
    root.remove_tree(STAGE)
    root.make_directories(STAGE)


def is_ours(context: Applying, path: str, status: os.stat_result) -> bool:
    """True if what lies at `path` is what we put there, unchanged in content."""
    applied = context.index.get(path)
    if applied is None:
        return False
    entry = applied.entry
    if stat.S_ISLNK(status.st_mode):
        return entry.kind is Kind.SYMLINK and context.root.link_target(path) == entry.target
    if not stat.S_ISREG(status.st_mode) or entry.kind is not Kind.FILE:
        return stat.S_ISDIR(status.st_mode) and entry.kind is Kind.DIRECTORY
    if applied.stamp is not None and applied.stamp.proves(status):
        return True
    return status.st_size == entry.size and content_is(context.root, path, entry.digest)


def content_is(root: Root, path: str, digest: bytes) -> bool:
    """True if the file at `path` can be read and has that content."""
    try:
        with root.reading(path) as descriptor:
            return descriptor_digest(descriptor) == digest
    except OSError:
        return False


def _require_folders(root: Root, change: Change) -> None:
    """Returns if all that is to be renamed can be: a journal that nobody can finish would stay.

    Raises:
        PermissionError: One of the folders may not be changed.
    """
    changed = [*(entry.path for entry in change.upserts), *change.deletes]
    for folder in sorted({path.rpartition("/")[0] for path in changed}):
        if not root.may_change(folder):
            code = errno.EACCES
            raise PermissionError(code, os.strerror(code), folder or root.folder)


def _stage(context: Applying, number: int, entry: Entry) -> Entry:
    """Prepares one entry in the stage; returns it with the mtime it will have."""
    name = f"{STAGE}/{number}"
    if entry.kind is Kind.SYMLINK:
        context.root.make_link(entry.target, name)
    if entry.kind is not Kind.FILE:
        return entry
    replaced = context.root.status(entry.path)
    mtime_ns = fresh_mtime(entry, replaced)
    descriptor = context.root.create(name)
    try:
        context.store.copy_to(entry.digest, entry.size, descriptor)
        os.fchmod(descriptor, _mode(entry, replaced))
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(descriptor)
    context.seam("staging")
    return entry if mtime_ns == entry.mtime_ns else replace(entry, mtime_ns=mtime_ns)


def _mode(entry: Entry, replaced: os.stat_result | None) -> int:
    """Mode of a file: who may read and write what it replaces may do so still.

    In a folder that was adopted that may be a group; where we wrote the file, it is its user.
    """
    own = file_mode(entry.executable)
    if replaced is None or not stat.S_ISREG(replaced.st_mode):
        return own
    shared = stat.S_IMODE(replaced.st_mode) & 0o066
    return own | shared | ((shared & 0o044) >> 2 if entry.executable else 0)


def _write_journal(context: Applying, transaction: int, change: Change) -> None:
    rows = [entry_row(entry) for entry in change.upserts]
    body = {"transaction": transaction, "upserts": rows, "deletes": change.deletes}
    temporary = f"{STAGE}/journal"
    with os.fdopen(context.root.create(temporary), "w") as file:
        file.write(json.dumps(body))  # many times as fast as json.dump
    context.root.move(temporary, JOURNAL)


def _read_journal(root: Root) -> tuple[int, Change] | None:
    try:
        with root.reading(JOURNAL) as descriptor, os.fdopen(os.dup(descriptor)) as file:
            body = json.load(file)
        upserts = tuple(row_entry(row) for row in body["upserts"])
        return int(body["transaction"]), Change(upserts, tuple(body["deletes"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # It got its name by a rename, so only a power cut can tear it; nothing was placed then.
        return None


def _place_all(context: Applying, transaction: int, change: Change) -> list[Problem]:
    """Deletes, then places, then notes it in the index."""
    placing = _Placing(context)
    for path in change.deletes:
        with _about(path):
            placing.delete(path)
        context.seam("placing")
    put = []
    for number, entry in enumerate(change.upserts):
        with _about(entry.path):
            placing.place(f"{STAGE}/{number}", entry)
        put.append(Applied(entry, placing.stamp(entry)))
        context.seam("placing")
    context.index.record(transaction, put, change.deletes)
    context.seam("indexed")
    return placing.problems


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """What fails is about that path, whatever name a system call was given."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


class _Placing:
    """The renames of one transaction; every step may be repeated after a crash."""

    def __init__(self, context: Applying) -> None:
        self._context = context
        self._root = context.root
        self._started = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._parent = ""
        self.problems: list[Problem] = []

    def delete(self, path: str) -> None:
        status = self._root.status(path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            # A directory that holds what we did not create stays, and is no longer ours.
            with contextlib.suppress(OSError):
                self._root.remove_directory(path)
        elif is_ours(self._context, path, status):
            self._root.remove(path)
            drop_bytecode(self._root, path)
        elif self._context.index.get(path) is not None:
            message = "deleted on the laptop but changed on the host, so it stays there"
            self.problems.append(Problem(path, ProblemKind.KEPT.value, message))

    def place(self, staged: str, entry: Entry) -> None:
        if entry.kind is Kind.DIRECTORY:
            self._require_parent(entry.parent)
            self._place_directory(entry)
            return
        if self._root.status(staged) is None:
            return  # It was placed before the crash that this replay follows.
        self._require_parent(entry.parent)
        self._clear_way(entry)
        self._root.move(staged, entry.path)
        drop_bytecode(self._root, entry.path)

    def stamp(self, entry: Entry) -> Stamp | None:
        if entry.kind is not Kind.FILE:
            return None
        status = self._root.status(entry.path)
        if status is None or status.st_mtime_ns != entry.mtime_ns or status.st_size != entry.size:
            return None
        return Stamp.of(status, time.time_ns())

    def _require_parent(self, parent: str) -> None:
        """Makes again what a job on the host removed since the tree was compared."""
        if parent == self._parent:
            return
        parts = parent.split("/") if parent else []
        for count in range(1, len(parts) + 1):
            self._place_directory(Entry("/".join(parts[:count]), Kind.DIRECTORY))
        self._parent = parent

    def _place_directory(self, entry: Entry) -> None:
        status = self._root.status(entry.path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return
        if status is not None:
            self._clear_way(entry)
            with contextlib.suppress(FileNotFoundError):
                self._root.remove(entry.path)
        self._root.make_directory(entry.path, 0o700)
        self._root.forget(entry.path)

    def _clear_way(self, entry: Entry) -> None:
        """Leaves at the path nothing, or a file or link that may be replaced."""
        status = self._root.status(entry.path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            try:
                self._root.remove_directory(entry.path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                    raise
                self._keep(entry.path)
        elif not is_ours(self._context, entry.path, status) and not self._is(entry, status):
            self._keep(entry.path)

    def _is(self, entry: Entry, status: os.stat_result) -> bool:
        """True if what lies there already has the wanted content."""
        if stat.S_ISLNK(status.st_mode):
            return self._root.link_target(entry.path) == entry.target
        same_size = stat.S_ISREG(status.st_mode) and status.st_size == entry.size
        return same_size and content_is(self._root, entry.path, entry.digest)

    def _keep(self, path: str) -> None:
        """Moves the host's version aside and says so."""
        kept = f"{CONFLICTS}/{self._started}/{path}"
        number = 1
        while not self._is_free(kept):
            number += 1
            kept = f"{CONFLICTS}/{self._started}-{number}/{path}"
        self._root.move(path, kept)
        self._root.forget()
        message = f"changed on the host; the laptop's version took its place, the host's is {kept}"
        self.problems.append(Problem(path, ProblemKind.CONFLICT.value, message))

    def _is_free(self, kept: str) -> bool:
        """True if something may be kept there; makes its folders.

        A file of the same second may have been kept where a folder is needed now.
        """
        parent = kept.rpartition("/")[0]
        try:
            self._root.make_directories(parent)
        except NotADirectoryError:
            return False
        status = self._root.status(parent)
        return status is not None and stat.S_ISDIR(status.st_mode) and not self._is_there(kept)

    def _is_there(self, path: str) -> bool:
        return self._root.status(path) is not None
