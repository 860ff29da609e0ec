"""Scanning: from a folder on the laptop to a snapshot, hashing only what may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rdev.client.sync.cache import ScanCache
from rdev.client.sync.tree import Found, Tree, Visit, unreadable
from rdev.protocol.digest import descriptor_digest
from rdev.protocol.errors import WorkspaceGone, WorkspaceRefused
from rdev.protocol.exchange import MAX_ENTRIES
from rdev.protocol.snapshot import Directory, Entry, Kind, Problem, ProblemKind, Snapshot
from rdev.protocol.stamp import Stamp

# A tree beyond either is more likely a mistake than a project; a person is asked.
ASK_FILES = 50_000
ASK_BYTES = 2_000_000_000

Confirm = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Scan:
    """A workspace as it was scanned.

    Attributes:
        snapshot: What travels.
        sources: Where each file lies here, relative to the root, by the path it travels under.
        problems: Trouble with single paths.
        ignored: Paths left out by a rule.
        secrets: Those of them that may hold a secret.
    """

    snapshot: Snapshot
    sources: dict[str, str]
    problems: tuple[Problem, ...]
    ignored: int
    secrets: tuple[str, ...]


class Scanner:
    """Scans one workspace again and again; its methods block."""

    def __init__(
        self, root: str, confirm: Confirm | None = None, *, links: Collection[str] = ()
    ) -> None:
        """Prepares to scan.

        Args:
            root: The workspace's root.
            confirm: Asks a person whether so large a tree is meant; None if there is nobody.
            links: Paths at which the host has links of the configuration; nothing travels there.
        """
        self._root = root
        self._confirm = confirm
        self._confirmed = False
        self._cache = ScanCache(root)
        self._tree = Tree(root, links)
        self._directories: dict[str, Directory] = {}
        self._unreadable: dict[str, list[Problem]] = {}
        self._sources: dict[str, str] = {}

    @property
    def folders(self) -> dict[str, int]:
        """The folders of the last scan that could be read, as they lie here; their inodes."""
        visits = self._tree.visits.values()
        return {visit.local: visit.inode for visit in visits if visit.inode}

    @property
    def ignored(self) -> frozenset[str]:
        """The ignored paths of the last scan."""
        return frozenset(path for visit in self._tree.visits.values() for path in visit.ignored)

    def scan(self, unsteady: Collection[str] = (), *, dirty: Collection[str] | None = None) -> Scan:
        """Scans.

        Args:
            unsteady: Paths to leave out because they keep changing while they are read.
            dirty: Folders in which something may have changed since the last scan; None is all.

        Raises:
            WorkspaceRefused: The tree is too large, and nobody confirmed that it is meant.
            WorkspaceGone: The root cannot be read; the next scan must be of all.
        """
        try:
            touched = self._tree.walk(dirty)
        except OSError as error:
            raise WorkspaceGone(f"read the workspace {self._root}", str(error.strerror)) from error
        self._require_sane()
        if dirty is None:
            self._sources = {}
        for path in touched:
            self._directories.pop(path, None)
            self._unreadable.pop(path, None)
            visit = self._tree.visits.get(path)
            if visit is not None:
                self._directories[path] = self._directory(visit, unsteady)
        if dirty is None:
            self._cache.save(self._sources.values())
        return self._assembled(unsteady)

    def _assembled(self, unsteady: Collection[str]) -> Scan:
        """The scan, from what is known of each folder."""
        visits = self._tree.visits.values()
        problems = [problem for visit in visits for problem in visit.problems]
        problems += [problem for each in self._unreadable.values() for problem in each]
        problems += [_changing(path) for path in unsteady]
        secrets = tuple(path for visit in visits for path in visit.secrets)
        ignored = sum(len(visit.ignored) for visit in visits)
        snapshot = Snapshot.sealed(self._directories)
        return Scan(snapshot, self._sources, tuple(problems), ignored, secrets)

    def _directory(self, visit: Visit, unsteady: Collection[str]) -> Directory:
        """The entries of one visited folder."""
        entries: dict[str, Entry] = {}
        problems: list[Problem] = []
        for found in visit.found:
            if found.path in unsteady:
                continue
            if found.kind is Kind.FILE:
                entry = self._file(found, problems)
            else:
                entry = Entry(found.path, found.kind, target=found.target)
            if entry is not None:
                entries[entry.name] = entry
        if problems:
            self._unreadable[visit.path] = problems
        return Directory.of(entries)

    def _file(self, found: Found, problems: list[Problem]) -> Entry | None:
        status = found.status
        digest = self._cache.get(found.local, status)
        if digest is None:
            try:
                digest, status = self._hash(found.local)
            except FileNotFoundError:
                return None  # It vanished since the walk.
            except OSError as error:
                problems.append(unreadable(found.path, error))
                return None
        self._sources[found.path] = found.local
        return file_entry(found.path, digest, status)

    def _hash(self, local: str) -> tuple[bytes, os.stat_result]:
        descriptor = open_file(self._root, local)
        try:
            taken = time.time_ns()
            status = os.fstat(descriptor)
            digest = descriptor_digest(descriptor)
            if same_stat(status, os.fstat(descriptor)):
                self._cache.note(local, Stamp.of(status, taken), digest)
            return digest, status
        finally:
            os.close(descriptor)

    def _require_sane(self) -> None:
        count = self._tree.count
        action = f"sync {self._root}"
        if count > MAX_ENTRIES:
            cause = f"it has {count} entries; {MAX_ENTRIES} are the limit"
            raise WorkspaceRefused(action, cause, hint="leave data out with a .rdevignore")
        if self._confirmed:
            return
        size = self._tree.size
        if count <= ASK_FILES and size <= ASK_BYTES:
            return
        what = f"{count} entries, {size / 1e9:.1f} GB"
        if self._confirm is None or not self._confirm(f"{self._root} has {what}; sync all of it?"):
            hint = "leave data out with a .rdevignore, or answer yes in a terminal"
            raise WorkspaceRefused(action, f"it is large ({what})", hint=hint)
        self._confirmed = True


def file_entry(path: str, digest: bytes, status: os.stat_result) -> Entry:
    """The entry of a file with that content and stat."""
    return Entry(
        path,
        Kind.FILE,
        digest=digest,
        size=status.st_size,
        executable=bool(status.st_mode & 0o100),
        mtime_ns=max(status.st_mtime_ns, 0),
    )


def open_file(root: str, local: str) -> int:
    """A descriptor to read a regular file that a walk found."""
    # O_NONBLOCK: a FIFO may have taken its place since.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(os.path.join(root, local), flags)


def same_stat(one: os.stat_result, other: os.stat_result) -> bool:
    """True if nobody wrote the file between the two."""
    return (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def _changing(path: str) -> Problem:
    message = "not synced: it kept changing while it was read"
    return Problem(path, ProblemKind.CHANGING.value, message)
